//! `config.json` of docker and `auth.json` of podman, which have one form. What
//! we don't know in it stays as it is.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde_json::{Map, Value, json};

use super::{Credentials, helper, keys, normalise};

const MAX_LINKS: usize = 16;
const MAX_SIZE: u64 = 4 << 20;

/// One such file, read.
#[derive(Debug)]
pub(crate) struct AuthFile {
    /// None if it came from the environment.
    path: Option<PathBuf>,
    content: Map<String, Value>,
}

/// Where a login went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Saved {
    /// As text that anybody who can read the file can read.
    InFile,
    WithHelper,
}

impl AuthFile {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let read = || -> Result<Map<String, Value>> {
            let mut bytes = Vec::new();
            std::fs::File::open(path)?.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
            ensure!(bytes.len() as u64 <= MAX_SIZE, "file is too large");
            parse(&bytes)
        };
        let content = read().with_context(|| format!("read {}", path.display()))?;
        Ok(Self { path: Some(path.to_owned()), content })
    }

    /// The same, where a file that does not exist is an empty one.
    pub(crate) fn read_or_new(path: &Path) -> Result<Self> {
        if path.exists() {
            return Self::read(path);
        }
        Ok(Self { path: Some(path.to_owned()), content: Map::new() })
    }

    /// The content of `DOCKER_AUTH_CONFIG`.
    pub(super) fn inline(text: &str) -> Result<Self> {
        let content = parse(text.as_bytes()).context("read DOCKER_AUTH_CONFIG")?;
        Ok(Self { path: None, content })
    }

    /// Where it came from, for messages.
    pub(crate) fn origin(&self) -> String {
        match &self.path {
            Some(path) => path.display().to_string(),
            None => "DOCKER_AUTH_CONFIG".to_owned(),
        }
    }

    /// The credentials for a repository: a helper for the registry, the helper
    /// for all, and then what the file says itself.
    pub(crate) fn find(&self, host: &str, repository: &str) -> Result<Option<Credentials>> {
        if let Some(helper) = self.helper(host) {
            let found = helper::get(&helper, super::key(host))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        let auths = self.auths();
        for key in keys(host, repository) {
            let entry = auths.iter().find(|(name, _)| normalise(name) == key);
            if let Some((_, entry)) = entry
                && let Some(found) = credentials(entry)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Keeps a login, with the helper if the file names one.
    pub(crate) fn save(&mut self, host: &str, credentials: &Credentials) -> Result<Saved> {
        let key = super::key(host);
        if let Some(helper) = self.helper(host) {
            helper::store(&helper, key, credentials)?;
            // Docker notes where it has logins, so that tools can list them.
            self.entry(key, json!({}))?;
            self.write()?;
            return Ok(Saved::WithHelper);
        }
        let entry = match credentials {
            Credentials::Password { user, password } => {
                json!({ "auth": STANDARD.encode(format!("{user}:{password}")) })
            }
            Credentials::IdentityToken(token) => {
                json!({ "auth": STANDARD.encode("<token>:"), "identitytoken": token })
            }
            Credentials::RegistryToken(token) => json!({ "registrytoken": token }),
        };
        self.entry(key, entry)?;
        self.write()?;
        Ok(Saved::InFile)
    }

    /// Forgets a login; false if there was none.
    pub(crate) fn remove(&mut self, host: &str) -> Result<bool> {
        let mut known = false;
        if let Some(helper) = self.helper(host) {
            known = helper::erase(&helper, super::key(host))?;
        }
        let Some(Value::Object(auths)) = self.content.get_mut("auths") else {
            return Ok(known);
        };
        let before = auths.len();
        auths.retain(|key, _| normalise(key) != host);
        if auths.len() != before {
            self.write()?;
            known = true;
        }
        Ok(known)
    }

    /// The registries that it has logins for.
    pub(crate) fn hosts(&self) -> Vec<String> {
        let mut hosts: Vec<String> =
            self.auths().iter().map(|(key, _)| normalise(key).to_owned()).collect();
        hosts.extend(self.helpers().map(|(host, _)| normalise(host).to_owned()));
        hosts.sort();
        hosts.dedup();
        hosts
    }

    fn auths(&self) -> Vec<(&String, &Value)> {
        // Docker's first form had no other key than the registries themselves.
        let old = self.path.as_ref().is_some_and(|path| path.ends_with(".dockercfg"));
        let auths = if old {
            Some(&self.content)
        } else {
            self.content.get("auths").and_then(Value::as_object)
        };
        auths.into_iter().flatten().collect()
    }

    fn helpers(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.content.get("credHelpers").and_then(Value::as_object).into_iter().flatten()
    }

    /// The helper that keeps a registry's credentials.
    fn helper(&self, host: &str) -> Option<String> {
        let own = self.helpers().find(|(key, _)| normalise(key) == host).map(|(_, name)| name);
        let name = own.or_else(|| self.content.get("credsStore"))?.as_str()?;
        Some(name.to_owned()).filter(|name| !name.is_empty())
    }

    fn entry(&mut self, key: &str, entry: Value) -> Result<()> {
        let origin = self.origin();
        let auths = self.content.entry("auths").or_insert_with(|| json!({}));
        if auths.is_null() {
            *auths = json!({});
        }
        let Some(auths) = auths.as_object_mut() else {
            bail!("{origin}: \"auths\" is not an object");
        };
        // Another spelling of the same registry would win over what is written now.
        auths.retain(|other, _| normalise(other) != normalise(key));
        auths.insert(key.to_owned(), entry);
        Ok(())
    }

    /// Replaces the file, readable by its owner only; a link to it stays a link.
    fn write(&self) -> Result<()> {
        let Some(path) = &self.path else {
            bail!("credentials of DOCKER_AUTH_CONFIG can't be changed");
        };
        let target = behind_links(path);
        let directory = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        crate::store::make_dir(directory)?;
        let mut text = serde_json::to_vec_pretty(&self.content).context("write credentials")?;
        text.push(b'\n');
        let write = || -> std::io::Result<()> {
            // Files of tempfile are readable by their owner only.
            let mut file =
                tempfile::Builder::new().prefix(".imgtool-auth-").tempfile_in(directory)?;
            file.write_all(&text)?;
            file.as_file().sync_all()?;
            file.persist(&target)?;
            crate::store::sync_dir(directory)
        };
        write().with_context(|| format!("write {}", path.display()))
    }
}

/// Where the links that a user made of the file lead.
fn behind_links(path: &Path) -> PathBuf {
    let mut target = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(link) = std::fs::read_link(&target) else { break };
        target = target.parent().unwrap_or(Path::new(".")).join(link);
    }
    target
}

fn parse(bytes: &[u8]) -> Result<Map<String, Value>> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    // What serde would quote of a file of secrets must not be shown.
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(content)) => Ok(content),
        Ok(_) => bail!("not a JSON object"),
        Err(error) => bail!("not JSON: line {} column {}", error.line(), error.column()),
    }
}

/// What an entry says; `None` if it is empty, as beside a helper.
fn credentials(entry: &Value) -> Result<Option<Credentials>> {
    let text = |name: &str| {
        entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    if let Some(token) = text("identitytoken") {
        return Ok(Some(Credentials::IdentityToken(token)));
    }
    if let Some(token) = text("registrytoken") {
        return Ok(Some(Credentials::RegistryToken(token)));
    }
    if let Some(auth) = text("auth") {
        let auth = auth.trim();
        let decoded = STANDARD.decode(auth).or_else(|_| STANDARD_NO_PAD.decode(auth));
        let Some(decoded) = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok()) else {
            bail!("\"auth\" is not base64 of USER:PASSWORD");
        };
        // Some writers pad with zeros.
        let Ok(found) = Credentials::parse(decoded.trim_end_matches('\0')) else {
            bail!("\"auth\" is not base64 of USER:PASSWORD");
        };
        return Ok(Some(found));
    }
    Ok(match (text("username"), text("password")) {
        (Some(user), Some(password)) => Some(Credentials::Password { user, password }),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn file(text: &str) -> AuthFile {
        AuthFile::inline(text).unwrap()
    }

    fn password(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Password { user: user.into(), password: password.into() })
    }

    #[test]
    fn every_form_of_an_entry_is_read() {
        let auth = STANDARD.encode("me:pa:ss\0\0");
        let text = format!(
            r#"{{"auths":{{"a":{{"auth":"{auth}"}},"b":{{"username":"u","password":"p"}},
                "c":{{"auth":"PHRva2VuPjo=","identitytoken":"T"}},"d":{{"registrytoken":"R"}},
                "https://e/v2/":{{"auth":"{auth}"}},"f":{{}},"g":{{"auth":"!"}}}},"other":1}}"#
        );
        let file = file(&text);
        assert_eq!(file.find("a", "x").unwrap(), password("me", "pa:ss"));
        assert_eq!(file.find("b", "x").unwrap(), password("u", "p"));
        assert_eq!(file.find("c", "").unwrap(), Some(Credentials::IdentityToken("T".into())));
        assert_eq!(file.find("d", "").unwrap(), Some(Credentials::RegistryToken("R".into())));
        assert_eq!(file.find("e", "x").unwrap(), password("me", "pa:ss"));
        assert_eq!(file.find("f", "x").unwrap(), None);
        assert_eq!(file.find("a.evil", "x").unwrap(), None);
        assert!(file.find("g", "").is_err());
    }

    #[test]
    fn keys_with_a_path_win() {
        let text = r#"{"auths":{"h":{"username":"u","password":"1"},"h/a":{"username":"u","password":"2"}}}"#;
        assert_eq!(file(text).find("h", "a/b").unwrap(), password("u", "2"));
        assert_eq!(file(text).find("h", "ab").unwrap(), password("u", "1"));
    }

    #[test]
    fn a_login_leaves_the_rest_as_it_is_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real.json");
        std::fs::write(
            &real,
            r#"{"psFormat":"x","auths":{"http://h/v1/":{"auth":"b2xkOm9sZA=="}}}"#,
        )
        .unwrap();
        let link = dir.path().join("config.json");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let mut file = AuthFile::read(&link).unwrap();
        let credentials = password("me", "secret").unwrap();
        assert_eq!(file.save("h", &credentials).unwrap(), Saved::InFile);
        assert!(link.is_symlink());
        assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o600);
        let mut again = AuthFile::read(&link).unwrap();
        assert_eq!(again.find("h", "x").unwrap(), Some(credentials));
        assert_eq!(again.content["psFormat"], "x");
        assert_eq!(again.hosts(), ["h"]);
        assert!(again.remove("h").unwrap());
        assert!(!again.remove("h").unwrap());
        assert!(AuthFile::read(&link).unwrap().hosts().is_empty());
    }

    #[test]
    fn helpers_have_plain_names_only() {
        let file = file(r#"{"credsStore":"../../bin/sh"}"#);
        let error = file.find("h", "").unwrap_err();
        assert!(format!("{error:#}").contains("bad name of a credential helper"), "{error:#}");
    }

    #[test]
    fn files_changed_at_random_are_for_nobody_else() {
        let seeds = [
            r#"{"auths":{"h":{"auth":"bWU6cGFzcw=="},"h/a":{"username":"u","password":"p"}}}"#,
            r#"{"auths":{"https://h/v1/":{"identitytoken":"T"}},"HttpHeaders":{"a":"b"}}"#,
        ];
        crate::mutated::each(&seeds, |text| {
            let Ok(text) = std::str::from_utf8(text) else { return false };
            let Ok(file) = AuthFile::inline(text) else { return false };
            // Each may be refused; what is found is never for a host that was not named.
            let found = file.find("h", "a/b");
            if let Ok(other) = file.find("other.example", "a/b") {
                assert_eq!(other, None, "{text}");
            }
            matches!(found, Ok(Some(_)))
        });
    }
}
