//! The user's terminal: raw while the container's is in front of it, its size copied over.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::termios::{
    OptionalActions, OutputModes, Termios, Winsize, isatty, tcgetattr, tcgetwinsize, tcsetattr,
    tcsetwinsize,
};

/// Undone when dropped, so that no way out leaves the terminal raw.
pub(crate) struct RawMode(Termios);

impl RawMode {
    /// `None` when stdin is no terminal.
    pub(crate) fn enter() -> Result<Option<Self>> {
        let stdin = std::io::stdin();
        if !isatty(&stdin) {
            return Ok(None);
        }
        let before = tcgetattr(&stdin).context("tcgetattr")?;
        let mut raw = before.clone();
        raw.make_raw();
        // The container's terminal leaves newlines as they are: to make two characters of them is
        // up to the last one on the way.
        raw.output_modes.insert(OutputModes::OPOST);
        tcsetattr(&stdin, OptionalActions::Now, &raw).context("tcsetattr")?;
        Ok(Some(RawMode(before)))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that has gone away needs no restoring.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Gives the container's terminal the size of ours, whichever of our three it is.
pub(crate) fn copy_size(master: &OwnedFd) -> Result<()> {
    let Some(size) = size()? else { return Ok(()) };
    tcsetwinsize(master, size).context("set the terminal's size")
}

/// Rows and columns of our terminal, if we have one.
pub(crate) fn own_size() -> Result<Option<(u16, u16)>> {
    Ok(size()?.map(|size| (size.ws_row, size.ws_col)))
}

fn size() -> Result<Option<Winsize>> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let ours = [stderr.as_fd(), stdout.as_fd(), stdin.as_fd()];
    let Some(terminal) = ours.into_iter().find(|fd| isatty(fd)) else { return Ok(None) };
    tcgetwinsize(terminal).context("read the terminal's size").map(Some)
}
