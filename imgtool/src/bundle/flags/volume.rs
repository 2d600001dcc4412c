//! `-v source:target[:options]`.
//!
//! The rule for sources: a word with a `/` in it, or `.` or `..`, is a path, made absolute from
//! where the caller stands; any other word is the name of a volume. `-v target` alone is a volume
//! of the bundle's own.

use std::path::{Component, Path, PathBuf};

use super::mount::Tmpfs;
use anyhow::{Context, Result, anyhow, bail, ensure};

/// One `-v`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) source: Source,
    /// Absolute, without `.` and `..`.
    pub(crate) target: String,
    pub(crate) read_only: bool,
    /// A mount option word of the runtime spec.
    pub(crate) propagation: &'static str,
    /// Whether the owners of files are, for the container, its own ids of the same number.
    pub(crate) mapped: bool,
}

/// How mounts beneath a volume come to others, as mount(8) says it.
pub(crate) const PROPAGATION: [&str; 6] =
    ["shared", "rshared", "slave", "rslave", "private", "rprivate"];

/// One `--volumes-from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VolumesFrom {
    /// A container or a bundle.
    pub(crate) container: String,
    pub(crate) read_only: bool,
}

impl VolumesFrom {
    /// `CONTAINER[:ro|rw]`.
    pub(super) fn parse(word: &str) -> Result<Self> {
        let (container, read_only) = match word.rsplit_once(':') {
            Some((container, "ro")) => (container, true),
            Some((container, "rw")) => (container, false),
            Some(_) => bail!(
                "invalid --volumes-from {word:?}: want CONTAINER, CONTAINER:ro or CONTAINER:rw"
            ),
            None => (word, false),
        };
        ensure!(!container.is_empty(), "--volumes-from names no container");
        Ok(Self { container: container.to_owned(), read_only })
    }
}

/// Where the content of a volume lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// An absolute path on the host; a directory is made where nothing is.
    Host(PathBuf),
    /// A directory of the bundle, filled from the image.
    Bundle,
    /// A volume of the store, filled from the image as long as it is empty.
    Named(String),
}

impl Source {
    /// A path of the host.
    pub(super) fn host(word: &str, cwd: &Path) -> Result<Self> {
        ensure!(!word.is_empty(), "the source is empty");
        ensure!(!word.contains('\0'), "a path can't hold a NUL byte");
        Ok(Self::Host(lexically_clean(&cwd.join(word))))
    }

    /// A volume of the store.
    pub(super) fn named(word: &str) -> Result<Self> {
        crate::volumes::check_name(word)?;
        Ok(Self::Named(word.to_owned()))
    }

    /// As `-v` tells them apart.
    fn parse(word: &str, cwd: &Path) -> Result<Self> {
        let is_path = word.contains('/') || matches!(word, "" | "." | "..");
        if is_path { Self::host(word, cwd) } else { Self::named(word) }
    }
}

impl Volume {
    pub(crate) fn parse(word: &str, cwd: &Path) -> Result<Self> {
        let mut parts = word.split(':');
        let first = parts.next().unwrap_or_default();
        let (source, target) = match parts.next() {
            None => (Source::Bundle, first),
            Some(target) => (Source::parse(first, cwd)?, target),
        };
        let options = parts.next().unwrap_or_default();
        if parts.next().is_some() {
            bail!("expected source:target[:options]");
        }
        let mut volume = Self::new(source, target)?;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" | "readonly" => volume.read_only = true,
                "rw" => volume.read_only = false,
                "idmap" => volume.mapped = true,
                // SELinux relabelling, and hints of other platforms: nothing to do here.
                "z" | "Z" | "cached" | "delegated" | "consistent" | "nocopy" => {}
                other => volume
                    .set_propagation(other)
                    .map_err(|_| anyhow!("unknown option {other:?}"))?,
            }
        }
        Ok(volume)
    }

    pub(super) fn new(source: Source, target: &str) -> Result<Self> {
        let target = clean_target(target)?;
        Ok(Self { source, target, read_only: false, propagation: "rprivate", mapped: false })
    }

    pub(super) fn set_propagation(&mut self, word: &str) -> Result<()> {
        let known = PROPAGATION.iter().find(|known| **known == word);
        self.propagation = known.with_context(|| format!("unknown propagation {word:?}"))?;
        Ok(())
    }
}

/// Drops `.` and resolves `..` by name only, as Docker does: symbolic links are not followed.
fn lexically_clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// Checks a mount point inside the container.
pub(crate) fn clean_target(word: &str) -> Result<String> {
    if !word.starts_with('/') || word.contains('\0') {
        bail!("the target {word:?} must be an absolute path");
    }
    let clean = lexically_clean(Path::new(word));
    match clean.to_str() {
        Some("/") | None => bail!("the target can't be '/'"),
        Some(target) => Ok(target.to_owned()),
    }
}

/// Two volumes on one mount point are a mistake, never a wish.
pub(super) fn refuse_duplicates(volumes: &[Volume], tmpfs: &[Tmpfs]) -> Result<()> {
    let targets = volumes.iter().map(|volume| &volume.target);
    let mut seen = Vec::new();
    for target in targets.chain(tmpfs.iter().map(|tmpfs| &tmpfs.target)) {
        if seen.contains(&target) {
            bail!("duplicate mount point: {target}");
        }
        seen.push(target);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(word: &str) -> Result<Volume> {
        Volume::parse(word, Path::new("/home/me"))
    }

    #[test]
    fn paths_become_absolute_and_options_are_read() {
        for (word, source, target, read_only, propagation) in [
            ("/a:/b", Some("/a"), "/b", false, "rprivate"),
            ("/a:/b:ro", Some("/a"), "/b", true, "rprivate"),
            ("/a:/b:rw,z", Some("/a"), "/b", false, "rprivate"),
            ("/a:/b:ro,rslave", Some("/a"), "/b", true, "rslave"),
            ("./a:/b", Some("/home/me/a"), "/b", false, "rprivate"),
            ("a/c:/b/", Some("/home/me/a/c"), "/b", false, "rprivate"),
            (".:/b", Some("/home/me"), "/b", false, "rprivate"),
            ("..:/b/../c", Some("/home"), "/c", false, "rprivate"),
            ("/data", None, "/data", false, "rprivate"),
        ] {
            let volume = parse(word).unwrap();
            let source = source.map_or(Source::Bundle, |path| Source::Host(path.into()));
            assert_eq!(
                (volume.source, volume.target.as_str(), volume.read_only, volume.propagation),
                (source, target, read_only, propagation),
                "{word}"
            );
        }
    }

    #[test]
    fn malformed_words_are_refused() {
        for word in [
            "",
            ":/b",
            "/a:",
            "/a:b",
            "/a:/",
            "/a:/b/..",
            "/a:/b:ro:x",
            "/a:/b:nope",
            "-data:/b",
            "data",
        ] {
            assert!(parse(word).is_err(), "{word:?}");
        }
        assert_eq!(parse("data:/b").unwrap().source, Source::Named("data".into()));
    }

    #[test]
    fn one_mount_point_takes_one_volume() {
        let volumes = [parse("/a:/b").unwrap(), parse("/c:/b/").unwrap()];
        assert!(refuse_duplicates(&volumes, &[]).is_err());
        let tmpfs = Tmpfs::parse("/b").unwrap();
        assert!(refuse_duplicates(&volumes[..1], &[tmpfs]).is_err());
    }
}
