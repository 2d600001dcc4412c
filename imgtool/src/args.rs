//! The command line: global flags and one arm per verb. Each verb's own
//! arguments stand in its file under `commands/`.

mod examples;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::error::{ContextKind, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands;
use crate::layer::compress;
use crate::rooted;
use crate::store::Store;

/// The exit code of a wrong command line, as docker and podman have it.
const USAGE: u8 = 125;

/// Images from registries and archives, into a store, into OCI bundles.
#[derive(Debug, Parser)]
#[command(name = "imgtool", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags that every verb takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// The image store [default: $IMGTOOL_ROOT or /var/lib/imgtool]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// How many bytes one byte of a compressed layer or archive may give, once more than
    /// 256 MiB came
    #[arg(long, global = true, value_name = "N", default_value_t = 200)]
    max_expansion: u64,
}

#[derive(Debug, Subcommand)]
enum Command {
    Build(Box<commands::build::Args>),
    Bundle(Box<commands::bundle::Args>),
    Bundles(commands::bundles::Args),
    Commit(commands::commit::Args),
    Completion(commands::completion::Args),
    Copy(Box<commands::copy::Args>),
    Cp(commands::cp::Args),
    Delete(Box<commands::delete::Args>),
    Diff(commands::diff::Args),
    Export(commands::export::Args),
    History(commands::history::Args),
    Images(commands::images::Args),
    Import(commands::import::Args),
    Info(commands::info::Args),
    Inspect(Box<commands::inspect::Args>),
    ListTags(Box<commands::list_tags::Args>),
    Load(commands::load::Args),
    Login(commands::login::Args),
    Logout(commands::logout::Args),
    Manifest(commands::manifest::Args),
    Mount(commands::mount::Args),
    Mutate(Box<commands::mutate::Args>),
    Prune(commands::prune::Args),
    Pull(Box<commands::pull::Args>),
    Push(Box<commands::push::Args>),
    Rebase(commands::rebase::Args),
    Rm(commands::rm::Args),
    Rmi(commands::rmi::Args),
    Save(commands::save::Args),
    Search(Box<commands::search::Args>),
    Tag(commands::tag::Args),
    Umount(commands::umount::Args),
    Untag(commands::untag::Args),
    Verify(commands::verify::Args),
    Volume(commands::volume::Args),
}

impl Cli {
    /// Reads the command line.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        Self::from_arg_matches(&Self::line().try_get_matches()?)
    }

    fn line() -> clap::Command {
        examples::add(Self::command())
    }

    /// Runs the verb.
    pub(crate) fn run(self) -> Result<()> {
        rooted::allow_many_descriptors().context("raise the limit of open files")?;
        compress::set_expansion(self.global.max_expansion);
        let store = Store::open(self.global.root.as_deref())?;
        match self.command {
            Command::Build(args) => commands::build::run(&store, &args),
            Command::Bundle(args) => commands::bundle::run(&store, *args),
            Command::Bundles(args) => commands::bundles::run(&store, &args),
            Command::Completion(args) => commands::completion::run(&args, Self::line()),
            Command::Commit(args) => commands::commit::run(&store, &args),
            Command::Copy(args) => commands::copy::run(&store, &args),
            Command::Cp(args) => commands::cp::run(&store, &args),
            Command::Delete(args) => commands::delete::run(&store, &args),
            Command::Diff(args) => commands::diff::run(&store, &args),
            Command::Images(args) => commands::images::run(&store, &args),
            Command::Export(args) => commands::export::run(&store, &args),
            Command::History(args) => commands::history::run(&store, &args),
            Command::Import(args) => commands::import::run(&store, &args),
            Command::Manifest(args) => commands::manifest::run(&store, &args),
            Command::Mutate(args) => commands::mutate::run(&store, &args),
            Command::Prune(args) => commands::prune::run(&store, &args),
            Command::Rebase(args) => commands::rebase::run(&store, &args),
            Command::Untag(args) => commands::untag::run(&store, &args),
            Command::Verify(args) => commands::verify::run(&store, &args),
            Command::Volume(args) => commands::volume::run(&store, &args),
            Command::Info(args) => commands::info::run(&store, &args),
            Command::Inspect(args) => commands::inspect::run(&store, &args),
            Command::ListTags(args) => commands::list_tags::run(&store, &args),
            Command::Load(args) => commands::load::run(&store, &args),
            Command::Login(args) => commands::login::run(&store, &args),
            Command::Logout(args) => commands::logout::run(&store, &args),
            Command::Mount(args) => commands::mount::run(&store, &args),
            Command::Rm(args) => commands::rm::run(&store, &args),
            Command::Pull(args) => commands::pull::run(&store, &args),
            Command::Push(args) => commands::push::run(&store, &args),
            Command::Rmi(args) => commands::rmi::run(&store, &args),
            Command::Save(args) => commands::save::run(&store, &args),
            Command::Search(args) => commands::search::run(&store, &args),
            Command::Tag(args) => commands::tag::run(&store, &args),
            Command::Umount(args) => commands::umount::run(&store, &args),
        }
    }
}

/// What docker's verbs are here, where they are none of ours.
const DOCKERS: [(&str, &str); 24] = [
    ("attach", "runtime attach"),
    ("container", "runtime list -f wide, runtime inspect, …"),
    ("create", "runtime create -b \"$(imgtool bundle IMAGE)\" ID"),
    ("exec", "runtime exec"),
    ("image", "imgtool images, imgtool inspect, imgtool rmi, …"),
    ("kill", "runtime kill"),
    ("logs", "runtime logs"),
    ("ls", "imgtool images"),
    ("network", "netsetup bridge"),
    ("pause", "runtime pause"),
    ("port", "netsetup ports"),
    ("ps", "runtime list -f wide"),
    ("restart", "runtime restart"),
    ("run", "runtime run -b \"$(imgtool bundle IMAGE)\" ID"),
    ("start", "runtime start"),
    ("stats", "runtime stats"),
    ("stop", "runtime stop"),
    ("system", "imgtool info, imgtool prune"),
    ("top", "runtime ps"),
    ("unpause", "runtime resume"),
    ("update", "runtime update"),
    ("version", "imgtool --version"),
    ("volumes", "imgtool volume ls"),
    ("wait", "runtime wait"),
];

/// The line for a verb of docker's.
fn dockers(error: &clap::Error) -> Option<String> {
    let invalid = error.get(ContextKind::InvalidSubcommand).map(ToString::to_string);
    let (verb, here) = DOCKERS.iter().find(|(verb, _)| invalid.as_deref() == Some(*verb))?;
    Some(format!("there is no {verb} here: it is `{here}`"))
}

/// Prints what clap has to say: help in full, a mistake in one line with a hint.
pub(crate) fn report(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Nothing is left to do if the reader went away.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(USAGE)
        }
        _ => {
            if let Some(instead) = dockers(error) {
                crate::output::say(&instead);
                return ExitCode::from(USAGE);
            }
            let text = error.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            let summary: Vec<&str> = text
                .split("\n\nUsage")
                .next()
                .unwrap_or(text)
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty() && !line.starts_with("For more information"))
                .collect();
            crate::output::say(&format!("{} (see imgtool --help)", summary.join(" ")));
            ExitCode::from(USAGE)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
