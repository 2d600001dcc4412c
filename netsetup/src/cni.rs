//! The door for container runtimes and orchestrators: CNI, versions 0.3.0 to 1.1.0. The verb and
//! the container come in the environment, the network's configuration on standard input. One
//! plugin, `netsetup`, does everything in one call; by the names of the reference plugins it does
//! what each of them does, alone or in a chain.

mod bandwidth;
mod bridge;
mod bridge_options;
mod config;
mod failure;
mod firewall;
mod host_local;
mod ipam;
mod loopback;
mod outcome;
mod pattern;
mod portmap;
mod tuning;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use self::bridge_options::Whole;
use self::config::Config;
use self::failure::{Code, Failure};
use crate::apply::Host;
use crate::args::Directories;
use crate::netns::NetworkNamespace;
use crate::output;
use crate::plan;
use crate::request::Target;
use crate::state::Store;

/// Versions of the specification that are understood.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// No configuration is larger than this.
const LIMIT: u64 = 16 << 20;

/// What we can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plugin {
    Netsetup,
    Bridge,
    HostLocal,
    Portmap,
    Firewall,
    Tuning,
    Bandwidth,
    Loopback,
}

impl Plugin {
    fn named(name: &str) -> Option<Plugin> {
        Some(match name {
            "netsetup" => Plugin::Netsetup,
            "bridge" => Plugin::Bridge,
            "host-local" => Plugin::HostLocal,
            "portmap" => Plugin::Portmap,
            "firewall" => Plugin::Firewall,
            "tuning" => Plugin::Tuning,
            "bandwidth" => Plugin::Bandwidth,
            "loopback" => Plugin::Loopback,
            _ => return None,
        })
    }
}

/// Whether somebody speaks CNI to us: by the environment, or by a plugin's name.
pub(crate) fn is_called() -> bool {
    std::env::var_os("CNI_COMMAND").is_some()
        || output::called_name()
            .is_some_and(|name| name != "netsetup" && Plugin::named(&name).is_some())
}

/// Does what the environment asks for. Errors go to standard output, where runtimes read them.
pub(crate) fn run() -> ExitCode {
    let Ok(command) = std::env::var("CNI_COMMAND") else {
        output::error(&format!(
            "a CNI plugin, called by a container runtime with CNI_COMMAND set; versions {}",
            VERSIONS.join(", ")
        ));
        return ExitCode::SUCCESS;
    };
    let mut version = "1.0.0".to_owned();
    match answer(&command, &mut version) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(text)) => print(&text),
        Err(error) => {
            let code = error.downcast_ref::<Failure>().map_or(Code::Internal, |it| it.code);
            let text = format!("{error:#}");
            output::error(&text);
            print(&json!({"cniVersion": version, "code": code as u32, "msg": text}));
            ExitCode::FAILURE
        }
    }
}

fn print(value: &Value) -> ExitCode {
    match output::json(value) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Reads the call and carries it out; `version` is that of the configuration from when it is known.
fn answer(command: &str, version: &mut String) -> Result<Option<Value>> {
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(LIMIT)
        .read_to_string(&mut text)
        .map_err(|error| Failure::new(Code::Io, format!("read configuration: {error}")))?;
    if command == "VERSION" {
        // The configuration says only what the answer is to look like, and may be missing.
        let asked = serde_json::from_str::<Value>(&text).ok();
        let asked = asked.as_ref().and_then(|it| it.get("cniVersion")).and_then(Value::as_str);
        let asked = asked.unwrap_or("1.1.0");
        return Ok(Some(json!({"cniVersion": asked, "supportedVersions": VERSIONS})));
    }
    let config = Config::parse(&text)?;
    version.clone_from(&config.cni_version);
    let plugin = plugin(&config)?;
    match command {
        "ADD" => add(plugin, &Call::of_container(true)?, &config).map(Some),
        "DEL" => del(plugin, &Call::of_container(false)?, &config).map(|()| None),
        "CHECK" => {
            config.needs_version("0.4.0", "CHECK")?;
            check(plugin, &Call::of_container(true)?, &config).map(|()| None)
        }
        "GC" => {
            config.needs_version("1.1.0", "GC")?;
            gc(plugin, &config).map(|()| None)
        }
        "STATUS" => {
            config.needs_version("1.1.0", "STATUS")?;
            status(plugin, &config).map(|()| None)
        }
        other => {
            let text =
                format!("CNI_COMMAND is {other:?}, not ADD, DEL, CHECK, GC, STATUS or VERSION");
            Err(Failure::new(Code::Environment, text).into())
        }
    }
}

/// A configuration from anywhere, as far as it is read before anything is looked up.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Ok(config) = Config::parse(text) else { return };
    let _ = (plugin(&config), config.origin(), config.aliases(), config.passed_on());
    let _ = (portmap::specs(&config), bandwidth::limits(&config));
    let _ = (config.wished_ips(None), config.wished_mac(None), config.valid_attachments());
    if let Ok(options) = config.options::<bridge_options::Options>() {
        let _ = (options.check(&config), options.port());
        for whole in [Whole::Everything, Whole::BridgeAlone] {
            let _ = options.bridge(&config, whole);
        }
    }
    let Ok(previous) = config.previous() else { return };
    let _ = (previous.host_link(), previous.host_end(), previous.addresses_of("eth0").len());
    for version in VERSIONS {
        let _ = previous.shaped(version);
    }
}

/// By the name that we are called by; under our own name, by the configuration's type.
fn plugin(config: &Config) -> Result<Plugin> {
    let name = output::called_name().unwrap_or_default();
    let plugin = Plugin::named(&name).filter(|plugin| *plugin != Plugin::Netsetup);
    plugin.or_else(|| Plugin::named(&config.kind)).ok_or_else(|| {
        let text = format!("type {:?} is no plugin of netsetup's", config.kind);
        Failure::new(Code::Config, text).into()
    })
}

fn add(plugin: Plugin, call: &Call, config: &Config) -> Result<Value> {
    match plugin {
        Plugin::Netsetup => bridge::add(call, config, Whole::Everything),
        Plugin::Bridge => bridge::add(call, config, Whole::BridgeAlone),
        Plugin::HostLocal => host_local::add_alone(call, config),
        Plugin::Portmap => portmap::add(call, config),
        Plugin::Firewall => firewall::add(call, config),
        Plugin::Tuning => tuning::add(call, config),
        Plugin::Bandwidth => bandwidth::add(call, config),
        Plugin::Loopback => loopback::add(call, config),
    }
}

/// What is gone already is no error.
fn del(plugin: Plugin, call: &Call, config: &Config) -> Result<()> {
    match plugin {
        Plugin::Netsetup | Plugin::Bridge => bridge::del(call, config),
        Plugin::HostLocal => ipam::release(call, config),
        Plugin::Portmap => portmap::del(call),
        Plugin::Firewall => firewall::del(call),
        Plugin::Tuning => tuning::del(call),
        // Its work goes with the link.
        Plugin::Bandwidth => Ok(()),
        Plugin::Loopback => loopback::del(call),
    }
}

fn check(plugin: Plugin, call: &Call, config: &Config) -> Result<()> {
    match plugin {
        Plugin::Netsetup | Plugin::Bridge => bridge::check(call, config),
        Plugin::HostLocal => ipam::check(call, config),
        Plugin::Portmap => portmap::check(call, config),
        Plugin::Firewall => firewall::check(call, config),
        Plugin::Tuning => tuning::check(call, config),
        Plugin::Bandwidth => bandwidth::check(call, config),
        Plugin::Loopback => loopback::check(call, config),
    }
}

fn gc(plugin: Plugin, config: &Config) -> Result<()> {
    let valid = config.valid_attachments()?;
    if plugin == Plugin::HostLocal || plugin == Plugin::Bridge || plugin == Plugin::Netsetup {
        ipam::collect(config, valid)?;
    }
    if plugin == Plugin::Tuning {
        return tuning::collect(config, valid);
    }
    if matches!(plugin, Plugin::Loopback | Plugin::HostLocal) {
        return Ok(());
    }
    let store = open_store()?;
    let mut host = Host::open_at_once(&store)?;
    let origin = config.origin();
    for id in store.container_ids()? {
        for attachment in store.attachments(&id)? {
            let is_valid =
                valid.iter().any(|it| it.container_id == id && it.ifname == attachment.interface);
            if attachment.origin.as_deref() == Some(&origin) && !is_valid {
                host.detach_interface(&id, &attachment.interface)?;
            }
        }
    }
    Ok(())
}

fn status(plugin: Plugin, config: &Config) -> Result<()> {
    let ready = || -> Result<()> {
        match plugin {
            Plugin::Netsetup | Plugin::Bridge | Plugin::HostLocal => ipam::status(config),
            Plugin::Portmap | Plugin::Firewall => {
                let store = open_store()?;
                Host::open_at_once(&store)?.has_table().map(drop)
            }
            Plugin::Tuning | Plugin::Bandwidth | Plugin::Loopback => Ok(()),
        }
    };
    ready().map_err(|error| match error.downcast_ref::<Failure>() {
        Some(_) => error,
        None => Failure::new(Code::Unavailable, format!("{error:#}")).into(),
    })
}

/// The state, where the environment or the default says.
fn open_store() -> Result<Store> {
    Store::open(&Directories::default())
}

/// What the environment says.
struct Call {
    container: String,
    netns: Option<PathBuf>,
    interface: String,
    /// `CNI_ARGS`
    arguments: Vec<(String, String)>,
}

impl Call {
    fn of_container(needs_netns: bool) -> Result<Call> {
        let value = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let needed = |name: &str| {
            value(name).ok_or_else(|| Failure::new(Code::Environment, format!("{name} is not set")))
        };
        let container = needed("CNI_CONTAINERID")?;
        let interface = needed("CNI_IFNAME")?;
        let netns = match value("CNI_NETNS") {
            None if needs_netns => Some(needed("CNI_NETNS")?),
            netns => netns,
        };
        let bad = |error: anyhow::Error| Failure::new(Code::Environment, format!("{error:#}"));
        plan::check_id(&container).map_err(bad)?;
        if interface != "lo" {
            plan::check_interface(&interface).map_err(bad)?;
        }
        let arguments = value("CNI_ARGS").unwrap_or_default();
        Ok(Call {
            container,
            netns: netns.map(PathBuf::from),
            interface,
            arguments: pairs(&arguments)?,
        })
    }

    fn argument(&self, name: &str) -> Option<&str> {
        self.arguments.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The namespace's path, of a verb that has one.
    fn netns_path(&self) -> &Path {
        self.netns.as_deref().unwrap_or(Path::new(""))
    }

    fn target(&self) -> Target {
        Target::at_path(&self.container, self.netns_path())
    }

    /// Opens the container's namespace.
    fn open_netns(&self) -> Result<NetworkNamespace> {
        NetworkNamespace::open(self.netns_path())
            .map_err(|error| Failure::new(Code::Netns, format!("{error:#}")).into())
    }
}

/// `K=V;K=V`
fn pairs(text: &str) -> Result<Vec<(String, String)>> {
    let words = text.split(';').filter(|word| !word.is_empty());
    words
        .map(|word| {
            let (key, value) = word
                .split_once('=')
                .with_context(|| format!("CNI_ARGS holds {word:?}, which is no KEY=VALUE"))
                .map_err(|error| Failure::new(Code::Environment, format!("{error:#}")))?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_pairs() {
        let read = pairs("IgnoreUnknown=1;K8S_POD_NAME=a=b;").unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[1], ("K8S_POD_NAME".to_owned(), "a=b".to_owned()));
        assert!(pairs("IP").is_err());
    }
}
