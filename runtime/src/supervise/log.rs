//! The log of a container in the form of CRI, which kubelet, podman and log shippers read:
//! `time stream F|P text`, where `P` says that the line goes on in the next row.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::clock;
use crate::records::LogPlan;

/// Rows are gathered up to this many bytes before they are written.
const GATHER: usize = 16 * 1024;

/// Which of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// The log of one container, and its older files.
pub(super) struct Log {
    plan: LogPlan,
    file: File,
    /// How much of it is whole rows; `None` for what is no regular file and never grows.
    size: Option<u64>,
    rows: Vec<u8>,
    /// A row could not be written.
    pub(super) broken: bool,
}

impl Log {
    pub(super) fn open(plan: &LogPlan) -> Result<Self> {
        let (file, size) = open(&plan.path)?;
        Ok(Log { plan: plan.clone(), file, size, rows: Vec::new(), broken: false })
    }

    /// Writes what has come of one stream at this time. A log that can't be written must not end
    /// what it is of: it is tried again with the next piece.
    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8], now: SystemTime) {
        let prefix = format!("{} {} ", clock::nine_digits(now), stream.name());
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (mark, text) = match line.strip_suffix(b"\n") {
                Some(text) => ("F ", text),
                None => ("P ", line),
            };
            if self.rows.len() + prefix.len() + text.len() + 3 > GATHER {
                self.flush();
            }
            for part in [prefix.as_bytes(), mark.as_bytes(), text, b"\n"] {
                self.rows.extend_from_slice(part);
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        if self.size.is_some_and(|size| size >= self.plan.max_bytes) && self.rotate().is_err() {
            self.broken = true;
        }
        match self.file.write_all(&self.rows) {
            Ok(()) => {
                let length = self.rows.len() as u64;
                self.size = self.size.map(|size| size + length);
            }
            Err(_) => {
                self.broken = true;
                self.drop_torn_row();
            }
        }
        self.rows.clear();
        // One long line may have made it large.
        self.rows.shrink_to(GATHER);
    }

    /// What was half written would be taken for part of the next row.
    fn drop_torn_row(&mut self) {
        if let Some(size) = self.size {
            // A disk that fails here too leaves a row that no reader understands, and no more.
            let _ = self.file.set_len(size);
        }
    }

    /// `log` becomes `log.1`, that becomes `log.2`, and what is too old is gone.
    fn rotate(&mut self) -> Result<()> {
        let oldest = self.plan.max_files.max(1) - 1;
        for number in (0..oldest).rev() {
            let (from, to) = (older(&self.plan.path, number), older(&self.plan.path, number + 1));
            match std::fs::rename(&from, &to) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("rename {}", from.display()));
                }
                _ => {}
            }
        }
        if oldest == 0 {
            std::fs::remove_file(&self.plan.path)
                .with_context(|| format!("remove {}", self.plan.path.display()))?;
        }
        self.reopen()
    }

    /// Goes on in a new file, as who has moved the old one asks.
    pub(super) fn reopen(&mut self) -> Result<()> {
        (self.file, self.size) = open(&self.plan.path)?;
        Ok(())
    }
}

/// The name of the file that was moved aside so many times.
pub(crate) fn older(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn open(path: &Path) -> Result<(File, Option<u64>)> {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        // A pipe that nobody reads must not hold us up.
        .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
        .open(path)
        .with_context(|| format!("open the log {}", path.display()))?;
    let size = if file.metadata().context("stat the log")?.is_file() {
        Some(file.seek(SeekFrom::End(0)).context("seek in the log")?)
    } else {
        None
    };
    Ok((file, size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn log(max_bytes: u64, max_files: u32) -> (PathBuf, Log) {
        let name = format!("runtime-log-{}-{max_bytes}-{max_files}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let plan = LogPlan { path: dir.join("log"), max_bytes, max_files };
        let log = Log::open(&plan).unwrap();
        (dir, log)
    }

    #[test]
    fn lines_and_parts_of_lines_are_rows() {
        let (dir, mut log) = log(1 << 20, 3);
        let now = UNIX_EPOCH + Duration::from_nanos(5);
        log.write(Stream::Stdout, b"one\ntwo", now);
        log.write(Stream::Stdout, b"\n", now);
        log.write(Stream::Stderr, b"\xff\n\n", now);
        let text = std::fs::read(dir.join("log")).unwrap();
        let time = "1970-01-01T00:00:00.000000005Z";
        let mut wanted = format!("{time} stdout F one\n{time} stdout P two\n{time} stdout F \n");
        wanted.push_str(&format!("{time} stderr F \u{1}\n{time} stderr F \n"));
        let wanted: Vec<u8> =
            wanted.bytes().map(|byte| if byte == 1 { 0xff } else { byte }).collect();
        assert_eq!(String::from_utf8_lossy(&text), String::from_utf8_lossy(&wanted));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn full_files_are_moved_aside_between_rows() {
        let (dir, mut log) = log(200, 3);
        for number in 0..40 {
            log.write(Stream::Stdout, format!("line {number}\n").as_bytes(), UNIX_EPOCH);
        }
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
        let all = ["log.2", "log.1", "log"].map(read).concat();
        let kept: Vec<&str> = all.lines().map(|row| row.rsplit(' ').next().unwrap()).collect();
        let from: u32 = kept[0].parse().unwrap();
        let wanted: Vec<String> = (from..40).map(|number| number.to_string()).collect();
        assert_eq!(kept, wanted);
        assert!(!dir.join("log.3").exists() && !log.broken);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
