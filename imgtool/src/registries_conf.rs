//! `registries.conf`, version 2, as podman and skopeo have it: where repositories and their mirrors
//! are, and what names without a registry stand for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::reference::Reference;

const SYSTEM_FILE: &str = "/etc/containers/registries.conf";
/// Where podman keeps what the user once chose for a short name, beneath the cache directory.
const CHOSEN_ALIASES: &str = "containers/short-name-aliases.conf";

/// What the files say.
#[derive(Debug, Default)]
pub(crate) struct RegistriesConf {
    pub(crate) registries: Vec<Registry>,
    /// By short name: the repository, and the file that says so.
    aliases: BTreeMap<String, (String, PathBuf)>,
    search: Vec<String>,
    mode: Mode,
}

/// What is done about names without a registry.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// Several registries to search are an error.
    Enforcing,
    #[default]
    Permissive,
    /// No alias is heeded.
    Disabled,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct File {
    registry: Vec<Registry>,
    aliases: BTreeMap<String, String>,
    unqualified_search_registries: Option<Vec<String>>,
    short_name_mode: Option<Mode>,
    /// What version 1 has instead.
    registries: Option<toml::Table>,
}

/// One `[[registry]]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct Registry {
    pub(crate) prefix: String,
    pub(crate) location: String,
    pub(crate) insecure: bool,
    pub(crate) blocked: bool,
    pub(crate) mirror_by_digest_only: bool,
    pub(crate) mirror: Vec<Mirror>,
}

/// One `[[registry.mirror]]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct Mirror {
    pub(crate) location: String,
    pub(crate) insecure: bool,
    pub(crate) pull_from_mirror: String,
}

/// What a name without a registry may stand for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ShortName {
    /// To be tried in this order.
    pub(crate) candidates: Vec<Reference>,
    /// Where that is written, if anywhere.
    pub(crate) alias_of: Option<PathBuf>,
}

impl RegistriesConf {
    /// Reads `chosen`, or the user's or the system's file with its drop-ins.
    pub(crate) fn read(chosen: Option<&Path>) -> Result<Self> {
        let mut found = Self::default();
        for path in files(chosen)? {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("read {}", path.display()))?;
            found.add(&text, &path).with_context(|| format!("read {}", path.display()))?;
        }
        Ok(found)
    }

    /// Adds a file, which is heeded rather than those before.
    pub(crate) fn add(&mut self, text: &str, path: &Path) -> Result<()> {
        let file: File = toml::from_str(text)?;
        ensure!(
            file.registries.is_none(),
            "[registries] is version 1, which is not supported: write [[registry]] and unqualified-search-registries"
        );
        for mut registry in file.registry {
            if registry.prefix.is_empty() {
                registry.prefix.clone_from(&registry.location);
            }
            ensure!(!registry.prefix.is_empty(), "a [[registry]] has neither prefix nor location");
            // A later file speaks anew about the same prefix.
            self.registries.retain(|other| other.prefix != registry.prefix);
            self.registries.push(registry);
        }
        for (name, target) in file.aliases {
            // Nothing takes back what an earlier file says.
            match target.is_empty() {
                true => drop(self.aliases.remove(&name)),
                false => drop(self.aliases.insert(name, (target, path.to_owned()))),
            }
        }
        if let Some(search) = file.unqualified_search_registries {
            self.search = search;
        }
        if let Some(mode) = file.short_name_mode {
            self.mode = mode;
        }
        Ok(())
    }

    /// The entry with the longest prefix that covers the name.
    pub(crate) fn find(&self, name: &Reference) -> Result<Option<&Registry>> {
        let covering = self.registries.iter().filter(|registry| covers(&registry.prefix, name));
        let found = covering.max_by_key(|registry| registry.prefix.len());
        if let Some(registry) = found.filter(|registry| registry.blocked) {
            bail!("registries.conf blocks {} ({})", name.familiar_repository(), registry.prefix);
        }
        Ok(found)
    }

    /// What the user's word stands for where it names no registry: an alias, one of the registries
    /// to search, or else Docker Hub. `None` if it names one.
    pub(crate) fn short_name(&self, text: &str) -> Result<Option<ShortName>> {
        let found = self.candidates(text)?;
        if self.mode == Mode::Enforcing
            && let Some(ShortName { candidates, .. }) = &found
            && candidates.len() > 1
        {
            let names: Vec<String> = candidates.iter().map(ToString::to_string).collect();
            bail!(
                "{text} may be any of {}: registries.conf has short-name-mode enforcing, so name one",
                names.join(", ")
            );
        }
        Ok(found)
    }

    fn candidates(&self, text: &str) -> Result<Option<ShortName>> {
        let typed = Reference::parse(text)?;
        if !Reference::is_short(text) {
            return Ok(None);
        }
        let end = text.find(['@', ':']).unwrap_or(text.len());
        let (name, suffix) = text.split_at(end);
        if self.mode != Mode::Disabled
            && let Some((target, path)) = self.aliases.get(name)
        {
            let resolved = Reference::parse(&format!("{target}{suffix}"))
                .with_context(|| format!("alias {name:?} in {}", path.display()))?;
            let candidates = vec![resolved];
            return Ok(Some(ShortName { candidates, alias_of: Some(path.clone()) }));
        }
        if self.search.is_empty() {
            return Ok(Some(ShortName { candidates: vec![typed], alias_of: None }));
        }
        let candidates = self
            .search
            .iter()
            .map(|host| Reference::parse(&format!("{host}/{text}")))
            .collect::<Result<Vec<_>>>()
            .context("unqualified-search-registries of registries.conf")?;
        Ok(Some(ShortName { candidates, alias_of: None }))
    }
}

/// What a word may stand for by the host's files; nothing if it names a registry or is no name.
pub(crate) fn candidates(text: &str) -> Result<Vec<Reference>> {
    if Reference::parse(text).is_err() || !Reference::is_short(text) {
        return Ok(Vec::new());
    }
    let found = RegistriesConf::read(None)?.candidates(text)?;
    Ok(found.map(|found| found.candidates).unwrap_or_default())
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
pub(crate) fn rewrite(name: &Reference, prefix: &str, location: &str) -> (String, String) {
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

/// The files that count, the weightiest last.
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
    let cache = match nix::unistd::geteuid().is_root() {
        true => Some(PathBuf::from("/var/cache")),
        false => variable("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".cache"))),
    };
    files.extend(cache.map(|cache| cache.join(CHOSEN_ALIASES)).filter(|path| path.exists()));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> RegistriesConf {
        let mut conf = RegistriesConf::default();
        conf.add(text, Path::new("/conf")).unwrap();
        conf
    }

    fn candidates(conf: &RegistriesConf, text: &str) -> Vec<String> {
        let short = conf.short_name(text).unwrap().unwrap();
        short.candidates.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn short_names_are_aliases_or_searched_or_docker_hub_s() {
        let none = RegistriesConf::default();
        assert_eq!(candidates(&none, "busybox:1"), ["docker.io/library/busybox:1"]);
        for full in ["quay.io/x", "localhost/x", "h:5000/x"] {
            assert_eq!(none.short_name(full).unwrap(), None, "{full}");
        }
        let text = "unqualified-search-registries = [\"quay.io\", \"docker.io\"]\n\
                    [aliases]\n\"centos\" = \"quay.io/centos/centos\"\n";
        let searched = conf(text);
        assert_eq!(candidates(&searched, "centos:8"), ["quay.io/centos/centos:8"]);
        let found = searched.short_name("centos").unwrap().unwrap();
        assert_eq!(found.alias_of, Some("/conf".into()));
        assert_eq!(candidates(&searched, "me/app"), ["quay.io/me/app", "docker.io/me/app"]);
        assert_eq!(candidates(&searched, "app"), ["quay.io/app", "docker.io/library/app"]);
        let disabled = conf(&format!("short-name-mode = \"disabled\"\n{text}"));
        assert_eq!(candidates(&disabled, "centos").len(), 2);
        let enforcing = conf(&format!("short-name-mode = \"enforcing\"\n{text}"));
        assert!(enforcing.short_name("app").unwrap_err().to_string().contains("quay.io/app"));
        assert_eq!(candidates(&enforcing, "centos"), ["quay.io/centos/centos"]);
    }

    #[test]
    fn later_files_speak_anew() {
        let mut conf = conf("[aliases]\na = \"h.example/a\"\nb = \"h.example/b\"\n");
        conf.add("[aliases]\na = \"\"\nb = \"other.example/b\"\n", Path::new("/later")).unwrap();
        assert_eq!(candidates(&conf, "a"), ["docker.io/library/a"]);
        assert_eq!(candidates(&conf, "b"), ["other.example/b"]);
        for bad in [
            "[registries.search]\nregistries = ['x']",
            "[[registry]]\ninsecure = true",
            "short-name-mode = 'maybe'",
            "[[registry]]\nlocation = 7",
        ] {
            assert!(conf.add(bad, Path::new("/bad")).is_err(), "{bad}");
        }
    }
}
