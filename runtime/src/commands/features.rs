//! `features`: what this build can do, for engines that ask before they use it.

use std::io::Write;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::ser::PrettyFormatter;
use serde_json::{Value, json};

use crate::apply;
use crate::args::SPEC_VERSION;
use crate::plan::systemd::annotations;
use crate::plan::{mounts, seccomp};

pub(super) fn run() -> Result<u8> {
    let mut text = Vec::new();
    let mut serializer =
        serde_json::Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    "));
    features()?.serialize(&mut serializer).context("write the features")?;
    text.push(b'\n');
    std::io::stdout().write_all(&text).context("print the features")?;
    Ok(0)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Features {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: &'static [&'static str],
    mount_options: Vec<&'static str>,
    linux: Linux,
    annotations: Value,
    potentially_unsafe_config_annotations: &'static [&'static str],
}

fn features() -> Result<Features> {
    Ok(Features {
        oci_version_min: "1.0.0",
        oci_version_max: SPEC_VERSION,
        hooks: &[
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ],
        mount_options: mounts::option_words().collect(),
        linux: linux()?,
        // By this key engines learn of it from any runtime.
        annotations: json!({ "org.opencontainers.runc.checkpoint.enabled": "true" }),
        potentially_unsafe_config_annotations: &["bundle", annotations::PREFIX, "org.criu.config"],
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: &'static [&'static str],
    capabilities: Vec<String>,
    cgroup: Value,
    seccomp: Seccomp,
    apparmor: Value,
    selinux: Value,
    intel_rdt: Value,
    mount_extensions: Value,
    net_devices: Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Seccomp {
    enabled: bool,
    actions: &'static [&'static str],
    operators: &'static [&'static str],
    archs: Vec<&'static str>,
    known_flags: Vec<&'static str>,
    supported_flags: Vec<&'static str>,
}

fn linux() -> Result<Linux> {
    let mut capabilities: Vec<caps::Capability> = caps::all().into_iter().collect();
    capabilities.sort_by_key(caps::Capability::index);
    Ok(Linux {
        namespaces: &["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
        capabilities: capabilities.iter().map(ToString::to_string).collect(),
        cgroup: json!({"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true}),
        seccomp: Seccomp {
            enabled: true,
            actions: &seccomp::ACTIONS,
            operators: &seccomp::OPERATORS,
            archs: seccomp::architectures().collect(),
            known_flags: seccomp::FLAGS.iter().map(|(name, _)| *name).collect(),
            supported_flags: apply::seccomp::supported_flags(),
        },
        apparmor: json!({"enabled": true}),
        selinux: json!({"enabled": true}),
        intel_rdt: intel_rdt(),
        mount_extensions: json!({"idmap": {"enabled": true}}),
        net_devices: json!({"enabled": true}),
    })
}

/// What this build knows; the specification keeps it apart from what the host's processor can do.
fn intel_rdt() -> Value {
    json!({"enabled": true, "schemata": true, "monitoring": true})
}
