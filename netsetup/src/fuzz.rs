//! What fuzzers feed: the kernel's answers and what CNI's callers write, which may be refused and no
//! more. The corpus beneath `tests/fuzz/corpus` is replayed by the unit tests;
//! `tests/fuzz/README.md` says how to run it longer.

use netlink_packet_netfilter::NetfilterMessage;
use netlink_packet_route::RouteNetlinkMessage;

use crate::{cni, netlink, nft};

type Target = fn(&[u8]);

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
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.map(|(_, target)| *target).expect("FUZZ_TARGET is none of the targets")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_of_the_fuzzers_is_read_or_refused() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus");
        for (name, target) in TARGETS {
            let directory = std::path::Path::new(corpus).join(name);
            let inputs: Vec<_> = std::fs::read_dir(&directory).unwrap().collect();
            assert!(!inputs.is_empty(), "{name}");
            for input in inputs {
                let path = input.unwrap().path();
                println!("{}", path.display());
                target(&std::fs::read(path).unwrap());
            }
        }
    }
}
