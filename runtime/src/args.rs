//! runc's command line as plain values: words are first brought into one spelling by `grammar`,
//! then clap reads them. Nothing here touches the host.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::host::Program;
use crate::log;

mod grammar;

const HELP: &str = "USAGE:
   {usage}

OPTIONS:
{options}
";
const TOP_HELP: &str = "COMMANDS:
{subcommands}

GLOBAL OPTIONS:
{options}
";

#[derive(Parser)]
#[command(
    about = "Open Container Initiative runtime",
    help_template = TOP_HELP,
    disable_help_flag = true,
    disable_help_subcommand = true,
    args_override_self = true,
    disable_version_flag = true
)]
struct Line {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Option<Command>,
}

/// The options before the command.
#[derive(Args, Clone, Debug)]
pub(crate) struct Globals {
    /// log what is done, step by step
    #[arg(long)]
    pub(crate) debug: bool,
    /// write the log to this file instead of stderr
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// form of the log: text or json
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    log_format: String,
    /// directory of the state records
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// take cgroupsPath as slice:prefix:name and ask systemd for the cgroup
    #[arg(long)]
    pub(crate) systemd_cgroup: bool,
    /// go on without cgroup rights: true, false or auto
    #[arg(long, default_value = "auto", value_name = "WHEN")]
    rootless: String,
}

impl Globals {
    /// `--log-format`
    pub(crate) fn format(&self) -> Result<log::Format> {
        match self.log_format.as_str() {
            "text" | "" => Ok(log::Format::Text),
            "json" => Ok(log::Format::Json),
            other => bail!("invalid log-format: {other}"),
        }
    }

    /// `--rootless`; `None` is to be found out.
    pub(crate) fn rootless(&self) -> Result<Option<bool>> {
        match self.rootless.as_str() {
            "auto" => Ok(None),
            other => match grammar::boolean(other) {
                Some(value) => Ok(Some(value)),
                None => bail!("invalid value {other:?} for --rootless"),
            },
        }
    }
}

/// One verb with all that was said to it.
#[derive(Clone, Debug, Subcommand)]
#[command(disable_help_flag = true)]
pub(crate) enum Command {
    /// create a container
    #[command(help_template = HELP)]
    Create(Create),
    /// delete any resources held by the container
    #[command(help_template = HELP)]
    Delete(Delete),
    /// execute new process inside the container
    #[command(help_template = HELP)]
    Exec(Box<Exec>),
    /// show the enabled features
    #[command(help_template = HELP)]
    Features(NoArguments),
    /// send the specified signal (default: SIGTERM) to the container's init process
    #[command(help_template = HELP)]
    Kill(Kill),
    /// list the containers under the given root
    #[command(help_template = HELP)]
    List(List),
    /// suspend all processes inside the container
    #[command(help_template = HELP)]
    Pause(OneId),
    /// display the processes running inside a container
    #[command(help_template = HELP)]
    Ps(Ps),
    /// resume all processes that have been paused
    #[command(help_template = HELP)]
    Resume(OneId),
    /// create and run a container
    #[command(help_template = HELP)]
    Run(Run),
    /// create a new specification file
    #[command(help_template = HELP)]
    Spec(SpecFile),
    /// execute the user defined process in a created container
    #[command(help_template = HELP)]
    Start(Ids),
    /// output the state of a container
    #[command(help_template = HELP)]
    State(OneId),
}

impl Command {
    /// What the process exits with when the command fails.
    pub(crate) fn failure_code(&self) -> u8 {
        if matches!(self, Command::Exec(_)) { 255 } else { 1 }
    }
}

/// What `create` and `run` have in common.
#[derive(Args, Clone, Debug)]
pub(crate) struct Setup {
    /// directory of the bundle (default: the current one)
    #[arg(long, short, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) process: ProcessSetup,
    /// do not use pivot_root, as for a rootfs on a ramdisk
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// do not make a new session keyring
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
    /// name of the container, unique on this host
    #[arg(value_name = "container-id")]
    pub(crate) id: Option<String>,
}

/// What `create`, `run` and `exec` have in common.
#[derive(Args, Clone, Debug)]
pub(crate) struct ProcessSetup {
    /// unix socket that is sent the master end of the terminal
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// unix socket that is sent a pidfd of the process
    #[arg(long, value_name = "SOCKET")]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// file to write the process id to
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// pass N more file descriptors to the process (stdio + $LISTEN_FDS + N in total)
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) preserve_fds: u32,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Create {
    #[command(flatten)]
    pub(crate) setup: Setup,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Run {
    /// detach from the container's process
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// do not delete the container after it exits
    #[arg(long)]
    pub(crate) keep: bool,
    /// do not adopt the processes that the container leaves behind
    #[arg(long)]
    pub(crate) no_subreaper: bool,
    #[command(flatten)]
    pub(crate) setup: Setup,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Exec {
    #[command(flatten)]
    pub(crate) process_setup: ProcessSetup,
    /// working directory in the container
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<String>,
    /// add to the environment
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub(crate) env: Vec<String>,
    /// allocate a terminal
    #[arg(long, short)]
    pub(crate) tty: bool,
    /// user to run as
    #[arg(long, short, value_name = "UID[:GID]")]
    pub(crate) user: Option<String>,
    /// add a group
    #[arg(long, short = 'g', value_name = "GID")]
    pub(crate) additional_gids: Vec<u32>,
    /// read all of the process from this file
    #[arg(long, short, value_name = "FILE")]
    pub(crate) process: Option<PathBuf>,
    /// detach from the process
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    pub(crate) process_label: Option<String>,
    /// AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    pub(crate) apparmor: Option<String>,
    /// set no_new_privs
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// add a capability
    #[arg(long, short, value_name = "CAP_NAME")]
    pub(crate) cap: Vec<String>,
    /// run in a cgroup beneath the container's
    #[arg(long, value_name = "[CONTROLLER:]PATH")]
    pub(crate) cgroup: Vec<String>,
    /// go ahead in a paused container
    #[arg(long)]
    pub(crate) ignore_paused: bool,
    #[arg(value_name = "container-id")]
    pub(crate) id: String,
    #[arg(value_name = "command")]
    pub(crate) args: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct OneId {
    #[arg(value_name = "container-id")]
    pub(crate) id: String,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Ids {
    #[arg(value_name = "container-id")]
    pub(crate) ids: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Delete {
    /// kill the container first if it still runs
    #[arg(long, short)]
    pub(crate) force: bool,
    #[arg(value_name = "container-id")]
    pub(crate) ids: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Kill {
    /// send the signal to all processes inside the container
    #[arg(long, short, hide = true)]
    pub(crate) all: bool,
    #[arg(value_name = "container-id")]
    pub(crate) id: String,
    /// more ids, then the signal
    #[arg(value_name = "signal")]
    pub(crate) rest: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct List {
    /// table or json
    #[arg(long, short, default_value = "table", value_name = "FORMAT")]
    pub(crate) format: String,
    /// display only container IDs
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Ps {
    /// table or json
    #[arg(long, short, default_value = "table", value_name = "FORMAT")]
    pub(crate) format: String,
    #[arg(value_name = "container-id")]
    pub(crate) id: String,
    #[arg(value_name = "ps options")]
    pub(crate) args: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct SpecFile {
    /// directory to write to (default: the current one)
    #[arg(long, short, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,
    /// for a container that is run without root
    #[arg(long)]
    pub(crate) rootless: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct NoArguments {}

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
    line: clap::Command,
}

/// Reads the words up to the command.
pub(crate) fn open(program: Program, words: &[String]) -> Result<Opening, Misuse> {
    let line = Line::command().name(program.name()).bin_name(program.name());
    let rest = grammar::read(&line, words, grammar::Order::FlagsFirst)
        .map_err(|message| misuse(&line, &message))?;
    let globals = line
        .clone()
        .try_get_matches_from(rest.canonical(program.name(), false))
        .and_then(|matches| Globals::from_arg_matches(&matches))
        .map_err(|error| misuse(&line, &first_line(&error)))?;
    Ok(Opening { globals, rest, program, line })
}

impl Opening {
    /// Reads the command.
    pub(crate) fn request(self) -> Result<Request, Misuse> {
        if self.rest.version {
            return Ok(Request::Print(version(self.program)));
        }
        let Some((name, words)) = self.rest.positional.split_first() else {
            return Ok(Request::Print(help(&self.line)));
        };
        if self.rest.help {
            return Ok(Request::Print(help(&self.line)));
        }
        if matches!(name.as_str(), "help" | "h") {
            return match words.first() {
                None => Ok(Request::Print(help(&self.line))),
                Some(name) => self.subcommand(name).map(|command| Request::Print(help(&command))),
            };
        }
        let command = self.subcommand(name)?;
        let order = match name.as_str() {
            "exec" | "kill" | "ps" => grammar::Order::FlagsFirst,
            _ => grammar::Order::Mixed,
        };
        let words =
            grammar::read(&command, words, order).map_err(|message| misuse(&command, &message))?;
        if words.help {
            return Ok(Request::Print(help(&command)));
        }
        self.check_count(&command, name, words.positional.len())?;
        let mut all = vec![self.program.name().to_owned(), name.clone()];
        all.extend(words.canonical(name, true).into_iter().skip(1));
        let matches = self
            .line
            .clone()
            .try_get_matches_from(all)
            .map_err(|error| misuse(&command, &first_line(&error)))?;
        Command::from_arg_matches(&matches)
            .map(Request::Run)
            .map_err(|error| misuse(&command, &first_line(&error)))
    }

    fn subcommand(&self, name: &str) -> Result<clap::Command, Misuse> {
        match self.line.find_subcommand(name) {
            Some(command) => {
                Ok(command.clone().bin_name(format!("{} {name}", self.program.name())))
            }
            None => Err(Misuse {
                help: String::new(),
                message: format!("No help topic for '{name}'"),
                code: 3,
            }),
        }
    }

    /// runc's own checks, in its words; several ids, or none, are an extension.
    fn check_count(&self, command: &clap::Command, name: &str, count: usize) -> Result<(), Misuse> {
        let runc = self.program == Program::Runc;
        let (least, most) = match name {
            "create" | "run" if !runc => (0, Some(1)),
            "start" | "delete" if !runc => (1, None),
            "create" | "run" | "start" | "delete" | "state" | "pause" | "resume" => (1, Some(1)),
            "kill" if runc => (1, Some(2)),
            "exec" | "ps" | "kill" => (1, None),
            "list" | "spec" => (0, Some(0)),
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

fn help(command: &clap::Command) -> String {
    let name = command.get_bin_name().unwrap_or_default();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let usage = if command.has_subcommands() {
        format!("USAGE:\n   {name} [global options] command [command options] [arguments...]\n\n")
    } else {
        String::new()
    };
    format!("NAME:\n   {name} - {about}\n\n{usage}{}", command.clone().render_help())
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

/// The newest runtime-spec that we know.
pub(crate) const SPEC_VERSION: &str = "1.3.0";

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
        let misuse = failure(Program::Runc, "state --foo x");
        assert_eq!(misuse.message, "flag provided but not defined: -foo");
        assert!(misuse.help.starts_with("Incorrect Usage: flag provided"), "{}", misuse.help);
    }

    #[test]
    fn every_help_begins_with_its_name() {
        for name in Line::command().get_subcommands().map(clap::Command::get_name) {
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
    fn the_version_has_the_lines_that_engines_read() {
        let Ok(Request::Print(text)) = parse(Program::Runc, "-v") else { panic!() };
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("runc version "));
        assert!(lines[1].starts_with("commit: "));
        assert!(lines[2].starts_with("spec: "));
    }
}
