//! Reads a command line in two steps, since the log is opened in between; help, usage errors and
//! the version in runc's form.

use std::io::Write;

use anyhow::{Context, Result, anyhow};
use clap::{Args, FromArgMatches};

use super::{Command, Globals, SPEC_VERSION, examples, grammar, quick};
use crate::host::Program;

const TOP_HELP: &str = "COMMANDS:
{subcommands}

GLOBAL OPTIONS:
{options}
";

/// The commands that runc does not have.
const EXTENSIONS: [&str; 10] = [
    "attach",
    "completion",
    "inspect",
    "logs",
    "mounts",
    "restart",
    "stats",
    "stop",
    "unit",
    "wait",
];

/// The flags that runc does not have, by command.
const EXTENSION_FLAGS: [(&str, &str); 20] = [
    ("create", "cidfile"),
    ("create", "config"),
    ("create", "name"),
    ("delete", "regex"),
    ("exec", "interactive"),
    ("kill", "regex"),
    ("list", "all"),
    ("list", "filter"),
    ("run", "cidfile"),
    ("run", "config"),
    ("run", "detach_keys"),
    ("run", "interactive"),
    ("run", "log_max_files"),
    ("run", "log_max_size"),
    ("run", "log_path"),
    ("run", "name"),
    ("run", "restart"),
    ("run", "rm"),
    ("run", "supervise"),
    ("start", "boot"),
];

/// What docker's verbs are here, where they are none of ours.
const DOCKERS: [(&str, &str); 28] = [
    ("build", "imgtool build"),
    ("commit", "imgtool commit"),
    ("container", "runtime list -f wide, runtime inspect, …"),
    ("cp", "imgtool cp"),
    ("diff", "imgtool diff"),
    ("export", "imgtool export"),
    ("history", "imgtool history"),
    ("image", "imgtool images, imgtool inspect, …"),
    ("images", "imgtool images"),
    ("import", "imgtool import"),
    ("info", "runtime features, imgtool info and netsetup status"),
    ("load", "imgtool load"),
    ("login", "imgtool login"),
    ("logout", "imgtool logout"),
    ("ls", "runtime list"),
    ("network", "netsetup bridge"),
    ("port", "netsetup ports"),
    ("pull", "imgtool pull"),
    ("push", "imgtool push"),
    ("rename", "runtime run --name, of the next one"),
    ("rm", "runtime delete"),
    ("rmi", "imgtool rmi"),
    ("save", "imgtool save"),
    ("search", "imgtool search"),
    ("tag", "imgtool tag"),
    ("top", "runtime ps"),
    ("unpause", "runtime resume"),
    ("volume", "imgtool volume"),
];

/// What the words before and with the command come to.
pub(crate) enum Request {
    Run(Command),
    /// Help or version: to be printed, and no more.
    Print(String),
}

/// A line that makes no sense: `help` goes to stdout, `message` to the log.
#[derive(Debug)]
pub(crate) struct Misuse {
    pub(crate) help: String,
    pub(crate) message: String,
    pub(crate) code: u8,
}

impl Misuse {
    /// Prints the help that belongs to the error, and turns into one.
    pub(crate) fn explain<T>(self, code: &mut u8) -> Result<T> {
        *code = self.code;
        print(&self.help)?;
        Err(anyhow!(self.message))
    }
}

/// To stdout: help, or the version.
pub(crate) fn print(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("print")
}

/// The global options and what follows them, not yet read: the log is opened in between.
pub(crate) struct Opening {
    pub(crate) globals: Globals,
    rest: grammar::Words,
    program: Program,
}

/// Reads the words up to the command.
pub(crate) fn open(program: Program, words: &[String]) -> Result<Opening, Misuse> {
    match quick::globals(words) {
        Some((globals, rest)) => {
            Ok(Opening { globals, rest: grammar::Words::positional(rest), program })
        }
        None => open_by_grammar(program, words),
    }
}

pub(super) fn open_by_grammar(program: Program, words: &[String]) -> Result<Opening, Misuse> {
    let line = globals(program);
    let rest = grammar::read(&line, words, grammar::Order::Globals, grammar::Letters::Apart)
        .map_err(|message| misuse(&whole(program), &message))?;
    let globals = line
        .try_get_matches_from(rest.canonical(program.name(), false))
        .and_then(|matches| Globals::from_arg_matches(&matches))
        .map_err(|error| misuse(&whole(program), &first_line(&error)))?;
    Ok(Opening { globals, rest, program })
}

/// What may stand before the command.
fn globals(program: Program) -> clap::Command {
    let line = clap::Command::new(program.name())
        .about("Open Container Initiative runtime")
        .disable_help_flag(true)
        .args_override_self(true);
    let line = Globals::augment_args(line).about("runs OCI bundles as containers");
    if program == Program::Runc {
        return line.mut_arg("records", |argument| argument.hide(true));
    }
    line
}

/// All that there is, for the help.
pub(super) fn whole(program: Program) -> clap::Command {
    globals(program)
        .bin_name(program.name())
        .help_template(TOP_HELP)
        .disable_help_subcommand(true)
        .subcommands(Command::NAMES.iter().filter_map(|name| verb(program, name)))
}

/// What may follow the command of this name, if the program has it.
fn verb(program: Program, name: &str) -> Option<clap::Command> {
    let runc = program == Program::Runc;
    let mut command = Command::grammar(name).filter(|_| !(runc && EXTENSIONS.contains(&name)))?;
    for (_, flag) in EXTENSION_FLAGS.iter().filter(|(of, _)| runc && *of == name) {
        command = command.mut_arg(flag, |argument| argument.hide(true));
    }
    Some(command.bin_name(format!("{} {name}", program.name())))
}

impl Opening {
    /// Reads the command.
    pub(crate) fn request(self) -> Result<Request, Misuse> {
        let quick = match self.rest.positional.split_first() {
            Some((name, words)) if !self.rest.help && !self.rest.version => {
                quick::command(name, words)
            }
            _ => None,
        };
        match quick {
            Some(command) => Ok(Request::Run(command)),
            None => self.request_by_grammar(),
        }
    }

    pub(super) fn request_by_grammar(self) -> Result<Request, Misuse> {
        if self.rest.version {
            return Ok(Request::Print(version(self.program)));
        }
        let Some((name, words)) = self.rest.positional.split_first().filter(|_| !self.rest.help)
        else {
            return Ok(Request::Print(help(&whole(self.program))));
        };
        if matches!(name.as_str(), "help" | "h") {
            let command = match words.first() {
                None => whole(self.program),
                Some(name) => self.command(name)?,
            };
            return Ok(Request::Print(help(&command)));
        }
        let command = self.command(name)?;
        let order = match name.as_str() {
            "exec" | "kill" | "ps" => grammar::Order::FlagsFirst,
            _ => grammar::Order::Mixed,
        };
        let letters = match self.program {
            Program::Runc => grammar::Letters::Apart,
            Program::Runtime => grammar::Letters::Together,
        };
        let words = grammar::read(&command, words, order, letters)
            .map_err(|message| misuse(&command, &message))?;
        if words.help {
            return Ok(Request::Print(help(&command)));
        }
        self.check_flags(&command, name, &words)?;
        self.check_count(&command, name, words.positional.len())?;
        command
            .clone()
            .try_get_matches_from(words.canonical(name, true))
            .and_then(|matches| Command::read(name, &matches))
            .map(Request::Run)
            .map_err(|error| misuse(&command, &first_line(&error)))
    }

    fn command(&self, name: &str) -> Result<clap::Command, Misuse> {
        verb(self.program, name).ok_or_else(|| Misuse {
            help: String::new(),
            message: format!("No help topic for '{name}'{}", self.guess(name)),
            code: 3,
        })
    }

    /// `: did you mean 'list'?`, for our own users.
    fn guess(&self, name: &str) -> String {
        if self.program == Program::Runc {
            return String::new();
        }
        if let Some((_, here)) = DOCKERS.iter().find(|(verb, _)| *verb == name) {
            return format!(": it is `{here}`");
        }
        let near = Command::NAMES.iter().map(|known| (distance(name, known), known));
        match near.min().filter(|(distance, known)| *distance <= 1 + known.len() / 4) {
            Some((_, known)) => format!(": did you mean '{known}'?"),
            None => String::new(),
        }
    }

    /// What runc does not have it does not take.
    fn check_flags(
        &self,
        command: &clap::Command,
        name: &str,
        words: &grammar::Words,
    ) -> Result<(), Misuse> {
        if self.program != Program::Runc {
            return Ok(());
        }
        let ours = EXTENSION_FLAGS.iter().filter(|(of, _)| *of == name);
        let mut ours = ours.map(|(_, flag)| flag.replace('_', "-"));
        match ours.find(|flag| words.has_flag(flag)) {
            Some(flag) => Err(misuse(command, &format!("flag provided but not defined: -{flag}"))),
            None => Ok(()),
        }
    }

    /// runc's own checks, in its words; several ids, or none, are an extension.
    fn check_count(&self, command: &clap::Command, name: &str, count: usize) -> Result<(), Misuse> {
        let runc = self.program == Program::Runc;
        let (least, most) = match name {
            "create" | "run" if !runc => (0, Some(1)),
            // `start --boot` wants none.
            "start" if !runc => (0, None),
            "delete" if !runc => (1, None),
            "create" | "run" | "start" | "delete" | "state" | "pause" | "resume" | "events"
            | "update" | "checkpoint" | "restore" | "attach" | "logs" => (1, Some(1)),
            "inspect" | "restart" | "stop" | "wait" => (1, None),
            "unit" => (0, Some(1)),
            "completion" => (1, Some(1)),
            "kill" if runc => (1, Some(2)),
            "exec" | "ps" | "kill" => (1, None),
            "list" | "spec" => (0, Some(0)),
            "mounts" => (3, Some(3)),
            _ => (0, None),
        };
        let wanted = match most {
            Some(most) if most == least && count != most => format!("exactly {most}"),
            _ if count < least => format!("a minimum of {least}"),
            Some(most) if count > most => format!("a maximum of {most}"),
            _ => return Ok(()),
        };
        let program = self.program.name();
        Err(Misuse {
            help: format!("Incorrect Usage.\n\n{}", help(command)),
            message: format!("{program}: {name:?} requires {wanted} argument(s)"),
            code: 1,
        })
    }
}

/// How many letters are to be changed, added, left out or swapped with their neighbour.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    // Rows of the usual table: the one before last, the last, and this one.
    let mut rows = [vec![0; to.len() + 1], (0..=to.len()).collect(), vec![0; to.len() + 1]];
    for (i, a) in from.iter().enumerate() {
        rows[2][0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let mut best = rows[1][j] + usize::from(a != b);
            best = best.min(rows[1][j + 1] + 1).min(rows[2][j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                best = best.min(rows[0][j - 1] + 1);
            }
            rows[2][j + 1] = best;
        }
        rows.rotate_left(1);
    }
    rows[1][to.len()]
}

fn help(command: &clap::Command) -> String {
    let name = command.get_bin_name().unwrap_or_default();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let usage = if command.has_subcommands() {
        format!("USAGE:\n   {name} [global options] command [command options] [arguments...]\n\n")
    } else {
        String::new()
    };
    let own = name.strip_prefix(Program::Runtime.name()).and_then(|name| examples::of(name.trim()));
    let examples = own.unwrap_or_default();
    format!("NAME:\n   {name} - {about}\n\n{usage}{}{examples}", command.clone().render_help())
}

fn misuse(command: &clap::Command, message: &str) -> Misuse {
    Misuse {
        help: format!("Incorrect Usage: {message}\n\n{}", help(command)),
        message: message.to_owned(),
        code: 1,
    }
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// In runc's form, since engines read it line by line.
fn version(program: Program) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("{} version {version}\ncommit: {version}\nspec: {SPEC_VERSION}\n", program.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(program: Program, line: &str) -> Result<Request, Misuse> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        open(program, &words)?.request()
    }

    fn command(line: &str) -> Command {
        match parse(Program::Runtime, line) {
            Ok(Request::Run(command)) => command,
            Ok(Request::Print(text)) => panic!("{text}"),
            Err(misuse) => panic!("{}", misuse.message),
        }
    }

    fn failure(program: Program, line: &str) -> Misuse {
        match parse(program, line) {
            Err(misuse) => misuse,
            Ok(_) => panic!("accepted: {line}"),
        }
    }

    #[test]
    fn flags_may_follow_the_id_and_have_one_dash() {
        let Command::Run(run) = command("run c1 -no-subreaper --detach=true -b /b") else {
            panic!()
        };
        assert!(run.no_subreaper && run.detach && !run.keep);
        assert_eq!(run.setup.id.as_deref(), Some("c1"));
        assert_eq!(run.setup.bundle, Some("/b".into()));
    }

    #[test]
    fn exec_keeps_the_flags_of_its_command() {
        let Command::Exec(exec) = command("exec -e A=1,2 --env B=3 -t c1 ls -l --all") else {
            panic!()
        };
        assert!(exec.tty);
        assert_eq!(exec.env, ["A=1,2", "B=3"]);
        assert_eq!(exec.args, ["ls", "-l", "--all"]);
    }

    #[test]
    fn the_lines_that_containerd_sends_are_understood() {
        let line = "--root /r --log /l --log-format json create --bundle /b --pid-file /p \
                    --console-socket /s --no-pivot --no-new-keyring --preserve-fds 2 c1";
        let Command::Create(create) = command(line) else { panic!() };
        assert_eq!(create.setup.process.preserve_fds, 2);
        assert!(create.setup.no_pivot && create.setup.no_new_keyring);
        command("exec --process /f --detach --pid-file /p c1");
        command("kill --all c1 9");
        command("delete --force c1");
    }

    #[test]
    fn counts_are_checked_in_runcs_words() {
        let message = |line| failure(Program::Runc, line).message;
        assert_eq!(message("state"), "runc: \"state\" requires exactly 1 argument(s)");
        assert_eq!(message("kill"), "runc: \"kill\" requires a minimum of 1 argument(s)");
        assert_eq!(message("kill a 9 9"), "runc: \"kill\" requires a maximum of 2 argument(s)");
        assert!(parse(Program::Runtime, "run").is_ok());
    }

    #[test]
    fn an_unknown_word_is_named() {
        assert_eq!(failure(Program::Runc, "foo").message, "No help topic for 'foo'");
        for (typed, meant) in [("lsit", "list"), ("delte", "delete"), ("log", "logs")] {
            let message = failure(Program::Runtime, typed).message;
            let wanted = format!("No help topic for '{typed}': did you mean '{meant}'?");
            assert_eq!(message, wanted);
        }
        let message = |program| failure(program, "images").message;
        assert_eq!(message(Program::Runc), "No help topic for 'images'");
        assert_eq!(message(Program::Runtime), "No help topic for 'images': it is `imgtool images`");
        let misuse = failure(Program::Runc, "state --foo x");
        assert_eq!(misuse.message, "flag provided but not defined: -foo");
        assert!(misuse.help.starts_with("Incorrect Usage: flag provided"), "{}", misuse.help);
    }

    #[test]
    fn every_help_begins_with_its_name() {
        let names = Command::NAMES.iter();
        for name in names.filter(|name| !EXTENSIONS.contains(name)) {
            for flag in ["-h", "--help"] {
                let line = format!("{name} {flag}");
                let Ok(Request::Print(text)) = parse(Program::Runc, &line) else {
                    panic!("{line}")
                };
                let start = format!("NAME:\n   runc {name} - ");
                assert!(text.starts_with(&start), "{text}");
            }
        }
    }

    #[test]
    fn what_runc_lacks_is_not_shown_to_its_users() {
        let Command::Mounts(mounts) = command("mounts add c1 -") else { panic!() };
        assert_eq!(mounts.action, crate::args::MountsAction::Add);
        let line = "mounts add c1 -";
        assert_eq!(failure(Program::Runc, line).message, "No help topic for 'mounts'");
        let count = failure(Program::Runtime, "mounts add c1").message;
        assert_eq!(count, "runtime: \"mounts\" requires exactly 3 argument(s)");
        let unknown = failure(Program::Runtime, "mounts show c1 -").message;
        assert!(unknown.contains("'show'"), "{unknown}");
        for line in ["", "create -h", "delete -h", "kill -h", "run -h"] {
            let Ok(Request::Print(text)) = parse(Program::Runc, line) else { panic!("{line}") };
            for word in ["mounts", "regex", "--config"] {
                assert!(!text.contains(word), "{text}");
            }
        }
        let Command::Kill(kill) = command("kill --regex ^a KILL") else { panic!() };
        assert!(kill.regex && kill.id == "^a" && kill.rest == ["KILL"]);
    }

    #[test]
    fn the_version_has_the_lines_that_engines_read() {
        let Ok(Request::Print(text)) = parse(Program::Runc, "-v") else { panic!() };
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("runc version "));
        assert!(lines[1].starts_with("commit: "));
        assert!(lines[2].starts_with("spec: "));
    }
}
