//! The contents of files, written past the gaps of those with holes.

use std::os::fd::BorrowedFd;

use anyhow::{Context, Result};
use rustix::fs;
use rustix::io::Errno;

use super::Input;
use crate::layer::tar::Entry;

/// Writes what the archive holds of a file; the rest of it stays holes.
pub(super) fn write_contents(
    file: BorrowedFd<'_>,
    entry: &Entry,
    reader: &mut Input<'_>,
) -> Result<()> {
    let Some(segments) = &entry.segments else {
        return reader.contents(|bytes| write_all(file, bytes, None));
    };
    for segment in segments {
        let mut offset = segment.offset;
        reader.read_contents(segment.length, &mut |bytes| {
            write_all(file, bytes, Some(offset))?;
            offset += bytes.len() as u64;
            Ok(())
        })?;
    }
    fs::ftruncate(file, entry.size).context("set size of file")
}

fn write_all(file: BorrowedFd<'_>, mut bytes: &[u8], mut offset: Option<u64>) -> Result<()> {
    while !bytes.is_empty() {
        let written = match offset {
            Some(offset) => rustix::io::pwrite(file, bytes, offset),
            None => rustix::io::write(file, bytes),
        };
        match written {
            Err(Errno::INTR) => {}
            written => {
                let written = written.context("write file")?;
                bytes = &bytes[written..];
                offset = offset.map(|offset| offset + written as u64);
            }
        }
    }
    Ok(())
}
