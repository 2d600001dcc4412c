//! Where a copy goes to.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::Request;
use crate::commands::save;
use crate::copy::IntoStore;
use crate::manifest::Descriptor;
use crate::output;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::{Selection, Store};
use crate::transport::Destination;
use crate::transport::dir::Dir;
use crate::transport::layout::LayoutWriter;
use crate::transport::place::{Choice, Place};
use crate::transport::registry::{Push, Upload};
use crate::transport::writer::{Archive, Kind as ArchiveKind};

const BUFFER: usize = 256 << 10;

/// A place that an image is copied to.
pub(super) struct Target<'a> {
    store: &'a Store,
    progress: &'a Progress,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Registry(Box<Push<'a>>),
    Layout(LayoutWriter),
    Dir(Dir),
    Store(Reference),
    Archive { path: Option<PathBuf>, names: Vec<Reference>, docker: bool },
}

impl<'a> Target<'a> {
    /// Opens the place; `name` is what the image is called where it comes from.
    pub(super) fn open(
        store: &'a Store,
        request: &'a Request,
        progress: &'a Progress,
        name: Option<&Reference>,
    ) -> Result<Self> {
        let kind = match &request.destination {
            Place::Registry(to) => {
                let to = to.clone().with_default_tag();
                let how = Upload { chunk: request.chunk };
                let mut push = Push::open(&to, &request.to, progress, how)?;
                if let Place::Registry(from) = &request.source {
                    push.may_mount_from(from);
                }
                Kind::Registry(Box::new(push))
            }
            Place::Layout(path, choice) => {
                let choice = choice.as_ref().map(name_of).transpose()?;
                Kind::Layout(LayoutWriter::create(path, choice)?)
            }
            Place::Dir(path) => Kind::Dir(Dir::create(path)?),
            Place::Store(word) => Kind::Store(Reference::parse(word)?.with_default_tag()),
            Place::DockerArchive(path, choice) | Place::OciArchive(path, choice) => {
                let docker = matches!(request.destination, Place::DockerArchive(..));
                let mut names: Vec<Reference> = match choice {
                    Some(choice) => vec![Reference::parse(name_of(choice)?)?.with_default_tag()],
                    None => name.filter(|name| name.tag().is_some()).cloned().into_iter().collect(),
                };
                for tag in &request.additional_tags {
                    names.push(Reference::parse(tag)?.with_default_tag());
                }
                ensure!(
                    path.is_some() || !output::stdout().is_terminal(),
                    "cowardly refusing to write an archive to a terminal"
                );
                Kind::Archive { path: path.clone(), names, docker }
            }
        };
        Ok(Self { store, progress, kind })
    }

    pub(super) fn destination(&mut self) -> Box<dyn Destination + '_> {
        match &mut self.kind {
            Kind::Registry(push) => Box::new(&mut **push),
            Kind::Layout(layout) => Box::new(layout),
            Kind::Dir(dir) => Box::new(dir),
            Kind::Store(_) | Kind::Archive { .. } => {
                Box::new(IntoStore { store: self.store, progress: self.progress })
            }
        }
    }

    /// The registry, if it is one.
    pub(super) fn push(&mut self) -> Option<&mut Push<'a>> {
        match &mut self.kind {
            Kind::Registry(push) => Some(push),
            _ => None,
        }
    }

    /// Makes the copy visible, after all of it is there.
    pub(super) fn finish(&self, entry: &Descriptor) -> Result<()> {
        match &self.kind {
            Kind::Registry(_) | Kind::Layout(_) | Kind::Dir(_) => Ok(()),
            Kind::Store(name) => self.store.tag(name, entry).map(drop),
            Kind::Archive { path, names, docker } => {
                let mut images: Vec<Selection> = names
                    .iter()
                    .map(|name| Selection { name: Some(name.clone()), entry: entry.clone() })
                    .collect();
                if images.is_empty() {
                    images.push(Selection { name: None, entry: entry.clone() });
                }
                let kind = if *docker { ArchiveKind::Docker } else { ArchiveKind::Oci };
                let archive = Archive::plan(self.store, &images, kind)?;
                match path {
                    Some(path) => save::write_file(path, |out| archive.write(self.store, out)),
                    None => {
                        let mut out = BufWriter::with_capacity(BUFFER, output::stdout());
                        archive.write(self.store, &mut out)?;
                        out.flush().context("write standard output")
                    }
                }
            }
        }
    }
}

fn name_of(choice: &Choice) -> Result<&str> {
    match choice {
        Choice::Name(name) => Ok(name),
        Choice::Number(_) | Choice::Digest(_) => {
            anyhow::bail!("{choice} can't be the name of a new image")
        }
    }
}
