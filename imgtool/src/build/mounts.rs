//! `RUN --mount=…`: what is asked for, read.

use anyhow::{Context, Result, bail, ensure};

use super::expand::Expander;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

/// Who may use a cache beside us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    Shared,
    /// Nobody: others get one of their own.
    Private,
    /// Nobody: others wait.
    Locked,
}

/// One mount. What is not said is `None`, or the value it has then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) kind: Kind,
    pub(crate) target: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) from: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) env: Option<String>,
    pub(crate) writable: bool,
    pub(crate) required: bool,
    pub(crate) sharing: Sharing,
    pub(crate) mode: Option<u32>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: Option<u64>,
}

impl Mount {
    /// Reads `key=value,…`; variables are replaced in all values but `from`.
    pub(crate) fn parse(text: &str, expander: &Expander<'_>) -> Result<Self> {
        Self::read(text, expander).with_context(|| format!("invalid mount {text:?}"))
    }

    fn read(text: &str, expander: &Expander<'_>) -> Result<Self> {
        let mut fields = Vec::new();
        for field in split(text)? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_ascii_lowercase(), Some(value.to_owned())),
                None => (field.to_ascii_lowercase(), None),
            };
            let value = match (key.as_str(), value) {
                ("from", Some(value)) => {
                    ensure!(
                        !value.contains('$'),
                        "variables are not replaced in from: give the image a name with \
                         FROM {value} AS name, and mount that"
                    );
                    Some(value)
                }
                (_, Some(value)) => Some(expander.word(&value)?),
                (_, None) => None,
            };
            fields.push((key, value));
        }
        let kind = match fields.iter().find(|(key, _)| key == "type").map(|(_, v)| v.as_deref()) {
            None | Some(Some("bind")) => Kind::Bind,
            Some(Some("cache")) => Kind::Cache,
            Some(Some("tmpfs")) => Kind::Tmpfs,
            Some(Some("secret")) => Kind::Secret,
            Some(Some("ssh")) => Kind::Ssh,
            Some(other) => bail!(
                "unsupported mount type {:?}: want bind, cache, tmpfs, secret or ssh",
                other.unwrap_or_default()
            ),
        };
        let mut mount = Self {
            kind,
            target: None,
            source: None,
            from: None,
            id: None,
            env: None,
            writable: kind == Kind::Cache,
            required: false,
            sharing: Sharing::Shared,
            mode: None,
            uid: 0,
            gid: 0,
            size: None,
        };
        for (key, value) in fields {
            mount.set(&key, value.as_deref())?;
        }
        mount.check()?;
        Ok(mount)
    }

    fn set(&mut self, key: &str, value: Option<&str>) -> Result<()> {
        use Kind::{Bind, Cache, Secret, Ssh, Tmpfs};
        let kinds: &[Kind] = match key {
            "type" | "target" | "dst" | "destination" => &[Bind, Cache, Tmpfs, Secret, Ssh],
            "source" | "src" => &[Bind, Cache, Secret],
            "from" | "rw" | "readwrite" | "ro" | "readonly" => &[Bind, Cache],
            "id" => &[Cache, Secret, Ssh],
            "sharing" => &[Cache],
            "mode" | "uid" | "gid" => &[Cache, Secret, Ssh],
            "size" => &[Tmpfs],
            "required" => &[Secret, Ssh],
            "env" => &[Secret],
            _ => bail!("unexpected key {key:?}"),
        };
        ensure!(kinds.contains(&self.kind), "{key:?} means nothing for this type of mount");
        let switch = || match value {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => bail!("{key} is true or false, not {other:?}"),
        };
        let text = || value.map(str::to_owned).with_context(|| format!("{key} has no value"));
        let number =
            || -> Result<u32> { text()?.parse().with_context(|| format!("{key} is not a number")) };
        match key {
            "target" | "dst" | "destination" => self.target = Some(text()?),
            "source" | "src" if self.kind == Kind::Secret => self.id = Some(text()?),
            "source" | "src" => self.source = Some(text()?),
            "from" => self.from = Some(text()?),
            "id" => self.id = Some(text()?),
            "env" => self.env = Some(text()?),
            "rw" | "readwrite" => self.writable = switch()?,
            "ro" | "readonly" => self.writable = !switch()?,
            "required" => self.required = switch()?,
            "uid" => self.uid = number()?,
            "gid" => self.gid = number()?,
            "mode" => {
                let mode = u32::from_str_radix(&text()?, 8).ok().filter(|mode| *mode <= 0o7777);
                self.mode = Some(mode.context("mode is not an octal number up to 7777")?);
            }
            "size" => self.size = Some(bytes(&text()?)?),
            "sharing" => {
                self.sharing = match text()?.as_str() {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    other => bail!("sharing is shared, private or locked, not {other:?}"),
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        match self.kind {
            Kind::Bind | Kind::Cache | Kind::Tmpfs => {
                let target = self.target.as_deref().context("target is required")?;
                ensure!(
                    !crate::rooted::as_text(target).is_empty() || !target.starts_with('/'),
                    "invalid mount target {target:?}: the root can't be mounted on"
                );
            }
            Kind::Secret => {
                ensure!(self.id.is_some() || self.target.is_some(), "id or target is required");
            }
            Kind::Ssh => {}
        }
        Ok(())
    }

    /// The name of a secret, a cache or an agent.
    pub(crate) fn name(&self) -> String {
        let target = self.target.as_deref().unwrap_or_default();
        match (&self.id, self.kind) {
            (Some(id), _) => id.clone(),
            (None, Kind::Ssh) => "default".to_owned(),
            (None, Kind::Secret) => target.rsplit('/').next().unwrap_or_default().to_owned(),
            (None, _) => format!("/{}", crate::rooted::as_text(target)),
        }
    }
}

/// Fields between commas; a field may stand in double quotes.
fn split(text: &str) -> Result<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for letter in text.chars() {
        match letter {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            letter => {
                if let Some(field) = fields.last_mut() {
                    field.push(letter);
                }
            }
        }
    }
    ensure!(!quoted, "a quote is not closed");
    Ok(fields.into_iter().filter(|field| !field.is_empty()).collect())
}

/// `64m`, `1g`, `4096`.
fn bytes(text: &str) -> Result<u64> {
    let invalid = || format!("size {text:?} is none such as 64m or 1g");
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, shift) = match lower.as_bytes().last() {
        Some(b'k') => (&lower[..lower.len() - 1], 10),
        Some(b'm') => (&lower[..lower.len() - 1], 20),
        Some(b'g') => (&lower[..lower.len() - 1], 30),
        _ => (lower, 0),
    };
    let number: u64 = digits.parse().with_context(invalid)?;
    number.checked_mul(1 << shift).with_context(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Mount> {
        Mount::parse(text, &Expander::new('\\', &|name| (name == "V").then(|| "x".to_owned())))
    }

    #[test]
    fn every_type_has_its_keys() {
        let bind = parse("source=/a,target=/t$V,rw").unwrap();
        assert_eq!(
            (bind.kind, bind.target.as_deref(), bind.writable),
            (Kind::Bind, Some("/tx"), true)
        );
        let cache = parse("type=cache,dst=/c,sharing=locked,mode=0700,uid=5,readonly").unwrap();
        assert_eq!((cache.sharing, cache.mode, cache.uid), (Sharing::Locked, Some(0o700), 5));
        assert!(!cache.writable);
        assert_eq!(cache.name(), "/c");
        assert_eq!(parse("type=tmpfs,target=/t,size=64m").unwrap().size, Some(64 << 20));
        let secret = parse("type=secret,id=key,required,env=KEY").unwrap();
        assert_eq!((secret.name().as_str(), secret.required), ("key", true));
        assert_eq!(parse("type=secret,target=/run/secrets/tok").unwrap().name(), "tok");
        assert_eq!(parse("type=ssh").unwrap().name(), "default");
    }

    #[test]
    fn what_would_escape_or_makes_no_sense_is_refused() {
        for text in [
            "target=/",
            "target=/../",
            "type=bind",
            "type=cache",
            "type=npipe,target=/x",
            "target=/x,bind-propagation=rshared",
            "target=/x,suid",
            "target=/x,size=5",
            "type=tmpfs,target=/x,from=y",
            "target=/x,from=$V",
            "type=cache,target=/x,sharing=all",
            "type=cache,target=/x,mode=99",
            "type=secret",
            "target=/x,\"source=a",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
