//! `--filter`: filters of one kind are alternatives if they are patterns, and
//! all must hold otherwise, as docker has it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;

use super::{Row, matches_name};
use crate::store::Store;

/// What of the images is shown.
#[derive(Debug, Default)]
pub(super) struct Filters {
    dangling: Option<bool>,
    labels: Vec<(String, Option<String>)>,
    without_labels: Vec<(String, Option<String>)>,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    patterns: Vec<String>,
    ids: Vec<String>,
}

impl Filters {
    pub(super) fn parse(store: &Store, texts: &[String]) -> Result<Self> {
        let mut filters = Self::default();
        for text in texts {
            filters.add(store, text).with_context(|| format!("invalid filter {text:?}"))?;
        }
        Ok(filters)
    }

    fn add(&mut self, store: &Store, text: &str) -> Result<()> {
        let (kind, value) = text.split_once('=').context("it is not of the form KIND=VALUE")?;
        let label = || match value.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (value.to_owned(), None),
        };
        let created = || -> Result<Option<Timestamp>> { Ok(store.resolve(value)?.created()) };
        match kind {
            "dangling" => {
                self.dangling = Some(match value {
                    "true" | "1" => true,
                    "false" | "0" => false,
                    _ => bail!("dangling is true or false"),
                });
            }
            "label" => self.labels.push(label()),
            "label!" => self.without_labels.push(label()),
            "before" => self.before = earliest(self.before, created()?),
            "until" => self.before = earliest(self.before, Some(time(value, Timestamp::now())?)),
            "since" => self.since = self.since.max(created()?),
            "reference" => self.patterns.push(value.to_owned()),
            "id" => {
                self.ids.push(value.strip_prefix("sha256:").unwrap_or(value).to_ascii_lowercase());
            }
            _ => bail!("there are dangling, label, label!, before, since, until, reference and id"),
        }
        Ok(())
    }

    pub(super) fn keep(&self, row: &Row) -> bool {
        let has = |(key, value): &(String, Option<String>)| {
            row.labels
                .get(key)
                .is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        };
        let named =
            |pattern: &String| row.name.as_ref().is_some_and(|name| matches_name(pattern, name));
        self.dangling.is_none_or(|dangling| dangling == row.name.is_none())
            && self.labels.iter().all(has)
            && !self.without_labels.iter().any(has)
            && self.before.is_none_or(|time| row.created.is_some_and(|made| made < time))
            && self.since.is_none_or(|time| row.created.is_some_and(|made| made > time))
            && (self.patterns.is_empty() || self.patterns.iter().any(named))
            && (self.ids.is_empty() || self.ids.iter().any(|id| row.id.hex().starts_with(id)))
    }
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// A time stamp, a number of seconds since 1970, a date, or how long ago (`24h`, `1h30m`).
pub(in super::super) fn time(text: &str, now: Timestamp) -> Result<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(seconds) = text.parse::<i64>() {
        return Timestamp::from_second(seconds).context("no such time");
    }
    if let Ok(time) = format!("{text}T00:00:00Z").parse::<Timestamp>() {
        return Ok(time);
    }
    let ago =
        duration(text).with_context(|| format!("{text:?} is no time: write 24h, or 2026-01-31"))?;
    now.checked_sub(ago).context("no such time")
}

/// `1h30m`, as Go writes it.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..end].parse().ok()?;
        let unit_end =
            rest[end..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |n| end + n);
        let unit = match &rest[end..unit_end] {
            "d" => 86_400_000,
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1000,
            "ms" => 1,
            _ => return None,
        };
        sum = sum.checked_add(Duration::from_millis(number.checked_mul(unit)?))?;
        rest = &rest[unit_end..];
    }
    (sum > Duration::ZERO).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_many_forms() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        for (text, wanted) in [
            ("2026-01-30T00:00:00Z", "2026-01-30T00:00:00Z"),
            ("2026-01-30", "2026-01-30T00:00:00Z"),
            ("24h", "2026-01-30T12:00:00Z"),
            ("1h30m", "2026-01-31T10:30:00Z"),
            ("0", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(time(text, now).unwrap().to_string(), wanted, "{text}");
        }
        for bad in ["", "h", "1x", "yesterday", "99999999999999999999h"] {
            assert!(time(bad, now).is_err(), "{bad}");
        }
    }
}
