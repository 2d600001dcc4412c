//! containerd's `hosts.toml`: for a registry its mirrors in order, what each is good for, and how
//! it is spoken to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use toml::Spanned;

use super::super::http::Url;
use super::{API, Endpoint};
use crate::output;
use crate::reference::{DEFAULT_HOST, Reference};

/// Where containerd looks.
pub(super) const DIRECTORY: &str = "/etc/containerd/certs.d";
const FILE: &str = "hosts.toml";
/// The directory that is for all registries without one.
const DEFAULT: &str = "_default";

/// The settings for one registry.
#[derive(Debug)]
pub(super) struct Hosts {
    registry: String,
    /// Where paths in the file begin.
    directory: PathBuf,
    mirrors: Vec<(Url, Settings)>,
    server: Option<(Url, Settings)>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    server: Option<String>,
    host: BTreeMap<String, Spanned<Settings>>,
    #[serde(flatten)]
    own: Settings,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    client: Option<Client>,
    skip_verify: bool,
    override_path: bool,
    header: Option<toml::Table>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Client {
    /// Certificate and key in one file.
    One(PathBuf),
    Pairs(Vec<(PathBuf, PathBuf)>),
    Many(Vec<PathBuf>),
}

impl Hosts {
    /// What the directory has for a registry, if it has anything.
    pub(super) fn read(directory: &Path, registry: &str) -> Result<Option<Self>> {
        // A colon can't stand in a name everywhere.
        let names = match registry.split_once(':') {
            Some((host, port)) => vec![format!("{host}_{port}_"), registry.to_owned()],
            None => vec![registry.to_owned()],
        };
        let found = names
            .iter()
            .map(String::as_str)
            .chain([DEFAULT])
            .map(|name| directory.join(name))
            .find(|path| path.join(FILE).exists());
        let Some(directory) = found else { return Ok(None) };
        let path = directory.join(FILE);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text, directory, registry)
            .map(Some)
            .with_context(|| format!("read {}", path.display()))
    }

    fn parse(text: &str, directory: PathBuf, registry: &str) -> Result<Self> {
        let file: File = toml::from_str(text)?;
        let mut hosts: Vec<(String, Spanned<Settings>)> = file.host.into_iter().collect();
        // Their order in the file is the order in which they are tried.
        hosts.sort_by_key(|(_, settings)| settings.span().start);
        let mirrors = hosts
            .into_iter()
            .map(|(host, settings)| Ok((url(&host)?, settings.into_inner())))
            .collect::<Result<_>>()?;
        let server = file.server.map(|server| anyhow::Ok((url(&server)?, file.own))).transpose()?;
        Ok(Self { registry: registry.to_owned(), directory, mirrors, server })
    }

    /// The mirrors that may have the image.
    pub(super) fn for_pull(&self, name: &Reference) -> Vec<Endpoint> {
        let by_digest = name.digest().is_some();
        let fits =
            |settings: &Settings| settings.can("pull") && (by_digest || settings.can("resolve"));
        let fitting = self.mirrors.iter().filter(|(_, settings)| fits(settings));
        fitting.map(|(url, settings)| self.endpoint(url, settings, name)).collect()
    }

    /// The one that takes images, if that is not the registry itself.
    pub(super) fn for_push(&self, name: &Reference) -> Option<Endpoint> {
        let found = self.mirrors.iter().find(|(_, settings)| settings.can("push"));
        found.map(|(url, settings)| self.endpoint(url, settings, name))
    }

    /// The registry itself, if the file says anything of it.
    pub(super) fn server(&self, name: &Reference) -> Option<Endpoint> {
        self.server.as_ref().map(|(url, settings)| self.endpoint(url, settings, name))
    }

    fn endpoint(&self, url: &Url, settings: &Settings, name: &Reference) -> Endpoint {
        if settings.header.is_some() {
            output::say(&format!(
                "warning: headers for {} in {} are not supported",
                url.authority,
                self.directory.join(FILE).display()
            ));
        }
        let path = url.path.trim_end_matches('/');
        let authority = url.authority.as_str();
        let itself = authority == self.registry
            || (self.registry == DEFAULT_HOST && authority == super::DOCKER_HUB);
        let absolute = |path: &Path| self.directory.join(path);
        let mut endpoint = Endpoint::new(
            // Docker Hub's credentials are kept under its name.
            if itself { self.registry.clone() } else { authority.to_owned() },
            name.path().to_owned(),
            settings.skip_verify,
        );
        endpoint.plain = !url.https;
        endpoint.api = match settings.override_path {
            true => path.to_owned(),
            false => format!("{}{API}", path.strip_suffix(API).unwrap_or(path)),
        };
        endpoint.stands_for = (!itself).then(|| self.registry.clone());
        endpoint.authorities = match &settings.ca {
            None => Vec::new(),
            Some(OneOrMany::One(path)) => vec![absolute(path)],
            Some(OneOrMany::Many(paths)) => paths.iter().map(|path| absolute(path)).collect(),
        };
        endpoint.pair = match &settings.client {
            Some(Client::One(path)) => Some((absolute(path), absolute(path))),
            Some(Client::Many(paths)) => paths.first().map(|path| (absolute(path), absolute(path))),
            Some(Client::Pairs(pairs)) => {
                pairs.first().map(|(one, two)| (absolute(one), absolute(two)))
            }
            None => None,
        };
        endpoint
    }
}

impl Settings {
    /// Whether it is good for something; for all that is not said otherwise.
    fn can(&self, what: &str) -> bool {
        self.capabilities.as_ref().is_none_or(|known| known.iter().any(|word| word == what))
    }
}

fn url(text: &str) -> Result<Url> {
    let url = match text.contains("://") {
        true => Url::parse(text)?,
        false => Url::parse(&format!("https://{text}"))?,
    };
    ensure!(!url.path.contains(['?', '%']), "{text:?} is no address of a registry");
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        server = "https://registry-1.docker.io"
        ca = "/etc/hub.pem"
        [host."https://z.example:5000/cache"]
          capabilities = ["pull", "resolve"]
          ca = ["one.pem", "/two.pem"]
          client = [["c.pem", "k.pem"]]
          skip_verify = true
        [host."http://a.example/mirror/v2"]
          capabilities = ["pull"]
          override_path = true
        [host."push.example"]
          capabilities = ["push"]
          client = "both.pem"
    "#;

    #[test]
    fn mirrors_keep_their_order_and_their_limits() {
        let hosts = Hosts::parse(TEXT, "/d".into(), "docker.io").unwrap();
        let name = |text| Reference::parse(text).unwrap();
        let addresses = |endpoints: Vec<Endpoint>| -> Vec<String> {
            let text = |e: &Endpoint| format!("{}{}", e.base().unwrap().authority, e.api);
            endpoints.iter().map(text).collect()
        };
        let by_tag = hosts.for_pull(&name("busybox:1"));
        assert_eq!(by_tag[0].authorities, [PathBuf::from("/d/one.pem"), "/two.pem".into()]);
        assert_eq!(by_tag[0].pair, Some(("/d/c.pem".into(), "/d/k.pem".into())));
        assert_eq!(by_tag[0].stands_for.as_deref(), Some("docker.io"));
        assert!(by_tag[0].insecure && !by_tag[0].plain);
        assert_eq!(addresses(by_tag), ["z.example:5000/cache/v2"]);
        let digest = crate::digest::Digest::of(b"x");
        let pinned = format!("busybox@{digest}");
        let by_digest = hosts.for_pull(&name(&pinned));
        assert!(by_digest[1].plain);
        assert_eq!(addresses(by_digest), ["z.example:5000/cache/v2", "a.example/mirror/v2"]);
        let push = hosts.for_push(&name("me/app:1")).unwrap();
        assert_eq!((push.host.as_str(), push.api.as_str()), ("push.example", "/v2"));
        let server = hosts.server(&name("me/app:1")).unwrap();
        assert_eq!((server.host.as_str(), server.stands_for.as_deref()), ("docker.io", None));
        assert_eq!(server.authorities, [PathBuf::from("/etc/hub.pem")]);
    }

    #[test]
    fn directories_are_named_by_host_and_port() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, host: &str| {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            let text = format!("[host.\"https://{host}\"]\n");
            std::fs::write(dir.path().join(name).join(FILE), text).unwrap();
        };
        let first = |registry: &str| {
            let hosts = Hosts::read(dir.path(), registry).unwrap();
            hosts.map(|hosts| hosts.mirrors[0].0.authority.clone())
        };
        assert_eq!(first("a.example"), None);
        put("h_5000_", "by-port");
        put("plain.example:80", "by-colon");
        put(DEFAULT, "any");
        assert_eq!(first("h:5000").as_deref(), Some("by-port"));
        assert_eq!(first("plain.example:80").as_deref(), Some("by-colon"));
        assert_eq!(first("a.example").as_deref(), Some("any"));
        for bad in ["server = 7", "[host.\"ftp://x\"]", "[host.x]\ncapabilities = 1", "["] {
            assert!(Hosts::parse(bad, "/d".into(), "h").is_err(), "{bad}");
        }
    }
}
