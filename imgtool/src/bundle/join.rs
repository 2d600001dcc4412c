//! Namespaces of other containers that the new one joins, and what goes along with them: the names in
//! a network, the shared memory of an IPC namespace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::files::FILES;
use super::flags::{Network, Options, Shared};
use super::usage::{self, Container};

/// The runtime that finds a container anew at each start, whose records lie in a directory of this name.
const OURS: &str = "runtime";
pub(crate) const SHARED_MEMORY: &str = "/dev/shm";

/// All that is joined.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    /// Kind of namespace, and path at this time.
    pub(crate) namespaces: Vec<(&'static str, String)>,
    /// Kind of namespace, and id of the container, where the runtime can follow it.
    pub(crate) followed: Vec<(&'static str, String)>,
    /// The files of the other container's that take the place of ours, by our names for them.
    pub(crate) files: BTreeMap<&'static str, String>,
    /// The host name that belongs to them.
    pub(crate) hostname: Option<String>,
    /// What the other container has as /dev/shm.
    pub(crate) memory: Option<String>,
}

impl Joined {
    /// Looks the containers up.
    pub(crate) fn find(options: &Options) -> Result<Self> {
        let mut joined = Self::default();
        let network = match &options.network {
            Network::Container(word) => Some(word),
            Network::Default | Network::None | Network::Host | Network::Named(_) => None,
        };
        let shared = |shared: &'_ Shared| match shared {
            Shared::Container(word) => Some(word.clone()),
            Shared::Nobody | Shared::Host => None,
        };
        let namespaces = &options.namespaces;
        for (flag, kind, file, word) in [
            ("--network", "network", "net", network.cloned()),
            ("--pid", "pid", "pid", shared(&namespaces.pid)),
            ("--ipc", "ipc", "ipc", shared(&namespaces.ipc)),
        ] {
            let Some(word) = word else { continue };
            let container = running(&word).with_context(|| format!("{flag} container:{word}"))?;
            let pid = container.init_pid();
            joined.namespaces.push((kind, format!("/proc/{pid}/ns/{file}")));
            if container.root.file_name().is_some_and(|name| name == OURS) {
                joined.followed.push((kind, container.id.clone()));
            }
            match kind {
                "network" => joined.take_names(&container)?,
                "ipc" => joined.take_memory(&container)?,
                _ => {}
            }
        }
        Ok(joined)
    }

    /// `KIND=ID` each, as the annotation has them.
    pub(crate) fn annotation(&self) -> Option<String> {
        let words = self.followed.iter().map(|(kind, id)| format!("{kind}={id}"));
        (!self.followed.is_empty()).then(|| words.collect::<Vec<_>>().join(","))
    }

    /// One network has one set of names.
    fn take_names(&mut self, container: &Container) -> Result<()> {
        let document = configuration(container)?;
        for (name, target) in FILES {
            if let Some(source) = bound(&document, &container.directory, target) {
                self.files.insert(name, source);
            }
        }
        self.hostname = document["hostname"].as_str().map(str::to_owned);
        Ok(())
    }

    fn take_memory(&mut self, container: &Container) -> Result<()> {
        let document = configuration(container)?;
        let source = bound(&document, &container.directory, SHARED_MEMORY);
        self.memory = Some(source.with_context(|| {
            format!(
                "container {} keeps its {SHARED_MEMORY} to itself: make it with --ipc shareable",
                container.id
            )
        })?);
        Ok(())
    }
}

/// The running container that the word means.
fn running(word: &str) -> Result<Container> {
    let container = called(word)?;
    ensure!(container.running, "container {} is not running: start it first", container.id);
    Ok(container)
}

/// The container that the word means: its id, its name, or the beginning of a generated id.
pub(crate) fn called(word: &str) -> Result<Container> {
    let all = usage::containers();
    if let Some(found) = all.iter().find(|it| it.is_called(word)) {
        return Ok(found.clone());
    }
    let begun: Vec<&Container> = all.iter().filter(|it| it.begins_with(word)).collect();
    match begun[..] {
        [one] => Ok(one.clone()),
        [] => bail!("no such container: {word} (runtime list -f wide shows those there are)"),
        _ => bail!("more than one container's id begins with {word}: say more of it"),
    }
}

/// config.json of the container's bundle.
pub(crate) fn configuration(container: &Container) -> Result<Value> {
    crate::commit::tree::bundle_config(&container.directory)
        .with_context(|| format!("look at container {}", container.id))
}

/// The absolute source of what is bound on `target`.
fn bound(document: &Value, directory: &Path, target: &str) -> Option<String> {
    let mounts = document["mounts"].as_array()?;
    let mount = mounts.iter().rfind(|mount| mount["destination"] == target)?;
    if mount["type"] != "bind" {
        return None;
    }
    let source: PathBuf = directory.join(mount["source"].as_str()?);
    source.to_str().map(str::to_owned)
}
