//! When a container is started again, and after how long.

use std::time::Duration;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// Doubled after each start that was followed by an early end.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What has lived this long is thought to work.
const LONG_LIFE: Duration = Duration::from_secs(10);

/// `--restart`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Restart {
    pub(crate) when: When,
    /// At most so many times.
    pub(crate) most: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum When {
    No,
    OnFailure,
    Always,
    UnlessStopped,
}

impl Restart {
    /// `no`, `on-failure[:N]`, `always` or `unless-stopped`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (word, most) = match text.split_once(':') {
            Some((word, most)) => (word, Some(most)),
            None => (text, None),
        };
        let when = match word {
            "" | "no" => When::No,
            "on-failure" => When::OnFailure,
            "always" => When::Always,
            "unless-stopped" => When::UnlessStopped,
            _ => bail!(
                "invalid restart policy {text:?}: no, on-failure[:N], always or unless-stopped"
            ),
        };
        let most = match most.map(str::parse::<u32>) {
            None => None,
            Some(Ok(most)) if when == When::OnFailure && most > 0 => Some(most),
            Some(_) => bail!(
                "invalid restart policy {text:?}: only on-failure takes a count, of 1 or more"
            ),
        };
        Ok(Restart { when, most })
    }

    /// Whether one that has ended so, and whose end nobody asked for, is started again.
    pub(crate) fn wants(self, code: u8, restarts: u32) -> bool {
        let left = self.most.is_none_or(|most| restarts < most);
        match self.when {
            When::No => false,
            When::OnFailure => code != 0 && left,
            When::Always | When::UnlessStopped => true,
        }
    }
}

impl Restart {
    /// Whether one that has ended so, or unseen, is to run again after the host has booted.
    pub(crate) fn wants_at_boot(self, code: Option<u8>, stopped_by_hand: bool) -> bool {
        match self.when {
            When::No => false,
            When::OnFailure => !stopped_by_hand && code != Some(0),
            When::Always => true,
            When::UnlessStopped => !stopped_by_hand,
        }
    }
}

/// The pause before the next start.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    next: Duration,
}

impl BackOff {
    /// After an end that came so long after the start.
    pub(super) fn pause(&mut self, lived: Duration) -> Duration {
        if self.next.is_zero() || lived >= LONG_LIFE {
            self.next = FIRST_PAUSE;
        }
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_spelled_as_dockers() {
        let parsed = Restart::parse("on-failure:3").unwrap();
        assert_eq!(parsed, Restart { when: When::OnFailure, most: Some(3) });
        assert_eq!(Restart::parse("always").unwrap().when, When::Always);
        for text in ["sometimes", "always:3", "on-failure:0", "on-failure:x", "no:1"] {
            assert!(Restart::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn failures_are_counted_and_successes_end_it() {
        let policy = Restart::parse("on-failure:2").unwrap();
        assert!(policy.wants(1, 0) && policy.wants(137, 1));
        assert!(!policy.wants(1, 2) && !policy.wants(0, 0));
        assert!(Restart::parse("always").unwrap().wants(0, 1000));
        let at_boot = |text: &str, code| {
            let policy = Restart::parse(text).unwrap();
            [false, true].map(|by_hand| policy.wants_at_boot(code, by_hand))
        };
        assert_eq!(at_boot("always", Some(0)), [true, true]);
        assert_eq!(at_boot("unless-stopped", Some(0)), [true, false]);
        assert_eq!(at_boot("on-failure", None), [true, false]);
        assert_eq!(at_boot("on-failure", Some(0)), [false, false]);
        assert_eq!(at_boot("no", None), [false, false]);
        assert!(!Restart::parse("no").unwrap().wants(1, 0));
    }

    #[test]
    fn pauses_double_up_to_a_minute_until_one_lives_long() {
        let mut back_off = BackOff::default();
        let soon = Duration::ZERO;
        let pauses: Vec<u128> = (0..12).map(|_| back_off.pause(soon).as_millis()).collect();
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[11], 60_000);
        assert_eq!(back_off.pause(LONG_LIFE).as_millis(), 100);
    }
}
