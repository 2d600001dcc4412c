//! The program that decides on devices.

use serde_json::{Value, json};

use super::unified;

/// A node that no container gets by itself, and whose opening has no effect.
fn node() -> Value {
    json!([{ "path": "/dev/loop-control", "type": "c", "major": 10, "minor": 237 }])
}

fn rules(access: &str) -> Value {
    json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 10, "minor": 237, "access": access },
    ])
}

/// What opening it for reading and for writing is answered with. Where the kernel has no such
/// device, or it reads nothing, the answer is another one than that of the program.
fn words(it: &super::Host) -> [bool; 2] {
    let ask = |call: &[&str]| {
        let line = it.runtime(["exec", &it.id, "/probe", "try"]).args(call).run().success();
        line.word() == "EPERM"
    };
    [ask(&["read", "/dev/loop-control"]), ask(&["write", "/dev/loop-control", "x"])]
}

#[test]
fn devices_are_as_the_rules_say_and_stay_so_through_an_update() {
    unified(&[], |it| {
        for (access, refused) in [("r", [false, true]), ("rw", [false, false]), ("m", [true, true])]
        {
            let bundle = it
                .bundle(&["pause"])
                .edit("/linux/devices", node())
                .edit("/linux/resources/devices", rules(access));
            it.start(bundle.write());
            it.runtime(["update", "--resources", "-", &it.id])
                .stdin(r#"{"devices":[{"allow":true,"access":"rwm"}]}"#)
                .run()
                .success();
            assert_eq!(words(it), refused, "{access}");
            it.delete();
        }
    });
}

/// Rules that make those of the default configuration needless.
#[test]
fn every_device_of_a_kind_may_be_given() {
    unified(&[], |it| {
        let all = json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "access": "rwm" },
        ]);
        let bundle = it.bundle(&["pause"]).edit("/linux/devices", node());
        it.start(bundle.edit("/linux/resources/devices", all).write());
        assert_eq!(words(it), [false, false]);
        it.delete();
    });
}

#[test]
fn a_program_of_the_one_before_makes_room() {
    unified(&[], |it| {
        let with = |access: &str| {
            it.bundle(&["pause"])
                .edit("/linux/devices", node())
                .edit("/linux/resources/devices", rules(access))
        };
        // Its cgroup stays until it is deleted, and so does its program.
        let first = it.start(with("m").write());
        it.runtime(["kill", &it.id, "KILL"]).run().success();
        super::Host::wait(first);
        let second = format!("{}-second", it.id);
        it.runtime(["run", "--detach", "--bundle"])
            .arg(with("rw").write())
            .arg(&second)
            .run()
            .success();
        let line =
            it.runtime(["exec", &second, "/probe", "try", "read", "/dev/loop-control"]).run();
        assert_ne!(line.success().word(), "EPERM");
        it.runtime(["delete", "--force", &second]).run().success();
        it.delete();
    });
}
