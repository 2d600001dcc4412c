//! `.dockerignore`, and `--exclude`, which has the same rules: the last one that matches a path or
//! a directory above it decides.

use anyhow::{Context, Result};

use super::pattern::Pattern;
use crate::rooted;

/// The rules of one file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ignore {
    rules: Vec<(bool, Pattern)>,
    /// Whether some rule takes paths back in.
    reopens: bool,
}

impl Ignore {
    /// Reads a file.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self::of(text.lines().filter(|line| !line.starts_with('#')))
    }

    /// Of patterns, one each.
    pub(crate) fn of<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut read = Self::default();
        for line in lines {
            let line = line.trim();
            let (negated, rest) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let rest = rooted::as_text(rest);
            if rest.is_empty() {
                continue;
            }
            let pattern =
                Pattern::parse(&rest, true).with_context(|| format!("ignore pattern {line:?}"))?;
            read.reopens |= negated;
            read.rules.push((negated, pattern));
        }
        Ok(read)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether the path, without a slash before it, is left out.
    pub(crate) fn leaves_out(&self, path: &[u8]) -> bool {
        let mut out = false;
        for (negated, pattern) in &self.rules {
            // A rule of the kind that changes nothing need not be looked at.
            if out == *negated && matches_some(pattern, path) {
                out = !negated;
            }
        }
        out
    }

    /// Whether nothing beneath a directory that is left out can be taken in again.
    pub(crate) fn is_final(&self) -> bool {
        !self.reopens
    }
}

/// The path itself, or a directory above it.
fn matches_some(pattern: &Pattern, path: &[u8]) -> bool {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    pattern.matches(path) || slashes.map(|(at, _)| &path[..at]).any(|above| pattern.matches(above))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_rule_that_matches_decides() {
        let ignore = Ignore::parse(
            "\u{feff}# comment\n\n  node_modules \n/build/\n*.log\n!keep.log\n**/*.tmp\ndocs\n!docs/**/README.md\n./x/../y\n",
        )
        .unwrap();
        for (path, out) in [
            ("node_modules", true),
            ("node_modules/a/b", true),
            ("src/node_modules", false),
            ("build/x", true),
            ("a.log", true),
            ("keep.log", false),
            ("d/a.log", false),
            ("d/e/a.tmp", true),
            ("docs/a", true),
            ("docs/README.md", false),
            ("docs/a/b/README.md", false),
            ("y", true),
            ("x", false),
        ] {
            assert_eq!(ignore.leaves_out(path.as_bytes()), out, "{path}");
        }
        assert!(!ignore.is_final());
        assert!(Ignore::parse("a\n").unwrap().is_final());
        assert!(Ignore::parse("[a").is_err());
    }
}
