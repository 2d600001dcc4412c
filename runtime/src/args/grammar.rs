//! The grammar of runc's flags: long ones with one dash or two, `=value` or a word that follows,
//! `=true` and `=false` for switches, one list entry per flag.

use clap::{ArgAction, Command};

/// Whether a flag is still one after the first word that is none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    FlagsFirst,
    /// Before the command, where one asks for the version, too.
    Globals,
    Mixed,
}

/// Whether switches of one letter may stand behind one dash, as in `-it`. runc knows no such thing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Letters {
    Apart,
    Together,
}

/// The words in the one spelling that clap is given.
pub(super) struct Words {
    flags: Vec<String>,
    pub(super) positional: Vec<String>,
    pub(super) help: bool,
    pub(super) version: bool,
}

impl Words {
    /// Of words that are known to begin with no flag.
    pub(super) fn positional(words: &[String]) -> Self {
        Self { flags: vec![], positional: words.to_vec(), help: false, version: false }
    }

    /// Whether the flag of this long name was given.
    pub(super) fn has_flag(&self, long: &str) -> bool {
        self.flags.iter().any(|flag| {
            let name = flag.trim_start_matches('-');
            name.split('=').next() == Some(long)
        })
    }

    /// The line for clap, after the name of the program.
    pub(super) fn canonical(&self, name: &str, with_positional: bool) -> Vec<String> {
        let mut line = vec![name.to_owned()];
        line.extend(self.flags.iter().cloned());
        if with_positional && !self.positional.is_empty() {
            line.push("--".to_owned());
            line.extend(self.positional.iter().cloned());
        }
        line
    }
}

/// Sorts `words` by what `command` knows of flags.
pub(super) fn read(
    command: &Command,
    words: &[String],
    order: Order,
    letters: Letters,
) -> Result<Words, String> {
    let mut out = Words { flags: vec![], positional: vec![], help: false, version: false };
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        if word == "--" {
            out.positional.extend(rest.cloned());
            break;
        }
        let Some(flag) = word.strip_prefix('-').filter(|flag| !flag.is_empty()) else {
            out.positional.push(word.clone());
            if order != Order::Mixed {
                out.positional.extend(rest.cloned());
                break;
            }
            continue;
        };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag, None),
        };
        match name {
            "h" | "help" => out.help = true,
            "v" | "version" if order == Order::Globals => out.version = true,
            _ if letters == Letters::Together && is_cluster(command, word) => {
                for letter in name.chars() {
                    one_flag(command, &letter.to_string(), None, &mut rest, &mut out.flags)?;
                }
            }
            _ => one_flag(command, name, value, &mut rest, &mut out.flags)?,
        }
    }
    Ok(out)
}

/// Switches, of which the last may be a flag with a value.
fn is_cluster(command: &Command, word: &str) -> bool {
    let letters = word.strip_prefix('-').unwrap_or_default();
    let named = command.get_arguments().any(|argument| argument.get_long() == Some(letters));
    let count = letters.chars().count();
    !named
        && count > 1
        && letters.chars().enumerate().all(|(index, letter)| {
            let known = command.get_arguments().find(|it| it.get_short() == Some(letter));
            known.is_some_and(|known| {
                index + 1 == count || matches!(known.get_action(), ArgAction::SetTrue)
            })
        })
}

fn one_flag<'a>(
    command: &Command,
    name: &str,
    value: Option<&str>,
    rest: &mut impl Iterator<Item = &'a String>,
    flags: &mut Vec<String>,
) -> Result<(), String> {
    let mut letters = name.chars();
    let letter = letters.next().filter(|_| letters.next().is_none());
    let known = command.get_arguments().find(|argument| {
        !argument.is_positional()
            && (argument.get_long() == Some(name)
                || letter.is_some_and(|c| argument.get_short() == Some(c)))
    });
    let Some((argument, long)) = known.and_then(|known| Some((known, known.get_long()?))) else {
        return Err(format!("flag provided but not defined: -{name}"));
    };
    if matches!(argument.get_action(), ArgAction::SetTrue) {
        match value.map_or(Some(true), boolean) {
            Some(true) => flags.push(format!("--{long}")),
            Some(false) => {}
            None => {
                let value = value.unwrap_or_default();
                return Err(format!("invalid boolean value {value:?} for -{name}: parse error"));
            }
        }
        return Ok(());
    }
    match value.or_else(|| rest.next().map(String::as_str)) {
        Some(value) => flags.push(format!("--{long}={value}")),
        None => return Err(format!("flag needs an argument: -{name}")),
    }
    Ok(())
}

/// What Go takes for a truth value.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
