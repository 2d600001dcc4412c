//! `--change`: one Dockerfile instruction that alters how the image runs.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::build::dockerfile::{Instruction, parse_instruction};
use crate::build::settings::health_check;
use crate::manifest::Config;
use crate::rooted;

/// An instruction, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Cmd(Vec<String>),
    Entrypoint(Vec<String>),
    Env(Vec<(String, String)>),
    Expose(Vec<String>),
    Health(Value),
    Label(Vec<(String, String)>),
    Onbuild(String),
    StopSignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

impl Change {
    /// Reads an instruction as it would stand in a Dockerfile.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        ensure!(!rest.is_empty(), "change {text:?}: {word} needs an argument");
        let change = match word.to_ascii_uppercase().as_str() {
            "CMD" => Self::Cmd(command(rest)),
            "ENTRYPOINT" => Self::Entrypoint(command(rest)),
            "ENV" => Self::Env(pairs(rest)?),
            "EXPOSE" => {
                Self::Expose(words(rest)?.iter().map(|word| port(word)).collect::<Result<_>>()?)
            }
            "LABEL" => Self::Label(pairs(rest)?),
            "HEALTHCHECK" | "ONBUILD" => Self::as_in_a_build(text)?,
            "STOPSIGNAL" => Self::StopSignal(single(rest)?),
            "USER" => Self::User(single(rest)?),
            "VOLUME" => Self::Volume(match json_words(rest) {
                Some(volumes) => volumes,
                None => words(rest)?,
            }),
            "WORKDIR" => Self::Workdir(single(rest)?),
            _ => bail!(
                "change {text:?}: not one of CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, \
                 ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR"
            ),
        };
        Ok(change)
    }

    /// What has flags, or another instruction in it.
    fn as_in_a_build(text: &str) -> Result<Self> {
        let parsed = parse_instruction(text, &[], '\\');
        match parsed.with_context(|| format!("change {text:?}"))?.1 {
            Instruction::Health(health) => Ok(Self::Health(health_check(&health).0)),
            Instruction::Onbuild(trigger) => Ok(Self::Onbuild(trigger)),
            _ => bail!("change {text:?} is no instruction"),
        }
    }
}

/// Makes the changes in order. As in a Dockerfile, a new entry point takes the command of the old
/// one away unless a command is given too.
pub(crate) fn apply(changes: &[Change], config: &mut Config) {
    let keeps_command = changes.iter().any(|change| matches!(change, Change::Cmd(_)));
    for change in changes {
        match change {
            Change::Cmd(command) => config.cmd = Some(command.clone()),
            Change::Entrypoint(command) => {
                config.entrypoint = Some(command.clone());
                if !keeps_command {
                    config.cmd = None;
                }
            }
            Change::Env(pairs) => pairs.iter().for_each(|(key, value)| set_env(config, key, value)),
            Change::Expose(ports) => {
                config.exposed_ports.extend(ports.iter().map(|port| (port.clone(), json!({}))));
            }
            Change::Health(check) => {
                config.other.insert("Healthcheck".to_owned(), check.clone());
            }
            Change::Onbuild(trigger) => {
                let triggers = config.other.entry("OnBuild".to_owned()).or_insert(Value::Null);
                match triggers {
                    Value::Array(list) => list.push(json!(trigger)),
                    other => *other = json!([trigger]),
                }
            }
            Change::Label(pairs) => config.labels.extend(pairs.iter().cloned()),
            Change::StopSignal(signal) => config.stop_signal = Some(signal.clone()),
            Change::User(user) => config.user.clone_from(user),
            Change::Volume(paths) => {
                config.volumes.extend(paths.iter().map(|path| (path.clone(), json!({}))));
            }
            Change::Workdir(path) => config.working_dir = join(&config.working_dir, path),
        }
    }
}

fn set_env(config: &mut Config, key: &str, value: &str) {
    let prefix = format!("{key}=");
    let entry = format!("{prefix}{value}");
    match config.env.iter_mut().find(|known| known.starts_with(&prefix)) {
        Some(known) => *known = entry,
        None => config.env.push(entry),
    }
}

/// A path from the one before it, resolved as text.
fn join(base: &str, path: &str) -> String {
    let path = if path.starts_with('/') { path.to_owned() } else { format!("{base}/{path}") };
    format!("/{}", rooted::as_text(&path))
}

/// A JSON list, or else a line for the shell.
fn command(text: &str) -> Vec<String> {
    json_words(text).unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()])
}

fn json_words(text: &str) -> Option<Vec<String>> {
    let list: Vec<Value> = serde_json::from_str(text).ok()?;
    list.into_iter()
        .map(|value| match value {
            Value::String(word) => Some(word),
            _ => None,
        })
        .collect()
}

fn single(text: &str) -> Result<String> {
    match &words(text)?[..] {
        [word] => Ok(word.clone()),
        _ => bail!("{text:?} is not one word"),
    }
}

/// `KEY=VALUE…`, or the older `KEY VALUE WITH SPACES`.
fn pairs(text: &str) -> Result<Vec<(String, String)>> {
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    if !first.contains('=') {
        let rest = rest.trim();
        ensure!(!rest.is_empty(), "{first:?} has no value");
        return Ok(vec![(first.to_owned(), rest.to_owned())]);
    }
    words(text)?
        .into_iter()
        .map(|word| {
            let (key, value) =
                word.split_once('=').with_context(|| format!("{word:?} has no value"))?;
            ensure!(!key.is_empty(), "{word:?} has no name");
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

/// Splits at spaces that are not quoted; quotes and the backslashes that escape go away.
fn words(text: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', None | Some('"')) => {
                let next = letters.next().context("a backslash ends the text")?;
                let current = word.get_or_insert_default();
                if quote.is_some() && !matches!(next, '"' | '\\' | '$') {
                    current.push('\\');
                }
                current.push(next);
            }
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (_, Some(open)) if letter == open => quote = None,
            (_, None) if letter.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    ensure!(quote.is_none(), "a quote in {text:?} is not closed");
    words.extend(word);
    Ok(words)
}

fn port(word: &str) -> Result<String> {
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let numbers: Vec<Option<u16>> = ports.split('-').map(|number| number.parse().ok()).collect();
    let is_range = match numbers[..] {
        [Some(port)] => port > 0,
        [Some(first), Some(last)] => first > 0 && first <= last,
        _ => false,
    };
    ensure!(
        is_range && matches!(protocol.as_str(), "tcp" | "udp" | "sctp"),
        "{word:?} is not a port such as 80 or 53/udp"
    );
    Ok(format!("{ports}/{protocol}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(texts: &[&str]) -> Config {
        let mut config = Config {
            cmd: Some(vec!["old".to_owned()]),
            env: vec!["PATH=/bin".to_owned(), "A=1".to_owned()],
            working_dir: "/srv".to_owned(),
            ..Config::default()
        };
        let changes: Vec<Change> = texts.iter().map(|text| Change::parse(text).unwrap()).collect();
        apply(&changes, &mut config);
        config
    }

    #[test]
    fn every_instruction_is_applied() {
        let config = changed(&[
            "ENTRYPOINT [\"/init\", \"-x\"]",
            "env A=2 B=\"two words\" C=it\\'s",
            "ENV OLD style value",
            "EXPOSE 80 53/UDP 8000-8010/tcp",
            "LABEL \"com.example\"='a b'",
            "USER 1000:1000",
            "VOLUME [\"/data\"]",
            "WORKDIR ../opt/./app",
            "STOPSIGNAL SIGINT",
            "HEALTHCHECK --interval=5s --retries=7 CMD /check",
            "ONBUILD RUN one",
            "onbuild COPY . /two",
        ]);
        let check = &config.other["Healthcheck"];
        assert_eq!(check["Test"], json!(["CMD-SHELL", "/check"]));
        assert_eq!(check["Interval"], json!(5_000_000_000_u64));
        assert_eq!(config.other["OnBuild"], json!(["RUN one", "COPY . /two"]));
        assert_eq!(config.entrypoint.unwrap(), ["/init", "-x"]);
        assert_eq!(config.cmd, None);
        assert_eq!(config.env, ["PATH=/bin", "A=2", "B=two words", "C=it's", "OLD=style value"]);
        let ports: Vec<_> = config.exposed_ports.keys().collect();
        assert_eq!(ports, ["53/udp", "80/tcp", "8000-8010/tcp"]);
        assert_eq!(config.labels["com.example"], "a b");
        assert_eq!(config.user, "1000:1000");
        assert!(config.volumes.contains_key("/data"));
        assert_eq!(config.working_dir, "/opt/app");
    }

    #[test]
    fn a_command_may_be_a_line_for_the_shell() {
        let config = changed(&["CMD echo \"$A\"", "ENTRYPOINT [\"env\"]"]);
        assert_eq!(config.cmd.unwrap(), ["/bin/sh", "-c", "echo \"$A\""]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in ["HEALTHCHECK x", "ONBUILD FROM a", "ONBUILD"] {
            assert!(Change::parse(text).is_err(), "{text}");
        }
        for text in ["CMD", "RUN ls", "ENV A", "EXPOSE http", "EXPOSE 0", "LABEL a='b", "USER a b"]
        {
            assert!(Change::parse(text).is_err(), "{text}");
        }
    }
}
