//! `imgtool images --tree`: each image with those of its platforms, here or not.

use anyhow::Result;

use super::Row;
use crate::bundle;
use crate::digest::Digest;
use crate::error::printable;
use crate::manifest::{Descriptor, Document};
use crate::output;
use crate::store::{Image, Store, chain_ids};
use crate::table;

const HEADER: [&str; 5] = ["IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "EXTRA"];

/// One line, as far as it can be said before all are known.
#[derive(Default)]
struct Line {
    disk: u64,
    content: u64,
    used: bool,
}

pub(super) fn write(store: &Store, rows: &[Row], id: impl Fn(&Digest) -> String) -> Result<()> {
    let mut lines = Vec::new();
    for row in rows {
        let name = row.name.as_ref().map_or("<untagged>".to_owned(), |n| printable(&n.familiar()));
        let Ok(Document::Index(index)) = store.document(&row.entry) else {
            let line = store
                .image(&row.entry)
                .map_or_else(|_| Ok(Line::default()), |image| line(store, &image))?;
            lines.push(line.cells(name, id(&row.id)));
            continue;
        };
        let (mut sum, mut children) = (Line::default(), Vec::new());
        let images: Vec<&Descriptor> =
            index.manifests.iter().filter(|entry| !entry.is_attestation()).collect();
        for (number, child) in images.iter().enumerate() {
            let branch = if number + 1 == images.len() { "└─" } else { "├─" };
            let platform =
                child.platform.as_ref().map_or("unknown".to_owned(), ToString::to_string);
            let (shown, own) = match store.image(child) {
                Ok(image) => (image.id().clone(), line(store, &image)?),
                // Of what is not here the index says no more than the digest.
                Err(_) => (child.digest.clone(), Line::default()),
            };
            sum.add(&own);
            children.push(own.cells(format!("{branch} {}", printable(&platform)), id(&shown)));
        }
        lines.push(sum.cells(name, id(&row.entry.digest)));
        lines.extend(children);
    }
    Ok(table::write(&mut output::stdout(), &HEADER, &lines)?)
}

/// What an image takes that is here: packed, and unpacked beside that.
fn line(store: &Store, image: &Image) -> Result<Line> {
    let here = image.layers.iter().filter(|layer| store.has_blob(&layer.digest));
    // What descriptors say may be anything.
    let content = here.fold(0_u64, |sum, layer| sum.saturating_add(layer.size));
    let mut disk = content;
    for chain_id in chain_ids(&image.diff_ids) {
        let unpacked = bundle::bytes_beneath(&store.layers_dir().join(chain_id.hex()))?;
        disk = disk.saturating_add(unpacked);
    }
    Ok(Line { disk, content, used: !bundle::users_of(store, image.id())?.is_empty() })
}

impl Line {
    /// Layers that two platforms share are counted for each.
    fn add(&mut self, other: &Self) {
        self.disk = self.disk.saturating_add(other.disk);
        self.content = self.content.saturating_add(other.content);
        self.used |= other.used;
    }

    fn cells(&self, name: String, id: String) -> Vec<String> {
        let used = if self.used { "U" } else { "" };
        vec![name, id, table::size(self.disk), table::size(self.content), used.to_owned()]
    }
}
