//! `netsetup`: bridges, addresses, forwarding and published ports, seen from the container, from the
//! host and from another host.

use crate::harness::netns::Netns;
use crate::harness::{Cmd, Outcome, Scene, scene};

mod bad_input;
mod bridge;
mod cni;
mod cni_bridge;
mod cni_faults;
mod faults;
mod forward;
mod guards;
mod ipv6;
mod killed;
mod kinds;
mod netavark;
mod networks;
mod parallel;
mod publish;
mod restore;
mod rootless;
mod scarce;
mod vlan;
mod wishes;

/// `netsetup <words>`, which must succeed.
#[track_caller]
fn netsetup<const N: usize>(scene: &Scene, words: [&str; N]) -> Outcome {
    scene.netsetup().args(words).run().success()
}

/// The one address of an attached container.
#[track_caller]
fn address_of(scene: &Scene, target: &str) -> String {
    let seen = netsetup(scene, ["inspect", target]).json();
    let text = seen.to_string();
    let start = text.find("\"address\":\"").unwrap_or_else(|| panic!("an address in {text}")) + 11;
    let end = text[start..].find(['"', '/']).expect("the address ends");
    text[start..start + end].to_owned()
}
