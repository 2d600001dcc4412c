//! What may work at a second attempt, and when to make it.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use ureq::Body;
use ureq::http::Response;

const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Why a request gave nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It may work later; not before the time that the server asked for.
    Again(anyhow::Error, Option<Duration>),
    /// It will not.
    Final(anyhow::Error),
}

impl Failure {
    pub(crate) fn into_error(self) -> anyhow::Error {
        match self {
            Self::Again(error, _) | Self::Final(error) => error,
        }
    }

    pub(crate) fn context(self, text: String) -> Self {
        match self {
            Self::Again(error, time) => Self::Again(error.context(text), time),
            Self::Final(error) => Self::Final(error.context(text)),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Final(error)
    }
}

/// How often and after what time something is tried again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Failures in a row after which it is given up.
    pub(crate) attempts: u32,
    /// The time before the second attempt; it doubles with each.
    pub(crate) delay: Duration,
    /// A server that sends nothing for this long is taken for dead.
    pub(crate) silence: Duration,
}

impl Patience {
    /// How long to wait after the n-th failure in a row: doubling, with a part
    /// that differs between processes so that they don't come back all at once.
    fn wait(&self, failures: u32, asked: Option<Duration>) -> Duration {
        let base = self.delay.saturating_mul(2_u32.pow(failures.min(7))).min(LONGEST_WAIT);
        let jitter = Duration::from_millis(u64::from(std::process::id() % 100) * 2);
        asked.unwrap_or(base) + jitter
    }
}

/// Whether an answer means "not now", and for how long.
pub(crate) fn wait_asked(response: &Response<Body>) -> Option<Option<Duration>> {
    let status = response.status().as_u16();
    if !matches!(status, 408 | 429 | 499 | 500 | 502 | 503 | 504 | 522) {
        return None;
    }
    let header = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
    Some(header.and_then(|text| retry_after(text, Timestamp::now())))
}

/// A number of seconds or a date, as `Retry-After` has them.
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
            Duration::from_secs(u64::try_from(date.as_second() - now.as_second()).unwrap_or(0))
        }
    };
    Some(wait.min(LONGEST_WAIT))
}

/// Ends the waits of all threads of a transfer once one has failed.
#[derive(Debug, Default)]
pub(crate) struct Cancel {
    cancelled: Mutex<bool>,
    changed: Condvar,
}

impl Cancel {
    pub(crate) fn cancel(&self) {
        *self.cancelled.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        *self.cancelled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits before another attempt; true if there is to be none.
    fn wait(&self, time: Duration) -> bool {
        let guard = self.cancelled.lock().unwrap_or_else(PoisonError::into_inner);
        let (guard, _) = self
            .changed
            .wait_timeout_while(guard, time, |cancelled| !*cancelled)
            .unwrap_or_else(PoisonError::into_inner);
        *guard
    }

    /// Waits before another attempt, or gives the error back when there is to be none. Says
    /// whether the failure might have passed had we had more patience.
    pub(crate) fn pause(
        &self,
        failure: Failure,
        failures: &mut u32,
        patience: Patience,
    ) -> Result<(), (anyhow::Error, bool)> {
        match failure {
            Failure::Again(error, asked) => {
                *failures += 1;
                if *failures >= patience.attempts {
                    return Err((error, true));
                }
                if self.wait(patience.wait(*failures, asked)) {
                    return Err((error, false));
                }
                Ok(())
            }
            Failure::Final(error) => Err((error, false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_when_in_two_ways() {
        let now: Timestamp = "2015-10-21T07:28:00Z".parse().unwrap();
        let wait = |text| retry_after(text, now);
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("Wed, 21 Oct 2015 07:28:20 GMT"), Some(Duration::from_secs(20)));
        assert_eq!(wait("Wed, 21 Oct 2015 07:27:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("99999999999"), Some(LONGEST_WAIT));
        assert_eq!(wait("soon"), None);
        assert_eq!(wait("-1"), None);
    }

    #[test]
    fn waits_double_and_end() {
        let patience = Patience {
            attempts: 3,
            delay: Duration::from_millis(100),
            silence: Duration::from_secs(60),
        };
        assert!(patience.wait(1, None) < patience.wait(2, None));
        assert!(patience.wait(60, None) <= LONGEST_WAIT + Duration::from_millis(200));
        assert!(patience.wait(1, Some(Duration::from_secs(9))) >= Duration::from_secs(9));
    }
}
