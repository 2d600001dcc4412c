//! Whether a supervised container is healthy: the check that its bundle asks for, and what the last
//! checks came to, in `health.json` beside the record.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{Records, Supervised};
use crate::error::{self, Sentinel};
use crate::state;

/// By which imgtool passes on what the image or the user wants checked.
const ANNOTATION: &str = "org.imgtool.healthcheck";
const FILE: &str = "health.json";
const TEMPORARY: &str = ".health.json.tmp";
/// Checks that are remembered, as docker does.
const MOST_OUTCOMES: usize = 5;
/// A shorter pause would be a busy loop.
const SHORTEST: Duration = Duration::from_millis(1);

/// A program to run in the container again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Check {
    pub(crate) args: Vec<String>,
    #[serde(rename = "interval")]
    interval_ns: u64,
    #[serde(rename = "timeout")]
    timeout_ns: u64,
    #[serde(default, rename = "startPeriod")]
    start_period_ns: u64,
    /// From one check to the next while the container starts; 0 for the usual time.
    #[serde(default, rename = "startInterval")]
    start_interval_ns: u64,
    /// Failures in a row that make the container unhealthy.
    retries: u32,
}

impl Supervised {
    /// Whether its bundle asks for a check.
    pub(crate) fn is_checked(&self) -> bool {
        self.annotations.contains_key(ANNOTATION)
    }
}

impl Check {
    /// The one that the annotations ask for.
    pub(crate) fn wanted(annotations: &BTreeMap<String, String>) -> Result<Option<Self>> {
        let Some(text) = annotations.get(ANNOTATION) else { return Ok(None) };
        let check: Check =
            serde_json::from_str(text).with_context(|| format!("annotation {ANNOTATION}"))?;
        if check.args.is_empty() || check.retries == 0 {
            bail!("annotation {ANNOTATION}: args and retries must not be empty");
        }
        let start = check.start_interval(Duration::ZERO);
        if check.interval().min(check.timeout()).min(start) < SHORTEST {
            bail!("annotation {ANNOTATION}: interval and timeout are at least a millisecond");
        }
        Ok(Some(check))
    }

    /// From the end of one check to the next.
    pub(crate) fn interval(&self) -> Duration {
        Duration::from_nanos(self.interval_ns)
    }

    /// The same of one that has started so long ago, and was not seen healthy yet.
    pub(crate) fn start_interval(&self, age: Duration) -> Duration {
        let starts = age < Duration::from_nanos(self.start_period_ns);
        if starts && self.start_interval_ns > 0 {
            Duration::from_nanos(self.start_interval_ns)
        } else {
            self.interval()
        }
    }

    /// What takes longer has failed.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_nanos(self.timeout_ns)
    }
}

/// What is said of a container's health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Word {
    #[default]
    Starting,
    Healthy,
    Unhealthy,
}

impl Word {
    /// `starting`, `healthy` or `unhealthy`.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Word::Starting => "starting",
            Word::Healthy => "healthy",
            Word::Unhealthy => "unhealthy",
        }
    }

    /// Behind `Up 3 minutes`, in docker's words.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Word::Starting => " (health: starting)",
            Word::Healthy => " (healthy)",
            Word::Unhealthy => " (unhealthy)",
        }
    }
}

/// `health.json`. Other tools may read it: keys stay, new ones may come.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Health {
    pub(crate) status: Word,
    /// Failures since the last success.
    failing_streak: u32,
    /// The last checks, the newest last.
    log: Vec<Outcome>,
}

/// What one check came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) start: String,
    pub(crate) end: String,
    /// -1 where it was ended, or could not begin.
    pub(crate) exit_code: i32,
    pub(crate) output: String,
}

impl Health {
    /// Takes in what the check came to that began so long after the container.
    fn note(&mut self, check: &Check, outcome: Outcome, age: Duration) {
        let good = outcome.exit_code == 0;
        self.log.push(outcome);
        self.log.drain(..self.log.len().saturating_sub(MOST_OUTCOMES));
        if good {
            (self.status, self.failing_streak) = (Word::Healthy, 0);
            return;
        }
        let excused =
            self.status == Word::Starting && age < Duration::from_nanos(check.start_period_ns);
        if excused {
            return;
        }
        self.failing_streak = self.failing_streak.saturating_add(1);
        if self.failing_streak >= check.retries {
            self.status = Word::Unhealthy;
        }
    }
}

impl Records {
    /// What is known of the health of a container that is checked.
    pub(crate) fn health(&self, id: &str) -> Result<Option<Health>> {
        match state::read(&self.directory(id)?.join(FILE)) {
            Ok(health) => Ok(Some(health)),
            Err(error) if error::is(&error, Sentinel::NotExist) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A container that is checked has just been started.
    pub(crate) fn begin_health(&self, id: &str) -> Result<()> {
        self.save_health(id, &Health::default())
    }

    /// Adds an outcome; what is said of the container then.
    pub(crate) fn note_health(
        &self,
        id: &str,
        check: &Check,
        outcome: Outcome,
        age: Duration,
    ) -> Result<Word> {
        let mut health = self.health(id)?.unwrap_or_default();
        health.note(check, outcome, age);
        self.save_health(id, &health)?;
        Ok(health.status)
    }

    fn save_health(&self, id: &str, health: &Health) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(health).context("write the health")?;
        state::replace(&self.directory(id)?, TEMPORARY, FILE, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> Check {
        let second = 1_000_000_000;
        let args = vec!["true".to_owned()];
        Check {
            args,
            interval_ns: second,
            timeout_ns: second,
            start_period_ns: 5 * second,
            start_interval_ns: second / 2,
            retries: 2,
        }
    }

    fn after(health: &mut Health, code: i32, seconds: u64) -> Word {
        let outcome = Outcome {
            start: String::new(),
            end: String::new(),
            exit_code: code,
            output: String::new(),
        };
        health.note(&check(), outcome, Duration::from_secs(seconds));
        health.status
    }

    #[test]
    fn failures_count_after_the_start_or_the_first_success() {
        let mut health = Health::default();
        for second in 0..4 {
            assert_eq!(after(&mut health, 1, second), Word::Starting);
        }
        assert_eq!(after(&mut health, 1, 6), Word::Starting);
        assert_eq!(after(&mut health, -1, 7), Word::Unhealthy);
        assert_eq!(after(&mut health, 0, 8), Word::Healthy);
        assert_eq!(health.log.len(), MOST_OUTCOMES);

        let mut early = Health::default();
        assert_eq!(after(&mut early, 0, 1), Word::Healthy);
        assert_eq!(after(&mut early, 1, 2), Word::Healthy);
        assert_eq!(after(&mut early, 1, 3), Word::Unhealthy, "the start is over");
    }

    #[test]
    fn one_that_starts_is_looked_at_more_often() {
        let check = check();
        assert_eq!(check.start_interval(Duration::from_secs(4)), Duration::from_millis(500));
        assert_eq!(check.start_interval(Duration::from_secs(5)), check.interval());
    }

    #[test]
    fn an_annotation_that_makes_no_sense_is_refused() {
        let wanted = |text: &str| {
            let annotations = [(ANNOTATION.to_owned(), text.to_owned())];
            Check::wanted(&annotations.into_iter().collect())
        };
        let good = r#"{"args":["x"],"interval":1000000,"timeout":1000000,"retries":1}"#;
        assert_eq!(wanted(good).unwrap().unwrap().interval(), SHORTEST);
        assert!(Check::wanted(&BTreeMap::new()).unwrap().is_none());
        for bad in [
            "",
            "{}",
            r#"{"args":[],"interval":1000000,"timeout":1000000,"retries":1}"#,
            r#"{"args":["x"],"interval":0,"timeout":1000000,"retries":1}"#,
            r#"{"args":["x"],"interval":1000000,"timeout":1000000,"retries":0}"#,
        ] {
            let error = format!("{:#}", wanted(bad).unwrap_err());
            assert!(error.contains(ANNOTATION), "{error}");
        }
    }
}
