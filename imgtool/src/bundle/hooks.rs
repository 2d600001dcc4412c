//! The hooks of config.json. What they are to do stands in their own arguments, so that an
//! annotation can't ask for anything.

use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::flags::{Network, Place, Publish};

/// The program that gives a container its network.
const NETSETUP: &str = "netsetup";
/// Variables that say where netsetup keeps its state: the hook must use what the caller's own
/// `netsetup` uses, and a hook gets no environment but what config.json gives it.
const NETSETUP_VARIABLES: [&str; 2] = ["NETSETUP_STATE", "NETSETUP_CONFIG"];
/// Those of a user: where the state lies, and the programs that netsetup executes.
const ROOTLESS_VARIABLES: [&str; 2] = ["XDG_RUNTIME_DIR", "PATH"];
/// A hook that hangs must not hang the container for ever.
const TIMEOUT_SECONDS: u32 = 60;

/// What is to happen around the container.
#[derive(Debug, Default)]
pub(crate) struct Hooks {
    pub(crate) network: Option<NetworkHook>,
    pub(crate) remove: Option<RemoveHook>,
}

/// `netsetup hook`, which attaches before the container starts and detaches after it is gone.
#[derive(Debug)]
pub(crate) struct NetworkHook {
    pub(crate) program: String,
    pub(crate) network: Option<String>,
    pub(crate) publish: Vec<String>,
    pub(crate) place: Place,
    pub(crate) environment: Vec<String>,
}

/// `imgtool rm`, after the container is gone.
#[derive(Debug)]
pub(crate) struct RemoveHook {
    pub(crate) program: String,
    pub(crate) store: String,
    pub(crate) bundle: String,
}

impl NetworkHook {
    /// Finds netsetup beside our own program, then along `PATH`.
    pub(crate) fn find(
        network: &Network,
        publish: &[Publish],
        place: &Place,
        rootless: bool,
    ) -> Result<Option<Self>> {
        let Some(program) = find(NETSETUP)? else { return Ok(None) };
        Ok(Some(Self {
            program: text(&program)?,
            network: match network {
                Network::Named(name) => Some(name.clone()),
                Network::Default | Network::None | Network::Host | Network::Container(_) => None,
            },
            publish: publish.iter().map(ToString::to_string).collect(),
            place: place.clone(),
            environment: NETSETUP_VARIABLES
                .iter()
                .chain(ROOTLESS_VARIABLES.iter().filter(|_| rootless))
                .filter_map(|name| env::var(name).ok().map(|value| format!("{name}={value}")))
                .collect(),
        }))
    }

    fn json(&self) -> Value {
        let mut args = vec![NETSETUP, "hook"];
        if let Some(network) = &self.network {
            args.extend(["--network", network]);
        }
        for word in &self.publish {
            args.extend(["--publish", word]);
        }
        let addresses: Vec<String> = self.place.addresses.iter().map(ToString::to_string).collect();
        for address in &addresses {
            args.extend(["--ip", address]);
        }
        if let Some(address) = &self.place.hardware_address {
            args.extend(["--mac", address]);
        }
        for name in &self.place.aliases {
            args.extend(["--alias", name]);
        }
        let mut hook = json!({"path": self.program, "args": args, "timeout": TIMEOUT_SECONDS});
        if !self.environment.is_empty() {
            hook["env"] = json!(self.environment);
        }
        hook
    }
}

impl Hooks {
    /// The `hooks` section; `None` where there is nothing to do.
    pub(crate) fn json(&self) -> Option<Value> {
        let mut sections = Map::new();
        let mut poststop = Vec::new();
        if let Some(network) = &self.network {
            sections.insert("createRuntime".into(), json!([network.json()]));
            poststop.push(network.json());
        }
        if let Some(remove) = &self.remove {
            // Last: the network's hook may still look at the bundle.
            poststop.push(json!({
                "path": remove.program,
                "args": ["imgtool", "--root", remove.store, "rm", "--from-hook", remove.bundle],
                "timeout": TIMEOUT_SECONDS,
            }));
        }
        if !poststop.is_empty() {
            sections.insert("poststop".into(), Value::Array(poststop));
        }
        (!sections.is_empty()).then_some(Value::Object(sections))
    }
}

/// The program that is running.
pub(crate) fn own_program() -> Result<PathBuf> {
    env::current_exe().context("find our own program")
}

/// A program of the set that ours is of, if it is there: beside it, else along `PATH`.
pub(crate) fn find(name: &str) -> Result<Option<PathBuf>> {
    let beside = own_program()?.with_file_name(name);
    let path = env::var_os("PATH").unwrap_or_default();
    let candidates = env::split_paths(&path).map(|directory| directory.join(name));
    let mut all = std::iter::once(beside).chain(candidates);
    Ok(all.find(|program| program.is_absolute() && is_program(program)))
}

/// The name by which to execute a program of the set that ours is of: beside it, else along `PATH`.
pub(crate) fn sibling(name: impl AsRef<OsStr>) -> PathBuf {
    let name = name.as_ref();
    let beside = own_program().ok().map(|own| own.with_file_name(name));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| name.into())
}

/// A path as JSON can hold it.
pub(crate) fn text(path: &Path) -> Result<String> {
    let text = path.to_str().with_context(|| format!("path {path:?} is not UTF-8"))?;
    Ok(text.to_owned())
}

/// Whether a program can be executed by its name alone.
pub(crate) fn is_in_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    env::split_paths(&path).any(|directory| is_program(&directory.join(program)))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_attached_and_detached_and_the_bundle_removed_last() {
        let hooks = Hooks {
            network: Some(NetworkHook {
                program: "/usr/bin/netsetup".into(),
                network: Some("blue".into()),
                publish: vec!["8080:80/tcp".into()],
                place: Place { aliases: vec!["db".into()], ..Place::default() },
                environment: vec![],
            }),
            remove: Some(RemoveHook {
                program: "/usr/bin/imgtool".into(),
                store: "/var/lib/imgtool".into(),
                bundle: "/b".into(),
            }),
        };
        let network = json!({
            "path": "/usr/bin/netsetup", "timeout": 60,
            "args": ["netsetup", "hook", "--network", "blue", "--publish", "8080:80/tcp", "--alias", "db"],
        });
        let remove = json!({
            "path": "/usr/bin/imgtool", "timeout": 60,
            "args": ["imgtool", "--root", "/var/lib/imgtool", "rm", "--from-hook", "/b"],
        });
        assert_eq!(
            hooks.json(),
            Some(json!({"createRuntime": [network.clone()], "poststop": [network, remove]}))
        );
        assert_eq!(Hooks::default().json(), None);
    }
}
