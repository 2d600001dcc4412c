//! Where a repository is really fetched from: the mirrors and other addresses that
//! registries.conf, containerd's hosts.toml and docker's daemon.json give for it.

mod hosts;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::http::{Url, in_network};
use crate::reference::{DEFAULT_HOST, Reference};
use crate::registries_conf::{RegistriesConf, Registry, rewrite};

use self::hosts::Hosts;

const DOCKER_HUB: &str = "registry-1.docker.io";
const DAEMON_FILE: &str = "/etc/docker/daemon.json";
/// Where a registry's API begins.
const API: &str = "/v2";

/// One address of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Host and port.
    pub(crate) host: String,
    /// The repository as it is called there.
    pub(crate) path: String,
    /// Whether plain HTTP and any certificate will do.
    pub(crate) insecure: bool,
    /// Whether it is known to speak plain HTTP.
    pub(crate) plain: bool,
    /// What stands before a repository's path.
    pub(crate) api: String,
    /// The registry it stands for, which it is told.
    pub(crate) stands_for: Option<String>,
    /// Certificates beside those of the host's own directory.
    pub(crate) authorities: Vec<PathBuf>,
    /// Files with our own certificate and its key.
    pub(crate) pair: Option<(PathBuf, PathBuf)>,
}

impl Endpoint {
    fn new(host: String, path: String, insecure: bool) -> Self {
        Self {
            host,
            path,
            insecure,
            plain: false,
            api: API.to_owned(),
            stands_for: None,
            authorities: Vec::new(),
            pair: None,
        }
    }

    /// The address to connect to.
    pub(crate) fn base(&self) -> Result<Url> {
        let host = if self.host == DEFAULT_HOST { DOCKER_HUB } else { &self.host };
        Url::parse(&format!("{}://{host}", if self.plain { "http" } else { "https" }))
    }
}

/// What the files say.
#[derive(Debug, Default)]
pub(crate) struct Registries {
    conf: RegistriesConf,
    /// Where containerd's settings lie, a directory per registry.
    hosts: Option<PathBuf>,
    /// Of Docker Hub, as docker has them.
    docker_mirrors: Vec<String>,
    docker_insecure: Vec<String>,
}

/// What decides about a repository, beside docker's settings.
enum Settings<'a> {
    Conf(&'a Registry),
    /// Heeded where registries.conf says nothing.
    Hosts(Box<Hosts>),
    None,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Daemon {
    registry_mirrors: Vec<String>,
    insecure_registries: Vec<String>,
}

impl Registries {
    /// Reads `conf` and looks into `hosts`, or those that the host has.
    pub(crate) fn read(conf: Option<&Path>, hosts: Option<&Path>) -> Result<Self> {
        let mut found = Self {
            conf: RegistriesConf::read(conf)?,
            hosts: Some(hosts.unwrap_or(Path::new(hosts::DIRECTORY)).to_owned()),
            ..Self::default()
        };
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

    /// Where to pull from, in the order to be tried.
    pub(crate) fn for_pull(&self, name: &Reference) -> Result<Vec<Endpoint>> {
        let mut endpoints = Vec::new();
        let settings = self.settings(name)?;
        if let Settings::Conf(registry) = settings {
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
                    endpoints.push(Endpoint::new(host, path, mirror.insecure));
                }
            }
        } else if let Settings::Hosts(hosts) = &settings {
            endpoints.extend(hosts.for_pull(name));
        } else if name.host() == DEFAULT_HOST {
            for mirror in &self.docker_mirrors {
                let url = mirror.trim_end_matches('/');
                let insecure = url.starts_with("http://");
                let location = url.trim_start_matches("http://").trim_start_matches("https://");
                let (host, path) = rewrite(name, DEFAULT_HOST, location);
                let insecure = insecure || self.is_insecure(&host);
                endpoints.push(Endpoint::new(host, path, insecure));
            }
        }
        endpoints.push(self.itself(name, &settings));
        Ok(endpoints)
    }

    /// Where to go for all that is no pull.
    pub(crate) fn primary(&self, name: &Reference) -> Result<Endpoint> {
        let settings = self.settings(name)?;
        if let Settings::Hosts(hosts) = &settings
            && let Some(endpoint) = hosts.for_push(name)
        {
            return Ok(endpoint);
        }
        Ok(self.itself(name, &settings))
    }

    /// The repository itself, no mirror of it.
    fn itself(&self, name: &Reference, settings: &Settings<'_>) -> Endpoint {
        let (mut host, mut path) = (name.host().to_owned(), name.path().to_owned());
        let mut insecure = self.is_insecure(&host);
        match settings {
            Settings::Conf(registry) => {
                insecure |= registry.insecure;
                if !registry.location.is_empty() {
                    (host, path) = rewrite(name, &registry.prefix, &registry.location);
                }
            }
            Settings::Hosts(hosts) => {
                if let Some(server) = hosts.server(name) {
                    return server;
                }
            }
            Settings::None => {}
        }
        Endpoint::new(host, path, insecure)
    }

    fn settings(&self, name: &Reference) -> Result<Settings<'_>> {
        if let Some(registry) = self.conf.find(name)? {
            return Ok(Settings::Conf(registry));
        }
        let Some(directory) = &self.hosts else { return Ok(Settings::None) };
        let hosts = Hosts::read(directory, name.host())?;
        Ok(hosts.map_or(Settings::None, |hosts| Settings::Hosts(hosts.into())))
    }

    /// Whether docker is told to be careless about this host.
    fn is_insecure(&self, host: &str) -> bool {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        self.docker_insecure.iter().any(|entry| match entry.split_once('/') {
            Some((network, bits)) => {
                name.parse().is_ok_and(|address| in_network(address, network, bits))
            }
            None => entry == host,
        })
    }
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
        registries.conf.add(TEXT, Path::new("/conf")).unwrap();
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
