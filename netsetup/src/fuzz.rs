//! What fuzzers feed: the kernel's answers and what CNI's callers write, which may be refused and no
//! more. The corpus beneath `tests/fuzz/corpus` is replayed by the unit tests;
//! `tests/fuzz/README.md` says how to run it longer.

#[path = "../../tests/fuzz/targets.rs"]
mod targets;

use netlink_packet_netfilter::NetfilterMessage;
use netlink_packet_route::RouteNetlinkMessage;

use crate::{cni, netlink, nft};

use self::targets::Target;

pub(crate) const TARGETS: [(&str, Target); 3] = [
    ("netlink", |data| {
        let answers = netlink::decoded::<RouteNetlinkMessage>(data).unwrap_or_default();
        for answer in &answers {
            let _ = (netlink::link::read(answer), netlink::address::read(answer));
        }
    }),
    ("nftables", |data| {
        let answers = netlink::decoded::<NetfilterMessage>(data).unwrap_or_default();
        answers.iter().for_each(nft::foreign::fuzz);
    }),
    ("cni", cni::fuzz),
];

/// The target that the variable names.
#[cfg(fuzzing)]
pub(crate) fn chosen() -> Target {
    targets::chosen(&TARGETS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_of_the_fuzzers_is_read_or_refused() {
        targets::replay(&TARGETS);
    }
}
