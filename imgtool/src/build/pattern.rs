//! Patterns of paths: Go's `filepath.Match` for a component, and `**` for any number of them.

use std::collections::HashSet;

use anyhow::{Result, bail};

/// A pattern, read.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    tokens: Vec<Token>,
}

#[derive(Clone, Debug)]
enum Token {
    Byte(u8),
    /// `?`: anything but a slash.
    One,
    /// `*`: anything without a slash.
    Many,
    /// `**/`: any number of directories.
    Directories,
    /// `**`: anything.
    Anything,
    Class {
        negated: bool,
        ranges: Vec<(u8, u8)>,
    },
}

impl Pattern {
    /// Reads a pattern; `deep` says whether `**` is more than two stars.
    pub(crate) fn parse(text: &str, deep: bool) -> Result<Self> {
        let bytes = text.as_bytes();
        let mut tokens = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let (token, length) = match bytes[at] {
                b'*' if deep && bytes[at..].starts_with(b"**/") => (Token::Directories, 3),
                b'*' if deep && bytes[at..].starts_with(b"**") => (Token::Anything, 2),
                b'*' => (Token::Many, 1),
                b'?' => (Token::One, 1),
                b'\\' => match bytes.get(at + 1) {
                    Some(byte) => (Token::Byte(*byte), 2),
                    None => bail!("syntax error in pattern {text:?}: it ends with a backslash"),
                },
                b'[' => match class(&bytes[at + 1..]) {
                    Some((token, length)) => (token, length + 1),
                    None => bail!("syntax error in pattern {text:?}: a bracket is open"),
                },
                byte => (Token::Byte(byte), 1),
            };
            tokens.push(token);
            at += length;
        }
        Ok(Self { tokens })
    }

    /// Whether all of the path matches.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        let mut dead = HashSet::new();
        self.from(0, path, 0, &mut dead)
    }

    /// `dead`: from where it is known not to match.
    fn from(&self, t: usize, path: &[u8], p: usize, dead: &mut HashSet<(usize, usize)>) -> bool {
        if dead.contains(&(t, p)) {
            return false;
        }
        let Some(token) = self.tokens.get(t) else { return p == path.len() };
        let next = path.get(p).copied();
        let component = next.is_some_and(|byte| byte != b'/');
        let found = match token {
            Token::Byte(byte) => next == Some(*byte) && self.from(t + 1, path, p + 1, dead),
            Token::One => component && self.from(t + 1, path, p + 1, dead),
            Token::Class { negated, ranges } => {
                let inside = |byte: u8| ranges.iter().any(|(a, z)| (*a..=*z).contains(&byte));
                component
                    && next.is_some_and(|byte| inside(byte) != *negated)
                    && self.from(t + 1, path, p + 1, dead)
            }
            Token::Many => {
                self.from(t + 1, path, p, dead) || component && self.from(t, path, p + 1, dead)
            }
            Token::Anything => {
                self.from(t + 1, path, p, dead) || next.is_some() && self.from(t, path, p + 1, dead)
            }
            Token::Directories => {
                let after = path[p..].iter().position(|byte| *byte == b'/').map(|at| p + at + 1);
                self.from(t + 1, path, p, dead)
                    || after.is_some_and(|after| self.from(t, path, after, dead))
            }
        };
        if !found {
            dead.insert((t, p));
        }
        found
    }
}

/// What follows a bracket, with the bytes it takes.
fn class(bytes: &[u8]) -> Option<(Token, usize)> {
    let negated = matches!(bytes.first(), Some(b'^' | b'!'));
    let mut at = usize::from(negated);
    let mut ranges = Vec::new();
    let letter = |at: &mut usize| {
        if *bytes.get(*at)? == b'\\' {
            *at += 1;
        }
        let byte = *bytes.get(*at)?;
        *at += 1;
        Some(byte)
    };
    loop {
        if bytes.get(at) == Some(&b']') && !ranges.is_empty() {
            return Some((Token::Class { negated, ranges }, at + 1));
        }
        let first = letter(&mut at)?;
        let mut last = first;
        if bytes.get(at) == Some(&b'-') {
            at += 1;
            last = letter(&mut at)?;
        }
        ranges.push((first, last));
    }
}

/// Whether the text has anything that makes it a pattern.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_and_directories_match() {
        for (pattern, path, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*.go", "x.go", true),
            ("*.go", "d/x.go", false),
            ("**/*.go", "x.go", true),
            ("**/*.go", "a/b/x.go", true),
            ("a/**", "a/b/c", true),
            ("a/**/c", "a/c", true),
            ("a/**/c", "a/b/b/c", true),
            ("**", "a/b", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("**/foo", "foo/bar", false),
            ("*a*b*c*", "xxaxxbxxcxx", true),
        ] {
            let matched = Pattern::parse(pattern, true).unwrap().matches(path.as_bytes());
            assert_eq!(matched, expected, "{pattern} {path}");
        }
        let slow = "*a".repeat(40);
        assert!(!Pattern::parse(&slow, true).unwrap().matches(&[b'a'; 39]));
        assert!(Pattern::parse("[a", true).is_err());
        assert!(Pattern::parse("a\\", true).is_err());
    }
}
