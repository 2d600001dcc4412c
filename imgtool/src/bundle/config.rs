//! config.json: the template of Docker's defaults, edited by what the image says and what the
//! caller wants. Pure: everything that depends on the host comes in by [`Inputs`].

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::annotations;
use super::files::FILES;
use super::flags::{
    CPU_PERIOD_US, CpuTime, Memory, Options, Publish, ResourceLimit, Shared, Tmpfs,
};
use super::hooks::Hooks;
use super::host::{Host, MESSAGE_QUEUES};
use super::init;
use super::join::{Joined, SHARED_MEMORY};
use super::shm;
use super::user::Identity;
use crate::manifest::ImageConfig;
use crate::userns::{Maps, Range};

pub(crate) const TEMPLATE: &str = include_str!("template.json");
/// The last group that sysctls take.
const LAST_GROUP: u32 = 0x7fff_ffff;
/// The group of terminals, as devpts is told.
pub(crate) const TERMINAL_GROUP: u32 = 5;
/// How large /dev/shm is, by the template.
pub(crate) const SHM_BYTES: i64 = 64 << 20;
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All that config.json is made from.
pub(crate) struct Inputs<'a> {
    pub(crate) image: &'a ImageConfig,
    pub(crate) options: &'a Options,
    pub(crate) arguments: &'a [String],
    pub(crate) identity: &'a Identity,
    pub(crate) host: &'a Host,
    /// The ids of its user namespace, if it has one.
    pub(crate) maps: Option<&'a Maps>,
    pub(crate) hostname: &'a str,
    /// Whether the container gets a network namespace.
    pub(crate) own_network: bool,
    /// The namespaces of other containers that it gets.
    pub(crate) joined: &'a Joined,
    /// What nobody else's cgroup is called.
    pub(crate) bundle_id: &'a str,
    pub(crate) volumes: &'a [Mount],
    pub(crate) hooks: &'a Hooks,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) capabilities: &'a [&'static str],
    pub(crate) seccomp: Option<Value>,
    /// Nodes of the host.
    pub(crate) devices: Vec<Value>,
    /// What it may do with them.
    pub(crate) device_rules: Vec<Value>,
    /// Limits of disks.
    pub(crate) block: Option<Value>,
}

/// A bind mount; a relative source starts at the bundle, which may be moved. Or what another volume
/// is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) read_only: bool,
    /// Only a bind mount has one.
    pub(crate) propagation: &'static str,
    /// Type and options of what is no bind mount of a directory.
    pub(crate) filesystem: Option<(String, Vec<String>)>,
    /// Whether files belong to the container's ids of the same number.
    pub(crate) mapped: bool,
}

/// The command to run: entrypoint and arguments of the image, or what the caller put in their place.
pub(crate) fn arguments(image: &ImageConfig, options: &Options) -> Result<Vec<String>> {
    let mut arguments = match &options.entrypoint {
        Some(entrypoint) => entrypoint.clone(),
        None => image.config.entrypoint.clone().unwrap_or_default(),
    };
    match (&options.command, &options.entrypoint) {
        (Some(command), _) => arguments.extend_from_slice(command),
        // The image's arguments are meant for its own entrypoint.
        (None, Some(_)) => {}
        (None, None) => arguments.extend(image.config.cmd.clone().unwrap_or_default()),
    }
    if arguments.is_empty() {
        bail!("no command specified: the image names none, add one after `--`");
    }
    if arguments[0].is_empty() {
        bail!("the command is an empty string");
    }
    Ok(arguments)
}

/// Makes the document.
pub(crate) fn generate(inputs: &Inputs<'_>) -> Result<Value> {
    let mut config: Value = serde_json::from_str(TEMPLATE).context("parse config template")?;
    process(&mut config, inputs);
    config["root"]["readonly"] = json!(inputs.options.read_only);
    names(&mut config, inputs)?;
    mounts(&mut config, inputs)?;
    namespaces(&mut config, inputs)?;
    resources(&mut config, inputs);
    match &inputs.seccomp {
        Some(seccomp) if !inputs.options.privileged => config["linux"]["seccomp"] = seccomp.clone(),
        _ => {}
    }
    let linux = section(&mut config, "linux")?;
    if inputs.options.privileged || inputs.options.security.unmasked {
        linux.remove("maskedPaths");
        linux.remove("readonlyPaths");
    }
    if !inputs.devices.is_empty() {
        linux.insert("devices".into(), json!(inputs.devices));
    }
    if let Some(hooks) = inputs.hooks.json() {
        config["hooks"] = hooks;
    }
    config["annotations"] = json!(annotations(inputs)?);
    Ok(config)
}

/// Those of a UTS namespace, if it has one.
fn names(config: &mut Value, inputs: &Inputs<'_>) -> Result<()> {
    let namespaces = &inputs.options.namespaces;
    let document = config.as_object_mut().context("the config template is no object")?;
    if namespaces.host_uts {
        document.remove("hostname");
        return Ok(());
    }
    document.insert("hostname".into(), json!(inputs.hostname));
    if let Some(name) = &namespaces.domainname {
        document.insert("domainname".into(), json!(name));
    }
    Ok(())
}

fn process(config: &mut Value, inputs: &Inputs<'_>) {
    let Inputs { options, identity, capabilities, .. } = inputs;
    let process = &mut config["process"];
    process["terminal"] = json!(options.terminal);
    let mut groups = identity.additional_gids.clone();
    if let Some(maps) = inputs.maps {
        // Where one id alone is mapped there are no further groups.
        groups.retain(|&gid| maps.allows_groups() && maps.has_group(gid));
    }
    process["user"] = json!({"uid": identity.uid, "gid": identity.gid, "additionalGids": groups});
    let init: &[&str] = if options.init { &[init::TARGET, "--"] } else { &[] };
    let own = inputs.arguments.iter().map(String::as_str);
    process["args"] = json!(init.iter().copied().chain(own).collect::<Vec<_>>());
    process["env"] = json!(environment(inputs));
    let image_dir = inputs.image.config.working_dir.as_str();
    process["cwd"] = json!(match options.workdir.as_deref().unwrap_or(image_dir) {
        "" => "/".to_owned(),
        dir if dir.starts_with('/') => dir.to_owned(),
        dir => format!("/{dir}"),
    });
    // Another user than root gets no more than execve would leave it.
    let mut sets = json!({"bounding": capabilities});
    if identity.uid == 0 {
        sets["effective"] = json!(capabilities);
        sets["permitted"] = json!(capabilities);
    }
    process["capabilities"] = sets;
    if let Some(score) = options.process.oom_score_adj {
        process["oomScoreAdj"] = json!(score);
    }
    process["noNewPrivileges"] = json!(options.security.no_new_privileges);
    if let Some(profile) = options.security.apparmor.as_ref().filter(|_| !options.privileged) {
        process["apparmorProfile"] = json!(profile);
    }
    if !options.limits.resources.is_empty() {
        let limit = |l: &ResourceLimit| json!({"type": l.name, "soft": l.soft, "hard": l.hard});
        process["rlimits"] = options.limits.resources.iter().map(limit).collect();
    }
}

/// Ours first, then the image's, then the caller's; the last value of a key stands in the first's
/// place.
fn environment(inputs: &Inputs<'_>) -> Vec<String> {
    let mut environment = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={}", inputs.hostname)];
    if inputs.options.terminal {
        environment.push("TERM=xterm".to_owned());
    }
    let caller = inputs.options.env.iter().map(|(key, value)| format!("{key}={value}"));
    for word in inputs.image.config.env.iter().cloned().chain(caller) {
        // A word without `=` sets nothing.
        let Some((key, _)) = word.split_once('=') else { continue };
        let prefix = format!("{key}=");
        match environment.iter_mut().find(|known| known.starts_with(&prefix)) {
            Some(known) => *known = word,
            None => environment.push(word),
        }
    }
    environment
}

fn mounts(config: &mut Value, inputs: &Inputs<'_>) -> Result<()> {
    let Inputs { options, host, volumes, .. } = inputs;
    let list = config["mounts"].as_array_mut().context("config template has no mounts")?;
    let taken = |path: &str| {
        volumes.iter().any(|volume| volume.target == path)
            || options.tmpfs.iter().any(|tmpfs| tmpfs.target == path)
    };
    // What the caller mounts in the place of one of ours replaces it.
    list.retain(|mount| !mount["destination"].as_str().is_some_and(taken));
    if host.rootless.is_some() && !host.unified_cgroup {
        // The hierarchies of v1 are root's.
        list.retain(|mount| mount["type"] != "cgroup");
    }
    if inputs.maps.is_some() && !inputs.own_network {
        bind_sys(list);
    }
    for mount in list.iter_mut() {
        let is_shm = mount["destination"] == "/dev/shm";
        let Some(words) = mount["options"].as_array_mut() else { continue };
        if let Some(size) = options.limits.shm_bytes.filter(|_| is_shm) {
            words.retain(|word| !word.as_str().unwrap_or_default().starts_with("size="));
            words.push(json!(format!("size={size}")));
        }
        if options.privileged {
            words.retain(|word| word != "ro");
        }
        if inputs.maps.is_some_and(|maps| !maps.has_group(TERMINAL_GROUP)) {
            words.retain(|word| word != "gid=5");
        }
    }
    shared_memory(list, inputs);
    let files = FILES.iter().filter(|(_, target)| !taken(target)).map(|(name, target)| Mount {
        source: inputs.joined.files.get(name).map_or(*name, String::as_str).to_owned(),
        target: (*target).to_owned(),
        propagation: "rprivate",
        ..Mount::default()
    });
    let binds = volumes.iter().cloned().chain(files).map(|mount| mount.json());
    let mut more: Vec<Value> = binds.chain(options.tmpfs.iter().map(tmpfs)).collect();
    // A mount must not hide one made before it.
    more.sort_by_key(|mount| {
        mount["destination"].as_str().unwrap_or_default().matches('/').count()
    });
    list.extend(more);
    Ok(())
}

/// /dev/shm and /dev/mqueue go with the IPC namespace.
fn shared_memory(mounts: &mut Vec<Value>, inputs: &Inputs<'_>) {
    let namespaces = &inputs.options.namespaces;
    let bind = |mount: &mut Value, source: &str| {
        mount["type"] = json!("bind");
        mount["source"] = json!(source);
        mount["options"] = json!(["rbind", "rprivate"]);
    };
    mounts.retain_mut(|mount| {
        let target = mount["destination"].as_str().unwrap_or_default().to_owned();
        // What the user mounts there himself is his.
        let ours = matches!(mount["type"].as_str(), Some("tmpfs" | "mqueue"));
        match (target.as_str(), &namespaces.ipc, namespaces.memory) {
            (SHARED_MEMORY, Shared::Nobody, Memory::None) if ours => return false,
            (SHARED_MEMORY, Shared::Nobody, Memory::Shareable) if ours => {
                bind(mount, shm::SHARED);
            }
            (MESSAGE_QUEUES, Shared::Host, _) if ours && !inputs.host.message_queues => {
                return false;
            }
            (SHARED_MEMORY | MESSAGE_QUEUES, Shared::Host, _) if ours => bind(mount, &target),
            (SHARED_MEMORY, Shared::Container(_), _) if ours => {
                if let Some(source) = &inputs.joined.memory {
                    bind(mount, source);
                }
            }
            _ => {}
        }
        true
    });
}

/// A sysfs shows a network namespace, and the host's is not for us to mount.
pub(crate) fn bind_sys(mounts: &mut [Value]) {
    for mount in mounts.iter_mut().filter(|mount| mount["type"] == "sysfs") {
        mount["type"] = json!("bind");
        mount["source"] = json!("/sys");
        if let Some(words) = mount["options"].as_array_mut() {
            words.insert(0, json!("rbind"));
        }
    }
}

fn tmpfs(tmpfs: &Tmpfs) -> Value {
    json!({"destination": tmpfs.target, "type": "tmpfs", "source": "tmpfs", "options": tmpfs.options})
}

impl Mount {
    fn json(&self) -> Value {
        let (kind, mut options) = match &self.filesystem {
            Some((kind, options)) => (kind.as_str(), options.iter().map(String::as_str).collect()),
            None => ("bind", vec!["rbind"]),
        };
        if self.read_only {
            options.push("ro");
        }
        if kind == "bind" {
            options.push(self.propagation);
        }
        if self.mapped {
            options.push("idmap");
        }
        json!({"destination": self.target, "type": kind, "source": self.source, "options": options})
    }
}

fn namespaces(config: &mut Value, inputs: &Inputs<'_>) -> Result<()> {
    let linux = section(config, "linux")?;
    let list = linux
        .get_mut("namespaces")
        .and_then(Value::as_array_mut)
        .context("config template has no namespaces")?;
    let wished = &inputs.options.namespaces;
    if wished.host_uts {
        list.retain(|namespace| namespace["type"] != "uts");
    }
    for (kind, shared) in [("pid", &wished.pid), ("ipc", &wished.ipc)] {
        if *shared == Shared::Host {
            list.retain(|namespace| namespace["type"] != kind);
        }
    }
    if inputs.own_network {
        list.push(json!({"type": "network"}));
    }
    for (kind, path) in &inputs.joined.namespaces {
        list.retain(|namespace| namespace["type"] != *kind);
        list.push(json!({"type": kind, "path": path}));
    }
    if wished.own_cgroup.unwrap_or(inputs.host.unified_cgroup) {
        list.push(json!({"type": "cgroup"}));
    }
    if let Some(maps) = inputs.maps {
        list.push(json!({"type": "user"}));
        linux.insert("uidMappings".into(), mappings(&maps.uids));
        linux.insert("gidMappings".into(), mappings(&maps.gids));
    }
    if let Some(parent) = &wished.cgroup_parent {
        // systemd wants a slice, a prefix and a name.
        let path = if parent.ends_with(".slice") && !parent.contains('/') {
            format!("{parent}:imgtool:{}", inputs.bundle_id)
        } else {
            format!("/{}/{}", parent.trim_start_matches('/'), inputs.bundle_id)
        };
        linux.insert("cgroupsPath".into(), json!(path));
    }
    let mut settings = BTreeMap::new();
    if inputs.own_network {
        // As with Docker: low ports and ping without a capability. The kernel takes no group that
        // the user namespace does not have.
        let last = inputs.maps.map_or(LAST_GROUP, |maps| maps.last_group().min(LAST_GROUP));
        settings.insert("net.ipv4.ip_unprivileged_port_start", "0".to_owned());
        settings.insert("net.ipv4.ping_group_range", format!("0 {last}"));
    }
    let wished = inputs.options.sysctl.iter();
    settings.extend(wished.map(|(key, value)| (key.as_str(), value.clone())));
    if !settings.is_empty() {
        linux.insert("sysctl".into(), json!(settings));
    }
    Ok(())
}

fn mappings(ranges: &[Range]) -> Value {
    let mapping = |range: &Range| json!({"containerID": range.inside, "hostID": range.outside, "size": range.count});
    ranges.iter().map(mapping).collect()
}

fn resources(config: &mut Value, inputs: &Inputs<'_>) {
    let Inputs { options, host, .. } = inputs;
    // A device rule needs privilege over the cgroup; limits may have been delegated.
    let mut resources = match host.rootless {
        Some(_) => json!({}),
        None => config["linux"]["resources"].take(),
    };
    if options.privileged && host.rootless.is_none() {
        resources["devices"] = json!([{"allow": true, "access": "rwm"}]);
    }
    if let Some(rules) = resources.get_mut("devices").and_then(Value::as_array_mut) {
        rules.extend(inputs.device_rules.iter().cloned());
    }
    let limits = &options.limits;
    if let Some(limit) = options.memory_bytes {
        resources["memory"]["limit"] = json!(limit);
        if host.swap_limit {
            let swap = limits.swap_bytes.unwrap_or(limit.saturating_mul(2));
            resources["memory"]["swap"] = json!(swap);
        }
    }
    if let Some(reservation) = limits.reservation_bytes {
        resources["memory"]["reservation"] = json!(reservation);
    }
    if let Some(percent) = limits.swappiness {
        resources["memory"]["swappiness"] = json!(percent);
    }
    if limits.oom_kill_disable {
        resources["memory"]["disableOOMKiller"] = json!(true);
    }
    let cpu = match options.cpu_quota_us {
        Some(quota) => CpuTime { period_us: Some(CPU_PERIOD_US), quota_us: Some(quota) },
        None => limits.cpu,
    };
    for (key, value) in [
        ("period", cpu.period_us.map(|period| json!(period))),
        ("quota", cpu.quota_us.map(|quota| json!(quota))),
        ("realtimePeriod", limits.real_time.period_us.map(|period| json!(period))),
        ("realtimeRuntime", limits.real_time.quota_us.map(|quota| json!(quota))),
        ("shares", limits.cpu_shares.map(|weight| json!(weight))),
        ("cpus", limits.cpus.as_ref().map(|list| json!(list))),
        ("mems", limits.memory_nodes.as_ref().map(|list| json!(list))),
    ] {
        if let Some(value) = value {
            resources["cpu"][key] = value;
        }
    }
    if let Some(block) = &inputs.block {
        resources["blockIO"] = block.clone();
    }
    if let Some(limit) = options.pids_limit {
        resources["pids"] = json!({"limit": limit});
    }
    config["linux"]["resources"] = resources;
}

/// The image's, then ours, which nothing of the image can replace.
fn annotations(inputs: &Inputs<'_>) -> Result<BTreeMap<String, String>> {
    let (mut all, _) = annotations::of_image(inputs.image);
    if let Some(signal) = &inputs.options.stop_signal {
        all.insert("org.opencontainers.image.stopSignal".into(), signal.clone());
    }
    all.extend(inputs.options.annotations.iter().cloned());
    let wishes = inputs.options.wishes.iter();
    all.extend(wishes.map(|(key, value)| ((*key).to_owned(), value.clone())));
    expose(&mut all, &inputs.options.exposed);
    all.extend(inputs.annotations.clone());
    let command = serde_json::to_string(inputs.arguments).context("write the command line")?;
    all.insert(annotations::COMMAND.into(), command);
    if let Some(name) = &inputs.options.name {
        all.insert(annotations::NAME.into(), name.clone());
    }
    if inputs.options.hostname.is_none()
        && inputs.own_network
        && !inputs.options.namespaces.host_uts
    {
        all.insert(annotations::HOSTNAME.into(), "id".into());
    }
    if let Some(check) = inputs.options.health.over(&inputs.image.config)? {
        all.insert(annotations::HEALTHCHECK.into(), check);
    }
    if inputs.options.interactive {
        all.insert(annotations::INTERACTIVE.into(), "true".into());
    }
    Ok(all)
}

/// Adds to what the image exposes.
fn expose(all: &mut BTreeMap<String, String>, exposed: &[Publish]) {
    const PORTS: &str = "org.opencontainers.image.exposedPorts";
    let mut ports: Vec<String> = all.get(PORTS).cloned().into_iter().collect();
    let more = exposed.iter().map(ToString::to_string);
    ports.extend(
        more.filter(|port| !all.get(PORTS).is_some_and(|it| it.split(',').any(|p| p == port))),
    );
    if !ports.is_empty() {
        all.insert(PORTS.into(), ports.join(","));
    }
}

fn section<'a>(config: &'a mut Value, name: &str) -> Result<&'a mut Map<String, Value>> {
    config
        .get_mut(name)
        .and_then(Value::as_object_mut)
        .with_context(|| format!("config template has no {name}"))
}

#[cfg(test)]
mod tests;
