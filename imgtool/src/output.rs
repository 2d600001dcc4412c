//! Standard output, told apart from all else that can fail, and lines for the user on standard
//! error.

use std::fmt;
use std::io::{self, IsTerminal, StdoutLock, Write};

use crate::error::printable;

/// Standard output. Its errors say so, and [`reader_is_gone`] knows them.
pub(crate) struct Output(StdoutLock<'static>);

/// Takes standard output.
pub(crate) fn stdout() -> Output {
    Output(io::stdout().lock())
}

impl Output {
    pub(crate) fn is_terminal(&self) -> bool {
        self.0.is_terminal()
    }
}

impl Write for Output {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.write(buffer).map_err(unwritten)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(unwritten)
    }
}

#[derive(Debug)]
struct Unwritten(io::Error);

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "write to standard output: {}", self.0)
    }
}

impl std::error::Error for Unwritten {}

fn unwritten(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), Unwritten(error))
}

/// Whether the reader of our output went away, which needs no words. A server or a program that
/// went away does.
pub(crate) fn reader_is_gone(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|error| {
        error.kind() == io::ErrorKind::BrokenPipe
            && error.get_ref().and_then(|inner| inner.downcast_ref::<Unwritten>()).is_some()
    })
}

/// A line for the user beside the output: why a command fails, or what it did not do.
pub(crate) fn say(text: &str) {
    // Nobody is left to tell if this fails too.
    let _ = writeln!(io::stderr(), "imgtool: {}", printable(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_reader_goes_away_without_a_word() {
        let pipe = || io::Error::from(io::ErrorKind::BrokenPipe);
        let ours = anyhow::Error::new(unwritten(pipe())).context("write archive");
        assert!(reader_is_gone(&ours));
        assert!(!reader_is_gone(&anyhow::Error::new(pipe()).context("GET http://registry")));
        let full = anyhow::Error::new(unwritten(io::ErrorKind::StorageFull.into()));
        assert!(!reader_is_gone(&full));
        assert!(full.to_string().starts_with("write to standard output: "));
    }
}
