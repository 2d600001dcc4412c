//! `--mount key=value,…` and `--tmpfs`.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::quantity;
use super::volume::{Source, Volume, clean_target};

/// A file system in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tmpfs {
    pub(crate) target: String,
    /// Words of mount(8).
    pub(crate) options: Vec<String>,
}

/// What one `--mount` asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Volume(Volume),
    Tmpfs(Tmpfs),
}

/// What a tmpfs may be told; anything else would be the kernel's to refuse when the container
/// starts.
const TMPFS_WORDS: [&str; 16] = [
    "ro",
    "rw",
    "nosuid",
    "suid",
    "nodev",
    "dev",
    "noexec",
    "exec",
    "sync",
    "async",
    "noatime",
    "atime",
    "nodiratime",
    "diratime",
    "relatime",
    "strictatime",
];

impl Tmpfs {
    /// `TARGET[:OPTION,…]`.
    pub(crate) fn parse(word: &str) -> Result<Self> {
        let (target, options) = word.split_once(':').unwrap_or((word, ""));
        let mut tmpfs = Self::at(target)?;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                None if TMPFS_WORDS.contains(&option) => {}
                Some(("size" | "nr_blocks" | "nr_inodes", value)) => {
                    let digits = value.trim_end_matches(['k', 'm', 'g', 'K', 'M', 'G', '%']);
                    ensure!(digits.parse::<u64>().is_ok(), "bad option {option:?}");
                }
                Some(("mode", value)) => check_mode(value)?,
                Some(("uid" | "gid", value)) => {
                    ensure!(value.parse::<u32>().is_ok(), "bad option {option:?}");
                }
                _ => bail!("unknown option {option:?}"),
            }
            tmpfs.options.push(option.to_owned());
        }
        Ok(tmpfs)
    }

    /// As docker makes it when nothing more is said.
    fn at(target: &str) -> Result<Self> {
        let options = ["nosuid", "nodev", "noexec"].map(str::to_owned).into();
        Ok(Self { target: clean_target(target)?, options })
    }
}

fn check_mode(value: &str) -> Result<()> {
    let mode = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777);
    ensure!(mode.is_some(), "bad mode {value:?}");
    Ok(())
}

impl Wanted {
    /// Docker's and podman's keys.
    pub(crate) fn parse(word: &str, cwd: &Path) -> Result<Self> {
        let (mut kind, mut source, mut target) = ("volume", None, None);
        let (mut read_only, mut propagation) = (false, None);
        let (mut size, mut mode) = (None, None);
        for pair in word.split(',') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, "true"));
            match key {
                "type" => kind = value,
                "source" | "src" => source = Some(value),
                "target" | "destination" | "dst" => target = Some(value),
                "readonly" | "ro" => {
                    read_only = match value {
                        "true" | "1" => true,
                        "false" | "0" => false,
                        _ => bail!("{key} is true or false, not {value:?}"),
                    };
                }
                "bind-propagation" => propagation = Some(value),
                "tmpfs-size" => size = Some(quantity::size(value)?),
                "tmpfs-mode" => {
                    check_mode(value)?;
                    mode = Some(value);
                }
                "consistency" | "volume-nocopy" => {}
                _ => bail!("unknown key {key:?}"),
            }
        }
        let target = target.context("it names no target")?;
        if kind == "tmpfs" {
            ensure!(source.is_none() && propagation.is_none(), "a tmpfs has no source");
            let mut tmpfs = Tmpfs::at(target)?;
            tmpfs.options.extend(read_only.then(|| "ro".to_owned()));
            tmpfs.options.extend(size.map(|size| format!("size={size}")));
            tmpfs.options.extend(mode.map(|mode| format!("mode={mode}")));
            return Ok(Self::Tmpfs(tmpfs));
        }
        ensure!(size.is_none() && mode.is_none(), "tmpfs-size and tmpfs-mode are for type=tmpfs");
        let source = match (kind, source) {
            ("bind", Some(source)) => {
                let source = Source::host(source, cwd)?;
                // Unlike -v it makes nothing: what is named has to be there.
                if let Source::Host(path) = &source {
                    ensure!(path.exists(), "{} does not exist", path.display());
                }
                source
            }
            ("bind", None) => bail!("a bind mount needs a source"),
            ("volume", Some(name)) => Source::named(name)?,
            ("volume", None) => Source::Bundle,
            (other, _) => bail!("unknown type {other:?}: there are bind, volume and tmpfs"),
        };
        let mut volume = Volume::new(source, target)?;
        volume.read_only = read_only;
        if let Some(word) = propagation {
            volume.set_propagation(word)?;
        }
        Ok(Self::Volume(volume))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(word: &str) -> Result<Wanted> {
        Wanted::parse(word, Path::new("/home/me"))
    }

    #[test]
    fn mounts_are_of_three_types() {
        let Wanted::Volume(bind) = mount("type=bind,src=/tmp,dst=/b,ro").unwrap() else { panic!() };
        assert_eq!((bind.source, bind.read_only), (Source::Host("/tmp".into()), true));
        let Wanted::Volume(named) = mount("source=data,target=/d").unwrap() else { panic!() };
        assert_eq!(named.source, Source::Named("data".into()));
        let tmpfs = mount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770").unwrap();
        let Wanted::Tmpfs(tmpfs) = tmpfs else { panic!() };
        assert_eq!(tmpfs.options[3..], ["size=1048576", "mode=1770"]);
        for bad in [
            "type=bind,dst=/b",
            "type=bind,src=/nowhere/at/all,dst=/b",
            "type=bind,src=/tmp",
            "type=npipe,src=/a,dst=/b",
            "type=tmpfs,src=/a,dst=/b",
            "dst=/b,what=x",
            "dst=/b,ro=maybe",
            "dst=/b,tmpfs-size=1m",
            "src=../x,dst=/b",
        ] {
            assert!(mount(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tmpfs_has_known_options() {
        let tmpfs = Tmpfs::parse("/run:rw,size=64m,mode=1777,uid=7").unwrap();
        assert_eq!(tmpfs.target, "/run");
        assert_eq!(tmpfs.options[3..], ["rw", "size=64m", "mode=1777", "uid=7"]);
        for bad in ["", "run", "/", "/run:size=x", "/run:mode=9", "/run:lowerdir=/etc", "/a:b"] {
            assert!(Tmpfs::parse(bad).is_err(), "{bad}");
        }
    }
}
