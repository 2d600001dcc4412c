//! The config.json of a container that runs one step.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Job, Network};
use crate::bundle::config::{self, TEMPLATE};
use crate::bundle::user::Identity;
use crate::bundle::{capabilities, host, seccomp};
use crate::manifest::Platform;
use crate::userns::Maps;

/// What files have that nothing says otherwise of, whatever our own mask is.
const UMASK: u32 = 0o022;

pub(super) struct Inputs<'a> {
    pub(super) job: &'a Job<'a>,
    pub(super) identity: &'a Identity,
    pub(super) hostname: &'a str,
    pub(super) cgroup: &'a str,
    /// Names in the bundle, and where they are bound.
    pub(super) files: &'a [(&'a str, &'a str)],
    /// What the step asks for.
    pub(super) mounts: Vec<Value>,
    /// The ids there are, if not all.
    pub(super) maps: Option<&'a Maps>,
}

/// Where the script of a heredoc is in the container.
pub(super) fn script_path(name: &str) -> String {
    format!("/dev/pipes/{name}")
}

/// What the template mounts outside of what it mounts.
pub(super) fn targets() -> Vec<String> {
    ["/proc", "/dev", "/sys"].map(str::to_owned).into()
}

pub(super) fn make(inputs: &Inputs<'_>) -> Result<Value> {
    let Inputs { job, identity, .. } = inputs;
    let mut config: Value = serde_json::from_str(TEMPLATE).context("parse config template")?;
    let own = job.insecure.then(host::bounding_set).transpose()?;
    let capabilities = own.as_deref().unwrap_or(&capabilities::DEFAULT);
    let mut sets = json!({"bounding": capabilities});
    if identity.uid == 0 {
        sets["effective"] = json!(capabilities);
        sets["permitted"] = json!(capabilities);
    }
    let mut groups = identity.additional_gids.clone();
    if let Some(maps) = inputs.maps {
        maps.check(job.user, identity.uid, identity.gid)?;
        groups.retain(|gid| maps.allows_groups() && maps.has_group(*gid));
    }
    let process = &mut config["process"];
    process["args"] = json!(job.words);
    process["env"] = json!(job.env);
    process["cwd"] = json!(if job.directory.is_empty() { "/" } else { job.directory });
    process["user"] = json!({
        "uid": identity.uid, "gid": identity.gid, "additionalGids": groups,
        "umask": UMASK,
    });
    process["capabilities"] = sets;
    config["hostname"] = json!(inputs.hostname);
    let list = config["mounts"].as_array_mut().context("config template has no mounts")?;
    let bind = |source: &str, target: &str| {
        json!({"destination": target, "type": "bind", "source": source,
            "options": ["bind", "ro", "rprivate"]})
    };
    list.extend(inputs.files.iter().map(|(source, target)| bind(source, target)));
    if let Some((name, _)) = job.script {
        list.push(bind("script", &script_path(name)));
    }
    if job.insecure {
        for words in list.iter_mut().filter_map(|mount| mount["options"].as_array_mut()) {
            words.retain(|word| word != "ro");
        }
    }
    list.extend(inputs.mounts.iter().cloned());
    if let Some(maps) = inputs.maps {
        without_root(list, maps, job.network);
    }
    let linux = config["linux"].as_object_mut().context("config template has no linux")?;
    match inputs.maps {
        // Control groups are root's.
        Some(_) => drop(linux.remove("resources")),
        None => {
            linux.insert("cgroupsPath".into(), json!(format!("/{}", inputs.cgroup)));
            if job.insecure {
                linux.insert("devices".into(), json!(host::devices()?));
                linux.insert(
                    "resources".into(),
                    json!({"devices": [{"allow": true, "access": "rwm"}]}),
                );
            }
        }
    }
    let architecture = Platform::host().architecture;
    if job.insecure {
        linux.remove("maskedPaths");
        linux.remove("readonlyPaths");
    } else {
        linux.insert("seccomp".into(), seccomp::default_profile(capabilities, &architecture));
    }
    let (namespace, hooks) = job.network.sections()?;
    let list = linux.get_mut("namespaces").and_then(Value::as_array_mut);
    list.context("config template has no namespaces")?.extend(namespace);
    if let Some(hooks) = hooks {
        config["hooks"] = hooks;
    }
    Ok(config)
}

/// What is not for the root of a user namespace is left out, or taken from the host.
fn without_root(list: &mut Vec<Value>, maps: &Maps, network: &Network) {
    list.retain(|mount| mount["type"] != "cgroup");
    if *network == Network::Host {
        config::bind_sys(list);
    }
    if !maps.has_group(config::TERMINAL_GROUP) {
        for words in list.iter_mut().filter_map(|mount| mount["options"].as_array_mut()) {
            words.retain(|word| word != "gid=5");
        }
    }
}
