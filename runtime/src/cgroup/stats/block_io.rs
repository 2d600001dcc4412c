//! Block I/O by device.

use anyhow::Result;

use super::pressure::{self, Pressure};
use crate::cgroup::files::Dir;
use crate::cgroup::{Cgroup, Mode};

/// Since the cgroup was made, those beneath it included.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct BlockIo {
    pub(crate) bytes: Vec<Transfer>,
    pub(crate) operations: Vec<Transfer>,
    pub(crate) queued: Vec<Transfer>,
    pub(crate) service_time: Vec<Transfer>,
    pub(crate) wait_time: Vec<Transfer>,
    pub(crate) merged: Vec<Transfer>,
    pub(crate) time: Vec<Transfer>,
    pub(crate) sectors: Vec<Transfer>,
    pub(crate) pressure: Option<Pressure>,
}

/// One counter of one device; `operation` is `Read`, `Write`, …, or empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) major: u64,
    pub(crate) minor: u64,
    pub(crate) operation: String,
    pub(crate) value: u64,
}

impl Cgroup {
    pub(super) fn block_io(&self) -> Result<BlockIo> {
        match self.mode {
            Mode::V2 => self.open("io")?.map(|dir| v2(&dir)),
            Mode::V1 | Mode::Hybrid => self.open("blkio")?.map(|dir| v1(&dir)),
        }
        .unwrap_or_else(|| Ok(BlockIo::default()))
    }
}

/// A scheduler that weighs counts for itself; without one only the throttle does.
fn v1(dir: &Dir) -> Result<BlockIo> {
    let read = |file: &str| -> Result<Vec<Transfer>> {
        Ok(parse_v1(&dir.read_if_exists(&format!("blkio.{file}_recursive"))?.unwrap_or_default()))
    };
    for prefix in ["bfq.", ""] {
        let operations = read(&format!("{prefix}io_serviced"))?;
        if operations.is_empty() {
            continue;
        }
        let read = |file: &str| read(&format!("{prefix}{file}"));
        return Ok(BlockIo {
            bytes: read("io_service_bytes")?,
            operations,
            queued: read("io_queued")?,
            service_time: read("io_service_time")?,
            wait_time: read("io_wait_time")?,
            merged: read("io_merged")?,
            time: read("time")?,
            sectors: read("sectors")?,
            pressure: None,
        });
    }
    Ok(BlockIo {
        bytes: read("throttle.io_service_bytes")?,
        operations: read("throttle.io_serviced")?,
        ..BlockIo::default()
    })
}

fn v2(dir: &Dir) -> Result<BlockIo> {
    let mut block_io = parse_v2(&dir.read_if_exists("io.stat")?.unwrap_or_default());
    block_io.pressure = pressure::read(dir, "io.pressure")?;
    Ok(block_io)
}

/// Lines of `8:0 Read 7` or `8:0 7`; sums over all devices have no number and are left out.
fn parse_v1(text: &str) -> Vec<Transfer> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (major, minor) = device(words.next()?)?;
            let word = words.next()?;
            let (operation, value) = match words.next() {
                Some(value) => (word.to_owned(), value),
                None => (String::new(), word),
            };
            Some(Transfer { major, minor, operation, value: value.parse().ok()? })
        })
        .collect()
}

/// Lines of `8:0 rbytes=1 wbytes=2 rios=3 …`.
fn parse_v2(text: &str) -> BlockIo {
    let mut block_io = BlockIo::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(device) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, operation) = match key {
                "rbytes" => (&mut block_io.bytes, "Read"),
                "wbytes" => (&mut block_io.bytes, "Write"),
                "rios" => (&mut block_io.operations, "Read"),
                "wios" => (&mut block_io.operations, "Write"),
                _ => continue,
            };
            if let Ok(value) = value.parse() {
                list.push(Transfer { major, minor, operation: operation.to_owned(), value });
            }
        }
    }
    block_io
}

fn device(word: &str) -> Option<(u64, u64)> {
    let (major, minor) = word.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer(operation: &str, value: u64) -> Transfer {
        Transfer { major: 8, minor: 1, operation: operation.to_owned(), value }
    }

    #[test]
    fn sums_are_left_out() {
        let list = parse_v1("8:1 Read 7\n8:1 9\nTotal 16\n");
        assert_eq!(list, [transfer("Read", 7), transfer("", 9)]);
    }

    #[test]
    fn v2_has_one_line_a_device() {
        let block_io = parse_v2("8:1 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n");
        assert_eq!(block_io.bytes, [transfer("Read", 1), transfer("Write", 2)]);
        assert_eq!(block_io.operations, [transfer("Read", 3), transfer("Write", 4)]);
    }
}
