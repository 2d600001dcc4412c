//! Input changed at random, for tests of whatever reads what others wrote: it is read or refused,
//! and nothing else. The changes are the same in every run. It is part of the unit tests of `imgtool` and
//! `runtime` by `#[path]`.
//!
//! `MUTATIONS=1000000 cargo test changed_at_random` for more of them.

const COUNT: usize = 3000;
/// What makes sense in many documents, and what does not.
const WORDS: [&str; 29] = [
    "null",
    "true",
    "-1",
    "0",
    "4294967295",
    "4294967296",
    "9223372036854775808",
    "1e400",
    "0.5",
    "\"\"",
    "\"/\"",
    "\"..\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"rbind\"",
    "\"SCMP_ACT_NOTIFY\"",
    "\"a\":",
    "[]",
    "{}",
    "[[",
    "}",
    ",",
    "/",
    ":",
    "@",
    "..",
    "\u{1b}",
    "\r\n",
    "é",
];

/// Xorshift.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound.max(1)
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

/// Gives `check` many inputs, each of them one of `seeds` with a few changes; it says which of them
/// were read. Some must be: what is always refused proves nothing.
pub(crate) fn each(seeds: &[&str], mut check: impl FnMut(&[u8]) -> bool) {
    let count = std::env::var("MUTATIONS").ok().and_then(|count| count.parse().ok());
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let mut read = 0;
    for _ in 0..count.unwrap_or(COUNT) {
        let mut text = chance.of(seeds).as_bytes().to_vec();
        for _ in 0..=chance.below(3) {
            change(&mut text, seeds, &mut chance);
        }
        read += usize::from(check(&text));
    }
    assert!(read > 100, "only {read} of them could be read");
}

fn change(text: &mut Vec<u8>, seeds: &[&str], chance: &mut Chance) {
    if text.is_empty() {
        text.push(b'{');
    }
    let at = chance.below(text.len());
    let end = (at + chance.below(40)).min(text.len());
    match chance.below(7) {
        0 => text[at] ^= 1 << chance.below(8),
        1 => drop(text.drain(at..end)),
        2 => {
            let copy = text[at..end].to_vec();
            let to = chance.below(text.len());
            text.splice(to..to, copy);
        }
        3 => text.truncate(at),
        4 => {
            // A value by another one: from a colon to what ends it.
            let from = text[at..].iter().position(|byte| *byte == b':').map(|it| at + it + 1);
            let Some(from) = from else { return };
            let ends = text[from..].iter().position(|byte| b",}]\n".contains(byte));
            let to = ends.map_or(text.len(), |it| from + it);
            text.splice(from..to, chance.of(&WORDS).bytes());
        }
        5 => {
            // The end of another one.
            let other = chance.of(seeds).as_bytes();
            let from = chance.below(other.len());
            text.splice(at.., other[from..].iter().copied());
        }
        _ => drop(text.splice(at..at, chance.of(&WORDS).bytes())),
    }
}
