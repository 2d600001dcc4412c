//! Many images at once: a list in YAML, as skopeo's sync has it.
//!
//! By registry: `images` (a repository and its tags, none for all), `images-by-tag-regex`,
//! `images-by-semver`, `credentials`, `tls-verify`, `cert-dir`.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use regex_lite::Regex;
use semver::{Version, VersionReq};
use yaml_rust2::{Yaml, YamlLoader};

use crate::reference::Reference;
use crate::transport::credentials::{Credentials, Lookup};
use crate::transport::place::Place;
use crate::transport::registry::{Access, Action, Repository};

const MAX_SIZE: u64 = 4 << 20;

/// One repository of the list.
pub(super) struct Source {
    repository: Reference,
    access: Access,
    tags: Tags,
}

enum Tags {
    All,
    These(Vec<String>),
    Matching(Regex),
    Versions(VersionReq),
}

/// One image of the list.
pub(super) struct Image {
    pub(super) name: Reference,
    pub(super) access: Access,
}

/// Reads the list; `access` is what holds where it says nothing.
pub(super) fn read(path: &Path, access: &Access) -> Result<Vec<Source>> {
    let size = std::fs::metadata(path).context("open")?.len();
    ensure!(size <= MAX_SIZE, "the list is larger than {MAX_SIZE} bytes");
    let text = std::fs::read_to_string(path).context("read")?;
    parse(&text, access)
}

fn parse(text: &str, access: &Access) -> Result<Vec<Source>> {
    let documents = YamlLoader::load_from_str(text).context("parse the list")?;
    let mut sources = Vec::new();
    for document in &documents {
        let Yaml::Hash(registries) = document else {
            bail!("the list is no mapping of registries")
        };
        for (host, settings) in registries {
            let host = host.as_str().context("the name of a registry is no text")?;
            add(&mut sources, host, settings, access)
                .with_context(|| format!("registry {host}"))?;
        }
    }
    Ok(sources)
}

fn add(sources: &mut Vec<Source>, host: &str, settings: &Yaml, access: &Access) -> Result<()> {
    let Yaml::Hash(settings) = settings else { bail!("its settings are no mapping") };
    let mut access = access.clone();
    let mut found = Vec::new();
    for (key, value) in settings {
        match key.as_str().unwrap_or_default() {
            "tls-verify" => access.verify = Some(value.as_bool().context("tls-verify is no bool")?),
            "cert-dir" => {
                access.certificates = Some(value.as_str().context("cert-dir is no path")?.into());
            }
            "credentials" => {
                let text = |key: &str| value[key].as_str().map(str::to_owned);
                let (user, password) = text("username")
                    .zip(text("password"))
                    .context("credentials have no username and password")?;
                access.lookup = Lookup::Given(Credentials::Password { user, password });
            }
            kind @ ("images" | "images-by-tag-regex" | "images-by-semver") => {
                let Yaml::Hash(images) = value else { bail!("{kind} is no mapping") };
                for (repository, which) in images {
                    let repository = repository.as_str().context("a repository is no text")?;
                    let tags =
                        tags(kind, which).with_context(|| format!("{kind} of {repository}"))?;
                    found.push((Reference::parse(&format!("{host}/{repository}"))?, tags));
                }
            }
            other => bail!("unknown setting {other:?}"),
        }
    }
    sources.extend(found.into_iter().map(|(repository, tags)| Source {
        repository,
        access: access.clone(),
        tags,
    }));
    Ok(())
}

fn tags(kind: &str, which: &Yaml) -> Result<Tags> {
    let text = || which.as_str().context("it is no text");
    Ok(match kind {
        "images-by-tag-regex" => {
            Tags::Matching(Regex::new(text()?).context("it is no regular expression")?)
        }
        "images-by-semver" => {
            Tags::Versions(VersionReq::parse(text()?).context("it is no range of versions")?)
        }
        _ => {
            let list = match which {
                Yaml::Array(list) => list.as_slice(),
                Yaml::Null => &[],
                _ => bail!("its tags are no list"),
            };
            let tags: Vec<String> = list
                .iter()
                // A tag may look like a number.
                .map(|tag| match tag {
                    Yaml::String(text) | Yaml::Real(text) => Ok(text.clone()),
                    Yaml::Integer(number) => Ok(number.to_string()),
                    _ => bail!("a tag is no text"),
                })
                .collect::<Result<_>>()?;
            if tags.is_empty() { Tags::All } else { Tags::These(tags) }
        }
    })
}

impl Source {
    /// Its images, for which the registry is asked where the list does not name them.
    pub(super) fn images(&self) -> Result<Vec<Image>> {
        let listed = || Repository::open(&self.repository, &self.access, Action::Pull)?.tags();
        let version = |tag: &str| Version::parse(tag.strip_prefix('v').unwrap_or(tag)).ok();
        let tags = match &self.tags {
            Tags::These(tags) => tags.clone(),
            Tags::All => listed()?,
            Tags::Matching(pattern) => {
                listed()?.into_iter().filter(|tag| pattern.is_match(tag)).collect()
            }
            Tags::Versions(range) => {
                let fits = |tag: &String| version(tag).is_some_and(|v| range.matches(&v));
                listed()?.into_iter().filter(fits).collect()
            }
        };
        tags.iter()
            .map(|tag| {
                let separator = if tag.contains(':') { '@' } else { ':' };
                let name = Reference::parse(&format!("{}{separator}{tag}", self.repository))?;
                Ok(Image { name, access: self.access.clone() })
            })
            .collect()
    }

    pub(super) fn name(&self) -> String {
        self.repository.familiar_repository()
    }
}

/// Where an image of the list goes: beneath the destination by the last part of its name, or by
/// all of it.
pub(super) fn target(destination: &str, name: &Reference, scoped: bool) -> Result<Place> {
    let full = format!("{}/{}", name.host(), name.path());
    let short = name.path().rsplit('/').next().unwrap_or_default();
    let repository = if scoped { full.replace(':', "-") } else { short.to_owned() };
    let suffix = match (name.tag(), name.digest()) {
        (Some(tag), _) => format!(":{tag}"),
        // A digest is no name for something new.
        (None, Some(digest)) => format!(":{}", digest.short()),
        (None, None) => String::new(),
    };
    let beneath = destination.trim_end_matches('/');
    match beneath.split_once(':') {
        Some(("oci", _)) => Place::parse(&format!("{beneath}:{repository}{suffix}")),
        Some(("docker" | "dir", _)) => Place::parse(&format!("{beneath}/{repository}{suffix}")),
        _ if beneath == "store" || beneath == "store:" => Ok(Place::Store(name.to_string())),
        _ => bail!("a list goes to docker://, dir:, oci: or store:, not to {destination:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_skopeo_s() {
        let text = "reg.example:5000:\n  tls-verify: false\n  credentials:\n    username: me\n    \
                    password: secret\n  images:\n    lib/a: []\n    b:\n      - \"1.0\"\n      - 2\n  \
                    images-by-tag-regex:\n    c: ^1\\.\n  images-by-semver:\n    d: \">= 1.2, < 2\"\n";
        let sources = parse(text, &Access::default()).unwrap();
        let names: Vec<String> = sources.iter().map(Source::name).collect();
        assert_eq!(names.len(), 4);
        assert_eq!(names[0], "reg.example:5000/lib/a");
        assert!(matches!(&sources[1].tags, Tags::These(tags) if *tags == ["1.0", "2"]));
        assert_eq!(sources[0].access.verify, Some(false));
        let images = sources[1].images().unwrap();
        assert_eq!(images[0].name.to_string(), "reg.example:5000/b:1.0");
        for bad in [
            "- a",
            "h: 1",
            "h:\n  color: red",
            "h:\n  images-by-tag-regex:\n    a: '('",
            "h:\n  images:\n    A: []",
            "[",
            "h:\n  images:\n    a: [[]]",
        ] {
            assert!(parse(bad, &Access::default()).is_err(), "{bad}");
        }
    }

    #[test]
    fn images_go_beneath_the_destination() {
        let name = Reference::parse("reg.example:5000/lib/a:1").unwrap();
        let to = |destination, scoped| target(destination, &name, scoped).unwrap();
        assert_eq!(to("docker://h/x", false), Place::parse("docker://h/x/a:1").unwrap());
        assert_eq!(
            to("docker://h", true),
            Place::parse("docker://h/reg.example-5000/lib/a:1").unwrap()
        );
        assert_eq!(to("dir:/d/", false), Place::Dir("/d/a:1".into()));
        assert_eq!(to("oci:/d", false), Place::parse("oci:/d:a:1").unwrap());
        assert_eq!(to("store:", false), Place::Store("reg.example:5000/lib/a:1".into()));
        assert!(target("a.tar", &name, false).is_err());
    }
}
