//! What fuzzers feed: config.json, which may be refused and no more. The corpus beneath
//! `tests/fuzz/corpus` is replayed by the unit tests; `tests/fuzz/README.md` says how to run it longer.

#[path = "../../tests/fuzz/targets.rs"]
mod targets;

use std::path::Path;

use crate::plan::cgroup::Mode;
use crate::plan::{self, Choices};
use crate::spec::parse;

use self::targets::Target;

pub(crate) const TARGETS: [(&str, Target); 1] = [("config", |data| {
    let _ = config(data);
})];

/// The target that the variable names.
#[cfg(fuzzing)]
pub(crate) fn chosen() -> Target {
    targets::chosen(&TARGETS)
}

/// A configuration from anywhere: what was read is written back as what reads the same, and can be
/// planned or is refused. Tells whether it was read.
pub(crate) fn config(text: &[u8]) -> bool {
    let Ok(spec) = parse(text) else { return false };
    let written = serde_json::to_vec(&spec).unwrap_or_default();
    let again = parse(&written)
        .unwrap_or_else(|error| panic!("{error:#}: {}", String::from_utf8_lossy(&written)));
    assert_eq!(serde_json::to_vec(&again).unwrap_or_default(), written);
    // Each may be refused; none may panic.
    let place = Path::new("/bundle");
    let _ = plan::plan("id", place, &place.join("rootfs"), &spec, Choices::default());
    let linux = spec.linux.as_ref();
    let _ = linux.and_then(|linux| linux.seccomp.as_ref()).map(plan::seccomp::compile);
    for mode in [Mode::V1, Mode::Hybrid, Mode::V2] {
        let _ = plan::cgroup::plan(linux.and_then(|linux| linux.resources.as_ref()), mode);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_of_the_fuzzers_is_read_or_refused() {
        targets::replay(&TARGETS);
    }

    #[test]
    fn a_configuration_changed_at_random_is_read_or_refused_and_never_more() {
        let seed = include_str!("../../tests/runtime/config_table/full.json");
        crate::mutated::each(&[seed], config);
    }
}
