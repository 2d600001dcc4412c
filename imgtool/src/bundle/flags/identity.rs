//! `--userns`, `--uidmap` and `--gidmap`: which ids of the host those of the container are.

use anyhow::{Context, Result, bail, ensure};

use crate::userns::{Maps, Range, check, to_outside};

/// As typed.
#[derive(Debug, Default, clap::Args)]
#[group(id = "identity")]
pub(super) struct Words {
    /// User namespace: host, private (with --uidmap), or without root keep-id[:uid=N,gid=N]
    #[arg(long, value_name = "MODE")]
    userns: Option<String>,
    /// Which ids of the host the container's users are; its groups as well without --gidmap
    #[arg(long, value_name = "CONTAINER:HOST[:LENGTH]")]
    uidmap: Vec<String>,
    /// Which ids of the host the container's groups are; its users as well without --uidmap
    #[arg(long, value_name = "CONTAINER:HOST[:LENGTH]")]
    gidmap: Vec<String>,
}

/// The user namespace that is wished for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    /// None as root; else the one in which we are root.
    #[default]
    Ours,
    /// By these maps.
    Mapped(Maps),
    /// One in which the caller has the same ids as outside, or these.
    Kept { uid: Option<u32>, gid: Option<u32> },
}

/// Who is in the container.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    /// Its ids among those that we see, if they differ.
    pub(crate) maps: Option<Maps>,
    /// What it runs as where nobody says otherwise.
    pub(crate) user: Option<(u32, u32)>,
}

impl Words {
    pub(super) fn resolve(&self) -> Result<Identity> {
        let given = !self.uidmap.is_empty() || !self.gidmap.is_empty();
        let mode = self.userns.as_deref();
        let (word, rest) = mode.map_or(("", None), |mode| match mode.split_once(':') {
            Some((word, rest)) => (word, Some(rest)),
            None => (mode, None),
        });
        ensure!(
            rest.is_none() || word == "keep-id",
            "--userns {:?}: only keep-id takes options",
            mode.unwrap_or_default()
        );
        match word {
            "" | "private" if given => self.maps().map(Identity::Mapped),
            "" if mode.is_none() => Ok(Identity::Ours),
            "host" | "keep-id" if given => {
                bail!(
                    "--uidmap and --gidmap make a user namespace of their own: not with --userns {word}"
                )
            }
            "private" => bail!("--userns private needs --uidmap CONTAINER:HOST:LENGTH"),
            "host" => Ok(Identity::Ours),
            "keep-id" => kept(rest.unwrap_or_default()),
            // Who is nobody in there is kept out of the bundle itself, which is yours.
            "nomap" => bail!(
                "--userns nomap: your own directories, and the bundle in them, would be closed to the container: \
                 use keep-id, and --user for whom it runs as"
            ),
            "auto" => bail!(
                "--userns auto: no ranges are chosen here: say which, with --uidmap 0:100000:65536"
            ),
            other => {
                bail!("invalid user namespace {other:?}: use host, private or keep-id")
            }
        }
    }

    fn maps(&self) -> Result<Maps> {
        let read = |flag: &str, words: &[String]| -> Result<Vec<Range>> {
            let ranges = words
                .iter()
                .map(|word| Range::parse(word).with_context(|| format!("invalid {flag} {word:?}")));
            ranges.collect()
        };
        let mut maps =
            Maps { uids: read("--uidmap", &self.uidmap)?, gids: read("--gidmap", &self.gidmap)? };
        if maps.uids.is_empty() {
            maps.uids.clone_from(&maps.gids);
        }
        if maps.gids.is_empty() {
            maps.gids.clone_from(&maps.uids);
        }
        check(&maps.uids).context("--uidmap can't be used")?;
        check(&maps.gids).context("--gidmap can't be used")?;
        Ok(maps)
    }
}

fn kept(options: &str) -> Result<Identity> {
    let (mut uid, mut gid) = (None, None);
    for word in options.split(',').filter(|word| !word.is_empty()) {
        let wanted = match word.split_once('=') {
            Some(("uid", number)) => (&mut uid, number),
            Some(("gid", number)) => (&mut gid, number),
            _ => bail!("--userns keep-id takes uid=N and gid=N, not {word:?}"),
        };
        let number = wanted.1.parse::<u32>().ok().filter(|number| *number < u32::MAX);
        *wanted.0 = Some(number.with_context(|| format!("{word:?} is no id"))?);
    }
    Ok(Identity::Kept { uid, gid })
}

impl Identity {
    /// What that is for us. `own` are our ids outside, `seen` those that our own namespace has, `None` if
    /// we are root of the host.
    pub(crate) fn ids(&self, own: (u32, u32), seen: Option<&Maps>) -> Result<Ids> {
        let further = || {
            let seen = seen.filter(|maps| maps.users() > 1 && maps.groups() > 1);
            seen.context("it takes ids beside your own: /etc/subuid and /etc/subgid give you none")
        };
        match self {
            Self::Ours => Ok(Ids::default()),
            Self::Mapped(maps) => {
                if seen.is_some() {
                    further().context("--uidmap can't be used")?;
                }
                Ok(Ids { maps: Some(maps.clone()), user: None })
            }
            Self::Kept { .. } if seen.is_none() => bail!(
                "--userns keep-id is for ordinary users, who have a range of ids of their own: as root use \
                 --uidmap"
            ),
            Self::Kept { uid, gid } => {
                let seen = further().context("--userns keep-id can't be used")?;
                let user = (uid.unwrap_or(own.0), gid.unwrap_or(own.1));
                let maps = Maps {
                    uids: around(user.0, count(&seen.uids)),
                    gids: around(user.1, count(&seen.gids)),
                };
                let there = |ranges: &[Range]| to_outside(ranges, 0).is_some();
                ensure!(there(&maps.uids) && there(&maps.gids), "the container would have no root");
                Ok(Ids { maps: Some(maps), user: Some(user) })
            }
        }
    }
}

/// How many ids there are; ours begin at 0 and have no gaps.
fn count(ranges: &[Range]) -> u32 {
    ranges.iter().map(|range| range.inside + range.count).max().unwrap_or_default()
}

/// We are `kept`, and the further ones of `count` ids come in their order.
fn around(kept: u32, count: u32) -> Vec<Range> {
    let below = kept.min(count - 1);
    let all = [
        Range { inside: 0, outside: 1, count: below },
        Range { inside: kept, outside: 0, count: 1 },
        Range {
            inside: kept.saturating_add(1),
            outside: below + 1,
            count: (count - 1 - below).min(u32::MAX - kept.saturating_add(1)),
        },
    ];
    all.into_iter().filter(|range| range.count > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(userns: Option<&str>, uidmap: &[&str]) -> Words {
        let uidmap = uidmap.iter().map(|word| (*word).to_owned()).collect();
        Words { userns: userns.map(str::to_owned), uidmap, gidmap: Vec::new() }
    }

    #[test]
    fn modes_are_read() {
        let read = |userns| words(Some(userns), &[]).resolve();
        assert_eq!(read("host").unwrap(), Identity::Ours);
        let kept = Identity::Kept { uid: Some(5), gid: None };
        assert_eq!(read("keep-id:uid=5").unwrap(), kept);
        for bad in
            ["", "private", "auto", "nomap", "host:x", "keep-id:x", "keep-id:uid=-1", "container:c"]
        {
            assert!(read(bad).is_err(), "{bad:?}");
        }
        let Identity::Mapped(maps) = words(None, &["0:9:5"]).resolve().unwrap() else { panic!() };
        assert_eq!(maps.uids, maps.gids);
        assert!(words(Some("private"), &["0:9:5"]).resolve().is_ok());
        assert!(words(Some("host"), &["0:9:5"]).resolve().is_err());
        assert!(words(None, &["1:9:5"]).resolve().is_err());
    }

    #[test]
    fn the_caller_is_kept() {
        let range = |inside, outside, count| Range { inside, outside, count };
        let all = vec![range(0, 1000, 1), range(1, 100_000, 65_536)];
        let seen = Maps { uids: all.clone(), gids: all };
        let keep = Identity::Kept { uid: None, gid: Some(0) };
        let Ids { maps, user } = keep.ids((1000, 1000), Some(&seen)).unwrap();
        let ids = maps.unwrap();
        let expected = [range(0, 1, 1000), range(1000, 0, 1), range(1001, 1001, 64_536)];
        assert_eq!((ids.uids.as_slice(), user), (&expected[..], Some((1000, 0))));
        assert_eq!(ids.gids, [range(0, 0, 1), range(1, 1, 65_536)]);
        assert_eq!(around(100_000, 65_537), [range(0, 1, 65_536), range(100_000, 0, 1)]);
        let alone = Maps { uids: vec![Range::one(1000)], gids: vec![Range::one(1000)] };
        assert!(keep.ids((1000, 1000), Some(&alone)).is_err());
        assert!(keep.ids((0, 0), None).is_err());
    }
}
