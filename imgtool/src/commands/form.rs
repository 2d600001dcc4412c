//! Flags on the form that images get where they go, which several verbs share.

use anyhow::{Result, bail, ensure};
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
    /// How hard: gzip 0 to 9 [default: 6], zstd 1 to 22 [default: 3]; for layers that are
    /// compressed anew
    #[arg(long, value_name = "LEVEL", requires = "compress", alias = "dest-compress-level")]
    compression_level: Option<u32>,
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
    pub(crate) fn form(&self) -> Result<Form> {
        if let (Some(level), Some(how)) = (self.compression_level, self.compress) {
            let levels = match how {
                Compression::Gzip => 0..=9,
                Compression::Zstd => 1..=22,
                Compression::None => bail!("--compression-level is for gzip and zstd"),
            };
            ensure!(
                levels.contains(&level),
                "--compression-level {level}: want {} to {}",
                levels.start(),
                levels.end()
            );
        }
        Ok(Form {
            level: self.compression_level,
            dialect: self.format.map(|format| match format {
                Format::Oci => Dialect::Oci,
                Format::Docker => Dialect::Docker,
            }),
            packing: self.compress.map(|compression| match compression {
                Compression::Gzip => Packing::Gzip,
                Compression::Zstd => Packing::Zstd,
                Compression::None => Packing::None,
            }),
        })
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
