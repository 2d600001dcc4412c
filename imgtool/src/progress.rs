//! What a transfer shows while it runs: bars on a terminal, one line per event
//! elsewhere, nothing if told so.

use std::io::{IsTerminal, Write};

use anyhow::Result;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::manifest::Descriptor;
use crate::output;

/// How a transfer is shown.
#[derive(Clone, Debug)]
pub(crate) enum Progress {
    Silent,
    Lines,
    Bars(MultiProgress),
    /// Not a word on standard output, which is the caller's.
    BarsAlone(MultiProgress),
}

/// Which way a blob goes, for the words that docker has for it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    Pull,
    Push,
    Load,
}

impl Direction {
    fn begun(self) -> &'static str {
        match self {
            Self::Pull => "Pulling fs layer",
            Self::Push => "Preparing",
            Self::Load => "Loading layer",
        }
    }

    fn moving(self) -> &'static str {
        match self {
            Self::Pull => "Downloading",
            Self::Push => "Pushing",
            Self::Load => "Loading layer",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Pull => "Pull complete",
            Self::Push => "Pushed",
            Self::Load => "Loading layer",
        }
    }
}

/// One blob of a transfer.
#[derive(Debug)]
pub(crate) struct Item {
    name: String,
    bar: Option<ProgressBar>,
    lines: bool,
    direction: Direction,
}

impl Progress {
    /// Bars if standard error is a terminal, lines otherwise.
    pub(crate) fn new(quiet: bool) -> Self {
        if quiet {
            Self::Silent
        } else if std::io::stderr().is_terminal() {
            Self::Bars(MultiProgress::with_draw_target(ProgressDrawTarget::stderr()))
        } else {
            Self::Lines
        }
    }

    /// Bars if standard error is a terminal, nothing otherwise.
    pub(crate) fn aside(quiet: bool) -> Self {
        match Self::new(quiet) {
            Self::Bars(bars) => Self::BarsAlone(bars),
            _ => Self::Silent,
        }
    }

    /// A line, unless it is to be silent.
    pub(crate) fn say(&self, text: &str) -> Result<()> {
        match self {
            Self::Silent | Self::BarsAlone(_) => Ok(()),
            Self::Lines | Self::Bars(_) => line(text),
        }
    }

    /// A blob that is not moved, and why.
    pub(crate) fn skipped(&self, blob: &Descriptor, why: &str) -> Result<()> {
        self.say(&format!("{}: {why}", blob.digest.short()))
    }

    /// A blob whose transfer begins; not every one is shown.
    pub(crate) fn begin(
        &self,
        blob: &Descriptor,
        shown: bool,
        direction: Direction,
    ) -> Result<Item> {
        self.item(blob.digest.short(), blob.size, shown, direction)
    }

    /// A member of an archive that is read. It has a bar and no lines: docker has none for it, and
    /// what it is loaded as is said at the end.
    pub(crate) fn loading(&self, name: &str, size: u64) -> Result<Item> {
        let shown = matches!(self, Self::Bars(_) | Self::BarsAlone(_));
        self.item(name, size, shown, Direction::Load)
    }

    fn item(&self, name: &str, size: u64, shown: bool, direction: Direction) -> Result<Item> {
        let bar = match self {
            Self::Bars(bars) | Self::BarsAlone(bars) if shown => {
                let style = ProgressStyle::with_template(
                    "{prefix}: {msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
                )?
                .progress_chars("=> ");
                Some(
                    bars.add(ProgressBar::new(size))
                        .with_style(style)
                        .with_prefix(name.to_owned())
                        .with_message(direction.moving()),
                )
            }
            _ => None,
        };
        let lines = shown && matches!(self, Self::Lines);
        if lines {
            line(&format!("{name}: {}", direction.begun()))?;
        }
        Ok(Item { name: name.to_owned(), bar, lines, direction })
    }
}

impl Item {
    /// How many bytes are here.
    pub(crate) fn set(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
        }
    }

    /// The blob is in the store.
    pub(crate) fn finish(self) -> Result<()> {
        if let Some(bar) = &self.bar {
            bar.finish_with_message(self.direction.done());
        }
        if self.lines {
            line(&format!("{}: {}", self.name, self.direction.done()))?;
        }
        Ok(())
    }
}

fn line(text: &str) -> Result<()> {
    Ok(writeln!(output::stdout(), "{text}")?)
}
