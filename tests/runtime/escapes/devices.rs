//! Device nodes that a container finds or makes: without a rule for them they are closed to it.

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::json;

use super::{Bundle, under_both};

/// GHSA-g54h-m393-cpwq: rules that do not begin with "deny all" were taken for a list of what is
/// denied, and none at all for a permission.
#[test]
fn devices_are_closed_even_if_no_rule_says_so() {
    under_both(|it| {
        for resources in [
            json!(null),
            json!({}),
            json!({ "devices": [] }),
            json!({ "devices": [{ "allow": false, "type": "c", "major": 10, "access": "rwm" }] }),
        ] {
            let bundle = Bundle::new(it.scene, &["try", "read", "/disk"])
                .edit("/linux/resources", resources.clone());
            let disk = it.scene.path("bundle/rootfs/disk");
            if !disk.exists() {
                // Whether the host has this disk does not matter: it is refused before that.
                mknod(&disk, SFlag::S_IFBLK, Mode::S_IRWXU, makedev(8, 0)).unwrap();
            }
            let outcome = it.attempt(&bundle, &it.scene.id("disk")).success();
            assert_eq!(outcome.stdout, "EPERM\n", "with {resources}");
        }
    });
}
