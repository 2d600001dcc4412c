//! runc's command line as plain values. `line` reads it: words are first brought into one
//! spelling by `grammar`, then clap takes them. Nothing here touches the host.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, FromArgMatches, ValueEnum};

use crate::log;

mod checkpoint;
mod completion;
mod examples;
mod grammar;
mod line;
mod quick;
mod supervise;
mod update;

pub(crate) use supervise::{Attach, Inspect, Logs, Start, Stats, Stop, Supervision, Unit, Wait};
pub(crate) use update::Update;

pub(crate) use checkpoint::{Checkpoint, Images, Restore};
pub(crate) use completion::Completion;
pub(crate) use line::{Request, open, print};

/// The newest runtime-spec that we know.
pub(crate) const SPEC_VERSION: &str = "1.3.0";

const HELP: &str = "USAGE:
   {usage}

OPTIONS:
{options}
";

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
    /// directory of what is kept of supervised containers
    #[arg(long, value_name = "DIR")]
    pub(crate) records: Option<PathBuf>,
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

/// Declares the verbs once. clap is told of one alone where one alone is read: to tell it of all
/// of them takes longer than to start a process.
macro_rules! verbs {
    ($($verb:ident($args:ty), $name:literal, $about:literal;)*) => {
        /// One verb with all that was said to it.
        #[derive(Clone, Debug)]
        pub(crate) enum Command {
            $(#[doc = $about] $verb($args),)*
        }

        impl Command {
            /// The names, as the help lists them.
            const NAMES: &[&str] = &[$($name),*];

            /// What may follow the name.
            fn grammar(name: &str) -> Option<clap::Command> {
                let command = match name {
                    // Each in a function of its own: together they would touch 64 kB of stack.
                    $($name => {
                        #[inline(never)]
                        fn grammar() -> clap::Command {
                            <$args>::augment_args(clap::Command::new($name)).about($about)
                        }
                        grammar()
                    })*
                    _ => return None,
                };
                Some(
                    command
                        .help_template(HELP)
                        .disable_help_flag(true)
                        .args_override_self(true),
                )
            }

            /// Takes what clap has found to follow the name.
            fn read(name: &str, matches: &clap::ArgMatches) -> Result<Command, clap::Error> {
                match name {
                    $($name => <$args>::from_arg_matches(matches).map(Command::$verb),)*
                    _ => Err(clap::Error::new(clap::error::ErrorKind::InvalidSubcommand)),
                }
            }
        }
    };
}

verbs! {
    Attach(Attach), "attach", "join the standard streams of a supervised container";
    Checkpoint(Box<Checkpoint>), "checkpoint", "checkpoint a running container";
    Completion(Completion), "completion", "print a script by which a shell completes the command line";
    Create(Create), "create", "create a container";
    Delete(Delete), "delete", "delete any resources held by the container";
    Events(Events), "events", "display container events: want of memory, and what is used";
    Exec(Box<Exec>), "exec", "execute new process inside the container";
    Features(NoArguments), "features", "show the enabled features";
    Inspect(Inspect), "inspect", "show all that is known of containers, as JSON";
    Kill(Kill), "kill", "send the specified signal (default: SIGTERM) to the container's init process";
    List(List), "list", "list the containers under the given root";
    Logs(Logs), "logs", "show what a supervised container has written";
    Mounts(Mounts), "mounts", "add mounts to a container that is there, or remove them";
    Pause(OneId), "pause", "suspend all processes inside the container";
    Ps(Ps), "ps", "display the processes running inside a container";
    Restart(Stop), "restart", "stop supervised containers and start them again";
    Restore(Box<Restore>), "restore", "restore a container from a previous checkpoint";
    Resume(OneId), "resume", "resume all processes that have been paused";
    Run(Box<Run>), "run", "create and run a container";
    Spec(SpecFile), "spec", "create a new specification file";
    Start(Start), "start", "execute the user defined process in a created container";
    State(OneId), "state", "output the state of a container";
    Stats(Stats), "stats", "show what running containers use, now and again";
    Stop(Stop), "stop", "ask containers to end, and kill those that do not";
    Unit(Unit), "unit", "print a systemd unit that starts a supervised container at boot";
    Update(Box<Update>), "update", "update container resource constraints";
    Wait(Wait), "wait", "wait for the end of containers, and print their exit codes";
}

impl Command {
    /// What the process exits with when the command fails.
    pub(crate) fn failure_code(&self) -> u8 {
        if matches!(self, Command::Exec(_)) { 255 } else { 1 }
    }

    /// A copy of our process will share namespaces with a container. The supervisor, which `start`
    /// executes, sees to itself.
    pub(crate) fn enters_container(&self) -> bool {
        matches!(self, Command::Create(_) | Command::Exec(_) | Command::Mounts(_) | Command::Run(_))
    }

    /// The words that name containers that are there.
    pub(crate) fn ids(&mut self) -> Vec<&mut String> {
        match self {
            Command::Attach(args) => vec![&mut args.id],
            Command::Checkpoint(args) => vec![&mut args.id],
            Command::Delete(args) if !args.regex => args.ids.iter_mut().collect(),
            Command::Events(args) => vec![&mut args.id],
            Command::Exec(args) => vec![&mut args.id],
            Command::Kill(args) if !args.regex => {
                // The last word may be a signal, which no container's name is taken for.
                let rest = args.rest.iter_mut();
                let words = rest.filter(|word| crate::signals::parse(word).is_err());
                std::iter::once(&mut args.id).chain(words).collect()
            }
            Command::Mounts(args) => vec![&mut args.id],
            Command::Pause(args) | Command::Resume(args) | Command::State(args) => {
                vec![&mut args.id]
            }
            Command::Ps(args) => vec![&mut args.id],
            Command::Inspect(args) => args.ids.iter_mut().collect(),
            Command::Logs(args) => vec![&mut args.id],
            Command::Restart(args) | Command::Stop(args) => args.ids.iter_mut().collect(),
            Command::Start(args) => args.ids.iter_mut().collect(),
            Command::Stats(args) => args.ids.iter_mut().collect(),
            Command::Unit(args) => args.id.iter_mut().collect(),
            Command::Wait(args) => args.ids.iter_mut().collect(),
            Command::Update(args) => vec![&mut args.id],
            _ => Vec::new(),
        }
    }
}

/// What `create` and `run` have in common.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Setup {
    /// directory of the bundle (default: the current one)
    #[arg(long, short, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,
    /// a name for people (default: the bundle's, or two words)
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// file, which must not be there, to write the container's id to
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// document to take in place of the bundle's config.json
    #[arg(long, short = 'f', value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
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
#[derive(Args, Clone, Debug, Default)]
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
    pub(crate) supervision: Supervision,
    #[command(flatten)]
    pub(crate) setup: Setup,
}

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Exec {
    #[command(flatten)]
    pub(crate) process_setup: ProcessSetup,
    /// working directory in the container
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<String>,
    /// add to the environment
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub(crate) env: Vec<String>,
    /// taken as docker has it: standard input is always passed on
    #[arg(long, short)]
    pub(crate) interactive: bool,
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
pub(crate) struct Delete {
    /// kill the container first if it still runs
    #[arg(long, short)]
    pub(crate) force: bool,
    /// what follows are regular expressions: of every container whose id has a match
    #[arg(long, short)]
    pub(crate) regex: bool,
    #[arg(value_name = "container-id")]
    pub(crate) ids: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Events {
    /// time between two looks at what is used
    #[arg(long, default_value = "5s", value_name = "DURATION")]
    pub(crate) interval: String,
    /// show what is used, once, and exit
    #[arg(long)]
    pub(crate) stats: bool,
    #[arg(value_name = "container-id")]
    pub(crate) id: String,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Kill {
    /// send the signal to all processes inside the container
    #[arg(long, short, hide = true)]
    pub(crate) all: bool,
    /// what follows is a regular expression: every container whose id has a match
    #[arg(long, short)]
    pub(crate) regex: bool,
    #[arg(value_name = "container-id")]
    pub(crate) id: String,
    /// more ids, then the signal
    #[arg(value_name = "signal")]
    pub(crate) rest: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct List {
    /// table, json or (for people) wide
    #[arg(long, short, default_value = "table", value_name = "FORMAT")]
    pub(crate) format: String,
    /// display only container IDs
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// taken as docker has it: those that have ended are always shown
    #[arg(long, short)]
    pub(crate) all: bool,
    /// only those of this id, name, image, status, exit code (exited) or annotation (label)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Mounts {
    #[arg(value_name = "add|remove")]
    pub(crate) action: MountsAction,
    #[arg(value_name = "container-id")]
    pub(crate) id: String,
    /// JSON list of mounts, as in config.json; `-` is stdin
    #[arg(value_name = "file")]
    pub(crate) file: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MountsAction {
    Add,
    Remove,
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
