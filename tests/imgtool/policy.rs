//! Whom images are taken from, by `policy.json`: obeyed or refused, never passed over.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::{Image, Scene, scene};
use crate::harness::hostile::Hostile;

const NAME: &str = "e2e.test/app:1";

/// Runs our program with a policy that is found in the user's home.
fn under(scene: &Scene, policy: &serde_json::Value, words: &[&str]) -> super::Outcome {
    let home = scene.path("home");
    let dir = home.join(".config/containers");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("policy.json"), policy.to_string()).unwrap();
    scene.imgtool().env("HOME", &home).args(words).run()
}

#[test]
fn what_the_policy_does_not_allow_is_not_even_asked_for() {
    scene(|scene| {
        let registry = Hostile::start(|_, _| {});
        let name = registry.name();
        let rejecting = json!({ "default": [{ "type": "reject" }] });
        let signed = json!({ "default": [{ "type": "insecureAcceptAnything" }], "transports": {
            "docker": { &registry.host: [{ "type": "sigstoreSigned", "keyPath": "/k.pub" }] } } });
        let copied = format!("docker://{name}");
        for words in [&["pull", &name][..], &["copy", &copied, "e2e.test/copied:1"]] {
            under(scene, &rejecting, words).refused(&["policy.json", "rejects"]);
            let told = under(scene, &signed, words);
            told.refused(&["sigstoreSigned", "can't verify", "--signature-policy"]);
        }
        for broken in [json!({}), json!([]), json!({ "default": "x" })] {
            under(scene, &broken, &["pull", &name]).refused(&["policy.json"]);
        }
        under(scene, &json!({ "default": [] }), &["pull", &name]).refused(&["no requirement"]);
        assert_eq!(registry.asked().len(), 0);
    });
}

#[test]
fn files_are_taken_by_the_policy_of_their_kind_and_path() {
    scene(|scene| {
        let archive = Image::probe(&[]).docker_archive(&scene.path("image.tar"), NAME);
        let archive = archive.to_str().unwrap();
        let own = scene.path("").display().to_string();
        let own = own.trim_end_matches('/');
        let policy = |kind: &str| {
            json!({ "default": [{ "type": "reject" }], "transports": {
                kind: { own: [{ "type": "insecureAcceptAnything" }] } } })
        };
        let load = ["load", "-i", archive];
        under(scene, &policy("docker-archive"), &load).success();
        let copy = ["copy", &format!("docker-archive:{archive}"), "e2e.test/copied:1"];
        under(scene, &policy("docker-archive"), &copy).success();
        let copied = format!("oci:{}", scene.path("layout").display());
        scene.imgtool().args(["copy", NAME, &copied]).run().success();
        for other in ["oci-archive", "docker"] {
            let told = under(scene, &policy(other), &load);
            told.refused(&["policy.json", "rejects", "docker-archive"]);
            under(scene, &policy(other), &copy).refused(&["policy.json", "rejects"]);
        }
        let layout = scene.path("layout").display().to_string();
        under(scene, &policy("docker-archive"), &["load", "-i", &layout]).refused(&["rejects"]);
        // Wherever the path begins, and whatever leads there.
        let bad = json!({ "default": [{ "type": "insecureAcceptAnything" }], "transports": {
            "docker-archive": { own: [{ "type": "reject" }] } } });
        under(scene, &bad, &load).refused(&["rejects", own]);
        let link = std::env::temp_dir().join(format!("imgtool-policy-{}", std::process::id()));
        std::os::unix::fs::symlink(archive, &link).unwrap();
        let led = under(scene, &bad, &["load", "-i", link.to_str().unwrap()]);
        fs::remove_file(&link).unwrap();
        led.refused(&["rejects", own]);
        let relative = scene.imgtool().env("HOME", scene.path("home")).dir(Path::new(own));
        relative.args(["load", "-i", "image.tar"]).run().refused(&["rejects", own]);
        under(scene, &policy("docker"), &load).refused(&["rejects"]);
        // A pipe has no path, and is judged all the same.
        let piped = scene.imgtool().args(["load"]).stdin(fs::read(archive).unwrap());
        piped.env("HOME", scene.path("home")).run().refused(&["rejects"]);
        under(scene, &policy("docker"), &["load", "--insecure-policy", "-i", archive]).success();
    });
}
