//! `--chmod`: an octal number, or changes as `chmod` takes them.

use anyhow::{Context, Result, bail, ensure};

/// What becomes of a mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chmod {
    Set(u32),
    Change(Vec<Clause>),
}

/// `WHO OPERATOR PERMISSIONS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clause {
    /// The bits of those it is about: 0700, 0070, 0007.
    who: u32,
    operator: char,
    permissions: String,
}

impl Chmod {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let invalid = || {
                format!(
                    "invalid chmod parameter {text:?}: want an octal number up to 7777, or changes such as u+x,g=rX"
                )
            };
            let mode = u32::from_str_radix(text, 8).with_context(invalid)?;
            ensure!(mode <= 0o7777, "{}", invalid());
            return Ok(Self::Set(mode));
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            clauses
                .extend(clause(part).with_context(|| format!("invalid chmod parameter {text:?}"))?);
        }
        Ok(Self::Change(clauses))
    }

    /// The mode that comes of `mode`.
    pub(crate) fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        match self {
            Self::Set(set) => *set,
            Self::Change(clauses) => {
                clauses.iter().fold(mode, |mode, clause| clause.apply(mode, is_directory))
            }
        }
    }
}

fn clause(part: &str) -> Result<Vec<Clause>> {
    let operators = ['+', '-', '='];
    let start = part.find(operators).context("no +, - or = in it")?;
    let mut who = 0;
    for letter in part[..start].chars() {
        who |= match letter {
            'u' => 0o700,
            'g' => 0o070,
            'o' => 0o007,
            'a' => 0o777,
            other => bail!("{other:?} is not one of u, g, o, a"),
        };
    }
    let who = if who == 0 { 0o777 } else { who };
    let mut clauses = Vec::new();
    for letter in part[start..].chars() {
        match (letter, clauses.last_mut()) {
            ('+' | '-' | '=', _) => {
                clauses.push(Clause { who, operator: letter, permissions: String::new() });
            }
            (
                'r' | 'w' | 'x' | 'X' | 's' | 't' | 'u' | 'g' | 'o',
                Some(Clause { permissions, .. }),
            ) => {
                permissions.push(letter);
            }
            (other, _) => bail!("{other:?} is not one of r, w, x, X, s, t, u, g, o"),
        }
    }
    Ok(clauses)
}

impl Clause {
    fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        let mut bits = 0;
        for letter in self.permissions.chars() {
            bits |= match letter {
                'r' => 0o444 & self.who,
                'w' => 0o222 & self.who,
                'x' => 0o111 & self.who,
                'X' if is_directory || mode & 0o111 != 0 => 0o111 & self.who,
                's' => {
                    (if self.who & 0o700 != 0 { 0o4000 } else { 0 })
                        | (if self.who & 0o070 != 0 { 0o2000 } else { 0 })
                }
                't' => 0o1000,
                'u' => ((mode >> 6) & 7) * (0o111 & self.who),
                'g' => ((mode >> 3) & 7) * (0o111 & self.who),
                'o' => (mode & 7) * (0o111 & self.who),
                _ => 0,
            };
        }
        match self.operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => mode & !self.who | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_changes_are_applied() {
        let mode = |text: &str, mode, directory| Chmod::parse(text).unwrap().apply(mode, directory);
        assert_eq!(mode("755", 0o600, false), 0o755);
        assert_eq!(mode("4711", 0, false), 0o4711);
        assert_eq!(mode("u+x", 0o644, false), 0o744);
        assert_eq!(mode("+x", 0o644, false), 0o755);
        assert_eq!(mode("g=rX", 0o604, false), 0o644);
        assert_eq!(mode("g=rX,o=", 0o604, true), 0o650);
        assert_eq!(mode("a-w,u+ws", 0o666, false), 0o4644);
        assert_eq!(mode("go=u", 0o750, false), 0o777);
        for bad in ["8", "77777", "x", "u", "z+x", "u+q", ""] {
            assert!(Chmod::parse(bad).is_err(), "{bad}");
        }
    }
}
