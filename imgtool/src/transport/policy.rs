//! Whom the user takes images from: `policy.json`, as podman and skopeo have
//! it. Without such a file everything is accepted; a requirement that we can't
//! check is a refusal.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::reference::Reference;

const SYSTEM_FILE: &str = "/etc/containers/policy.json";

/// The file's content.
#[derive(Debug, Deserialize)]
pub(crate) struct Policy {
    default: Vec<Requirement>,
    /// By transport, then by scope.
    #[serde(default)]
    transports: HashMap<String, HashMap<String, Vec<Requirement>>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Requirement {
    #[serde(rename = "type")]
    kind: String,
}

impl Policy {
    /// Reads the file that counts, if there is one.
    pub(crate) fn read(chosen: Option<&Path>) -> Result<Option<Self>> {
        let own = std::env::var_os("HOME")
            .map(|home| PathBuf::from(home).join(".config/containers/policy.json"))
            .filter(|path| path.exists());
        let path = match chosen {
            Some(path) => path.to_owned(),
            None => own.unwrap_or_else(|| SYSTEM_FILE.into()),
        };
        if chosen.is_none() && !path.exists() {
            return Ok(None);
        }
        let read = || -> Result<Self> { Ok(serde_json::from_slice(&std::fs::read(&path)?)?) };
        read().map(Some).with_context(|| format!("read {}", path.display()))
    }

    /// Whether images of a registry are accepted.
    pub(crate) fn check_registry(&self, name: &Reference) -> Result<()> {
        let (scope, requirements) = self.for_registry(name);
        check(requirements, &scope)
            .with_context(|| format!("policy.json does not allow {}", name.familiar()))
    }

    /// Whether images of a file or a directory are accepted, wherever it really lies; "-" is
    /// standard input and lies nowhere.
    pub(crate) fn check_path(&self, transport: &str, path: &Path) -> Result<()> {
        let scopes = self.transports.get(transport);
        let place = match path.to_str() {
            Some("-") => PathBuf::new(),
            // What does not exist is refused where it is opened.
            _ => path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_default(),
        };
        let found = place.ancestors().find_map(|path| {
            let path = path.to_str().filter(|path| !path.is_empty())?;
            scopes?.get(path).map(|requirements| (path.to_owned(), requirements))
        });
        let (scope, requirements) = found
            .or_else(|| {
                scopes?.get("").map(|requirements| (format!("every {transport}"), requirements))
            })
            .unwrap_or_else(|| ("everything".to_owned(), &self.default));
        check(requirements, &scope)
            .with_context(|| format!("policy.json does not allow {transport}:{}", path.display()))
    }

    fn for_registry(&self, name: &Reference) -> (String, &[Requirement]) {
        let repository = format!("{}/{}", name.host(), name.path());
        let mut scopes = Vec::new();
        if let Some(tag) = name.tag() {
            scopes.push(format!("{repository}:{tag}"));
        }
        let mut at = repository.as_str();
        loop {
            scopes.push(at.to_owned());
            match at.rsplit_once('/') {
                Some((parent, _)) => at = parent,
                None => break,
            }
        }
        let mut host = name.host().split(':').next().unwrap_or_default();
        while let Some((_, parent)) = host.split_once('.') {
            scopes.push(format!("*.{parent}"));
            host = parent;
        }
        scopes.push(String::new());
        let known = self.transports.get("docker");
        for scope in scopes {
            if let Some(requirements) = known.and_then(|known| known.get(&scope)) {
                let scope = if scope.is_empty() { "all registries".to_owned() } else { scope };
                return (scope, requirements);
            }
        }
        ("everything".to_owned(), &self.default)
    }
}

fn check(requirements: &[Requirement], scope: &str) -> Result<()> {
    if requirements.is_empty() {
        bail!("it has no requirement for {scope}");
    }
    for requirement in requirements {
        match requirement.kind.as_str() {
            "insecureAcceptAnything" => {}
            "reject" => bail!("it rejects {scope}"),
            kind => bail!(
                "it asks for a signature ({kind}) of {scope}, which imgtool can't verify: use skopeo, or another policy by --signature-policy"
            ),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_special_scope_decides_and_nothing_is_ignored() {
        let text = r#"{"default":[{"type":"reject"}],"transports":{
            "docker":{"reg.example/team":[{"type":"insecureAcceptAnything"}],
                "reg.example/team/signed":[{"type":"signedBy","keyType":"GPGKeys"}],
                "*.local":[{"type":"insecureAcceptAnything"}], "docker.io":[]},
            "oci":{"":[{"type":"insecureAcceptAnything"}], "/bad":[{"type":"reject"}]}}}"#;
        let policy: Policy = serde_json::from_str(text).unwrap();
        let allows = |name: &str| policy.check_registry(&Reference::parse(name).unwrap());
        assert!(allows("reg.example/team/app:1").is_ok());
        assert!(allows("a.local:5000/x").is_ok());
        assert!(allows("reg.example/teams").is_err());
        assert!(allows("busybox").is_err());
        let error = format!("{:#}", allows("reg.example/team/signed").unwrap_err());
        assert!(error.contains("signedBy") && error.contains("can't verify"), "{error}");
        assert!(policy.check_path("oci", Path::new("/a/b")).is_ok());
        assert!(policy.check_path("oci", Path::new("/bad/b")).is_err());
        assert!(policy.check_path("dir", Path::new("/a")).is_err());
        for path in ["relative", "-"] {
            assert!(policy.check_path("oci", Path::new(path)).is_ok(), "{path}");
        }
    }
}
