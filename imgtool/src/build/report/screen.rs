//! The live view of a build on a terminal: a line for each step with its time, and beneath those
//! that run the last lines that they wrote. It is drawn over itself until all is done.

use std::collections::VecDeque;
use std::io::{Write as _, stderr};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often running times are drawn anew.
const TICK: Duration = Duration::from_millis(100);
/// Lines of its command that a running step shows.
const TAIL: usize = 6;
/// Lines that are kept, to be shown if the step fails.
const KEPT: usize = 1000;
/// What a terminal has that does not tell its size.
const SIZE: (usize, usize) = (24, 80);
/// Columns for the time at the end of a line.
const TIME_WIDTH: usize = 8;

/// The view.
pub(super) struct Screen {
    inner: Mutex<Inner>,
    /// Told when there is nothing left to tick for.
    closed: Condvar,
    colours: bool,
}

struct Inner {
    begun: Instant,
    steps: Vec<Shown>,
    /// How many lines of the terminal are ours to draw over.
    drawn: usize,
    /// Whether a thread draws, so that changes need not.
    ticks: bool,
}

struct Shown {
    name: String,
    begun: Instant,
    state: State,
    /// The last lines of its command, and whether there were more.
    lines: VecDeque<String>,
    cut: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Runs,
    Done(Duration),
    Cached,
    Failed(Duration),
}

impl Screen {
    pub(super) fn new() -> Self {
        let inner = Inner { begun: Instant::now(), steps: Vec::new(), drawn: 0, ticks: false };
        let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { inner: Mutex::new(inner), closed: Condvar::new(), colours }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws until [`Screen::stop`]; for a thread of its own.
    pub(super) fn tick(&self) {
        let mut inner = self.lock();
        while inner.ticks {
            self.draw(&mut inner, None);
            inner = self
                .closed
                .wait_timeout(inner, TICK)
                .map_or_else(|poison| poison.into_inner().0, |(inner, _)| inner);
        }
    }

    /// Before the thread that ticks is started.
    pub(super) fn start(&self) {
        self.lock().ticks = true;
    }

    pub(super) fn stop(&self) {
        self.lock().ticks = false;
        self.closed.notify_all();
    }

    /// A step begins; gives its number.
    pub(super) fn begin(&self, name: String) -> usize {
        let mut inner = self.lock();
        inner.steps.push(Shown {
            name,
            begun: Instant::now(),
            state: State::Runs,
            lines: VecDeque::new(),
            cut: false,
        });
        let number = inner.steps.len() - 1;
        self.changed(&mut inner);
        number
    }

    pub(super) fn cached(&self, number: usize) {
        self.end(number, |_| State::Cached);
    }

    pub(super) fn done(&self, number: usize) {
        self.end(number, State::Done);
    }

    pub(super) fn failed(&self, number: usize) {
        self.end(number, State::Failed);
    }

    fn end(&self, number: usize, state: impl Fn(Duration) -> State) {
        let mut inner = self.lock();
        if let Some(step) = inner.steps.get_mut(number) {
            step.state = state(step.begun.elapsed());
            if !matches!(step.state, State::Failed(_)) {
                step.lines.clear();
            }
        }
        self.changed(&mut inner);
    }

    /// Whole lines of a step's command.
    pub(super) fn output(&self, number: usize, bytes: &[u8]) {
        let mut inner = self.lock();
        if let Some(step) = inner.steps.get_mut(number) {
            for line in String::from_utf8_lossy(bytes).lines() {
                step.lines.push_back(visible(line));
                if step.lines.len() > KEPT {
                    step.lines.pop_front();
                    step.cut = true;
                }
            }
        }
        self.changed(&mut inner);
    }

    /// A line that stays, above the view.
    pub(super) fn note(&self, text: &str) {
        self.draw(&mut self.lock(), Some(text));
    }

    fn changed(&self, inner: &mut Inner) {
        if !inner.ticks {
            self.draw(inner, None);
        }
    }

    /// The last view stays, with all steps, and what failed with all that it wrote.
    pub(super) fn finish(&self) {
        let mut inner = self.lock();
        let lines = inner.lines(None, self.colours);
        inner.replace(&lines);
        inner.drawn = 0;
        let mut failure = Vec::new();
        for step in inner.steps.iter().filter(|step| matches!(step.state, State::Failed(_))) {
            if step.lines.is_empty() {
                continue;
            }
            failure.push("------".to_owned());
            failure.push(format!(" > {}:", step.name));
            failure.extend(step.cut.then(|| format!("(the last {KEPT} lines)")));
            failure.extend(step.lines.iter().cloned());
            failure.push("------".to_owned());
        }
        inner.steps.clear();
        inner.replace(&failure);
        inner.drawn = 0;
    }

    fn draw(&self, inner: &mut Inner, above: Option<&str>) {
        let lines = inner.lines(Some(terminal()), self.colours);
        if let Some(text) = above {
            inner.replace(&[text.to_owned()]);
            inner.drawn = 0;
        }
        inner.replace(&lines);
    }
}

impl Inner {
    /// What is to be seen; on a terminal of some size, what fits there.
    fn lines(&self, size: Option<(usize, usize)>, colours: bool) -> Vec<String> {
        if self.steps.is_empty() {
            return Vec::new();
        }
        let (rows, columns) = size.unwrap_or((usize::MAX, terminal().1));
        let ended = self.steps.iter().filter(|step| step.state != State::Runs).count();
        let counts = format!("({ended}/{})", self.steps.len());
        let finished = if size.is_none() && ended == self.steps.len() { " FINISHED" } else { "" };
        let head = format!("[+] Building {} {counts}{finished}", seconds(self.begun.elapsed()));
        let mut lines: Vec<String> = Vec::new();
        for step in &self.steps {
            lines.push(step.line(columns, colours));
            if step.state == State::Runs && size.is_some() {
                let skipped = step.lines.len().saturating_sub(TAIL);
                let tail = step.lines.iter().skip(skipped);
                lines.extend(tail.map(|line| cut(&format!(" => => # {line}"), columns)));
            }
        }
        // The oldest steps make room; one row is for the cursor.
        let room = rows.saturating_sub(2).max(1);
        let surplus = lines.len().saturating_sub(room);
        lines.drain(..surplus);
        lines.insert(0, cut(&head, columns));
        lines
    }

    /// Puts lines where those that were drawn last are.
    fn replace(&mut self, lines: &[String]) {
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\u{1b}[{}A\r", self.drawn));
        }
        let clear = if self.drawn > 0 { "\u{1b}[K" } else { "" };
        for line in lines {
            text.push_str(&format!("{clear}{line}\n"));
        }
        if self.drawn > lines.len() {
            text.push_str("\u{1b}[J");
        }
        self.drawn = lines.len();
        // Nobody is left to tell if this fails.
        let _ = stderr().write_all(text.as_bytes());
    }
}

impl Shown {
    fn line(&self, columns: usize, colours: bool) -> String {
        let (word, time, colour) = match self.state {
            State::Runs => ("", self.begun.elapsed(), ""),
            State::Done(time) => ("", time, "34"),
            State::Cached => ("CACHED ", Duration::ZERO, "34"),
            State::Failed(time) => ("ERROR ", time, "31"),
        };
        let width = columns.saturating_sub(TIME_WIDTH + 1);
        let name = cut(&format!(" => {word}{}", self.name), width);
        let line = format!("{name:width$}{:>TIME_WIDTH$}", seconds(time));
        match colours && !colour.is_empty() {
            true => format!("\u{1b}[{colour}m{line}\u{1b}[0m"),
            false => line,
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1}s", time.as_secs_f64())
}

/// So much that it never takes two rows.
fn cut(text: &str, columns: usize) -> String {
    text.chars().take(columns.saturating_sub(1)).collect()
}

/// A line as it would stand after its last return, without what drives a terminal.
fn visible(line: &str) -> String {
    let last = line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
    let mut text = String::new();
    let mut letters = last.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\u{1b}' => match letters.next() {
                Some('[') => drop(letters.find(|c| ('@'..='~').contains(c))),
                Some(']') => drop(letters.find(|c| *c == '\u{7}' || *c == '\\')),
                _ => {}
            },
            '\t' => text.push_str("    "),
            letter if letter.is_control() => {}
            letter => text.push(letter),
        }
    }
    crate::error::printable(&text)
}

/// Rows and columns of the terminal.
fn terminal() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(stderr());
    size.ok()
        .filter(|size| size.ws_row > 0 && size.ws_col > 0)
        .map_or(SIZE, |size| (size.ws_row.into(), size.ws_col.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inner(states: &[State]) -> Inner {
        let step = |state: &State| Shown {
            name: format!("step {state:?}"),
            begun: Instant::now(),
            state: *state,
            lines: (1..10).map(|number| format!("line {number}")).collect(),
            cut: false,
        };
        let steps = states.iter().map(step).collect();
        Inner { begun: Instant::now(), steps, drawn: 0, ticks: false }
    }

    #[test]
    fn a_view_fits_the_terminal() {
        let states = [State::Done(Duration::from_secs(3)), State::Cached, State::Runs];
        let lines = inner(&states).lines(Some((24, 40)), false);
        assert_eq!(lines[0], "[+] Building 0.0s (2/3)");
        assert_eq!(lines[1], format!("{:31}{:>8}", " => step Done(3s)", "3.0s"));
        assert!(lines[2].starts_with(" => CACHED step Cached "), "{lines:?}");
        assert_eq!(lines[4], " => => # line 4");
        assert_eq!(lines.len(), 10);
        assert!(lines.iter().all(|line| line.chars().count() <= 40));
        let lines = inner(&states).lines(Some((5, 12)), false);
        assert_eq!(lines.len(), 4, "a row is left for the cursor");
        assert!(lines[3].starts_with(" => => # li"));
        // The last view has every step and no output.
        assert_eq!(inner(&states).lines(None, false).len(), 4);
        assert!(inner(&[]).lines(None, false).is_empty());
    }

    #[test]
    fn what_commands_write_does_not_drive_the_terminal() {
        assert_eq!(visible("10%\r55%\r100%\r"), "100%");
        assert_eq!(visible("\u{1b}[1;31mred\u{1b}[0m\u{1b}[2J!"), "red!");
        assert_eq!(visible("\u{1b}]0;title\u{7}a\tb\u{8}"), "a    b");
        assert_eq!(visible("\u{1b}["), "");
    }
}
