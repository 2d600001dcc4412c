//! The eighteen instructions, each with its flags and arguments.

use anyhow::{Context, Result, bail, ensure};

use super::flags::{Flags, Kind, suggestion};
use super::heredoc::Heredoc;
use super::pairs::{self, Pairs};
use super::words;

/// All there are.
pub(crate) const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// A line for the shell, or a program with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Shell(String),
    Exec(Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct From {
    pub(crate) platform: Option<String>,
    pub(crate) image: String,
    pub(crate) name: Option<String>,
    /// The word between them, as written.
    pub(crate) as_word: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) mounts: Vec<String>,
    pub(crate) network: Option<String>,
    pub(crate) security: Option<String>,
    pub(crate) command: Command,
    pub(crate) heredocs: Vec<Heredoc>,
}

/// `COPY` or `ADD`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) add: bool,
    pub(crate) from: Option<String>,
    pub(crate) chown: Option<String>,
    pub(crate) chmod: Option<String>,
    pub(crate) link: bool,
    pub(crate) parents: bool,
    pub(crate) exclude: Vec<String>,
    pub(crate) checksum: Option<String>,
    pub(crate) keep_git_dir: bool,
    pub(crate) unpack: Option<bool>,
    /// As written; what opens a heredoc is among them.
    pub(crate) sources: Vec<String>,
    pub(crate) target: String,
    pub(crate) heredocs: Vec<Heredoc>,
}

/// `HEALTHCHECK`; the times in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// `None` for `NONE`.
    pub(crate) command: Option<Command>,
    pub(crate) interval: u64,
    pub(crate) timeout: u64,
    pub(crate) start_period: u64,
    pub(crate) start_interval: u64,
    pub(crate) retries: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Instruction {
    From(From),
    Arg(Vec<(String, Option<String>)>),
    Env(Pairs),
    Label(Pairs),
    Run(Run),
    Transfer(Transfer),
    Cmd(Command),
    Entrypoint(Command),
    Shell(Vec<String>),
    Expose(Vec<String>),
    Volume(Vec<String>),
    User(String),
    Workdir(String),
    StopSignal(String),
    Health(Health),
    /// The instruction with its heredocs, as it stands in the image.
    Onbuild(String),
    Maintainer(String),
}

/// Reads one instruction; also gives its keyword as written.
pub(crate) fn parse_instruction(
    text: &str,
    heredocs: &[Heredoc],
    escape: char,
) -> Result<(String, Instruction)> {
    let (keyword, rest) = words::first(text);
    let upper = keyword.to_ascii_uppercase();
    if !KEYWORDS.contains(&upper.as_str()) {
        let hint = suggestion(&upper, KEYWORDS);
        let hint = hint.map_or(String::new(), |hint| format!(" (did you mean {hint}?)"));
        bail!("unknown instruction: {keyword}{hint}");
    }
    let (flags, arguments) = match upper.as_str() {
        // Its flags are those of the instruction it holds.
        "ONBUILD" => (Vec::new(), rest),
        _ => words::leading_flags(rest),
    };
    ensure!(
        !arguments.trim().is_empty() || upper == "CMD",
        "{upper} requires at least one argument"
    );
    let parsed = build(&upper, &flags, arguments.trim(), heredocs, escape);
    Ok((keyword.to_owned(), parsed?))
}

fn build(
    keyword: &str,
    flags: &[String],
    text: &str,
    heredocs: &[Heredoc],
    escape: char,
) -> Result<Instruction> {
    let known: &[(&str, Kind)] = match keyword {
        "FROM" => &[("platform", Kind::Value)],
        "RUN" => &[("mount", Kind::List), ("network", Kind::Value), ("security", Kind::Value)],
        "COPY" => &[
            ("from", Kind::Value),
            ("chown", Kind::Value),
            ("chmod", Kind::Value),
            ("link", Kind::Switch),
            ("parents", Kind::Switch),
            ("exclude", Kind::List),
        ],
        "ADD" => &[
            ("chown", Kind::Value),
            ("chmod", Kind::Value),
            ("link", Kind::Switch),
            ("keep-git-dir", Kind::Switch),
            ("checksum", Kind::Value),
            ("unpack", Kind::Switch),
            ("exclude", Kind::List),
        ],
        "HEALTHCHECK" => &[
            ("interval", Kind::Value),
            ("timeout", Kind::Value),
            ("start-period", Kind::Value),
            ("start-interval", Kind::Value),
            ("retries", Kind::Value),
        ],
        _ => &[],
    };
    let flags = Flags::parse(flags, known)?;
    Ok(match keyword {
        "FROM" => Instruction::From(from(&flags, text)?),
        "RUN" => Instruction::Run(Run {
            mounts: flags.list("mount"),
            network: flags.value("network"),
            security: flags.value("security"),
            command: command(text)?,
            heredocs: heredocs.to_vec(),
        }),
        "COPY" | "ADD" => Instruction::Transfer(transfer(keyword, &flags, text, heredocs)?),
        "HEALTHCHECK" => Instruction::Health(health(&flags, text)?),
        "ARG" => Instruction::Arg(pairs::arguments(text, escape)?),
        "ENV" => Instruction::Env(pairs::pairs(keyword, text, escape)?),
        "LABEL" => Instruction::Label(pairs::pairs(keyword, text, escape)?),
        "CMD" => Instruction::Cmd(command(text)?),
        "ENTRYPOINT" => Instruction::Entrypoint(command(text)?),
        "SHELL" => match words::json_list(text)? {
            Some(words) if !words.is_empty() => Instruction::Shell(words),
            Some(_) => bail!("SHELL requires at least one argument"),
            None => bail!("SHELL requires the arguments to be in JSON form"),
        },
        "EXPOSE" => Instruction::Expose(text.split_whitespace().map(str::to_owned).collect()),
        "VOLUME" => {
            let paths = words::list(text)?;
            ensure!(
                !paths.is_empty() && paths.iter().all(|path| !path.trim().is_empty()),
                "VOLUME specified can not be an empty string"
            );
            Instruction::Volume(paths)
        }
        "USER" => Instruction::User(text.to_owned()),
        "WORKDIR" => Instruction::Workdir(text.to_owned()),
        "STOPSIGNAL" => Instruction::StopSignal(one(keyword, text)?),
        "ONBUILD" => Instruction::Onbuild(onbuild(text, heredocs, escape)?),
        "MAINTAINER" => Instruction::Maintainer(text.to_owned()),
        _ => bail!("unknown instruction: {keyword}"),
    })
}

fn one(keyword: &str, text: &str) -> Result<String> {
    ensure!(!text.contains(char::is_whitespace), "{keyword} requires exactly one argument");
    Ok(text.to_owned())
}

fn command(text: &str) -> Result<Command> {
    Ok(match words::json_list(text)? {
        Some(words) => Command::Exec(words),
        None => Command::Shell(text.to_owned()),
    })
}

fn from(flags: &Flags, text: &str) -> Result<From> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (image, as_word, name) = match words[..] {
        [image] => (image, None, None),
        [image, word, name] if word.eq_ignore_ascii_case("as") => (image, Some(word), Some(name)),
        _ => bail!("FROM requires either one or three arguments"),
    };
    if let Some(name) = name {
        let lower = name.to_ascii_lowercase();
        let valid = lower.starts_with(|c: char| c.is_ascii_lowercase())
            && lower.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        ensure!(
            valid,
            "invalid name for build stage: {name:?}, name can't start with a number or contain \
             symbols"
        );
    }
    Ok(From {
        platform: flags.value("platform"),
        image: image.to_owned(),
        name: name.map(str::to_owned),
        as_word: as_word.map(str::to_owned),
    })
}

fn transfer(keyword: &str, flags: &Flags, text: &str, heredocs: &[Heredoc]) -> Result<Transfer> {
    let mut sources = words::list(text)?;
    let target = sources.pop().unwrap_or_default();
    ensure!(
        !sources.is_empty(),
        "{keyword} requires at least two arguments, but only one was provided. Destination could \
         not be determined"
    );
    ensure!(!target.is_empty(), "{keyword} requires a destination");
    Ok(Transfer {
        add: keyword == "ADD",
        from: flags.value("from"),
        chown: flags.value("chown"),
        chmod: flags.value("chmod"),
        link: flags.is_on("link"),
        parents: flags.is_on("parents"),
        exclude: flags.list("exclude"),
        checksum: flags.value("checksum"),
        keep_git_dir: flags.is_on("keep-git-dir"),
        unpack: flags.value("unpack").map(|value| value == "true"),
        sources,
        target,
        heredocs: heredocs.to_vec(),
    })
}

fn health(flags: &Flags, text: &str) -> Result<Health> {
    let (kind, rest) = words::first(text);
    match kind.to_ascii_uppercase().as_str() {
        "NONE" => {
            ensure!(rest.is_empty(), "HEALTHCHECK NONE takes no arguments");
            Ok(Health::default())
        }
        "CMD" => {
            ensure!(!rest.is_empty(), "missing command after HEALTHCHECK CMD");
            let time = |name: &str| match flags.value(name) {
                Some(text) => duration(&text).with_context(|| format!("flag --{name}")),
                None => Ok(0),
            };
            let retries = flags.value("retries").map_or(Ok(0), |text| {
                text.parse().with_context(|| format!("--retries {text:?} is not a number"))
            })?;
            Ok(Health {
                command: Some(command(rest)?),
                interval: time("interval")?,
                timeout: time("timeout")?,
                start_period: time("start-period")?,
                start_interval: time("start-interval")?,
                retries,
            })
        }
        _ => bail!("unknown type {kind:?} in HEALTHCHECK (try CMD)"),
    }
}

/// A time as Go writes it, in nanoseconds: `1h30m`, `1.5s`, `500ms`. Zero, or a millisecond at least.
pub(crate) fn duration(text: &str) -> Result<u64> {
    let invalid = || format!("invalid duration {text:?}: want one such as 30s or 1m30s");
    let mut total = 0.0_f64;
    let mut rest = text;
    ensure!(!rest.is_empty(), "{}", invalid());
    while !rest.is_empty() && rest != "0" {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').with_context(invalid)?;
        let number: f64 = rest[..digits].parse().with_context(invalid)?;
        let unit = &rest[digits..];
        let end = unit.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit.len());
        total += number
            * match &unit[..end] {
                "h" => 3600e9,
                "m" => 60e9,
                "s" => 1e9,
                "ms" => 1e6,
                "us" | "µs" => 1e3,
                "ns" => 1.0,
                _ => bail!("{}", invalid()),
            };
        rest = &unit[end..];
    }
    ensure!(total == 0.0 || total >= 1e6, "it can not be less than 1ms");
    ensure!(total < 9e18, "it is too long");
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    Ok(total as u64)
}

/// What may stand behind `ONBUILD`.
pub(super) fn check_trigger(keyword: &str) -> Result<()> {
    match keyword.to_ascii_uppercase().as_str() {
        "ONBUILD" => bail!("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        keyword @ ("FROM" | "MAINTAINER") => bail!("{keyword} isn't allowed as an ONBUILD trigger"),
        _ => Ok(()),
    }
}

fn onbuild(text: &str, heredocs: &[Heredoc], escape: char) -> Result<String> {
    let (keyword, _) = words::first(text);
    check_trigger(keyword)?;
    parse_instruction(text, heredocs, escape)?;
    let mut whole = text.to_owned();
    for heredoc in heredocs {
        whole.push_str(&format!("\n{}{}", heredoc.body, heredoc.name));
    }
    Ok(whole)
}
