//! Flags on the form that images get where they go, which several verbs share.

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::convert::{self, Form};
use crate::manifest::{Descriptor, Dialect, Packing};
use crate::output;
use crate::store::Store;
use crate::transport::Source;

/// What is changed of an image on its way; its ID stays.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(id = "form")]
pub(crate) struct Flags {
    /// Whose kind of manifests to write [default: those that it has]
    #[arg(long, value_enum, value_name = "KIND")]
    format: Option<Format>,
    /// Compress layers in this way [default: as they are]
    #[arg(long, value_enum, value_name = "HOW", aliases = ["compression-format", "dest-compress-format"])]
    compress: Option<Compression>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Oci,
    /// Schema 2, for old registries
    #[value(alias = "v2s2")]
    Docker,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Compression {
    Gzip,
    Zstd,
    #[value(alias = "uncompressed")]
    None,
}

impl Flags {
    pub(crate) fn form(&self) -> Form {
        Form {
            dialect: self.format.map(|format| match format {
                Format::Oci => Dialect::Oci,
                Format::Docker => Dialect::Docker,
            }),
            packing: self.compress.map(|compression| match compression {
                Compression::Gzip => Packing::Gzip,
                Compression::Zstd => Packing::Zstd,
                Compression::None => Packing::None,
            }),
        }
    }
}

/// The image or index at `entry` in the form that is wanted, if any is.
pub(crate) fn give(
    source: &mut dyn Source,
    store: &Store,
    entry: &Descriptor,
    form: Form,
    preserve_digests: bool,
) -> Result<Descriptor> {
    let (converted, notes) = convert::convert(source, store, entry, form)?;
    ensure!(
        !preserve_digests || converted.digest == entry.digest,
        "in that form it has another digest: --preserve-digests forbids that"
    );
    for note in notes {
        output::say(&format!("note: {note}"));
    }
    Ok(converted)
}
