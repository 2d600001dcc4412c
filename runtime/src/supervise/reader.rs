//! Reads a log back: rows of all its files, oldest first, and what is added while one waits.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::{Context, Result};

use super::log::{Stream, older};
use crate::clock;
use crate::records::LogPlan;

/// Nothing that we have written is longer; what is, is cut there.
const LONGEST_ROW: u64 = 1 << 20;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) time: String,
    pub(crate) since_epoch: Duration,
    pub(crate) stream: Stream,
    /// The line ends with it.
    pub(crate) whole: bool,
    pub(crate) text: Vec<u8>,
}

impl Row {
    /// `None` for what is no row, as half of one that a crash of the host has left.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let since_epoch = clock::parse(time)?;
        let stream = match parts.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        // Other writers add further tags behind a colon.
        let whole = match parts.next()?.split(|byte| *byte == b':').next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        let text = parts.next().unwrap_or_default().to_vec();
        Some(Row { time: time.to_owned(), since_epoch, stream, whole, text })
    }
}

/// The files of a log one after the other.
pub(crate) struct Reader {
    plan: LogPlan,
    /// Files still to come, the newest first.
    files: Vec<BufReader<File>>,
    current: Option<BufReader<File>>,
    /// A row that has not been written to its end.
    begun: Vec<u8>,
}

impl Reader {
    /// A log that is not there is an empty one.
    pub(crate) fn open(plan: &LogPlan) -> Result<Self> {
        let files = newer(plan, None)?;
        Ok(Reader { plan: plan.clone(), files, current: None, begun: Vec::new() })
    }

    /// The next row; `None` when there is none yet.
    pub(crate) fn next(&mut self) -> Result<Option<Row>> {
        loop {
            let Some(file) = &mut self.current else {
                match self.files.pop() {
                    None => return Ok(None),
                    next => self.current = next,
                }
                continue;
            };
            let mut limited = std::io::Read::take(&mut *file, LONGEST_ROW);
            limited.read_until(b'\n', &mut self.begun).context("read the log")?;
            if self.begun.last() == Some(&b'\n') {
                let row = Row::parse(&self.begun[..self.begun.len() - 1]);
                self.begun.clear();
                if row.is_some() {
                    return Ok(row);
                }
                continue;
            }
            if self.begun.len() as u64 >= LONGEST_ROW {
                self.begun.clear();
                continue;
            }
            if !self.files.is_empty() {
                // It was read to its end after another had followed it: nothing is added to it.
                self.begun.clear();
                self.current = None;
                continue;
            }
            let ours = file.get_ref().metadata().context("stat the log")?.ino();
            self.files = newer(&self.plan, Some(ours))?;
            if self.files.is_empty() {
                return Ok(None);
            }
        }
    }

    /// Looks whether there is a file by now, where there was none.
    pub(crate) fn look_again(&mut self) -> Result<()> {
        if self.current.is_none() && self.files.is_empty() {
            self.files = newer(&self.plan, None)?;
        }
        Ok(())
    }
}

/// The files that came after one of them, or all, the newest first.
///
/// Meanwhile any may be moved to the next name. We look in the same order, so that none is missed;
/// and what is met twice counts once.
fn newer(plan: &LogPlan, than: Option<u64>) -> Result<Vec<BufReader<File>>> {
    let mut files = Vec::new();
    let mut seen = Vec::new();
    for number in 0..plan.max_files.max(1) {
        let path = older(&plan.path, number);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
        };
        let metadata = file.metadata().context("stat the log")?;
        if than == Some(metadata.ino()) {
            break;
        }
        if metadata.is_file() && !seen.contains(&metadata.ino()) {
            seen.push(metadata.ino());
            files.push(BufReader::new(file));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_they_are_written_by_us_and_by_others() {
        let time = "2026-11-24T07:35:21.681362631Z";
        let row = |rest: &str| Row::parse(format!("{time} {rest}").as_bytes());
        let read = row("stdout F a b  c").unwrap();
        assert_eq!(
            (read.stream, read.whole, read.text),
            (Stream::Stdout, true, b"a b  c".to_vec())
        );
        assert!(!row("stderr P:x part").unwrap().whole);
        assert_eq!(row("stdout F ").unwrap().text, b"");
        assert_eq!(row("stdout F").unwrap().text, b"");
        for torn in ["", "stdout", "stdin F x", "stdout X x"] {
            assert!(row(torn).is_none(), "{torn}");
        }
        assert!(Row::parse(b"yesterday stdout F x").is_none());
    }
}
