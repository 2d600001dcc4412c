//! A configuration changed at random: it is read or refused, and nothing else; what was read is written
//! back as what reads the same; and what can be read can be planned or is refused.
//!
//! `MUTATIONS=1000000 cargo test -p runtime mutated` for longer.

const SEED: &[u8] = include_bytes!("../../../tests/runtime/config_table/full.json");

/// What makes sense in many places, and what does not.
const WORDS: [&str; 22] = [
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
    "[]",
    "{}",
    "[[",
    "}",
    ",",
    "\"rbind\"",
    "\"SCMP_ACT_NOTIFY\"",
    "\"a\":",
];

/// Xorshift: the same changes in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound.max(1)
    }
}

fn change(text: &mut Vec<u8>, chance: &mut Chance) {
    let at = chance.below(text.len());
    let end = (at + chance.below(40)).min(text.len());
    match chance.below(6) {
        0 => text[at] ^= 1 << chance.below(8),
        1 => drop(text.drain(at..end)),
        2 => {
            let copy = text[at..end].to_vec();
            let to = chance.below(text.len());
            text.splice(to..to, copy);
        }
        3 => text.truncate(at.max(1)),
        // A value by another one: from a colon to what ends it.
        4 => {
            let from = text[at..].iter().position(|byte| *byte == b':').map(|it| at + it + 1);
            let Some(from) = from else { return };
            let ends = text[from..].iter().position(|byte| b",}]\n".contains(byte));
            let to = ends.map_or(text.len(), |it| from + it);
            text.splice(from..to, WORDS[chance.below(WORDS.len())].bytes());
        }
        _ => drop(text.splice(at..at, WORDS[chance.below(WORDS.len())].bytes())),
    }
    if text.is_empty() {
        text.push(b'{');
    }
}

#[test]
fn a_mutated_configuration_is_read_or_refused_and_never_more() {
    let count = std::env::var("MUTATIONS").ok().and_then(|count| count.parse().ok());
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let mut read = 0;
    for _ in 0..count.unwrap_or(3000) {
        let mut text = SEED.to_vec();
        for _ in 0..=chance.below(3) {
            change(&mut text, &mut chance);
        }
        read += usize::from(crate::fuzz::config(&text));
    }
    assert!(read > 100, "only {read} of them could be read");
}
