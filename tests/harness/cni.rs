//! What a container runtime does with CNI plugins: the calls of libcni and cnitool, by hand.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::command::{Cmd, Outcome, binary};

/// The names by which `netsetup` is a plugin.
const NAMES: [&str; 8] =
    ["netsetup", "bridge", "host-local", "portmap", "firewall", "tuning", "bandwidth", "loopback"];

/// Where Debian keeps the reference plugins.
const DEBIANS: &str = "/usr/lib/cni";

/// A network: plugins in order, each with its configuration.
pub(crate) struct CniNetwork {
    name: String,
    version: String,
    plugins: Vec<Value>,
    directory: PathBuf,
}

/// One container's interface on a network.
pub(crate) struct CniContainer<'a> {
    pub(crate) id: &'a str,
    pub(crate) netns: &'a str,
    pub(crate) interface: &'a str,
    /// What the runtime hands to plugins that declare the capability.
    pub(crate) capabilities: Value,
}

/// A directory of plugins that are all our binary.
pub(crate) fn plugin_directory(directory: &Path) -> PathBuf {
    std::fs::create_dir_all(directory).expect("make the plugins' directory");
    for name in NAMES {
        symlink(binary("netsetup"), directory.join(name)).expect("link a plugin");
    }
    directory.to_owned()
}

impl CniNetwork {
    pub(crate) fn new(directory: PathBuf, version: &str, name: &str, plugins: &[Value]) -> Self {
        let (name, version) = (name.to_owned(), version.to_owned());
        Self { name, version, plugins: plugins.to_vec(), directory }
    }

    /// The configuration that one plugin reads.
    fn config(&self, plugin: &Value, capabilities: &Value, previous: Option<&Value>) -> Value {
        let mut config = plugin.clone();
        config["cniVersion"] = json!(self.version);
        config["name"] = json!(self.name);
        let mut wishes = json!({});
        for (key, declared) in plugin["capabilities"].as_object().into_iter().flatten() {
            if *declared == json!(true) && !capabilities[key].is_null() {
                wishes[key] = capabilities[key].clone();
            }
        }
        if wishes != json!({}) {
            config["runtimeConfig"] = wishes;
        }
        if let Some(previous) = previous {
            config["prevResult"] = previous.clone();
        }
        config
    }

    /// One call of one plugin.
    pub(crate) fn call(
        &self,
        verb: &str,
        plugin: &Value,
        container: &CniContainer,
        previous: Option<&Value>,
    ) -> Outcome {
        self.command(verb, plugin, container, previous).run()
    }

    /// The call as a command that can be run otherwise.
    pub(crate) fn command(
        &self,
        verb: &str,
        plugin: &Value,
        container: &CniContainer,
        previous: Option<&Value>,
    ) -> Cmd {
        let config = self.config(plugin, &container.capabilities, previous);
        let kind = plugin["type"].as_str().expect("a plugin has a type");
        let program = self.directory.join(kind);
        let program = if program.exists() { program } else { Path::new(DEBIANS).join(kind) };
        Cmd::new(program)
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", container.id)
            .env("CNI_NETNS", container.netns)
            .env("CNI_IFNAME", container.interface)
            .env("CNI_PATH", format!("{}:{DEBIANS}", self.directory.display()))
            .stdin(config.to_string())
    }

    /// ADD, each plugin with the result of those before it.
    #[track_caller]
    pub(crate) fn add(&self, container: &CniContainer) -> Value {
        let mut previous = None;
        for plugin in &self.plugins {
            let added = self.call("ADD", plugin, container, previous.as_ref());
            assert_eq!(added.code, 0, "{}: {}{}", plugin["type"], added.stdout, added.stderr);
            previous = Some(added.json());
        }
        previous.expect("a network has plugins")
    }

    /// CHECK, each plugin with the result of all.
    #[track_caller]
    pub(crate) fn check(&self, container: &CniContainer, result: &Value) {
        for plugin in &self.plugins {
            let checked = self.call("CHECK", plugin, container, Some(result));
            assert_eq!(checked.code, 0, "{}: {}", plugin["type"], checked.stdout);
            assert_eq!(checked.stdout, "");
        }
    }

    /// DEL, the last plugin first.
    #[track_caller]
    pub(crate) fn del(&self, container: &CniContainer, result: Option<&Value>) {
        for plugin in self.plugins.iter().rev() {
            let gone = self.call("DEL", plugin, container, result);
            assert_eq!(gone.code, 0, "{}: {}{}", plugin["type"], gone.stdout, gone.stderr);
            assert_eq!(gone.stdout, "");
        }
    }

    /// STATUS or GC of every plugin; `extra` goes into the configuration.
    pub(crate) fn call_all(&self, verb: &str, extra: &Value) -> Vec<Outcome> {
        let call = |plugin: &Value| {
            let mut config = self.config(plugin, &Value::Null, None);
            for (key, value) in extra.as_object().into_iter().flatten() {
                config[key] = value.clone();
            }
            let program = self.directory.join(plugin["type"].as_str().expect("a type"));
            let call = Cmd::new(program).env("CNI_COMMAND", verb);
            call.env("CNI_PATH", &self.directory).stdin(config.to_string()).run()
        };
        self.plugins.iter().map(call).collect()
    }
}
