//! Places that images come from and go to, as skopeo's users write them:
//! `docker://`, `docker-archive:`, `oci:`, `oci-archive:`, `dir:`, `-`; anything
//! else is a name in the store.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Result, bail, ensure};

use crate::digest::Digest;
use crate::reference::Reference;

/// What a word of the command line means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Registry(Reference),
    /// None stands for standard input or output.
    DockerArchive(Option<PathBuf>, Option<Choice>),
    OciArchive(Option<PathBuf>, Option<Choice>),
    Layout(PathBuf, Option<Choice>),
    Dir(PathBuf),
    /// A name or an ID.
    Store(String),
}

/// Which image of an archive or a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Name(String),
    /// Counted from 0.
    Number(usize),
    Digest(Digest),
}

impl Place {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if text == "-" {
            return Ok(Self::DockerArchive(None, None));
        }
        if let Some(name) = text.strip_prefix("docker://") {
            return Ok(Self::Registry(Reference::parse(name)?));
        }
        let Some((transport, rest)) = text.split_once(':') else {
            return Ok(Self::Store(text.to_owned()));
        };
        let split = |rest: &str| -> Result<(PathBuf, Option<Choice>)> {
            let (path, choice) = match rest.split_once(':') {
                Some((path, choice)) => (path, Some(Choice::parse(choice)?)),
                None => match rest.split_once('@') {
                    Some((path, digest)) => (path, Some(Choice::Digest(digest.parse()?))),
                    None => (rest, None),
                },
            };
            ensure!(!path.is_empty(), "{text:?} names no file");
            Ok((path.into(), choice))
        };
        let archive = |rest: &str| -> Result<(Option<PathBuf>, Option<Choice>)> {
            let (path, choice) = split(rest)?;
            Ok((Some(path).filter(|path| *path != *"-"), choice))
        };
        Ok(match transport {
            "docker-archive" => {
                let (path, choice) = archive(rest)?;
                Self::DockerArchive(path, choice)
            }
            "oci-archive" => {
                let (path, choice) = archive(rest)?;
                Self::OciArchive(path, choice)
            }
            "oci" => {
                let (path, choice) = split(rest)?;
                Self::Layout(path, choice)
            }
            "dir" => {
                ensure!(!rest.is_empty(), "{text:?} names no directory");
                Self::Dir(rest.into())
            }
            "store" => Self::Store(rest.to_owned()),
            "docker-daemon" | "containers-storage" | "ostree" | "sif" | "tarball" | "atomic" => {
                bail!("transport {transport}: is not supported; save to an archive from there")
            }
            _ => Self::Store(text.to_owned()),
        })
    }
}

impl Choice {
    fn parse(text: &str) -> Result<Self> {
        if let Some(number) = text.strip_prefix('@') {
            return Ok(match number.parse() {
                Ok(number) => Self::Number(number),
                Err(_) => Self::Digest(number.parse()?),
            });
        }
        ensure!(!text.is_empty(), "the name of the image is empty");
        ensure!(
            text.chars().all(|c| !c.is_control()) && !text.contains(".."),
            "invalid name of an image: {text:?}"
        );
        Ok(Self::Name(text.to_owned()))
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name}"),
            Self::Number(number) => write!(f, "@{number}"),
            Self::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_apart() {
        let name = |text: &str| Some(Choice::Name(text.to_owned()));
        for (text, wanted) in [
            ("docker://a/b:c", Place::Registry(Reference::parse("a/b:c").unwrap())),
            ("docker-archive:/x.tar", Place::DockerArchive(Some("/x.tar".into()), None)),
            ("docker-archive:x:a/b:c", Place::DockerArchive(Some("x".into()), name("a/b:c"))),
            ("oci-archive:-", Place::OciArchive(None, None)),
            ("-", Place::DockerArchive(None, None)),
            ("oci:d:latest", Place::Layout("d".into(), name("latest"))),
            ("oci:d:@1", Place::Layout("d".into(), Some(Choice::Number(1)))),
            ("dir:d", Place::Dir("d".into())),
            ("busybox:1", Place::Store("busybox:1".into())),
            ("localhost:5000/a", Place::Store("localhost:5000/a".into())),
        ] {
            assert_eq!(Place::parse(text).unwrap(), wanted, "{text}");
        }
        for bad in
            ["docker://", "docker://A", "oci:", "oci:d:", "oci:d:a/../b", "docker-daemon:x", "dir:"]
        {
            assert!(Place::parse(bad).is_err(), "{bad}");
        }
    }
}
