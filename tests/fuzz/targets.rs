//! What each binary's `fuzz.rs` does with its targets. It is part of them by `#[path]`, since none of our
//! crates is another's.

/// Reads an input, which it may refuse.
pub(crate) type Target = fn(&[u8]);

/// The target that the variable names.
#[cfg(fuzzing)]
pub(crate) fn chosen(targets: &[(&str, Target)]) -> Target {
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
    let found = targets.iter().find(|(known, _)| *known == name);
    found.map(|(_, target)| *target).expect("FUZZ_TARGET is none of the targets")
}

/// Gives each target the inputs of its corpus.
#[cfg(test)]
pub(crate) fn replay(targets: &[(&str, Target)]) {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus");
    for (name, target) in targets {
        let directory = std::path::Path::new(corpus).join(name);
        let inputs: Vec<_> = std::fs::read_dir(&directory).unwrap().collect();
        assert!(!inputs.is_empty(), "{name}");
        for input in inputs {
            let path = input.unwrap().path();
            println!("{}", path.display());
            target(&std::fs::read(path).unwrap());
        }
    }
}
