//! `--filter`: which containers are wanted, in docker's words.

use anyhow::{Result, bail};

/// One wish; all of them must hold, of those with the same key one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) key: Key,
    pub(super) value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Id,
    Name,
    Image,
    Status,
    Exited,
    Health,
    Label,
}

const KEYS: [(&str, Key); 8] = [
    ("ancestor", Key::Image),
    ("exited", Key::Exited),
    ("health", Key::Health),
    ("id", Key::Id),
    ("image", Key::Image),
    ("label", Key::Label),
    ("name", Key::Name),
    ("status", Key::Status),
];
const HEALTHS: [&str; 4] = ["healthy", "none", "starting", "unhealthy"];
const STATUSES: [&str; 5] = ["created", "exited", "paused", "restarting", "running"];

impl Filter {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let Some((key, value)) = text.split_once('=') else {
            bail!("invalid filter {text:?}: KEY=VALUE is wanted");
        };
        let Some((_, key)) = KEYS.iter().find(|(name, _)| *name == key) else {
            let names: Vec<&str> = KEYS.iter().map(|(name, _)| *name).collect();
            bail!("invalid filter {text:?}: the keys are {}", names.join(", "));
        };
        if *key == Key::Status && !STATUSES.contains(&value) {
            bail!("invalid filter {text:?}: a status is one of {}", STATUSES.join(", "));
        }
        if *key == Key::Health && !HEALTHS.contains(&value) {
            bail!("invalid filter {text:?}: health is one of {}", HEALTHS.join(", "));
        }
        if *key == Key::Exited && value.parse::<u8>().is_err() {
            bail!("invalid filter {text:?}: an exit code is a number up to 255");
        }
        Ok(Filter { key: *key, value: value.to_owned() })
    }
}

/// Whether `holds` does for at least one of the filters of each key.
pub(super) fn all(filters: &[Filter], holds: impl Fn(&Filter) -> bool) -> bool {
    filters.iter().all(|one| filters.iter().any(|other| other.key == one.key && holds(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_filters_name_what_would_be_good() {
        for (text, hint) in [
            ("status", "KEY=VALUE"),
            ("size=3", "ancestor"),
            ("status=dead", "restarting"),
            ("exited=x", "number"),
        ] {
            let error = Filter::parse(text).unwrap_err().to_string();
            assert!(error.contains(hint) && error.contains(text), "{error}");
        }
    }

    #[test]
    fn filters_of_one_key_are_choices_and_keys_add_up() {
        let filters = ["name=a", "name=b", "status=exited"].map(|it| Filter::parse(it).unwrap());
        let holds = |values: [&'static str; 2]| {
            all(&filters, move |filter| values.contains(&filter.value.as_str()))
        };
        assert!(holds(["b", "exited"]));
        assert!(!holds(["b", "running"]));
        assert!(!holds(["c", "exited"]));
    }
}
