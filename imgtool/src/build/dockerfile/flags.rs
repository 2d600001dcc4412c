//! Flags of one instruction, each checked against what the instruction knows.

use anyhow::{Result, bail, ensure};

/// Flags by name. A repeatable one stands here several times.
#[derive(Debug, Default)]
pub(super) struct Flags(Vec<(String, String)>);

/// What an instruction knows.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// `--x=value`, once.
    Value,
    /// `--x` or `--x=true`, once.
    Switch,
    /// `--x=value`, as often as wished.
    List,
}

impl Flags {
    pub(super) fn parse(words: &[String], known: &[(&str, Kind)]) -> Result<Self> {
        let mut flags = Self::default();
        for word in words {
            let text = word.trim_start_matches("--");
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (text, None),
            };
            let Some((_, kind)) = known.iter().find(|(known, _)| *known == name) else {
                let hint = suggestion(name, known.iter().map(|(known, _)| *known));
                let hint = hint.map_or(String::new(), |hint| format!(" (did you mean {hint}?)"));
                bail!("unknown flag: --{name}{hint}")
            };
            let twice = flags.0.iter().any(|(other, _)| other == name);
            ensure!(!twice || matches!(kind, Kind::List), "duplicate flag specified: --{name}");
            let value = match (kind, value) {
                (Kind::Switch, None) => "true",
                (Kind::Switch, Some(value @ ("true" | "false"))) => value,
                (Kind::Switch, Some(value)) => {
                    bail!("expecting boolean value for flag --{name}, not: {value}")
                }
                (_, Some(value)) => value,
                (_, None) => bail!("missing a value on flag: --{name}"),
            };
            flags.0.push((name.to_owned(), value.to_owned()));
        }
        Ok(flags)
    }

    pub(super) fn value(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    pub(super) fn is_on(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| value == "true")
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone()).collect()
    }
}

/// The word among `known` that was probably meant.
pub(super) fn suggestion<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= 2)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters must change, come, go, or change places with the next one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = usize::from(a[i - 1] != b[j - 1]);
            let mut best =
                (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + changed);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested() {
        assert_eq!(suggestion("chwon", ["chmod", "chown"]), Some("chown"));
        assert_eq!(suggestion("FORM", ["FROM", "RUN"]), Some("FROM"));
        assert_eq!(suggestion("xyzzy", ["FROM", "RUN"]), None);
    }
}
