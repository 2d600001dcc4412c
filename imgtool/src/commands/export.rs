//! `imgtool export`: the whole file system of an image or of a bundle, as one archive.

use std::collections::BTreeSet;
use std::io::{BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::bundle;
use crate::error::NoSuchImage;
use crate::layer::diff::{Baseline, diff};
use crate::layer::record::Record;
use crate::layer::{self, lower, tar};
use crate::manifest::Platform;
use crate::output;
use crate::store::Store;
use crate::userns;

const BUFFER: usize = 256 << 10;

/// Write the file system of an image, or of a bundle, as a tar archive
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name or ID of an image, or directory or name of a bundle or of its container
    source: String,
    /// Write to this file, not to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The image of an index to take [default: this host's]
    #[arg(long, value_name = "OS/ARCH", value_parser = Platform::parse)]
    platform: Option<Platform>,
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    let output = args.output.as_deref().filter(|path| *path != Path::new("-"));
    let stdout = output::stdout();
    ensure!(
        output.is_some() || !stdout.is_terminal(),
        "cowardly refusing to write an archive to a terminal: use -o FILE or redirect"
    );
    let _lock = store.lock_shared()?;
    // The owners are to be those that a container sees.
    userns::enter()?;
    let write = |out: &mut dyn Write| -> Result<()> {
        match store.resolve_for(&args.source, args.platform.as_ref()) {
            Ok(image) => {
                let home = store.staging_subdirectory()?;
                let root = lower::make_root(&home.path().join("rootfs"))?;
                layer::unpack_flat(store, &image, root.as_fd())?;
                whole_tree(root.as_fd(), out)?;
                home.close().context("remove the unpacked image")
            }
            Err(error) if error.is::<NoSuchImage>() => {
                // What is no bundle either is more likely to be meant as an image.
                let Ok(directory) = bundle::locate(store, &args.source) else { return Err(error) };
                let rootfs = bundle::mount(store, &directory)?;
                if let Some(ids) = bundle::ids(&directory)? {
                    userns::shift::read_as(&ids);
                }
                whole_tree(lower::open_directory(&rootfs)?.as_fd(), out)
            }
            Err(error) => Err(error),
        }
    };
    let context = || format!("export {}", args.source);
    match output {
        Some(path) => super::save::write_file(path, |out| write(out)).with_context(context),
        None => {
            let mut out = BufWriter::with_capacity(BUFFER, stdout);
            write(&mut out).with_context(context)?;
            out.flush().context("write standard output")
        }
    }
}

/// Everything in a tree is new compared with nothing.
pub(crate) fn whole_tree(root: BorrowedFd<'_>, out: &mut dyn Write) -> Result<()> {
    let nothing = Record::default();
    let mut archive = tar::Writer::new(out);
    diff(root, &Baseline::Record(&nothing), &BTreeSet::new(), None, &mut archive)?;
    archive.finish().map(drop)
}
