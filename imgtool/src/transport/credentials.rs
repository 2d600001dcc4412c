//! Who we are to a registry: from the command line, or from the files that
//! docker and podman keep, or from the helper programs that those files name.

mod file;
mod helper;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub(crate) use file::{AuthFile, Saved};

use crate::reference::DEFAULT_HOST;

/// The user name that stands for "the password is an identity token".
const TOKEN_USER: &str = "<token>";
/// Docker's key for Docker Hub.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// What is shown to a registry.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    Password {
        user: String,
        password: String,
    },
    /// Exchanged for tokens at the token server.
    IdentityToken(String),
    /// Shown to the registry as it is.
    RegistryToken(String),
}

/// Secrets stay out of logs, whoever prints what holds them.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password({user:?})"),
            Self::IdentityToken(_) => write!(f, "IdentityToken"),
            Self::RegistryToken(_) => write!(f, "RegistryToken"),
        }
    }
}

impl Credentials {
    /// `user:password`; a password may contain colons, a user name not.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        match text.split_once(':') {
            Some((user, password)) if !user.is_empty() => {
                Ok(Self::Password { user: user.to_owned(), password: password.to_owned() })
            }
            _ => bail!("credentials are not of the form USER:PASSWORD"),
        }
    }

    /// The header of Basic authentication.
    pub(crate) fn basic(&self) -> Option<String> {
        match self {
            Self::Password { user, password } => {
                Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
            }
            Self::IdentityToken(_) | Self::RegistryToken(_) => None,
        }
    }

    pub(crate) fn user(&self) -> Option<&str> {
        match self {
            Self::Password { user, .. } => Some(user),
            Self::IdentityToken(_) | Self::RegistryToken(_) => None,
        }
    }
}

/// Where credentials are looked for.
#[derive(Clone, Debug, Default)]
pub(crate) enum Lookup {
    /// Nowhere.
    Anonymous,
    /// On the command line.
    Given(Credentials),
    /// In this file and in no other.
    File(PathBuf),
    /// Where docker and podman keep them.
    #[default]
    Default,
}

impl Lookup {
    /// For another registry than the one whose credentials stand on the command line.
    pub(crate) fn for_others(&self) -> Self {
        match self {
            Self::Given(_) => Self::Default,
            other => other.clone(),
        }
    }

    /// The credentials for a repository of a registry.
    pub(crate) fn find(&self, host: &str, repository: &str) -> Result<Option<Credentials>> {
        let files = match self {
            Self::Anonymous => return Ok(None),
            Self::Given(credentials) => return Ok(Some(credentials.clone())),
            Self::File(path) => vec![AuthFile::read(path)?],
            Self::Default => default_files()?,
        };
        for file in files {
            let found = file
                .find(host, repository)
                .with_context(|| format!("credentials for {host} in {}", file.origin()))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

/// The files that may hold credentials, the first that knows the registry counts.
pub(crate) fn default_files() -> Result<Vec<AuthFile>> {
    if let Some(path) = variable("REGISTRY_AUTH_FILE") {
        return Ok(vec![AuthFile::read(Path::new(&path))?]);
    }
    let mut files = Vec::new();
    if let Some(text) = variable("DOCKER_AUTH_CONFIG") {
        files.push(AuthFile::inline(&text.to_string_lossy())?);
    }
    for path in default_paths() {
        if path.exists() {
            files.push(AuthFile::read(&path)?);
        }
    }
    Ok(files)
}

fn default_paths() -> Vec<PathBuf> {
    let home = variable("HOME").map(PathBuf::from);
    let run = variable("XDG_RUNTIME_DIR").map_or_else(
        || PathBuf::from(format!("/run/containers/{}", nix::unistd::getuid())),
        |directory| PathBuf::from(directory).join("containers"),
    );
    let config = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| home.as_ref().map(|home| home.join(".config")));
    let mut paths = vec![run.join("auth.json")];
    paths.extend(config.map(|config| config.join("containers/auth.json")));
    paths.extend(docker_config());
    paths.extend(home.map(|home| home.join(".dockercfg")));
    paths
}

/// Docker's own file.
fn docker_config() -> Option<PathBuf> {
    let directory = variable("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".docker")));
    directory.map(|directory| directory.join("config.json"))
}

/// The file that a login is written to.
pub(crate) fn file_to_write(chosen: Option<&Path>) -> Result<PathBuf> {
    chosen
        .map(Path::to_owned)
        .or_else(|| variable("REGISTRY_AUTH_FILE").map(PathBuf::from))
        .or_else(docker_config)
        .context("no place for credentials: neither DOCKER_CONFIG nor HOME is set")
}

fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The key under which a registry's credentials are kept.
pub(crate) fn key(host: &str) -> &str {
    if host == DEFAULT_HOST { HUB_KEY } else { host }
}

/// Keys that mean the same registry are the same after this: without scheme,
/// without the path of an API, Docker Hub's many names as one.
fn normalise(key: &str) -> &str {
    let key = key.trim_start_matches("https://").trim_start_matches("http://");
    let key = key.trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    match key {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => DEFAULT_HOST,
        key => key,
    }
}

/// The keys that cover a repository, the most special first.
fn keys(host: &str, repository: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = repository;
    while !path.is_empty() {
        keys.push(format!("{host}/{path}"));
        path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    keys.push(host.to_owned());
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_docker_hub_are_one() {
        for key in [
            "https://index.docker.io/v1/",
            "docker.io",
            "index.docker.io",
            "https://registry-1.docker.io/v2/",
        ] {
            assert_eq!(normalise(key), "docker.io");
        }
        assert_eq!(normalise("https://reg.example:5000/v2/"), "reg.example:5000");
        assert_eq!(normalise("reg.example/a/b"), "reg.example/a/b");
    }

    #[test]
    fn special_keys_come_first() {
        assert_eq!(keys("h", "a/b"), ["h/a/b", "h/a", "h"]);
        assert_eq!(keys("h", ""), ["h"]);
    }

    #[test]
    fn secrets_are_not_printed() {
        let credentials = Credentials::parse("me:se:cret").unwrap();
        assert_eq!(format!("{credentials:?}"), "Password(\"me\")");
        assert_eq!(credentials.basic().unwrap(), "Basic bWU6c2U6Y3JldA==");
        assert!(Credentials::parse("me").is_err());
        assert!(Credentials::parse(":x").is_err());
    }
}
