//! What must hold of the tree itself, whatever the code does.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a source file before its unit tests; past that it is two nouns in one file.
const FILE_LIMIT: usize = 500;

#[test]
fn unsafe_stands_only_in_the_sys_modules() {
    for (path, text) in sources() {
        let sys = path.ends_with("sys.rs") || path.components().any(|c| c.as_os_str() == "sys");
        let found = text.lines().find(|line| {
            let code = line.split("//").next().unwrap_or_default();
            ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
                .iter()
                .any(|word| code.contains(word))
        });
        assert!(sys || found.is_none(), "{}: unsafe outside sys: {found:?}", path.display());
    }
}

#[test]
fn no_source_file_outgrows_the_limit() {
    for (path, text) in sources() {
        let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        assert!(lines <= FILE_LIMIT, "{} has {lines} lines before its tests", path.display());
    }
}

#[test]
fn planning_touches_nothing() {
    let root = root().join("runtime/src");
    for (path, text) in sources() {
        let Ok(inside) = path.strip_prefix(&root) else { continue };
        let pure = ["spec", "spec.rs", "validate.rs", "plan", "plan.rs"];
        if inside.iter().next().is_some_and(|top| pure.iter().any(|name| top == *name)) {
            for word in ["crate::apply", "crate::spawn", "crate::sys"] {
                assert!(!text.contains(word), "{} imports {word}", path.display());
            }
        }
    }
}

#[test]
fn no_binary_links_another_ones_crate() {
    for package in ["runtime", "imgtool", "netsetup"] {
        let manifest = fs::read_to_string(root().join(package).join("Cargo.toml"));
        let manifest = manifest.expect("read the manifest");
        assert!(!manifest.contains("path = \"../"), "{package} depends on a neighbour by path");
    }
}

/// The fuzzed binaries are built there anew, outside the workspace: a crate that only the workspace lists
/// breaks that build, which no test makes.
#[test]
fn fuzzing_lists_the_crates_of_the_binaries() {
    let listed = dependencies("tests/fuzz/Cargo.toml");
    for package in ["runtime", "imgtool", "netsetup"] {
        for name in dependencies(&format!("{package}/Cargo.toml")) {
            assert!(listed.contains(&name), "tests/fuzz/Cargo.toml lacks {name} of {package}");
        }
    }
}

/// The crates of a manifest's section of dependencies.
fn dependencies(manifest: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(manifest)).expect("read the manifest");
    let section = text.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    let lines = section.take_while(|line| !line.starts_with('['));
    let named = lines.filter_map(|line| line.split([' ', '.', '=']).next());
    named.filter(|name| !name.is_empty() && !name.starts_with('#')).map(str::to_owned).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_owned()
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for package in ["runtime", "imgtool", "netsetup"] {
        walk(&root().join(package).join("src"), &mut files);
    }
    assert!(!files.is_empty(), "no sources found");
    files
}

fn walk(dir: &Path, files: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(dir).expect("read a source directory") {
        let path = entry.expect("read an entry").path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("read a source file");
            files.push((path, text));
        }
    }
}
