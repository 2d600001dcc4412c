//! The keys by which one who is attached goes away and leaves the container running.

use anyhow::{Result, bail};

/// `ctrl-p,ctrl-q`, as docker has it.
pub(crate) const DEFAULT_KEYS: &str = "ctrl-p,ctrl-q";

/// A sequence of keys, and how much of it was typed.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    keys: Vec<u8>,
    typed: usize,
}

/// What is left of the bytes that were typed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Typed {
    pub(super) bytes: Vec<u8>,
    /// All the keys were typed: nothing after them counts.
    pub(super) detached: bool,
}

impl Keys {
    /// Keys with commas between them: a letter, or `ctrl-` and one of `a-z@[]\^_`. None is never.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut keys = Vec::new();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            let control = word.strip_prefix("ctrl-").unwrap_or_default();
            keys.push(match (word.as_bytes(), control.as_bytes()) {
                ([key], _) => *key,
                (_, [key @ (b'a'..=b'z' | b'@' | b'['..=b'_')]) => key.to_ascii_uppercase() - b'@',
                _ => bail!("invalid detach keys {text:?}: {word:?} is no key, as `a` or `ctrl-a`"),
            });
        }
        Ok(Keys { keys, typed: 0 })
    }

    /// Sorts out what was typed. What may become the sequence is held back until it is clear.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Typed {
        let mut out = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            if self.keys.get(self.typed) == Some(&byte) {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    self.typed = 0;
                    return Typed { bytes: out, detached: true };
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.typed]);
            self.typed = 0;
            if self.keys.first() == Some(&byte) {
                self.typed = 1;
            } else {
                out.push(byte);
            }
        }
        Typed { bytes: out, detached: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_leaves_and_its_beginning_alone_does_not() {
        let mut keys = Keys::parse(DEFAULT_KEYS).unwrap();
        let text = |bytes: &[u8]| Typed { bytes: bytes.to_vec(), detached: false };
        assert_eq!(keys.feed(b"ls\x10"), text(b"ls"));
        assert_eq!(keys.feed(b"x"), text(b"\x10x"));
        assert_eq!(keys.feed(b"\x10\x10"), text(b"\x10"));
        assert_eq!(keys.feed(b"\x11rest"), Typed { bytes: vec![], detached: true });
    }

    #[test]
    fn keys_are_spelled_as_docker_spells_them() {
        assert_eq!(Keys::parse("ctrl-@,a,ctrl-[").unwrap().keys, [0, b'a', 27]);
        assert!(Keys::parse("").unwrap().keys.is_empty());
        assert_eq!(Keys::parse("").unwrap().feed(b"\x10\x11").bytes, b"\x10\x11");
        for text in ["ctrl-", "ctrl-ab", "alt-a", "aa"] {
            assert!(Keys::parse(text).is_err(), "{text}");
        }
    }
}
