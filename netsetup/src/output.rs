//! What goes to standard output, and the one line that says why a command failed.

use std::io::{self, Write};

use anyhow::{Context, Result};
use serde::Serialize;

/// The name that this program is called by: links to it are the plugins of others.
pub(crate) fn called_name() -> Option<String> {
    let path = std::env::args_os().next()?;
    Some(std::path::Path::new(&path).file_name()?.to_string_lossy().into_owned())
}

/// Prints a text. A reader that went away has seen enough.
pub(crate) fn text(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("write to standard output")
        }
        _ => Ok(()),
    }
}

/// Prints the reason of a failure as one line, with what could drive a terminal escaped.
pub(crate) fn error(text: &str) {
    let plain: String = text
        .chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = (!c.is_control()).then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect();
    // Nobody is left to tell if this fails too.
    let _ = writeln!(io::stderr(), "netsetup: {plain}");
}

/// Prints a line on standard error for whoever follows what is done.
pub(crate) fn log_line(text: &str) {
    // Nobody is left to tell if this fails.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints one line for each.
pub(crate) fn lines(lines: impl IntoIterator<Item = String>) -> Result<()> {
    text(&lines.into_iter().map(|line| line + "\n").collect::<String>())
}

/// Prints a value as JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<()> {
    let mut encoded = serde_json::to_string_pretty(value).context("encode JSON")?;
    encoded.push('\n');
    text(&encoded)
}

/// Prints rows under a header, in columns as wide as they need.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> Result<()> {
    let mut widths = header.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let line = |cells: [&str; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("   ").trim_end().to_owned()
    };
    let body = rows.iter().map(|row| line(row.each_ref().map(String::as_str)));
    lines(std::iter::once(line(header)).chain(body.collect::<Vec<_>>()))
}
