//! One file per verb.

mod attach;
mod bridge;
mod check;
mod completion;
mod detach;
mod forward;
mod hook;
mod inspect;
mod ports;
mod publish;
mod status;

use anyhow::{Result, bail};

use crate::args::{Arguments, Command, Directories};
use crate::request;
use crate::state::Store;
use crate::user_mode;

/// Runs what was asked for.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if let Command::Completion(completion) = &arguments.command {
        return completion::run(completion);
    }
    if user_mode::is_needed() {
        return user_mode::run(arguments);
    }
    let directories = &arguments.directories;
    match &arguments.command {
        Command::Bridge(command) => bridge::run(command, directories),
        Command::Attach(attach) => attach::run(attach, directories),
        Command::Detach(detach) => detach::run(detach, directories),
        Command::Publish(publish) => publish::publish(publish, directories),
        Command::Unpublish(unpublish) => publish::unpublish(unpublish, directories),
        Command::Ports(ports) => ports::run(ports, directories),
        Command::Forward(forward) => forward::run(forward, directories),
        Command::Hook(hook) => hook::run(hook, directories),
        Command::Inspect(inspect) => inspect::run(inspect, directories),
        Command::Status(status) => status::run(status, directories),
        Command::Check => check::check(directories),
        Command::Restore => check::restore(directories),
        // Above, for it needs no right.
        Command::Completion(_) => Ok(()),
        Command::Gc => check::gc(directories),
    }
}

/// The recorded id of a container that must be attached.
fn attached_id(store: &Store, word: &str, directories: &Directories) -> Result<String> {
    if let Some(id) = request::recorded_id(store, word)? {
        return Ok(id);
    }
    // A word that names nothing at all deserves the clearer complaint.
    request::Target::resolve(word, directories.runtime_root.as_deref())?;
    bail!("{word} is not attached")
}
