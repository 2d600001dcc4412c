//! Where a repository is really fetched from: the mirrors and other addresses
//! that registries.conf and docker's daemon.json give for it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::http::Url;
use crate::reference::{DEFAULT_HOST, Reference};

const DOCKER_HUB: &str = "registry-1.docker.io";
const SYSTEM_FILE: &str = "/etc/containers/registries.conf";
const DAEMON_FILE: &str = "/etc/docker/daemon.json";

/// One address of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Host and port.
    pub(crate) host: String,
    /// The repository as it is called there.
    pub(crate) path: String,
    /// Whether plain HTTP and any certificate will do.
    pub(crate) insecure: bool,
    pub(crate) mirror: bool,
}

impl Endpoint {
    /// The address to connect to.
    pub(crate) fn base(&self) -> Result<Url> {
        let host = if self.host == DEFAULT_HOST { DOCKER_HUB } else { &self.host };
        Url::parse(&format!("https://{host}"))
    }
}

/// What the files say.
#[derive(Debug, Default)]
pub(crate) struct Registries {
    registries: Vec<Registry>,
    /// Of Docker Hub, as docker has them.
    docker_mirrors: Vec<String>,
    docker_insecure: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct File {
    registry: Vec<Registry>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Registry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<Mirror>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Mirror {
    location: String,
    insecure: bool,
    pull_from_mirror: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Daemon {
    registry_mirrors: Vec<String>,
    insecure_registries: Vec<String>,
}

impl Registries {
    /// Reads `chosen`, or the user's or the system's file with its drop-ins.
    pub(crate) fn read(chosen: Option<&Path>) -> Result<Self> {
        let mut found = Self::default();
        for path in files(chosen)? {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("read {}", path.display()))?;
            found.add(&text).with_context(|| format!("read {}", path.display()))?;
        }
        match std::fs::read(DAEMON_FILE) {
            Ok(bytes) => {
                let daemon: Daemon = serde_json::from_slice(&bytes)
                    .with_context(|| format!("read {DAEMON_FILE}"))?;
                found.docker_mirrors = daemon.registry_mirrors;
                found.docker_insecure = daemon.insecure_registries;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {DAEMON_FILE}")),
        }
        Ok(found)
    }

    fn add(&mut self, text: &str) -> Result<()> {
        let file: File = toml::from_str(text)?;
        for mut registry in file.registry {
            if registry.prefix.is_empty() {
                registry.prefix.clone_from(&registry.location);
            }
            ensure!(!registry.prefix.is_empty(), "a [[registry]] has neither prefix nor location");
            // A later file speaks anew about the same prefix.
            self.registries.retain(|other| other.prefix != registry.prefix);
            self.registries.push(registry);
        }
        Ok(())
    }

    /// Where to pull from, in the order to be tried.
    pub(crate) fn for_pull(&self, name: &Reference) -> Result<Vec<Endpoint>> {
        let mut endpoints = Vec::new();
        if let Some(registry) = self.find(name)? {
            let by_digest = name.digest().is_some();
            for mirror in &registry.mirror {
                let wanted = match mirror.pull_from_mirror.as_str() {
                    "" => by_digest || !registry.mirror_by_digest_only,
                    "all" => true,
                    "digest-only" => by_digest,
                    "tag-only" => !by_digest,
                    other => bail!("registries.conf: unknown pull-from-mirror {other:?}"),
                };
                if wanted {
                    let (host, path) = rewrite(name, &registry.prefix, &mirror.location);
                    endpoints.push(Endpoint {
                        host,
                        path,
                        insecure: mirror.insecure,
                        mirror: true,
                    });
                }
            }
        } else if name.host() == DEFAULT_HOST {
            for mirror in &self.docker_mirrors {
                let url = mirror.trim_end_matches('/');
                let insecure = url.starts_with("http://");
                let location = url.trim_start_matches("http://").trim_start_matches("https://");
                let (host, path) = rewrite(name, DEFAULT_HOST, location);
                let insecure = insecure || self.is_insecure(&host);
                endpoints.push(Endpoint { host, path, insecure, mirror: true });
            }
        }
        endpoints.push(self.primary(name)?);
        Ok(endpoints)
    }

    /// The repository itself, for all that is no pull.
    pub(crate) fn primary(&self, name: &Reference) -> Result<Endpoint> {
        let (mut host, mut path) = (name.host().to_owned(), name.path().to_owned());
        let mut insecure = self.is_insecure(&host);
        if let Some(registry) = self.find(name)? {
            insecure |= registry.insecure;
            if !registry.location.is_empty() {
                (host, path) = rewrite(name, &registry.prefix, &registry.location);
            }
        }
        Ok(Endpoint { host, path, insecure, mirror: false })
    }

    /// The entry with the longest prefix that covers the name.
    fn find(&self, name: &Reference) -> Result<Option<&Registry>> {
        let covering = self.registries.iter().filter(|registry| covers(&registry.prefix, name));
        let found = covering.max_by_key(|registry| registry.prefix.len());
        if let Some(registry) = found.filter(|registry| registry.blocked) {
            bail!("registries.conf blocks {} ({})", name.familiar_repository(), registry.prefix);
        }
        Ok(found)
    }

    /// Whether docker is told to be careless about this host.
    fn is_insecure(&self, host: &str) -> bool {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        self.docker_insecure.iter().any(|entry| match entry.split_once('/') {
            Some((network, bits)) => in_network(name, network, bits),
            None => entry == host,
        })
    }
}

fn files(chosen: Option<&Path>) -> Result<Vec<PathBuf>> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(path) = chosen {
        return Ok(vec![path.to_owned()]);
    }
    if let Some(path) = variable("CONTAINERS_REGISTRIES_CONF") {
        return Ok(vec![path.into()]);
    }
    let own =
        variable("HOME").map(|home| PathBuf::from(home).join(".config/containers/registries.conf"));
    let main = own.filter(|path| path.exists()).unwrap_or_else(|| SYSTEM_FILE.into());
    let mut files = Vec::new();
    let drop_ins = main.with_extension("conf.d");
    match std::fs::read_dir(&drop_ins) {
        Ok(entries) => {
            for entry in entries {
                files.push(entry.with_context(|| format!("read {}", drop_ins.display()))?.path());
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("read {}", drop_ins.display())),
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    files.sort();
    if main.exists() {
        files.insert(0, main);
    }
    Ok(files)
}

/// `host`, `host/path` or `*.host`.
fn covers(prefix: &str, name: &Reference) -> bool {
    if let Some(suffix) = prefix.strip_prefix("*.") {
        return name.host().strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
    }
    let full = format!("{}/{}", name.host(), name.path());
    full.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The name with `prefix` replaced by `location`, as host and path.
fn rewrite(name: &Reference, prefix: &str, location: &str) -> (String, String) {
    let full = format!("{}/{}", name.host(), name.path());
    let rest = if prefix.starts_with("*.") {
        &full[name.host().len()..]
    } else {
        full.strip_prefix(prefix).unwrap_or(&full)
    };
    let new = format!("{}{rest}", location.trim_end_matches('/'));
    match new.split_once('/') {
        Some((host, path)) => (host.to_owned(), path.to_owned()),
        None => (new, name.path().to_owned()),
    }
}

fn in_network(host: &str, network: &str, bits: &str) -> bool {
    let (Ok(host), Ok(network), Ok(bits)) =
        (host.parse::<IpAddr>(), network.parse::<IpAddr>(), bits.parse::<u32>())
    else {
        return false;
    };
    let number = |address: IpAddr| match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    };
    let ((host, width), (network, other)) = (number(host), number(network));
    let mask = u128::MAX.checked_shl(128 - bits.min(width)).unwrap_or(0);
    width == other && host & mask == network & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        [[registry]]
        location = "docker.io"
        [[registry.mirror]]
        location = "mirror.local:5000/hub"
        insecure = true
        [[registry.mirror]]
        location = "digests.local"
        pull-from-mirror = "digest-only"

        [[registry]]
        prefix = "reg.example/team"
        location = "other.example/moved"

        [[registry]]
        prefix = "*.bad.example"
        blocked = true
    "#;

    fn registries() -> Registries {
        let mut registries = Registries::default();
        registries.add(TEXT).unwrap();
        registries
    }

    fn hosts(name: &str) -> Vec<String> {
        let name = Reference::parse(name).unwrap();
        let endpoints = registries().for_pull(&name).unwrap();
        endpoints.iter().map(|e| format!("{}/{}", e.host, e.path)).collect()
    }

    #[test]
    fn mirrors_come_first_and_prefixes_are_rewritten() {
        assert_eq!(
            hosts("busybox:1"),
            ["mirror.local:5000/hub/library/busybox", "docker.io/library/busybox"]
        );
        let digest = crate::digest::Digest::of(b"x");
        assert_eq!(hosts(&format!("busybox@{digest}")).len(), 3);
        assert_eq!(hosts("reg.example/team/app"), ["other.example/moved/app"]);
        assert_eq!(hosts("reg.example/teams/app"), ["reg.example/teams/app"]);
        let blocked = Reference::parse("a.bad.example/x").unwrap();
        assert!(registries().for_pull(&blocked).is_err());
        assert!(registries().primary(&Reference::parse("bad.example/x").unwrap()).is_ok());
    }

    #[test]
    fn docker_s_settings_count_too() {
        let registries = Registries {
            docker_mirrors: vec!["http://hub.local:5000/".into()],
            docker_insecure: vec!["10.0.0.0/8".into(), "reg:5000".into()],
            ..Registries::default()
        };
        let name = |text| Reference::parse(text).unwrap();
        let pull = registries.for_pull(&name("me/app")).unwrap();
        assert_eq!((pull[0].host.as_str(), pull[0].insecure), ("hub.local:5000", true));
        assert_eq!((pull.len(), pull[1].insecure), (2, false));
        assert!(registries.primary(&name("10.1.2.3:80/a")).unwrap().insecure);
        assert!(registries.primary(&name("reg:5000/a")).unwrap().insecure);
        assert!(!registries.primary(&name("11.1.2.3/a")).unwrap().insecure);
    }
}
