//! The contents of files, written past the gaps of those with holes.

use std::os::fd::BorrowedFd;

use anyhow::{Context, Result};
use rustix::fs;
use rustix::io::Errno;

use super::Input;
use crate::layer::tar::Entry;

/// Zeros of this length, where a file is cut into as many, stay holes: an archive that writes them
/// out is what every reader takes, Docker's too, and a file with holes is to have them again.
const HOLE: usize = 32 << 10;
/// They may come in pieces; shorter ones than a block of a file system are not worth a call.
const SMALLEST: usize = 4 << 10;

/// Writes what the archive holds of a file; the rest of it stays holes.
pub(super) fn write_contents(
    file: BorrowedFd<'_>,
    entry: &Entry,
    reader: &mut Input<'_>,
) -> Result<()> {
    let Some(segments) = &entry.segments else {
        if entry.size < HOLE as u64 {
            return reader.contents(|bytes| write_all(file, bytes, None));
        }
        let (mut offset, mut ends_with_data) = (0, false);
        reader.contents(|bytes| {
            ends_with_data = write_past_zeros(file, bytes, offset)?;
            offset += bytes.len() as u64;
            Ok(())
        })?;
        if ends_with_data {
            return Ok(());
        }
        return fs::ftruncate(file, entry.size).context("set size of file");
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

/// Writes all but the stretches of zeros; false if one ends it.
fn write_past_zeros(file: BorrowedFd<'_>, mut bytes: &[u8], mut offset: u64) -> Result<bool> {
    let mut data = 0;
    while data < bytes.len() {
        let rest = bytes.len() - data;
        let within = usize::try_from((offset + data as u64) % HOLE as u64)?;
        let length = rest.min(HOLE - within);
        if length < SMALLEST || bytes[data..data + length].iter().any(|byte| *byte != 0) {
            data += length;
            continue;
        }
        write_all(file, &bytes[..data], Some(offset))?;
        offset += (data + length) as u64;
        bytes = &bytes[data + length..];
        data = 0;
    }
    write_all(file, bytes, Some(offset))?;
    Ok(!bytes.is_empty())
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
