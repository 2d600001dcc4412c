//! What a build shows while it runs.

mod screen;

use std::io::{IsTerminal, Write, stderr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use base64::Engine as _;
use jiff::Timestamp;
use serde_json::{Value, json};

use self::screen::Screen;
use crate::digest::Digest;
use crate::error::printable;
use crate::output;

/// How a build is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// BuildKit's numbered lines, on standard error.
    Plain,
    /// A view of all steps that is drawn anew while they run, on a terminal at standard error.
    Screen,
    /// Nothing.
    Quiet,
    /// The lines of Docker's classic builder, on standard output.
    Legacy,
    /// BuildKit's records, a line of JSON each, on standard error.
    Json,
}

impl Style {
    /// What `--progress` or `BUILDKIT_PROGRESS` asks for.
    pub(crate) fn parse(word: &str) -> Result<Self> {
        Ok(match word {
            "" | "auto" if on_terminal() => Self::Screen,
            "" | "auto" | "plain" => Self::Plain,
            "tty" => {
                ensure!(
                    stderr().is_terminal(),
                    "tty needs a terminal at standard error: use auto or plain"
                );
                Self::Screen
            }
            "quiet" => Self::Quiet,
            "legacy" => Self::Legacy,
            "rawjson" => Self::Json,
            other => bail!("{other:?} is not one of auto, tty, plain, quiet, rawjson, legacy"),
        })
    }
}

/// Whether lines can be drawn over.
fn on_terminal() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|name| name.is_empty() || name == "dumb");
    stderr().is_terminal() && !is_dumb
}

/// Shows a build.
pub(crate) struct Reporter {
    pub(crate) style: Style,
    /// Where the style is that.
    screen: Option<Screen>,
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
    ended: AtomicBool,
}

/// What ends without a word was left by an error.
impl Drop for Step<'_> {
    fn drop(&mut self) {
        if let (Some(screen), false) = (self.screen(), self.ended.load(Ordering::Relaxed)) {
            screen.failed(self.number);
        }
    }
}

impl Reporter {
    pub(crate) fn new(style: Style, total: usize) -> Self {
        Self {
            style,
            screen: (style == Style::Screen).then(Screen::new),
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
        let number = match &self.screen {
            Some(screen) if is_work => screen.begin(name.clone()),
            _ => number,
        };
        let step = Step {
            reporter: self,
            number,
            begun: Instant::now(),
            name,
            is_work,
            ended: AtomicBool::new(false),
        };
        step.record(json!({"started": now()}));
        Ok(step)
    }

    /// A line beside the steps.
    pub(crate) fn note(&self, text: &str) {
        if let Some(screen) = &self.screen {
            screen.note(&printable(text));
        } else if self.style == Style::Json {
            self.error(&json!({"warnings": [{"short": text}]}).to_string());
        } else if self.style != Style::Quiet {
            self.error(&printable(text));
        }
    }

    /// Has the running steps' times drawn anew while `work` is done, by a thread beside it.
    pub(crate) fn while_shown<T>(&self, work: impl FnOnce() -> T) -> T {
        let Some(screen) = &self.screen else { return work() };
        screen.start();
        thread::scope(|scope| {
            // Where no thread can be started, there are no times between two events.
            if thread::Builder::new().spawn_scoped(scope, || screen.tick()).is_err() {
                screen.stop();
            }
            let done = work();
            screen.stop();
            done
        })
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

impl Drop for Reporter {
    fn drop(&mut self) {
        if let Some(screen) = &self.screen {
            screen.finish();
        }
    }
}

impl Step<'_> {
    /// The view, for a step that has a line there.
    fn screen(&self) -> Option<&Screen> {
        self.reporter.screen.as_ref().filter(|_| self.is_work)
    }

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
        if let Some(screen) = self.screen() {
            screen.cached(self.number);
        }
        self.ended.store(true, Ordering::Relaxed);
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
        if let Some(screen) = self.screen() {
            screen.done(self.number);
        }
        self.ended.store(true, Ordering::Relaxed);
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
        if let Some(screen) = self.screen() {
            screen.failed(self.number);
        }
        self.ended.store(true, Ordering::Relaxed);
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
            Style::Screen => {
                if let Some(screen) = self.screen() {
                    screen.output(self.number, bytes);
                }
            }
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
