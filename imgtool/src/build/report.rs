//! What a build shows while it runs.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Result;
use base64::Engine as _;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::digest::Digest;
use crate::error::printable;
use crate::output;

/// How a build is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// BuildKit's numbered lines, on standard error.
    Plain,
    /// Nothing.
    Quiet,
    /// The lines of Docker's classic builder, on standard output.
    Legacy,
    /// BuildKit's records, a line of JSON each, on standard error.
    Json,
}

/// Shows a build.
pub(crate) struct Reporter {
    pub(crate) style: Style,
    number: AtomicUsize,
    /// All steps there are, for `Step 1/5`.
    total: usize,
    steps: AtomicUsize,
    /// One line at a time.
    turn: Mutex<()>,
}

/// A step that is under way.
pub(crate) struct Step<'a> {
    reporter: &'a Reporter,
    number: usize,
    begun: Instant,
    name: String,
    /// Whether it is work, and not only a setting.
    is_work: bool,
}

impl Reporter {
    pub(crate) fn new(style: Style, total: usize) -> Self {
        Self {
            style,
            number: AtomicUsize::new(0),
            total,
            steps: AtomicUsize::new(0),
            turn: Mutex::new(()),
        }
    }

    /// Something begins. `place` is its stage and position there; settings have none.
    pub(crate) fn begin(&self, place: Option<&str>, text: &str) -> Result<Step<'_>> {
        let is_work = place.is_some();
        let number = match is_work {
            true => self.number.fetch_add(1, Ordering::Relaxed) + 1,
            false => 0,
        };
        let text = printable(&one_line(text));
        match (self.style, place) {
            (Style::Plain, Some(place)) => self.error(&format!("#{number} [{place}] {text}")),
            (Style::Legacy, _) => {
                let step = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
                self.out(format!("Step {step}/{} : {text}\n", self.total.max(step)).as_bytes())?;
            }
            _ => {}
        }
        let name = place.map_or_else(|| text.clone(), |place| format!("[{place}] {text}"));
        let step = Step { reporter: self, number, begun: Instant::now(), name, is_work };
        step.record(json!({"started": now()}));
        Ok(step)
    }

    /// A line beside the steps.
    pub(crate) fn note(&self, text: &str) {
        if self.style == Style::Json {
            self.error(&json!({"warnings": [{"short": text}]}).to_string());
        } else if self.style != Style::Quiet {
            self.error(&printable(text));
        }
    }

    fn error(&self, line: &str) {
        let _turn = self.turn.lock();
        // Nobody is left to tell if this fails.
        let _ = writeln!(std::io::stderr(), "{line}");
    }

    fn out(&self, bytes: &[u8]) -> Result<()> {
        let _turn = self.turn.lock();
        let mut stdout = output::stdout();
        stdout.write_all(bytes)?;
        stdout.flush()?;
        Ok(())
    }
}

impl Step<'_> {
    /// Tells of the step as BuildKit does.
    fn record(&self, mut vertex: Value) {
        if self.reporter.style == Style::Json && self.is_work {
            vertex["digest"] = json!(self.digest());
            vertex["name"] = json!(self.name);
            self.reporter.error(&json!({"vertexes": [vertex]}).to_string());
        }
    }

    fn digest(&self) -> String {
        Digest::of(format!("{} {}", self.number, self.name).as_bytes()).to_string()
    }

    /// What was made before is taken.
    pub(crate) fn cached(&self, id: &str) -> Result<()> {
        self.record(json!({"completed": now(), "cached": true}));
        match self.reporter.style {
            Style::Plain if self.is_work => {
                self.reporter.error(&format!("#{} CACHED\n", self.number));
                Ok(())
            }
            Style::Legacy => {
                self.reporter.out(format!(" ---> Using cache\n ---> {id}\n").as_bytes())
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn done(&self, id: &str) -> Result<()> {
        self.record(json!({"completed": now()}));
        match self.reporter.style {
            Style::Plain if self.is_work => {
                let seconds = self.begun.elapsed().as_secs_f64();
                self.reporter.error(&format!("#{} DONE {seconds:.1}s\n", self.number));
                Ok(())
            }
            Style::Legacy => self.reporter.out(format!(" ---> {id}\n").as_bytes()),
            _ => Ok(()),
        }
    }

    pub(crate) fn failed(&self, error: &anyhow::Error) {
        self.record(json!({"completed": now(), "error": format!("{error:#}")}));
        if self.reporter.style == Style::Plain && self.is_work {
            let text = printable(&format!("{error:#}"));
            self.reporter.error(&format!("#{} ERROR: {text}", self.number));
        }
    }

    /// A container begins to run the step.
    pub(crate) fn running(&self, id: &str) -> Result<()> {
        match self.reporter.style {
            Style::Legacy => self.reporter.out(format!(" ---> Running in {id}\n").as_bytes()),
            _ => Ok(()),
        }
    }

    /// A line about the step that is no output of its command's.
    pub(crate) fn note(&self, text: &str) {
        self.reporter.note(text);
    }

    /// A piece of what a command wrote: whole lines, the last perhaps without its end.
    pub(crate) fn output(&self, bytes: &[u8]) {
        match self.reporter.style {
            Style::Quiet => {}
            Style::Json => {
                let data = base64::engine::general_purpose::STANDARD.encode(bytes);
                let log = json!({
                    "vertex": self.digest(), "stream": 1, "data": data, "timestamp": now(),
                });
                self.reporter.error(&json!({"logs": [log]}).to_string());
            }
            // The classic builder gives on what comes.
            Style::Legacy => drop(self.reporter.out(bytes)),
            Style::Plain => {
                let seconds = self.begun.elapsed().as_secs_f64();
                for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                    let text = String::from_utf8_lossy(line);
                    let text = text.trim_end_matches(['\n', '\r']);
                    self.reporter.error(&format!("#{} {seconds:.3} {text}", self.number));
                }
            }
        }
    }
}

fn now() -> String {
    Timestamp::now().to_string()
}

/// The first line, with a mark if there are more.
fn one_line(text: &str) -> String {
    match text.split_once('\n') {
        Some((first, _)) => format!("{first} ..."),
        None => text.to_owned(),
    }
}
