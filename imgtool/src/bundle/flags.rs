//! The words of `imgtool bundle` become values: Docker's syntax in, checked [`Options`] out.
//! Nothing here reads the image or touches the host; the environment is handed in.

mod publish;
mod quantity;
mod volume;

use std::path::Path;

use anyhow::{Context, Result, bail};

pub(crate) use publish::Publish;
pub(crate) use quantity::CPU_PERIOD_US;
pub(crate) use volume::{Source, Volume, clean_target};

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
    /// Working directory of the command
    #[arg(short = 'w', long = "workdir", value_name = "DIR")]
    workdir: Option<String>,
    /// User and group of the command, as names of the image or numbers
    #[arg(short = 'u', long = "user", value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Bind a host directory or file into the container
    #[arg(short = 'v', long = "volume", value_name = "SOURCE:TARGET[:OPTIONS]")]
    volume: Vec<String>,
    /// Publish a port on the host
    #[arg(short = 'p', long = "publish", value_name = "[IP:][HOST:]PORT[/PROTOCOL]")]
    publish: Vec<String>,
    /// Network of the container: bridge (the default), none, host, or the name of a bridge
    #[arg(long, visible_alias = "net", value_name = "NAME")]
    network: Option<String>,
    /// Name of the container, and of a bundle kept in the store
    #[arg(long)]
    name: Option<String>,
    /// Host name inside the container
    #[arg(long)]
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
    /// seccomp=unconfined or no-new-privileges
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
    pub(crate) no_new_privileges: bool,
    pub(crate) seccomp: Seccomp,
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
    pub(crate) publish: Vec<Publish>,
    pub(crate) volumes: Vec<Volume>,
    pub(crate) memory_bytes: Option<i64>,
    pub(crate) cpu_quota_us: Option<i64>,
    pub(crate) pids_limit: Option<i64>,
    pub(crate) capabilities: CapabilityChange,
}

/// Which network the container gets.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) enum Network {
    /// The default bridge of netsetup.
    #[default]
    Default,
    /// A network namespace with a loopback device only.
    None,
    /// The host's own network.
    Host,
    /// A bridge that netsetup knows by this name.
    Named(String),
}

/// Which system call filter the container gets.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seccomp {
    #[default]
    Default,
    Unconfined,
}

/// Checks `words` and the command after `--`. `cwd` makes relative volume sources absolute,
/// `lookup` gives the value of a variable of our own environment.
pub(crate) fn resolve(
    words: Words,
    command: Vec<String>,
    cwd: &Path,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Options> {
    let (seccomp, no_new_privileges) = security_options(&words.security_opt)?;
    let network = words.network.as_deref().map_or(Ok(Network::Default), parse_network)?;
    let publish = words
        .publish
        .iter()
        .map(|word| Publish::parse(word).with_context(|| format!("invalid port {word:?}")))
        .collect::<Result<Vec<_>>>()?;
    if !publish.is_empty() && matches!(network, Network::None | Network::Host) {
        bail!(
            "-p needs a network of the container's own: it can't be used with --network none or host"
        );
    }
    let volumes = words
        .volume
        .iter()
        .map(|word| Volume::parse(word, cwd).with_context(|| format!("invalid volume {word:?}")))
        .collect::<Result<Vec<_>>>()?;
    volume::refuse_duplicates(&volumes)?;
    if let Some(dir) = words.workdir.as_deref().filter(|dir| !dir.starts_with('/')) {
        bail!("the working directory {dir:?} is invalid, it needs to be an absolute path");
    }
    Ok(Options {
        terminal: words.tty,
        interactive: words.interactive,
        remove: words.remove,
        read_only: words.read_only,
        privileged: words.privileged,
        no_new_privileges,
        seccomp,
        env: words
            .env
            .iter()
            .map(|word| parse_env(word, &lookup))
            .filter_map(Result::transpose)
            .collect::<Result<Vec<_>>>()?,
        user: words.user,
        workdir: words.workdir,
        entrypoint: words
            .entrypoint
            .map(|program| if program.is_empty() { Vec::new() } else { vec![program] }),
        command: (!command.is_empty()).then_some(command),
        name: words.name.map(check_name).transpose()?,
        hostname: words.hostname.map(check_hostname).transpose()?,
        network,
        publish,
        volumes,
        memory_bytes: words.memory.as_deref().map(quantity::memory).transpose()?,
        cpu_quota_us: words.cpus.as_deref().map(quantity::cpus).transpose()?,
        pids_limit: words.pids_limit.filter(|&limit| limit != 0),
        capabilities: CapabilityChange::parse(&words.cap_add, &words.cap_drop)?,
    })
}

/// `KEY=VALUE`, or `KEY` taken from `lookup`; a bare key that is unset there is left out.
fn parse_env(
    word: &str,
    lookup: &impl Fn(&str) -> Option<String>,
) -> Result<Option<(String, String)>> {
    let (key, value) = match word.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (word, lookup(word)),
    };
    if key.is_empty() || word.contains('\0') {
        bail!("invalid environment variable: {word:?}");
    }
    Ok(value.map(|value| (key.to_owned(), value)))
}

fn parse_network(word: &str) -> Result<Network> {
    Ok(match word {
        "default" | "bridge" => Network::Default,
        "none" => Network::None,
        "host" => Network::Host,
        name if is_plain_name(name) => Network::Named(name.to_owned()),
        other => bail!("invalid network {other:?}: use bridge, none, host or the name of a bridge"),
    })
}

fn security_options(words: &[String]) -> Result<(Seccomp, bool)> {
    let mut seccomp = Seccomp::Default;
    let mut no_new_privileges = false;
    for word in words {
        match word.as_str() {
            "seccomp=unconfined" => seccomp = Seccomp::Unconfined,
            "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true" => {
                no_new_privileges = true;
            }
            "no-new-privileges:false" | "no-new-privileges=false" => no_new_privileges = false,
            // Asking for no confinement by a module that we configure nothing for.
            "apparmor=unconfined" | "label=disable" => {}
            other => bail!(
                "unknown security option {other:?}: use seccomp=unconfined or no-new-privileges"
            ),
        }
    }
    Ok((seccomp, no_new_privileges))
}

/// Docker's rule for the names of containers and networks.
fn is_plain_name(word: &str) -> bool {
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
        resolve(words, Vec::new(), Path::new("/where/we/are"), |key| {
            (key == "SET").then(|| "from host".to_owned())
        })
    }

    #[test]
    fn environment_words_set_and_take_over() {
        let words = Words {
            env: ["A=b=c", "SET", "UNSET", "EMPTY="].map(String::from).to_vec(),
            ..Words::default()
        };
        let env = options(words).unwrap().env;
        let pairs: Vec<_> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("A", "b=c"), ("SET", "from host"), ("EMPTY", "")]);
    }

    #[test]
    fn networks_have_three_reserved_names() {
        for (word, network) in [
            ("bridge", Network::Default),
            ("default", Network::Default),
            ("none", Network::None),
            ("host", Network::Host),
            ("blue", Network::Named("blue".into())),
        ] {
            assert_eq!(parse_network(word).unwrap(), network, "{word}");
        }
        for word in ["", "container:x", "a b", "../x"] {
            assert!(parse_network(word).is_err(), "{word}");
        }
    }

    #[test]
    fn published_ports_need_a_network_of_the_containers_own() {
        for network in ["none", "host"] {
            let words = Words {
                publish: vec!["80:80".into()],
                network: Some(network.into()),
                ..Words::default()
            };
            assert!(options(words).is_err(), "{network}");
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

    #[test]
    fn unknown_security_options_are_refused() {
        assert!(security_options(&["seccomp=/x.json".into()]).is_err());
        assert_eq!(
            security_options(&["seccomp=unconfined".into(), "no-new-privileges".into()]).unwrap(),
            (Seccomp::Unconfined, true)
        );
    }
}
