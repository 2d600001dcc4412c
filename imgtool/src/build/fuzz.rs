//! A Dockerfile as a fuzzer writes it: read, planned, checked, and all its words expanded.

use std::collections::BTreeMap;

use super::chmod::Chmod;
use super::dockerfile::{Dockerfile, Instruction};
use super::expand::Expander;
use super::git::Repository;
use super::ignore::Ignore;
use super::lint::{self, Check, Surroundings};
use super::mounts::Mount;
use super::settings;
use super::stages::{Plan, Wishes};
use super::state::State;
use crate::digest::Digest;
use crate::manifest::Platform;
use crate::rewrite::Parts;

pub(crate) fn dockerfile(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let value = |name: &str| match name {
        "EMPTY" => Some(String::new()),
        name if name.len() < 4 => Some(format!("{name} a/b:c.d")),
        _ => None,
    };
    let expander = Expander::new('\\', &value);
    // Each may be refused; none may panic, nor grow beyond all measure.
    for expanded in [expander.word(text), expander.body(text)].into_iter().flatten() {
        assert!(expanded.len() <= 64 * (text.len() + 1), "{} of {}", expanded.len(), text.len());
    }
    let _ = expander.words(text);
    let ignore = Ignore::parse(text).ok();
    if let Some(ignore) = &ignore {
        let _ = ignore.leaves_out(b"a/b/c.txt");
    }
    let Ok(file) = Dockerfile::parse(text) else { return };
    let lines = text.lines().count();
    for step in &file.steps {
        assert!(step.lines.first > 0 && step.lines.first <= step.lines.last, "{:?}", step.lines);
        assert!(step.lines.last <= lines.max(1), "{:?} of {lines}", step.lines);
    }
    let stated = file.directives.check.as_ref().map_or("", |(text, _)| text);
    let nothing = Ignore::of([]);
    if let (Ok(check), Ok(nothing)) = (Check::parse(stated), &nothing) {
        let ignore = ignore.as_ref().unwrap_or(nothing);
        let _ = lint::lint(&file, &check, &Surroundings { ignore, base: &|_| None });
    }
    let platform = Platform::host();
    let arguments = BTreeMap::new();
    let wishes = Wishes { target: None, arguments: &arguments, platform: &platform };
    let Ok(plan) = Plan::make(&file, &wishes) else { return };
    assert!(plan.target < plan.stages.len() && plan.needed.len() == plan.stages.len());
    for stage in &plan.stages {
        let parts = Parts::empty(&platform.os, &platform.architecture, None);
        let mut state = State::new(parts, Digest::of(b"scratch"));
        for step in &stage.steps {
            instruction(&mut state, &step.instruction, &expander);
        }
    }
}

fn instruction(state: &mut State, instruction: &Instruction, expander: &Expander<'_>) {
    match instruction {
        Instruction::Run(run) => {
            for text in &run.mounts {
                let _ = Mount::parse(text, expander);
            }
            let _ = state.words(&run.command);
        }
        Instruction::Transfer(copy) => {
            for word in copy.sources.iter().chain([&copy.target]) {
                if let Ok(word) = expander.word(word) {
                    let _ = Repository::parse(&word);
                }
            }
            if let Some(Ok(chmod)) = copy.chmod.as_deref().map(Chmod::parse) {
                assert!(chmod.apply(0o644, false) <= 0o7777);
            }
        }
        Instruction::Workdir(word) => drop(settings::workdir(state, word, expander)),
        other => drop(settings::apply(state, other, expander)),
    }
}
