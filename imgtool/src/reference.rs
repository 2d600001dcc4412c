//! Image names: `[host[:port]/]path[:tag][@digest]`, with the defaults that
//! Docker users expect for what they leave out.

use std::fmt;

use anyhow::{Result, bail, ensure};

use crate::digest::Digest;

/// The registry that names without a host belong to.
pub(crate) const DEFAULT_HOST: &str = "docker.io";
/// The tag of names without one.
pub(crate) const DEFAULT_TAG: &str = "latest";

/// A checked image name; `Display` writes it in full.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Reference {
    host: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads a name as the user typed it; no tag is filled in.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let invalid = |why: &str| format!("invalid image name {text:?}: {why}");
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>()?)),
            None => (text, None),
        };
        let (host, rest) = split_host(rest);
        ensure!(valid_host(host), invalid("bad host"));
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if let Some(tag) = tag {
            ensure!(valid_tag(tag), invalid("bad tag"));
        }
        ensure!(!path.is_empty(), invalid("empty"));
        ensure!(
            !path.bytes().any(|b| b.is_ascii_uppercase()),
            invalid("repository names are lower case")
        );
        ensure!(path.split('/').all(valid_component), invalid("bad repository"));
        let host = match host {
            "" | "index.docker.io" => DEFAULT_HOST,
            host => host,
        };
        let path = if host == DEFAULT_HOST && !path.contains('/') {
            if is_id(path) {
                bail!(invalid("64 hexadecimal digits are an image ID"));
            }
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        ensure!(host.len() + 1 + path.len() <= 255, invalid("more than 255 characters"));
        Ok(Self { host: host.to_owned(), path, tag: tag.map(str::to_owned), digest })
    }

    /// Whether a name that parses says nothing of a registry.
    pub(crate) fn is_short(text: &str) -> bool {
        split_host(text).0.is_empty()
    }

    /// A name that stands for a registry as a whole.
    pub(crate) fn on_host(host: &str) -> Result<Self> {
        ensure!(valid_host(host) && !host.is_empty(), "invalid name of a registry: {host:?}");
        let path = String::new();
        Ok(Self { host: host.to_owned(), path, tag: None, digest: None })
    }

    /// The same name with the default tag where it has neither tag nor digest.
    pub(crate) fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The repository and tag without the digest.
    pub(crate) fn without_digest(mut self) -> Self {
        self.digest = None;
        self
    }

    /// The repository alone.
    pub(crate) fn repository(&self) -> Self {
        Self { tag: None, digest: None, ..self.clone() }
    }

    /// The same repository's image with this digest.
    pub(crate) fn with_digest(self, digest: &Digest) -> Self {
        Self { tag: None, digest: Some(digest.clone()), ..self }
    }

    /// Without the tag if there is a digest, which decides.
    pub(crate) fn digest_over_tag(mut self) -> Self {
        if self.digest.is_some() {
            self.tag = None;
        }
        self
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The repository as the registry knows it (`library/busybox`).
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub(crate) fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The repository as users write it: Docker Hub's host and `library/` left out, unless what is
    /// left would mean another one.
    pub(crate) fn familiar_repository(&self) -> String {
        let path = &self.path;
        if self.host == DEFAULT_HOST && split_host(path).0.is_empty() {
            path.strip_prefix("library/")
                .filter(|rest| !rest.contains('/') && !is_id(rest))
                .unwrap_or(path)
                .to_owned()
        } else {
            format!("{}/{}", self.host, self.path)
        }
    }

    /// The whole name as users write it.
    pub(crate) fn familiar(&self) -> String {
        format!("{}{}", self.familiar_repository(), self.suffix())
    }

    fn suffix(&self) -> String {
        let mut text = String::new();
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.host, self.path, self.suffix())
    }
}

/// Whether a name could be an image's ID, too.
fn is_id(path: &str) -> bool {
    path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The part before the first slash is a host only if it looks like one.
fn split_host(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => ("", text),
    }
}

fn valid_host(host: &str) -> bool {
    let (name, port) = if let Some(rest) = host.strip_prefix('[') {
        let Some((address, rest)) = rest.split_once(']') else {
            return false;
        };
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return false;
        }
        match rest.strip_prefix(':') {
            Some(port) => ("", Some(port)),
            None if rest.is_empty() => ("", None),
            None => return false,
        }
    } else {
        match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        }
    };
    let name_ok = name.is_empty()
        || name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        });
    name_ok && port.is_none_or(|p| !p.starts_with('+') && p.parse::<u16>().is_ok())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn valid_component(component: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_ok = bytes.first().is_some_and(alphanumeric) && bytes.last().is_some_and(alphanumeric);
    ends_ok
        && bytes.split(alphanumeric).all(|separator| match separator {
            b"" | b"." | b"_" | b"__" => true,
            dashes => dashes.iter().all(|b| *b == b'-'),
        })
}

/// `[\w][\w.-]{0,127}`
fn valid_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// A name from anywhere is refused, or is what it says; tells which.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let Ok(name) = Reference::parse(text) else { return false };
    let whole = name.to_string();
    assert!(whole.is_ascii() && !whole.contains(char::is_control), "{whole:?}");
    assert!(name.path().split('/').all(|part| !part.is_empty() && part != ".."));
    for text in [whole, name.familiar()] {
        assert_eq!(Reference::parse(&text).ok().as_ref(), Some(&name), "{text:?}");
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in_as_docker_does() {
        for (typed, full, familiar) in [
            ("busybox", "docker.io/library/busybox", "busybox"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("me/app", "docker.io/me/app", "me/app"),
            ("index.docker.io/me/app", "docker.io/me/app", "me/app"),
            ("localhost/app", "localhost/app", "localhost/app"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b:c", "localhost:5000/a/b:c"),
            ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
            ("quay.io/a--b/c__d", "quay.io/a--b/c__d", "quay.io/a--b/c__d"),
        ] {
            let reference = Reference::parse(typed).unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.familiar(), familiar);
        }
    }

    #[test]
    fn bad_names_are_refused() {
        let hex = "a".repeat(64);
        let long = format!("a/{}", "b".repeat(255));
        for bad in [
            "",
            ":tag",
            "a:",
            "A",
            "a/B",
            "a//b",
            "../a",
            "a/..",
            "a b",
            "a:b c",
            "-a",
            "a-",
            "a___b",
            "a._b",
            "a@sha256:12",
            "host:99999/a",
            "a\u{1b}b",
            &hex,
            &long,
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_digest_stands_beside_the_tag() {
        let digest = Digest::of(b"x");
        let reference = Reference::parse(&format!("busybox:1@{digest}")).unwrap();
        assert_eq!(reference.tag(), Some("1"));
        assert_eq!(reference.digest(), Some(&digest));
        assert_eq!(reference.clone().with_default_tag(), reference);
    }

    #[test]
    fn names_changed_at_random_are_refused_or_what_they_say() {
        let digest = Digest::of(b"x");
        let seeds = [
            "busybox",
            "docker.io/library/busybox:1.2",
            &format!("localhost:5000/a/b_c:tag@{digest}"),
            "[::1]:5000/x:latest",
            "reg.example/a__b--c/d.e:T_1.0-rc",
            "UPPER.example/x",
            "docker.io/quay.io/app:1",
            &format!("docker.io/library/{}", digest.hex()),
        ];
        crate::mutated::each(&seeds, super::fuzz);
    }
}
