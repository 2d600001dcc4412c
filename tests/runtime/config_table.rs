//! Every field of config.json with a value that it can not have: one line that says where, exit
//! code 1, and nothing left of the attempt.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::scene;
use crate::harness::{Bundle, Outcome, Scene};

mod values;

/// `/process/rlimits/0/type` as messages write it: `process.rlimits[0].type`.
fn shown(pointer: &str) -> String {
    let mut text = String::new();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        match part.parse::<usize>() {
            Ok(index) => text += &format!("[{index}]"),
            Err(_) if text.is_empty() => text = part,
            Err(_) => text += &format!(".{part}"),
        }
    }
    text
}

/// `create` of the bundle in `dir`, with a state directory that only these tests use.
fn create(scene: &Scene, dir: &Path) -> Outcome {
    let create = scene.runtime().arg("--root").arg(scene.path("state"));
    create.args(["create", "--bundle"]).arg(dir).arg(scene.id("table")).run()
}

/// What is wrong with the refusal, if anything.
fn flaw(outcome: &Outcome, words: &[&str]) -> Option<String> {
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    let complete = lines.len() == 1 && words.iter().all(|word| lines[0].contains(word));
    let good = outcome.code == 1 && complete;
    (!good).then(|| format!("wants {words:?}, ends with {}: {}", outcome.code, outcome.stderr))
}

/// Nothing is left in the state directory; the scene looks after the rest of the host.
fn leftovers(scene: &Scene) -> Vec<String> {
    let entries = fs::read_dir(scene.path("state")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn report(flaws: &[String], cases: usize) {
    assert!(flaws.is_empty(), "{} of {cases}:\n{}", flaws.len(), flaws.join("\n"));
}

/// The pointer of each value in the document, that of the document itself first.
fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                pointers(value, &format!("{at}/{key}"), all);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                pointers(value, &format!("{at}/{index}"), all);
            }
        }
        _ => {}
    }
}

/// Values of other types than the one that is there. What is made of other values is tried with
/// each of them: a list could pass for a structure.
fn wrong_types(value: &Value) -> Vec<Value> {
    let all =
        [json!(987_654_321), json!("WRONG"), json!(true), json!(["WRONG"]), json!({ "W": 1 })];
    let kind = std::mem::discriminant::<Value>;
    let mut others: Vec<Value> =
        all.into_iter().filter(|other| kind(other) != kind(value)).collect();
    if !value.is_object() && !value.is_array() {
        others.drain(1..others.len() - 2);
    }
    others
}

#[test]
fn a_value_of_the_wrong_type_is_told_with_field_and_line() {
    scene(|scene| {
        let bundle = Bundle::new(scene, &[]);
        let dir = bundle.write();
        let full: Value = serde_json::from_str(include_str!("config_table/full.json")).unwrap();
        let mut all = Vec::new();
        pointers(&full, "", &mut all);
        assert!(all.len() > 250, "{} values", all.len());
        let (mut flaws, mut cases) = (Vec::new(), 0);
        // The document itself has no name; what is for other systems than Linux is not read.
        for pointer in all.iter().skip(1).filter(|pointer| *pointer != "/process/commandLine") {
            for wrong in wrong_types(full.pointer(pointer).unwrap()) {
                let mut config = full.clone();
                let place = config.pointer_mut(pointer).unwrap();
                *place = json!("@HERE@");
                let text = serde_json::to_string_pretty(&config).unwrap();
                let line = text.lines().position(|line| line.contains("@HERE@")).unwrap() + 1;
                let text = text.replace("\"@HERE@\"", &wrong.to_string());
                fs::write(dir.join("config.json"), text).unwrap();
                let words =
                    [&*format!("config.json: {}", shown(pointer)), &format!("line {line} ")];
                let flaw = flaw(&create(scene, dir), &words);
                flaws.extend(flaw.map(|flaw| format!("{pointer} = {wrong}: {flaw}")));
                cases += 1;
            }
        }
        assert_eq!(leftovers(scene), [""; 0]);
        report(&flaws, cases);
    });
}

/// All those types are right: what is wrong with it is only that no host can give all of it.
#[test]
fn the_full_configuration_is_read() {
    scene(|scene| {
        let bundle = Bundle::new(scene, &[]);
        let dir = bundle.write();
        fs::write(dir.join("config.json"), include_str!("config_table/full.json")).unwrap();
        let outcome = create(scene, dir).code(1);
        assert!(!outcome.stderr.contains("line"), "{}", outcome.stderr);
    });
}
