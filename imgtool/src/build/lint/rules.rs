//! The rules themselves.

use std::collections::{BTreeMap, BTreeSet};

use super::{Surroundings, Warning, stages as stages_of};
use crate::build::dockerfile::{Command, Dockerfile, Instruction, Lines, Step};
use crate::build::expand::Expander;
use crate::build::ignore::Ignore;

/// Parts of names that tell of a secret.
const SECRET: [&str; 11] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "secrets",
    "token",
];
/// What the platforms give a `FROM`.
const AUTOMATIC: [&str; 11] = [
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETOSVERSION",
    "TARGETSTAGE",
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDARCH",
    "BUILDVARIANT",
    "BUILDOSVERSION",
];

fn add(found: &mut Vec<Warning>, rule: &'static str, lines: Lines, message: String) {
    found.push(Warning { rule, message, lines });
}

/// How keywords are written.
pub(super) fn casing(file: &Dockerfile, found: &mut Vec<Warning>) {
    let is_upper = |word: &str| !word.contains(|c: char| c.is_ascii_lowercase());
    let is_lower = |word: &str| !word.contains(|c: char| c.is_ascii_uppercase());
    let upper = file.steps.iter().filter(|step| is_upper(&step.keyword)).count();
    let lower = file.steps.iter().filter(|step| is_lower(&step.keyword)).count();
    let (right, name): (&dyn Fn(&str) -> bool, _) = match upper >= lower {
        true => (&is_upper, "uppercase"),
        false => (&is_lower, "lowercase"),
    };
    for step in &file.steps {
        if !right(&step.keyword) {
            let message = format!(
                "Command '{}' should match the case of the command majority ({name})",
                step.keyword
            );
            add(found, "ConsistentInstructionCasing", step.lines, message);
        }
        if let Instruction::From(from) = &step.instruction
            && let Some(word) = &from.as_word
            && is_upper(word) != is_upper(&step.keyword)
        {
            let message = format!("'{word}' and '{}' keywords' casing do not match", step.keyword);
            add(found, "FromAsCasing", step.lines, message);
        }
        if step.gap {
            add(found, "NoEmptyContinuation", step.lines, "Empty continuation line".to_owned());
        }
    }
}

/// `FROM` and the names of stages.
fn stages_and_platforms(step: &Step, names: &mut BTreeSet<String>, found: &mut Vec<Warning>) {
    let Instruction::From(from) = &step.instruction else { return };
    if let Some(name) = &from.name {
        let lower = name.to_ascii_lowercase();
        if *name != lower {
            let message = format!("Stage name '{name}' should be lowercase");
            add(found, "StageNameCasing", step.lines, message);
        }
        if ["scratch", "context"].contains(&lower.as_str()) {
            let message =
                format!("Stage name should not use the same name as reserved stage \"{lower}\"");
            add(found, "ReservedStageName", step.lines, message);
        }
        if !names.insert(lower) {
            let message = format!("Duplicate stage name {name:?}, stage names should be unique");
            add(found, "DuplicateStageName", step.lines, message);
        }
    }
    match from.platform.as_deref() {
        Some("$TARGETPLATFORM" | "${TARGETPLATFORM}") => {
            let message = "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as \
                           this is the default behavior";
            add(found, "RedundantTargetPlatform", step.lines, message.to_owned());
        }
        Some(platform) if !platform.contains('$') => {
            let message =
                format!("FROM --platform flag should not use constant value {platform:?}");
            add(found, "FromPlatformFlagConstDisallowed", step.lines, message);
        }
        _ => {}
    }
}

pub(super) fn stages(file: &Dockerfile, found: &mut Vec<Warning>) {
    let mut names = BTreeSet::new();
    let mut globals: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    for step in &file.steps {
        match &step.instruction {
            Instruction::Arg(arguments) if !file_has_from(file, step) => {
                for (name, default) in arguments {
                    globals.insert(name, default.as_deref());
                }
            }
            Instruction::From(from) => {
                stages_and_platforms(step, &mut names, found);
                let lookup = |name: &str| match globals.get(name) {
                    Some(value) => value.map(str::to_owned),
                    None => AUTOMATIC.contains(&name).then(|| "x".to_owned()),
                };
                let expander = Expander::new(file.directives.escape, &lookup);
                // What can't be expanded is an error of the build.
                let image = expander.word(&from.image).unwrap_or_else(|_| "x".to_owned());
                let unset = expander.unset();
                let declared = |name: &&String| globals.contains_key(name.as_str());
                for name in unset.iter().filter(|name| !declared(name)) {
                    let message = format!("FROM argument '{name}' is not declared");
                    add(found, "UndefinedArgInFrom", step.lines, message);
                }
                let broken =
                    image.is_empty() || image.ends_with([':', '@', '/']) || image.contains("//");
                if broken && unset.iter().any(|name| declared(&name)) {
                    let message = format!(
                        "Default value for ARG {} results in empty or invalid base image name",
                        from.image
                    );
                    add(found, "InvalidDefaultArgInFrom", step.lines, message);
                }
            }
            _ => {}
        }
    }
}

/// Whether a stage begins before the step.
fn file_has_from(file: &Dockerfile, step: &Step) -> bool {
    let before = file.steps.iter().take_while(|other| other.lines.first < step.lines.first);
    before.into_iter().any(|other| matches!(other.instruction, Instruction::From(_)))
}

/// Instructions that are there twice, in an old form, or say too much.
pub(super) fn settings(file: &Dockerfile, found: &mut Vec<Warning>) {
    for stage in stages_of(file) {
        let mut seen: BTreeMap<&str, Vec<Lines>> = BTreeMap::new();
        let has_shell = stage.iter().any(|step| matches!(step.instruction, Instruction::Shell(_)));
        for step in stage {
            one_setting(step, has_shell, found);
            let name = match &step.instruction {
                Instruction::Cmd(_) => "CMD",
                Instruction::Entrypoint(_) => "ENTRYPOINT",
                Instruction::Health(_) => "HEALTHCHECK",
                _ => continue,
            };
            seen.entry(name).or_default().push(step.lines);
        }
        for (name, lines) in seen {
            for at in &lines[..lines.len() - 1] {
                let message = format!(
                    "Multiple {name} instructions should not be used in the same stage because only \
                     the last one will be used"
                );
                add(found, "MultipleInstructionsDisallowed", *at, message);
            }
        }
    }
}

fn one_setting(step: &Step, has_shell: bool, found: &mut Vec<Warning>) {
    let upper = step.keyword.to_ascii_uppercase();
    match &step.instruction {
        Instruction::Maintainer(_) => {
            let message = "Maintainer instruction is deprecated in favor of using label";
            add(found, "MaintainerDeprecated", step.lines, message.to_owned());
        }
        Instruction::Cmd(Command::Shell(_)) | Instruction::Entrypoint(Command::Shell(_))
            if !has_shell =>
        {
            let message = format!(
                "JSON arguments recommended for {upper} to prevent unintended behavior related to OS signals"
            );
            add(found, "JSONArgsRecommended", step.lines, message);
        }
        Instruction::Env(pairs) | Instruction::Label(pairs) if pairs.legacy => {
            let message = format!(
                "\"{upper} key=value\" should be used instead of legacy \"{upper} key value\" format"
            );
            add(found, "LegacyKeyValueFormat", step.lines, message);
        }
        Instruction::Expose(words) => {
            for word in words {
                if word.contains(':') {
                    let message = format!(
                        "EXPOSE instruction should not define an IP address or host-port mapping, \
                         found '{word}'"
                    );
                    add(found, "ExposeInvalidFormat", step.lines, message);
                }
                let protocol = word.split_once('/').map_or("", |(_, protocol)| protocol);
                if protocol.contains(|c: char| c.is_ascii_uppercase()) {
                    let message = format!(
                        "Defined protocol '{protocol}' in EXPOSE instruction should be lowercase"
                    );
                    add(found, "ExposeProtoCasing", step.lines, message);
                }
            }
        }
        _ => {}
    }
    let names: Vec<&str> = match &step.instruction {
        Instruction::Env(pairs) => pairs.pairs.iter().map(|(key, _)| key.as_str()).collect(),
        Instruction::Arg(arguments) => arguments.iter().map(|(name, _)| name.as_str()).collect(),
        _ => Vec::new(),
    };
    for name in names.into_iter().filter(|name| is_secret(name)) {
        let message =
            format!("Do not use ARG or ENV instructions for sensitive data ({upper} \"{name}\")");
        add(found, "SecretsUsedInArgOrEnv", step.lines, message);
    }
}

fn is_secret(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let parts: Vec<&str> = lower.split(['_', '-', '.']).collect();
    parts.iter().any(|part| SECRET.contains(part)) && !parts.contains(&"public")
}

/// Variables that nothing sets, and directories that start nowhere.
pub(super) fn variables(file: &Dockerfile, around: &Surroundings<'_>, found: &mut Vec<Warning>) {
    let mut known: BTreeMap<String, Option<(BTreeSet<String>, bool)>> = BTreeMap::new();
    let escape = file.directives.escape;
    for stage in stages_of(file) {
        let [first, rest @ ..] = stage else { continue };
        let Instruction::From(from) = &first.instruction else { continue };
        let lower = from.image.to_ascii_lowercase();
        // The names that are set, and whether a directory is.
        let mut state = match known.get(&lower) {
            Some(state) => state.clone(),
            None if from.image == "scratch" => Some((BTreeSet::from(["PATH".to_owned()]), false)),
            None => (around.base)(&from.image).map(|(env, directory)| {
                let names = env.iter().filter_map(|word| word.split_once('='));
                (names.map(|(name, _)| name.to_owned()).collect(), !directory.is_empty())
            }),
        };
        for step in rest {
            let Some((names, has_directory)) = &mut state else { break };
            let set = names.clone();
            let lookup = |name: &str| set.contains(name).then(|| "x".to_owned());
            let expander = Expander::new(escape, &lookup);
            for word in expanded_words(&step.instruction) {
                // An error is the build's to tell.
                let _ = expander.word(word);
            }
            for name in expander.unset() {
                let message = format!("Usage of undefined variable '${name}'");
                add(found, "UndefinedVar", step.lines, message);
            }
            match &step.instruction {
                Instruction::Env(pairs) => {
                    names.extend(pairs.pairs.iter().map(|(key, _)| key.clone()));
                }
                Instruction::Arg(arguments) => {
                    names.extend(arguments.iter().map(|(name, _)| name.clone()));
                }
                Instruction::Workdir(path) => {
                    if !*has_directory && !path.starts_with(['/', '$', '"', '\'']) {
                        let message = format!(
                            "Relative workdir {path:?} can have unexpected results if the base \
                             image changes"
                        );
                        add(found, "WorkdirRelativePath", step.lines, message);
                    }
                    *has_directory = true;
                }
                _ => {}
            }
        }
        if let Some(name) = &from.name {
            known.insert(name.to_ascii_lowercase(), state);
        }
    }
}

/// What variables are replaced in.
fn expanded_words(instruction: &Instruction) -> Vec<&str> {
    match instruction {
        Instruction::Env(pairs) | Instruction::Label(pairs) => {
            pairs.pairs.iter().flat_map(|(key, value)| [key.as_str(), value]).collect()
        }
        Instruction::Arg(arguments) => {
            arguments.iter().filter_map(|(_, default)| default.as_deref()).collect()
        }
        Instruction::Transfer(copy) => copy
            .sources
            .iter()
            .chain([&copy.target])
            .chain(&copy.chown)
            .chain(&copy.chmod)
            .map(String::as_str)
            .collect(),
        Instruction::Expose(words) | Instruction::Volume(words) => {
            words.iter().map(String::as_str).collect()
        }
        Instruction::User(word) | Instruction::Workdir(word) | Instruction::StopSignal(word) => {
            vec![word]
        }
        _ => Vec::new(),
    }
}

/// Files that are named and ignored.
pub(super) fn copies(file: &Dockerfile, ignore: &Ignore, found: &mut Vec<Warning>) {
    for step in &file.steps {
        let Instruction::Transfer(copy) = &step.instruction else { continue };
        if copy.from.is_some() {
            continue;
        }
        for source in &copy.sources {
            let path = crate::rooted::as_text(source);
            let plain = !source.contains("://") && !source.starts_with("<<") && !path.is_empty();
            if plain && ignore.leaves_out(path.as_bytes()) {
                let keyword = if copy.add { "Add" } else { "Copy" };
                let message = format!(
                    "Attempting to {keyword} file {source:?} that is excluded by .dockerignore"
                );
                add(found, "CopyIgnoredFile", step.lines, message);
            }
        }
    }
}
