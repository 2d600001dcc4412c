//! The verbs as they are without root.

use std::io::stdin;

use anyhow::{Result, bail};
use serde::Serialize;

use super::{Attachment, Port, Program, attach, detach, records};
use crate::args::{Arguments, Attach, Command, Directories, Format, Hook, Inspect, Ports, Status};
use crate::hook::{self, Phase};
use crate::output;
use crate::request::{AttachRequest, Target};
use crate::state::Store;

/// Runs what was asked for.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let directories = &arguments.directories;
    match &arguments.command {
        Command::Attach(words) => attach_one(words, directories),
        Command::Detach(words) => {
            let store = Store::open(directories)?;
            records::collect(&store)?;
            match recorded(&store, &words.target)? {
                Some(id) => detach(&store, &id),
                None => Ok(()),
            }
        }
        Command::Hook(words) => run_hook(words, directories),
        Command::Ports(words) => ports(words, directories),
        Command::Inspect(words) => inspect(words, directories),
        Command::Status(words) => status(words, directories),
        Command::Publish(_) | Command::Unpublish(_) => {
            bail!("without root ports are published when the container is attached (attach -p)")
        }
        _ => bail!(
            "without root there are no bridges and no settings of the host: attach, detach, hook, \
             ports, inspect and status are there"
        ),
    }
}

fn attach_one(words: &Attach, directories: &Directories) -> Result<()> {
    let mut target = Target::resolve(&words.target, directories.runtime_root.as_deref())?;
    if let Some(id) = &words.id {
        target.id.clone_from(id);
    }
    let request = AttachRequest::new(target, &words.wishes)?;
    if request.wants_nothing() {
        return Ok(());
    }
    let store = Store::open(directories)?;
    let attachment = attach(&store, &request)?;
    match words.output.format {
        Format::Table => output::lines([attachment.address.to_string()]),
        Format::Json => output::json(&attachment),
    }
}

fn run_hook(words: &Hook, directories: &Directories) -> Result<()> {
    match hook::read(stdin().lock())?.phase(&words.wishes)? {
        Phase::Attach(request) => {
            if request.wants_nothing() || request.is_host()? {
                return Ok(());
            }
            attach(&Store::open(directories)?, &request).map(drop)
        }
        Phase::Detach(id) => {
            let store = Store::open(directories)?;
            detach(&store, &id)?;
            records::collect(&store)
        }
    }
}

/// The id under which a word's container is attached.
fn recorded(store: &Store, word: &str) -> Result<Option<String>> {
    let ids = records::ids(store)?;
    let names = [word.to_owned(), format!("pid-{word}")];
    Ok(ids.into_iter().find(|id| names.contains(id)))
}

fn chosen(store: &Store, words: &[String]) -> Result<Vec<Attachment>> {
    records::collect(store)?;
    let ids = if words.is_empty() {
        records::ids(store)?
    } else {
        let one = |word: &String| match recorded(store, word)? {
            Some(id) => Ok(id),
            None => bail!("{word} is not attached"),
        };
        words.iter().map(one).collect::<Result<_>>()?
    };
    let read = ids.iter().filter_map(|id| records::read(store, id).transpose());
    read.collect()
}

#[derive(Serialize)]
struct PortView<'a> {
    container: &'a str,
    #[serde(flatten)]
    port: &'a Port,
}

fn ports(words: &Ports, directories: &Directories) -> Result<()> {
    let store = Store::open(directories)?;
    let target: Vec<String> = words.target.iter().cloned().collect();
    let attached = chosen(&store, &target)?;
    let all = || attached.iter().flat_map(|it| it.ports.iter().map(move |port| (it, port)));
    if words.output.format == Format::Json {
        let views: Vec<PortView> =
            all().map(|(it, port)| PortView { container: &it.id, port }).collect();
        return output::json(&views);
    }
    let host = |port: &Port| format!("{}:{}", port.host_ip, port.host_port);
    if words.target.is_some() {
        let line = |(_, port): (_, &Port)| {
            format!("{}/{} -> {}", port.container_port, port.protocol, host(port))
        };
        return output::lines(all().map(line));
    }
    let rows: Vec<_> = all()
        .map(|(it, port)| {
            let target = format!("{}:{}", it.address, port.container_port);
            [it.id.clone(), host(port), target, port.protocol.to_string()]
        })
        .collect();
    output::table(["CONTAINER", "HOST", "TARGET", "PROTOCOL"], &rows)
}

fn inspect(words: &Inspect, directories: &Directories) -> Result<()> {
    output::json(&chosen(&Store::open(directories)?, &words.targets)?)
}

#[derive(Serialize)]
struct StatusView {
    version: &'static str,
    state_directory: String,
    /// What connects containers; nothing, if neither is installed.
    program: Option<Program>,
    containers: usize,
    ports: usize,
    problems: Vec<String>,
}

fn status(words: &Status, directories: &Directories) -> Result<()> {
    let store = Store::open(directories)?;
    let attached = chosen(&store, &[])?;
    let installed = Program::installed();
    let view = StatusView {
        version: env!("CARGO_PKG_VERSION"),
        state_directory: store.root().display().to_string(),
        problems: installed.as_ref().err().map(|error| format!("{error:#}")).into_iter().collect(),
        program: installed.ok().and_then(|all| Some(all.first()?.0)),
        containers: attached.len(),
        ports: attached.iter().map(|it| it.ports.len()).sum(),
    };
    if words.output.format == Format::Json {
        return output::json(&view);
    }
    let mut lines = vec![
        format!("version:     {}", view.version),
        format!("state:       {}", view.state_directory),
        format!("program:     {}", view.program.map_or("none", Program::name)),
        format!("containers:  {}", view.containers),
        format!("ports:       {}", view.ports),
    ];
    lines.extend(view.problems.iter().map(|problem| format!("problem:     {problem}")));
    output::lines(lines)
}
