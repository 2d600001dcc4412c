//! What a stage has come to after a step: the image so far, the variables in scope, and the key by
//! which the next step is known to the cache.

use serde_json::Value;

use super::dockerfile::Command;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::manifest::History;
use crate::rewrite::Parts;

/// What a shell line is given to.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// By which tools know how to read the steps of a history.
const COMMENT: &str = "buildkit.dockerfile.v0";

#[derive(Clone)]
pub(crate) struct State {
    pub(crate) parts: Parts,
    pub(crate) key: Digest,
    /// The `ARG`s in scope, in order.
    pub(crate) arguments: Vec<(String, Option<String>)>,
    /// Whether this stage has set the command.
    pub(crate) own_command: bool,
    /// Whether nothing is taken from the cache.
    pub(crate) anew: bool,
    /// How many steps of the history came with the base.
    pub(crate) base_steps: usize,
}

impl State {
    pub(crate) fn new(parts: Parts, key: Digest) -> Self {
        let base_steps = parts.config.history.len();
        let mut state =
            Self { parts, key, arguments: Vec::new(), own_command: false, anew: false, base_steps };
        if !state.parts.config.config.env.iter().any(|word| word.starts_with("PATH=")) {
            state.set_env("PATH", DEFAULT_PATH);
        }
        state
    }

    /// A variable, as instructions see it: the environment goes before arguments.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        self.environment(name).or_else(|| {
            let found = self.arguments.iter().rev().find(|(known, _)| known == name);
            found.and_then(|(_, value)| value.clone())
        })
    }

    fn environment(&self, name: &str) -> Option<String> {
        let words = self.parts.config.config.env.iter();
        words
            .filter_map(|word| word.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    }

    pub(crate) fn set_env(&mut self, key: &str, value: &str) {
        let prefix = format!("{key}=");
        let entry = format!("{prefix}{value}");
        let env = &mut self.parts.config.config.env;
        match env.iter_mut().find(|known| known.starts_with(&prefix)) {
            Some(known) => *known = entry,
            None => env.push(entry),
        }
    }

    /// The arguments that a command of this stage sees, as variables.
    pub(crate) fn visible_arguments(&self) -> Vec<(&str, &str)> {
        let mut seen: Vec<(&str, &str)> = Vec::new();
        for (name, value) in &self.arguments {
            let Some(value) = value else { continue };
            if self.environment(name).is_some() {
                continue;
            }
            match seen.iter_mut().find(|(known, _)| known == name) {
                Some(known) => known.1 = value,
                None => seen.push((name, value)),
            }
        }
        seen
    }

    pub(crate) fn shell(&self) -> Vec<String> {
        let set = self.parts.config.config.other.get("Shell").and_then(Value::as_array);
        match set {
            Some(words) if !words.is_empty() => {
                words.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            _ => SHELL.map(str::to_owned).into(),
        }
    }

    /// The words of a command; a shell line goes to the shell that is set.
    pub(crate) fn words(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(line) => {
                let mut words = self.shell();
                words.push(line.clone());
                words
            }
        }
    }

    /// Makes what is known to the cache depend on something more.
    pub(crate) fn fold(&mut self, words: &[&str]) {
        self.key = chain(&self.key, words);
    }

    /// Notes a step in the history. Its time is filled in at the end, unless a layer has one.
    pub(crate) fn note(&mut self, text: String, created: Option<String>) {
        self.parts.add_step(entry(text, created));
    }
}

/// A step as the history has it.
pub(crate) fn entry(text: String, created: Option<String>) -> History {
    History {
        created,
        created_by: Some(text),
        comment: Some(COMMENT.to_owned()),
        ..History::default()
    }
}

/// A key that depends on another one and on words.
pub(crate) fn chain(key: &Digest, words: &[&str]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(key.hex().as_bytes());
    for word in words {
        hasher.update(&(word.len() as u64).to_le_bytes());
        hasher.update(word.as_bytes());
    }
    hasher.finish()
}
