//! Instructions that change how the image runs, and no file.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::dockerfile::{Command, Health, Instruction};
use super::expand::Expander;
use super::paths;
use super::state::State;

/// Names of signals, without `SIG`.
const SIGNALS: [&str; 33] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU",
];

/// Carries out the instruction; gives what the history says of it. `None`: it is of another kind.
pub(crate) fn apply(
    state: &mut State,
    instruction: &Instruction,
    expander: &Expander<'_>,
) -> Result<Option<String>> {
    let text = match instruction {
        Instruction::Env(pairs) | Instruction::Label(pairs) => {
            let mut expanded = Vec::new();
            for (key, value) in &pairs.pairs {
                expanded.push((expander.word(key)?, expander.word(value)?));
            }
            let shown: Vec<String> = expanded.iter().map(|(k, v)| format!("{k}={v}")).collect();
            if matches!(instruction, Instruction::Env(_)) {
                for (key, value) in &expanded {
                    ensure!(!key.is_empty(), "ENV names can not be blank");
                    state.set_env(key, value);
                }
                format!("ENV {}", shown.join(" "))
            } else {
                state.parts.config.config.labels.extend(expanded);
                format!("LABEL {}", shown.join(" "))
            }
        }
        Instruction::Cmd(command) => {
            let words = state.words(command);
            state.own_command = true;
            let text = format!("CMD {}", go_list(&words));
            state.parts.config.config.cmd = Some(words);
            text
        }
        Instruction::Entrypoint(command) => {
            let words = state.words(command);
            let text = format!("ENTRYPOINT {}", go_list(&words));
            let config = &mut state.parts.config.config;
            config.entrypoint = Some(words);
            // What the base gave it as arguments is not meant for this one.
            if !state.own_command {
                config.cmd = None;
            }
            text
        }
        Instruction::Shell(words) => {
            let text = format!("SHELL [{}]", words.join(" "));
            state.parts.config.config.other.insert("Shell".to_owned(), json!(words));
            text
        }
        Instruction::Expose(words) => expose(state, words, expander)?,
        Instruction::Volume(words) => {
            let mut paths = Vec::new();
            for word in words {
                let path = expander.word(word)?;
                ensure!(!path.trim().is_empty(), "VOLUME specified can not be an empty string");
                paths.push(path.trim().to_owned());
            }
            let text = format!("VOLUME [{}]", paths.join(" "));
            let volumes = paths.into_iter().map(|path| (path, json!({})));
            state.parts.config.config.volumes.extend(volumes);
            text
        }
        Instruction::User(user) => {
            let user = expander.word(user)?;
            ensure!(!user.is_empty(), "USER is empty");
            state.parts.config.config.user.clone_from(&user);
            format!("USER {user}")
        }
        Instruction::StopSignal(word) => {
            let signal = expander.word(word)?;
            ensure!(is_signal(&signal), "invalid stop signal: {signal:?}");
            state.parts.config.config.stop_signal = Some(signal.clone());
            format!("STOPSIGNAL {signal}")
        }
        Instruction::Health(health) => {
            let (value, text) = health_check(health);
            state.parts.config.config.other.insert("Healthcheck".to_owned(), value);
            text
        }
        Instruction::Onbuild(trigger) => {
            let list = state.parts.config.config.other.entry("OnBuild".to_owned());
            match list.or_insert_with(|| json!([])) {
                Value::Array(list) => list.push(json!(trigger)),
                other => *other = json!([trigger]),
            }
            format!("ONBUILD {trigger}")
        }
        Instruction::Maintainer(name) => {
            state.parts.config.author = Some(name.clone());
            format!("MAINTAINER {name}")
        }
        Instruction::From(_)
        | Instruction::Arg(_)
        | Instruction::Run(_)
        | Instruction::Transfer(_)
        | Instruction::Workdir(_) => return Ok(None),
    };
    Ok(Some(text))
}

/// Sets the directory; gives it from the root and clean.
pub(crate) fn workdir(state: &mut State, word: &str, expander: &Expander<'_>) -> Result<String> {
    let word = expander.word(word)?;
    ensure!(!word.is_empty(), "WORKDIR is empty");
    let path = format!("/{}", paths::absolute(&state.parts.config.config.working_dir, &word));
    state.parts.config.config.working_dir.clone_from(&path);
    Ok(path)
}

/// Words as Go prints a list of quoted strings.
pub(crate) fn go_list(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

fn expose(state: &mut State, words: &[String], expander: &Expander<'_>) -> Result<String> {
    let mut shown = Vec::new();
    for word in words {
        for word in expander.words(word)? {
            for port in ports(&word)? {
                shown.push(format!("{port}:{{}}"));
                state.parts.config.config.exposed_ports.insert(port, json!({}));
            }
        }
    }
    shown.sort();
    Ok(format!("EXPOSE map[{}]", shown.join(" ")))
}

/// `[[IP:]HOST:]PORT[-PORT][/PROTOCOL]`, one by one. What is said of the host means nothing here.
fn ports(word: &str) -> Result<Vec<String>> {
    let invalid = || format!("invalid containerPort: {word}");
    let (range, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    ensure!(matches!(protocol.as_str(), "tcp" | "udp" | "sctp"), "invalid proto: {protocol}");
    let range = range.rsplit_once(':').map_or(range, |(_, range)| range);
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| text.parse::<u16>().with_context(invalid);
    let (first, last) = (number(first)?, number(last)?);
    ensure!(first > 0 && first <= last, "{}", invalid());
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn is_signal(word: &str) -> bool {
    if let Ok(number) = word.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time =
        |prefix: &str| name.strip_prefix(prefix).is_some_and(|n| n.parse::<u8>().is_ok());
    SIGNALS.contains(&name)
        || matches!(name, "XFSZ" | "RTMIN" | "RTMAX")
        || real_time("RTMIN+")
        || real_time("RTMAX-")
}

/// What the config says of it, and how it stands in the history.
pub(crate) fn health_check(health: &Health) -> (Value, String) {
    let Some(command) = &health.command else {
        return (json!({"Test": ["NONE"]}), "HEALTHCHECK NONE".to_owned());
    };
    let test = match command {
        Command::Exec(words) => [vec!["CMD".to_owned()], words.clone()].concat(),
        Command::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
    };
    let mut value = Map::new();
    let mut text = String::from("HEALTHCHECK");
    value.insert("Test".to_owned(), json!(test));
    for (key, flag, number) in [
        ("Interval", "interval", health.interval),
        ("Timeout", "timeout", health.timeout),
        ("StartPeriod", "start-period", health.start_period),
        ("StartInterval", "start-interval", health.start_interval),
        ("Retries", "retries", health.retries),
    ] {
        if number > 0 {
            value.insert(key.to_owned(), json!(number));
            let unit = if key == "Retries" { "" } else { "ns" };
            text.push_str(&format!(" --{flag}={number}{unit}"));
        }
    }
    text.push_str(&format!(" {}", go_list(&test)));
    (Value::Object(value), text)
}

/// The arguments that an `ARG` brings into scope, with what the history says.
pub(crate) fn argument(
    name: &str,
    default: Option<&str>,
    expander: &Expander<'_>,
    given: &dyn Fn(&str) -> Option<String>,
    global: &dyn Fn(&str) -> Option<String>,
) -> Result<(String, Option<String>, String)> {
    let name = expander.word(name)?;
    if name.is_empty() {
        bail!("ARG names can not be blank");
    }
    let default = default.map(|text| expander.word(text)).transpose()?;
    let value = given(&name).or(default).or_else(|| global(&name));
    let text = match &value {
        Some(value) => format!("ARG {name}={value}"),
        None => format!("ARG {name}"),
    };
    Ok((name, value, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_listed_one_by_one() {
        assert_eq!(ports("80").unwrap(), ["80/tcp"]);
        assert_eq!(ports("8000-8002/UDP").unwrap(), ["8000/udp", "8001/udp", "8002/udp"]);
        assert_eq!(ports("127.0.0.1:8080:80").unwrap(), ["80/tcp"]);
        for bad in ["http", "0", "90-80", "70000", "80/xtp"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for good in ["9", "SIGTERM", "int", "SIGRTMIN+3", "RTMAX-1"] {
            assert!(is_signal(good), "{good}");
        }
        for bad in ["0", "99", "SIGFOO", ""] {
            assert!(!is_signal(bad), "{bad}");
        }
    }
}
