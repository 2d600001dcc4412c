//! The door for OCI runtimes: a state document says which container and in which phase.
//! `createRuntime` (status creating or created) attaches, `poststop` (stopped) detaches. Both may
//! be repeated, and a container without a network of its own is none of our business.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::apply::Host;
use crate::args::{Directories, Wishes};
use crate::plan;
use crate::request::{AttachRequest, Target};
use crate::state::Store;
use crate::state::files::read_json;

/// Annotations by which a bundle says what the hook's arguments do not. Their prefix is the one
/// that no label of an image gets past imgtool with: an image must not open ports of the host.
const NETWORK: &str = "org.imgtool.network";
const PUBLISH: &str = "org.imgtool.publish";
const ADDRESS: &str = "org.imgtool.ip";
/// No state document is larger than this.
const LIMIT: u64 = 16 << 20;

/// What we read of the state document.
#[derive(Debug, Deserialize)]
pub(crate) struct State {
    id: String,
    status: String,
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    bundle: PathBuf,
    #[serde(default)]
    annotations: Option<HashMap<String, String>>,
}

/// What we read of a bundle's config.json.
#[derive(Debug, Default, Deserialize)]
struct Bundle {
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    mounts: Vec<Mount>,
}

#[derive(Debug, Deserialize)]
struct Mount {
    destination: PathBuf,
    #[serde(default)]
    source: Option<PathBuf>,
}

impl Bundle {
    /// The file of the bundle's own that its container sees as /etc/hosts.
    fn hosts(&self, directory: &Path) -> Option<PathBuf> {
        let mount = self.mounts.iter().rfind(|it| it.destination == Path::new("/etc/hosts"))?;
        let source = directory.join(mount.source.as_deref()?);
        (source.parent() == Some(directory)).then_some(source)
    }
}

/// Reads the state document.
pub(crate) fn read(source: impl Read) -> Result<State> {
    let mut text = String::new();
    source
        .take(LIMIT)
        .read_to_string(&mut text)
        .context("read container state from standard input")?;
    serde_json::from_str(&text).context("read container state from standard input")
}

/// What is to be done by a container's status.
pub(crate) enum Phase {
    Attach(Box<AttachRequest>),
    /// The id.
    Detach(String),
}

impl State {
    /// What its configuration says; one that is gone says nothing.
    fn bundle(&self) -> Result<Bundle> {
        let path = self.bundle.join("config.json");
        Ok(read_json(&path)?.unwrap_or_default())
    }

    /// Opens the namespace, if the container is to be attached.
    pub(crate) fn phase(&self, arguments: &Wishes) -> Result<Phase> {
        plan::check_id(&self.id)?;
        match self.status.as_str() {
            "creating" | "created" | "running" => {
                let wishes = complete(arguments, self)?;
                if self.pid == 0 {
                    bail!("container {} is {} and has no pid", self.id, self.status);
                }
                let target = Target::of_pid(&self.id, self.pid);
                AttachRequest::new(target, &wishes).map(|request| Phase::Attach(Box::new(request)))
            }
            "stopped" => Ok(Phase::Detach(self.id.clone())),
            other => bail!("container {} has the unknown status {other:?}", self.id),
        }
    }
}

/// Attaches or detaches the container, as its status says.
pub(crate) fn run(state: &State, arguments: &Wishes, directories: &Directories) -> Result<()> {
    match state.phase(arguments)? {
        Phase::Attach(request) => {
            if request.wants_nothing() || request.is_host()? {
                return Ok(());
            }
            let store = Store::open(directories)?;
            Host::open_at_once(&store)?.attach(&request).map(|_| ())
        }
        Phase::Detach(id) => {
            let store = Store::open(directories)?;
            Host::open(&store)?.detach(&id, None)
        }
    }
}

/// The arguments' wishes, and the annotations' where the arguments have none.
fn complete(arguments: &Wishes, state: &State) -> Result<Wishes> {
    let mut wishes = arguments.clone();
    let annotation = |name: &str| state.annotations.as_ref().and_then(|all| all.get(name));
    if wishes.network.is_none() {
        wishes.network = annotation(NETWORK).cloned();
    }
    let bundle = state.bundle()?;
    if wishes.hosts.is_none() {
        wishes.hosts = bundle.hosts(&state.bundle);
    }
    if plan::is_host_name(&bundle.hostname) && !wishes.alias.contains(&bundle.hostname) {
        wishes.alias.push(bundle.hostname);
    }
    if wishes.ip.is_empty()
        && let Some(addresses) = annotation(ADDRESS)
    {
        let words = addresses.split([',', ' ']).filter(|word| !word.is_empty());
        wishes.ip = words
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| format!("read annotation {ADDRESS}"))?;
    }
    if wishes.publish.is_empty()
        && let Some(ports) = annotation(PUBLISH)
    {
        let words = ports.split([',', ' ']).filter(|word| !word.is_empty());
        wishes.publish = words
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| format!("read annotation {PUBLISH}"))?;
    }
    Ok(wishes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(annotations: &str) -> State {
        let text = format!(
            r#"{{"ociVersion":"1.0.2","id":"c1","status":"created","pid":7,"bundle":"/b",
            "annotations":{annotations}}}"#
        );
        read(text.as_bytes()).unwrap()
    }

    #[test]
    fn annotations_fill_in_what_arguments_leave_open() {
        let state =
            state(r#"{"org.imgtool.network":"br1","org.imgtool.publish":"8080:80, 53:53/udp"}"#);
        let wishes = complete(&Wishes::default(), &state).unwrap();
        assert_eq!(wishes.network.as_deref(), Some("br1"));
        assert_eq!(wishes.publish.len(), 2);
        let arguments = Wishes {
            network: Some("br2".to_owned()),
            publish: vec!["1:1".parse().unwrap()],
            ..Wishes::default()
        };
        let wishes = complete(&arguments, &state).unwrap();
        assert_eq!(wishes.network.as_deref(), Some("br2"));
        assert_eq!(wishes.publish.len(), 1);
    }

    #[test]
    fn states_without_annotations_or_with_bad_ones() {
        assert!(complete(&Wishes::default(), &state("null")).is_ok());
        assert!(complete(&Wishes::default(), &state(r#"{"org.imgtool.publish":"x"}"#)).is_err());
        assert!(read(&b"{"[..]).is_err());
    }
}
