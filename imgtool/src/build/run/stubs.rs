//! What things are mounted on, where the stage has it not: in a layer beneath all of the stage's,
//! which no layer that is made of the stage's own takes anything from.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::build::view::View;
use crate::layer::extract::split;

/// What something is mounted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

pub(super) struct Targets<'a> {
    view: &'a View,
    below: PathBuf,
}

impl<'a> Targets<'a> {
    pub(super) fn new(view: &'a View, below: &Path) -> Result<Self> {
        Ok(Self { view, below: below.to_owned() })
    }

    /// Makes what is to be mounted on at a path of the container, where the links of the stage lead.
    pub(super) fn add(&mut self, target: &str, kind: Kind) -> Result<()> {
        let real = self.view.resolve(target.as_bytes(), true)?;
        if self.view.get(&real)?.is_some() {
            return Ok(());
        }
        // No link leads anywhere in this layer: all in it is made here.
        let text = std::str::from_utf8(&real)
            .with_context(|| format!("{target} leads to a path that is no text"))?;
        let path = self.below.join(text);
        let (parent, _) = split(text.as_bytes());
        let above = self.below.join(std::str::from_utf8(parent)?);
        let make = || -> std::io::Result<()> {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o755);
            builder.create(above)?;
            match kind {
                Kind::Directory => builder.create(&path),
                Kind::File => fs::File::options()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(&path)
                    .map(drop),
            }
        };
        make().with_context(|| format!("make a place for {target}"))
    }
}
