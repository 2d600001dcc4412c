//! Names for people: what the user said, else two words that follow from the id.

use crate::state::Record;

/// Under which imgtool passes on the user's `--name`.
pub(crate) const NAME_ANNOTATION: &str = "org.imgtool.name";

const ADJECTIVES: [&str; 32] = [
    "amber", "brave", "brisk", "calm", "clear", "crisp", "dusky", "eager", "fleet", "fresh",
    "gentle", "golden", "hardy", "humble", "keen", "lively", "lucid", "mellow", "merry", "modest",
    "noble", "patient", "placid", "proud", "quick", "quiet", "silver", "steady", "sunny", "swift",
    "tidy", "warm",
];

const NOUNS: [&str; 64] = [
    "adder", "alder", "aspen", "auk", "badger", "beech", "birch", "bittern", "cedar", "crane",
    "curlew", "dipper", "dunlin", "egret", "elm", "fern", "finch", "gannet", "godwit", "grebe",
    "hazel", "heron", "hobby", "ibis", "jackdaw", "juniper", "kestrel", "knot", "larch", "lark",
    "linnet", "lynx", "magpie", "maple", "marten", "merlin", "newt", "oak", "osprey", "otter",
    "ouzel", "owl", "petrel", "pine", "pipit", "plover", "poplar", "puffin", "raven", "robin",
    "rowan", "ruff", "shrike", "siskin", "sorrel", "stoat", "swift", "teal", "tern", "vole",
    "willow", "wren", "yarrow", "yew",
];

/// Two words that follow from a generated id; `turn` gives others for the same id.
pub(crate) fn generate(id: &str, turn: u32) -> String {
    // The id is random already: neighbours need only not share their words.
    let mut sum = id.bytes().fold(u64::from(turn), |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17)
    });
    sum = (sum ^ (sum >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    sum ^= sum >> 32;
    let pick = |shift: u32, words: &[&'static str]| {
        let index = usize::try_from((sum >> shift) & 0xff).unwrap_or(0) % words.len();
        words[index]
    };
    format!("{}_{}", pick(8, &ADJECTIVES), pick(32, &NOUNS))
}

/// The name of a container that nobody supervises.
pub(crate) fn of(record: &Record) -> String {
    match record.annotations().get(NAME_ANNOTATION) {
        Some(name) => (*name).to_owned(),
        None if super::is_generated(&record.id) => generate(&record.id, 0),
        None => record.id.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ids_give_many_names_of_two_words() {
        let ids = (0..500_u32).map(|n| format!("{n:064x}"));
        let names: BTreeSet<String> = ids.map(|id| generate(&id, 0)).collect();
        assert!(names.len() > 300, "{}", names.len());
        assert!(names.iter().all(|name| name.split('_').count() == 2));
        let id = "0".repeat(64);
        assert_eq!(generate(&id, 0), generate(&id, 0));
        assert_ne!(generate(&id, 0), generate(&id, 1));
    }
}
