//! The words of `imgtool bundle` become values: Docker's syntax in, checked [`Options`] out.
//! Nothing here reads the image or touches the host; the environment is handed in.

mod block;
mod device;
mod environment;
mod health;
mod hosts;
mod identity;
mod life;
mod limits;
mod mount;
mod namespaces;
mod network;
mod process;
mod publish;
mod quantity;
mod security;
mod sysctl;
mod volume;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

pub(crate) use block::Block;
pub(crate) use device::{Device, Rule};
pub(crate) use health::Health;
pub(crate) use hosts::Hosts;
pub(crate) use identity::{Identity, Ids};
pub(crate) use limits::{CpuTime, Limits, ResourceLimit};
pub(crate) use mount::Tmpfs;
pub(crate) use namespaces::{Memory, Namespaces, Shared};
pub(crate) use network::{Network, Place};
pub(crate) use process::Process;
pub(crate) use publish::Publish;
pub(crate) use quantity::CPU_PERIOD_US;
pub(crate) use security::{Seccomp, Security};
pub(crate) use volume::{PROPAGATION, Source, Volume, VolumesFrom, clean_target};

use super::annotations::PREFIX;
use super::capabilities::CapabilityChange;

/// The container flags of `imgtool bundle`, as typed.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Words {
    /// Give the container a terminal
    #[arg(short = 't', long = "tty")]
    tty: bool,
    /// Keep standard input open
    #[arg(short = 'i', long)]
    interactive: bool,
    /// Remove the bundle with its container
    #[arg(long = "rm")]
    remove: bool,
    /// Set an environment variable; a bare KEY takes the value from our own environment
    #[arg(short = 'e', long = "env", value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Set the variables that stand in a file, a line each
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory of the command
    #[arg(short = 'w', long = "workdir", value_name = "DIR")]
    workdir: Option<String>,
    /// User and group of the command, as names of the image or numbers
    #[arg(short = 'u', long = "user", value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Bind a host directory or file, or a volume by its name, into the container
    #[arg(short = 'v', long = "volume", value_name = "SOURCE:TARGET[:OPTIONS]")]
    volume: Vec<String>,
    /// Mount something: type=bind|volume|tmpfs,source=…,target=…,readonly
    #[arg(long, value_name = "KEY=VALUE,…")]
    mount: Vec<String>,
    /// Mount the volumes of another container or bundle, which must outlive this one
    #[arg(long, value_name = "CONTAINER[:ro]")]
    volumes_from: Vec<String>,
    /// Mount a file system in memory
    #[arg(long, value_name = "TARGET[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// Publish a port on the host
    #[arg(short = 'p', long = "publish", value_name = "[IP:][HOST:]PORT[/PROTOCOL]")]
    publish: Vec<String>,
    /// Publish every port that the image exposes on a free port of the host
    #[arg(short = 'P', long)]
    publish_all: bool,
    #[command(flatten)]
    hosts: hosts::Words,
    #[command(flatten)]
    network: network::Words,
    /// Name of the container, and of a bundle kept in the store
    #[arg(long)]
    name: Option<String>,
    /// Host name inside the container
    #[arg(short = 'h', long)]
    hostname: Option<String>,
    /// Memory limit, with a suffix b, k, m, g or t
    #[arg(short = 'm', long, value_name = "SIZE")]
    memory: Option<String>,
    /// Number of CPUs, for example 1.5
    #[arg(long, value_name = "N")]
    cpus: Option<String>,
    /// Limit of processes and threads, -1 for none
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    #[command(flatten)]
    limits: limits::Words,
    #[command(flatten)]
    life: life::Words,
    #[command(flatten)]
    namespaces: namespaces::Words,
    #[command(flatten)]
    block: block::Words,
    #[command(flatten)]
    process: process::Words,
    /// A setting of the kernel's that the container has for itself
    #[arg(long, value_name = "KEY=VALUE")]
    sysctl: Vec<String>,
    #[command(flatten)]
    health: health::Words,
    #[command(flatten)]
    devices: device::Words,
    #[command(flatten)]
    identity: identity::Words,
    /// Start the program by a small init, which hands signals on and reaps what nobody waits for
    #[arg(long)]
    init: bool,
    /// The signal that asks the container to stop
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Set a label, which is an annotation of the bundle
    #[arg(short = 'l', long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Set the labels that stand in a file, a line each
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Set an annotation of the bundle
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Make the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Add a capability, or ALL
    #[arg(long, value_name = "CAP")]
    cap_add: Vec<String>,
    /// Drop a capability, or ALL
    #[arg(long, value_name = "CAP")]
    cap_drop: Vec<String>,
    /// Replace the entrypoint of the image; an empty one clears it
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// seccomp=FILE or =unconfined, apparmor=PROFILE, no-new-privileges, systempaths=unconfined
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Every capability and device, no seccomp, nothing masked
    #[arg(long)]
    privileged: bool,
}

/// What the caller wants of the container, checked.
#[derive(Debug, Default)]
pub(crate) struct Options {
    pub(crate) terminal: bool,
    pub(crate) interactive: bool,
    pub(crate) remove: bool,
    pub(crate) read_only: bool,
    pub(crate) privileged: bool,
    pub(crate) init: bool,
    pub(crate) security: Security,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) user: Option<String>,
    pub(crate) workdir: Option<String>,
    /// `None` keeps the image's, an empty list clears it.
    pub(crate) entrypoint: Option<Vec<String>>,
    /// `None` keeps the image's.
    pub(crate) command: Option<Vec<String>>,
    pub(crate) name: Option<String>,
    pub(crate) hostname: Option<String>,
    pub(crate) network: Network,
    pub(crate) place: Place,
    /// Ports that it listens on, beside those that the image exposes.
    pub(crate) exposed: Vec<Publish>,
    pub(crate) publish: Vec<Publish>,
    /// Every port that the image exposes, too.
    pub(crate) publish_all: bool,
    pub(crate) hosts: Hosts,
    pub(crate) volumes: Vec<Volume>,
    pub(crate) volumes_from: Vec<VolumesFrom>,
    pub(crate) tmpfs: Vec<Tmpfs>,
    pub(crate) devices: device::Wanted,
    /// Labels and annotations, which are one here.
    pub(crate) annotations: Vec<(String, String)>,
    /// Annotations of ours for the runtime.
    pub(crate) wishes: Vec<(&'static str, String)>,
    pub(crate) stop_signal: Option<String>,
    pub(crate) memory_bytes: Option<i64>,
    pub(crate) cpu_quota_us: Option<i64>,
    pub(crate) pids_limit: Option<i64>,
    pub(crate) limits: Limits,
    pub(crate) namespaces: Namespaces,
    pub(crate) block: Block,
    pub(crate) process: Process,
    pub(crate) sysctl: BTreeMap<String, String>,
    pub(crate) health: Health,
    pub(crate) capabilities: CapabilityChange,
    pub(crate) identity: Identity,
}

/// Checks `words` and the command after `--`. `cwd` makes relative volume sources absolute,
/// `lookup` gives the value of a variable of our own environment.
pub(crate) fn resolve(
    words: Words,
    command: Vec<String>,
    cwd: &Path,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Options> {
    let (volumes, tmpfs) = mounts(&words, cwd)?;
    let mut labels = environment::labels(&words.label_file)?;
    labels.extend(words.label);
    let labels = annotations(&labels, &words.annotation)?;
    let wishes = words.life.resolve()?;
    let again =
        wishes.iter().any(|(key, policy)| *key == super::annotations::RESTART && policy != "no");
    ensure!(
        !(words.remove && again),
        "--rm and --restart exclude each other: what is removed at its end can't be started again"
    );
    let (network, place, exposed) = words.network.resolve()?;
    let publish = words
        .publish
        .iter()
        .map(|word| Publish::parse(word).with_context(|| format!("invalid port {word:?}")))
        .collect::<Result<Vec<_>>>()?;
    let memory_bytes = words.memory.as_deref().map(quantity::memory).transpose()?;
    if let Some(dir) = words.workdir.as_deref().filter(|dir| !dir.starts_with('/')) {
        bail!("the working directory {dir:?} is invalid, it needs to be an absolute path");
    }
    let options = Options {
        terminal: words.tty,
        interactive: words.interactive,
        remove: words.remove,
        read_only: words.read_only,
        privileged: words.privileged,
        init: words.init,
        security: Security::parse(&words.security_opt)?,
        env: environment::resolve(&words.env_file, &words.env, &lookup)?,
        user: words.user,
        workdir: words.workdir,
        entrypoint: words
            .entrypoint
            .map(|program| if program.is_empty() { Vec::new() } else { vec![program] }),
        command: (!command.is_empty()).then_some(command),
        name: words.name.map(check_name).transpose()?,
        hostname: words.hostname.map(check_hostname).transpose()?,
        network,
        place,
        exposed,
        publish,
        publish_all: words.publish_all,
        hosts: words.hosts.resolve()?,
        namespaces: words.namespaces.resolve()?,
        volumes,
        volumes_from: words
            .volumes_from
            .iter()
            .map(|word| VolumesFrom::parse(word))
            .collect::<Result<_>>()?,
        tmpfs,
        devices: words.devices.resolve()?,
        annotations: labels,
        wishes,
        stop_signal: words.stop_signal.map(check_signal).transpose()?,
        memory_bytes,
        cpu_quota_us: words.cpus.as_deref().map(quantity::cpus).transpose()?,
        pids_limit: words.pids_limit.filter(|&limit| limit != 0),
        limits: words.limits.resolve(memory_bytes)?,
        block: words.block.resolve()?,
        process: words.process.resolve()?,
        sysctl: sysctl::resolve(&words.sysctl)?,
        health: words.health.resolve()?,
        capabilities: CapabilityChange::parse(&words.cap_add, &words.cap_drop)?,
        identity: words.identity.resolve()?,
    };
    check_together(&options)?;
    Ok(options)
}

/// What is good alone may make no sense with the rest.
fn check_together(options: &Options) -> Result<()> {
    let Options { network, namespaces, hostname, .. } = options;
    let publishes = !options.publish.is_empty() || options.publish_all;
    ensure!(
        !publishes || (network.is_own() && *network != Network::None),
        "-p needs a network of the container's own: it can't be used with --network none, host or container:ID"
    );
    let joins = matches!(network, Network::Container(_));
    ensure!(
        !joins || (hostname.is_none() && options.hosts == Hosts::default()),
        "--network container:ID takes that container's names: not with --hostname, --add-host or --dns…"
    );
    ensure!(
        hostname.is_none() || !namespaces.host_uts,
        "--hostname can't be used with --uts host: it would be the host's"
    );
    for key in options.sysctl.keys() {
        ensure!(
            network.is_own() || !sysctl::is_of_network(key),
            "--sysctl {key} needs a network of the container's own: not with --network host or container:ID"
        );
        ensure!(
            namespaces.ipc == Shared::Nobody || !sysctl::is_of_ipc(key),
            "--sysctl {key} needs an IPC namespace of the container's own: not with --ipc host or container:ID"
        );
    }
    Ok(())
}

/// What is mounted, whichever flag says it.
fn mounts(words: &Words, cwd: &Path) -> Result<(Vec<Volume>, Vec<Tmpfs>)> {
    let (mut volumes, mut tmpfs) = (Vec::new(), Vec::new());
    for word in &words.volume {
        let volume = Volume::parse(word, cwd);
        volumes.push(volume.with_context(|| format!("invalid volume {word:?}"))?);
    }
    for word in &words.mount {
        let wanted = mount::Wanted::parse(word, cwd);
        match wanted.with_context(|| format!("invalid mount {word:?}"))? {
            mount::Wanted::Volume(volume) => volumes.push(volume),
            mount::Wanted::Tmpfs(one) => tmpfs.push(one),
        }
    }
    for word in &words.tmpfs {
        tmpfs.push(Tmpfs::parse(word).with_context(|| format!("invalid tmpfs {word:?}"))?);
    }
    volume::refuse_duplicates(&volumes, &tmpfs)?;
    Ok((volumes, tmpfs))
}

/// A label may have no value.
fn annotations(labels: &[String], annotations: &[String]) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for word in labels {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        all.push((key.to_owned(), value.to_owned()));
    }
    for word in annotations {
        let pair = word.split_once('=');
        let (key, value) = pair.with_context(|| format!("--annotation {word:?} has no ="))?;
        all.push((key.to_owned(), value.to_owned()));
    }
    for (key, _) in &all {
        ensure!(!key.is_empty(), "a label or annotation without a name");
        // Whoever sees ours may rely on our having written it.
        ensure!(!key.starts_with(PREFIX), "{key:?} is a name of imgtool's own");
    }
    Ok(all)
}

/// A name or a number that the kernel has; names with or without SIG.
fn check_signal(word: String) -> Result<String> {
    let upper = word.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let known = match bare.parse::<u8>() {
        Ok(number) => (1..=64).contains(&number),
        Err(_) => {
            bare.starts_with("RTMIN")
                || bare.starts_with("RTMAX")
                || nix::sys::signal::Signal::from_str(&format!("SIG{bare}")).is_ok()
        }
    };
    ensure!(known, "unknown signal {word:?}");
    Ok(word)
}

/// Docker's rule for the names of containers and networks.
pub(crate) fn is_plain_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphanumeric())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

fn check_name(name: String) -> Result<String> {
    if name.len() < 2 || name.len() > 128 || !is_plain_name(&name) {
        bail!(
            "invalid container name {name:?}, only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 2 to 128 of them"
        );
    }
    Ok(name)
}

/// The kernel holds 64 bytes; the characters must be safe in /etc/hosts.
fn check_hostname(name: String) -> Result<String> {
    if name.is_empty() || name.len() > 64 || !is_plain_name(&name) {
        bail!("invalid host name {name:?}: letters, digits, '.', '-' and '_', at most 64 of them");
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: Words) -> Result<Options> {
        resolve(words, Vec::new(), Path::new("/where/we/are"), |_| None)
    }

    #[test]
    fn signals_are_names_or_numbers() {
        for good in ["SIGQUIT", "quit", "9", "RTMIN+3"] {
            assert!(check_signal(good.into()).is_ok(), "{good}");
        }
        for bad in ["", "SIG", "0", "65", "STOPNOW"] {
            assert!(check_signal(bad.into()).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_and_annotations_are_one() {
        let both = annotations(&["a=b=c".into(), "d".into()], &["e=f".into()]).unwrap();
        let pairs: Vec<_> = both.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("a", "b=c"), ("d", ""), ("e", "f")]);
        assert!(annotations(&["=x".into()], &[]).is_err());
        assert!(annotations(&[], &["e".into()]).is_err());
        assert!(annotations(&["org.imgtool.bundle=x".into()], &[]).is_err());
    }

    #[test]
    fn published_ports_need_a_network_of_the_containers_own() {
        for network in ["none", "host", "container:web"] {
            let options = Options {
                publish: vec![Publish::parse("80:80").unwrap()],
                network: Network::parse(network).unwrap(),
                ..Options::default()
            };
            assert!(check_together(&options).is_err(), "{network}");
        }
    }

    #[test]
    fn an_empty_entrypoint_clears() {
        let words = Words { entrypoint: Some(String::new()), ..Words::default() };
        assert_eq!(options(words).unwrap().entrypoint, Some(Vec::new()));
        assert_eq!(options(Words::default()).unwrap().entrypoint, None);
    }

    #[test]
    fn names_are_checked() {
        for name in ["c1", "Web_1.x-y"] {
            assert!(check_name(name.into()).is_ok(), "{name}");
        }
        for name in ["", "a", "-a", ".ab", "a/b", "..", "a b", "a\n"] {
            assert!(check_name(name.into()).is_err(), "{name:?}");
        }
        assert!(check_hostname("h\n127.0.0.1 evil".into()).is_err());
        assert!(check_hostname("h".repeat(65)).is_err());
    }
}
