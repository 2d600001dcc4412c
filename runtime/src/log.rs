//! The log that engines read: `--log`, `--log-format`, `--debug`. Nothing else writes to stderr.
//!
//! One process-wide log, opened once at the start, so that the child after the clone writes to
//! the same file by the same descriptor.

use std::fmt::{Display, Write as _};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::Location;
use std::path::Path;
use std::sync::OnceLock;
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::clock;

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Debug,
    Warning,
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

struct Log {
    /// `None` is stderr.
    file: Option<File>,
    format: Format,
    debug: bool,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Opens the log; to be called once, before anything else may write to it.
pub(crate) fn open(path: Option<&Path>, format: Format, debug: bool) -> Result<()> {
    let file = match path {
        Some(path) => Some(
            OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o644)
                .custom_flags(libc::O_SYNC | libc::O_NOCTTY)
                .open(path)
                .with_context(|| format!("open {}", path.display()))?,
        ),
        None => None,
    };
    // A second call keeps the first log: there is none.
    let _ = LOG.set(Log { file, format, debug });
    Ok(())
}

/// For `--debug`.
#[track_caller]
pub(crate) fn debug(message: impl Display) {
    if LOG.get().is_some_and(|log| log.debug) {
        write(Level::Debug, &message.to_string(), Location::caller());
    }
}

/// Something was not done that the user may expect.
#[track_caller]
pub(crate) fn warn(message: impl Display) {
    write(Level::Warning, &message.to_string(), Location::caller());
}

/// The reason why the command fails: only main calls this, once, as engines take the last one.
/// With a log file the message goes to stderr as well, bare, since conmon reads it there.
#[track_caller]
pub(crate) fn error(message: impl Display) {
    let message = message.to_string();
    write(Level::Error, &message, Location::caller());
    if LOG.get().is_some_and(|log| log.file.is_some()) {
        // Nobody is left to tell when stderr fails too.
        let _ = writeln!(std::io::stderr(), "{message}");
    }
}

fn write(level: Level, message: &str, caller: &Location) {
    let stderr = Log { file: None, format: Format::Text, debug: false };
    let log = LOG.get().unwrap_or(&stderr);
    let place = log.debug.then(|| format!("{}:{}", caller.file(), caller.line()));
    let now = clock::seconds(SystemTime::now());
    let line = match log.format {
        Format::Text => text_line(level, message, &now, place.as_deref()),
        Format::Json => json_line(level, message, &now, place.as_deref()),
    };
    // One write each, so that lines of parent and child do not mix; a full disk must not
    // change what happens to the container.
    let _ = match &log.file {
        Some(file) => (&*file).write_all(line.as_bytes()),
        None => std::io::stderr().write_all(line.as_bytes()),
    };
}

fn text_line(level: Level, message: &str, now: &str, place: Option<&str>) -> String {
    let mut line = format!("time=\"{now}\" level={} msg={}", level.name(), quoted(message));
    if let Some(place) = place {
        let _ = write!(line, " file={}", quoted(place));
    }
    line.push('\n');
    line
}

/// logrus leaves a word of plain characters bare.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// containerd drops a line whose keys or time are other than these.
#[derive(Serialize)]
struct JsonLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    level: &'a str,
    msg: &'a str,
    time: &'a str,
}

fn json_line(level: Level, message: &str, now: &str, place: Option<&str>) -> String {
    let line = JsonLine { file: place, level: level.name(), msg: message, time: now };
    let mut text = serde_json::to_string(&line).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_line_is_logrus() {
        assert_eq!(
            text_line(Level::Error, "unknown signal \"X\"\n", "T", None),
            "time=\"T\" level=error msg=\"unknown signal \\\"X\\\"\\n\"\n"
        );
        assert_eq!(text_line(Level::Debug, "word", "T", None), "time=\"T\" level=debug msg=word\n");
    }

    #[test]
    fn a_json_line_has_exactly_the_three_keys() {
        assert_eq!(
            json_line(Level::Error, "no \"x\"", "T", None),
            "{\"level\":\"error\",\"msg\":\"no \\\"x\\\"\",\"time\":\"T\"}\n"
        );
    }
}
