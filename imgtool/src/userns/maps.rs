//! Maps of ids: what /etc/subuid and /etc/subgid give a user, and how a namespace lays it out.

use std::fmt;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};

use crate::sys;

/// More lines than this no map has (the kernel's limit is 340).
const MAX_RANGES: usize = 339;

/// The ids of a user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Maps {
    pub(crate) uids: Vec<Range>,
    pub(crate) gids: Vec<Range>,
}

/// `count` ids from `inside` on, which are those from `outside` on to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Range {
    pub(crate) inside: u32,
    pub(crate) outside: u32,
    pub(crate) count: u32,
}

impl Range {
    /// Root alone.
    pub(crate) fn one(outside: u32) -> Self {
        Self { inside: 0, outside, count: 1 }
    }

    /// Reads `INSIDE:OUTSIDE[:COUNT]`.
    pub(crate) fn parse(word: &str) -> Result<Self> {
        let expected = "expected CONTAINER:HOST[:LENGTH], each a number";
        let numbers: Vec<u32> =
            word.split(':').map(str::parse).collect::<Result<_, _>>().context(expected)?;
        let (inside, outside, count) = match numbers[..] {
            [inside, outside] => (inside, outside, 1),
            [inside, outside, count] => (inside, outside, count),
            _ => anyhow::bail!(expected),
        };
        ensure!(count > 0, "the length is 0");
        // The highest number is no id.
        let end = |first: u32| first.checked_add(count).is_some();
        ensure!(end(inside) && end(outside), "it goes beyond the highest id");
        Ok(Self { inside, outside, count })
    }

    fn has(self, id: u32) -> bool {
        id.checked_sub(self.inside).is_some_and(|offset| offset < self.count)
    }

    fn to_outside(self, id: u32) -> Option<u32> {
        self.has(id).then(|| self.outside + (id - self.inside))
    }

    fn swapped(self) -> Self {
        Self { inside: self.outside, outside: self.inside, count: self.count }
    }
}

/// The highest id inside.
fn end(ranges: &[Range]) -> u32 {
    ranges.iter().map(|range| range.inside + (range.count - 1)).max().unwrap_or_default()
}

/// What the id `inside` is outside.
pub(crate) fn to_outside(ranges: &[Range], inside: u32) -> Option<u32> {
    ranges.iter().find_map(|range| range.to_outside(inside))
}

/// What the id `outside` is inside.
pub(crate) fn to_inside(ranges: &[Range], outside: u32) -> Option<u32> {
    ranges.iter().find_map(|range| range.swapped().to_outside(outside))
}

/// The map that leads through both: what is outside `inner` is inside `outer`. The error is the first
/// id that `outer` does not have.
fn through(inner: &[Range], outer: &[Range]) -> Result<Vec<Range>, u32> {
    let mut all = Vec::new();
    for range in inner {
        let mut done = 0;
        while done < range.count {
            let seen = range.outside + done;
            let step = outer.iter().find(|it| it.has(seen)).ok_or(seen)?;
            let offset = seen - step.inside;
            let count = (range.count - done).min(step.count - offset);
            all.push(Range { inside: range.inside + done, outside: step.outside + offset, count });
            done += count;
        }
    }
    Ok(all)
}

/// Refuses what no kernel takes: too many ranges, or an id in two of them. What sets a container up is
/// its root, so there has to be one.
pub(crate) fn check(ranges: &[Range]) -> Result<()> {
    ensure!(ranges.len() <= MAX_RANGES, "more than {MAX_RANGES} ranges");
    for (number, range) in ranges.iter().enumerate() {
        for other in &ranges[..number] {
            let meet = |a: u32, b: u32| a < b + other.count && b < a + range.count;
            ensure!(
                !meet(range.inside, other.inside) && !meet(range.outside, other.outside),
                "{} and {} overlap",
                other.words(),
                range.words()
            );
        }
    }
    ensure!(to_outside(ranges, 0).is_some(), "it has nothing for 0, the container's root");
    Ok(())
}

impl Range {
    /// As the user writes it.
    fn words(self) -> String {
        format!("{}:{}:{}", self.inside, self.outside, self.count)
    }
}

/// As the kernel and the programs that write maps read it.
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.inside, self.outside, self.count)
    }
}

impl Maps {
    /// A user namespace with these maps. To be called before any thread is started.
    pub(crate) fn namespace(&self) -> Result<File> {
        let text =
            |ranges: &[Range]| ranges.iter().map(|range| format!("{range}\n")).collect::<String>();
        sys::user_namespace(|pid| {
            std::fs::write(format!("/proc/{pid}/uid_map"), text(&self.uids))?;
            std::fs::write(format!("/proc/{pid}/gid_map"), text(&self.gids))
        })
        .context("make a user namespace with the container's ids")
    }

    pub(crate) fn has_user(&self, uid: u32) -> bool {
        self.uids.iter().any(|range| range.has(uid))
    }

    pub(crate) fn has_group(&self, gid: u32) -> bool {
        self.gids.iter().any(|range| range.has(gid))
    }

    /// The same ids seen from one further out, where ours are those of `seen`.
    pub(crate) fn within(&self, seen: &Self) -> Result<Self> {
        let lead = |kind: &str, inner: &[Range], outer: &[Range]| {
            through(inner, outer).map_err(|id| {
                anyhow!("{kind} {id} is not among the ids you have: they end at {}", end(outer))
            })
        };
        Ok(Self {
            uids: lead("user", &self.uids, &seen.uids)?,
            gids: lead("group", &self.gids, &seen.gids)?,
        })
    }

    /// Fails if the user that the word names, or its group, is not among them.
    pub(crate) fn check(&self, word: &str, uid: u32, gid: u32) -> Result<()> {
        ensure!(
            self.has_user(uid),
            "user {word:?} is {uid}, which is not among the container's ids ({} users): --uidmap, or \
             without root /etc/subuid, has to give more",
            self.users()
        );
        ensure!(
            self.has_group(gid),
            "group {gid} of user {word:?} is not among the container's ids ({} groups): --gidmap, \
             or without root /etc/subgid, has to give more",
            self.groups()
        );
        Ok(())
    }

    /// The last of the groups that follow the container's root group without a gap.
    pub(crate) fn last_group(&self) -> u32 {
        let mut next = 0;
        while let Some(range) = self.gids.iter().find(|range| range.has(next)) {
            next = range.inside + range.count;
        }
        next.saturating_sub(1)
    }

    /// Further groups may be set only where somebody with the right to do so wrote the map.
    pub(crate) fn allows_groups(&self) -> bool {
        self.groups() > 1
    }

    /// How many users there can be.
    pub(crate) fn users(&self) -> u64 {
        self.uids.iter().map(|range| u64::from(range.count)).sum()
    }

    /// How many groups there can be.
    pub(crate) fn groups(&self) -> u64 {
        self.gids.iter().map(|range| u64::from(range.count)).sum()
    }
}

/// Root first, then the ranges one after the other.
pub(super) fn lay_out(root: Range, further: &[(u32, u32)]) -> Vec<Range> {
    let mut ranges = vec![root];
    let mut inside = 1_u32;
    for &(outside, count) in further.iter().take(MAX_RANGES) {
        // The highest id is none.
        let count = count.min(u32::MAX - inside);
        if count > 0 {
            ranges.push(Range { inside, outside, count });
            inside += count;
        }
    }
    ranges
}

/// The ranges that `file` gives the user, by number or by name, as (first, count).
pub(super) fn ranges(
    file: &Path,
    uid: u32,
    name: Option<&str>,
) -> std::result::Result<Vec<(u32, u32)>, String> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(format!("read {}: {error}", file.display())),
    };
    let ranges = ranges_in(&text, uid, name);
    if ranges.is_empty() {
        let name = name.map_or_else(|| uid.to_string(), str::to_owned);
        return Err(format!("{} has no range for {name}", file.display()));
    }
    Ok(ranges)
}

fn ranges_in(text: &str, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        if Some(owner) != name && owner.parse() != Ok(uid) {
            return None;
        }
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (count > 0).then_some((first, count))
    };
    text.lines().filter_map(range).collect()
}

/// The name in /etc/passwd, else what the environment says; `newuidmap` looks again for itself.
pub(super) fn user_name(uid: u32) -> Option<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.or_else(|| std::env::var("USER").ok()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text = "other:1:5\nme:100000:65536\n1000:300000:10\nme:x:1\n\nme:7:0\n";
        assert_eq!(ranges_in(text, 1000, Some("me")), [(100_000, 65_536), (300_000, 10)]);
        assert_eq!(ranges_in(text, 1001, None), []);
    }

    #[test]
    fn ids_are_laid_out_without_gaps() {
        let ranges = lay_out(Range::one(1000), &[(100_000, 65_536), (300_000, 10)]);
        let text: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["0 1000 1", "1 100000 65536", "65537 300000 10"]);
        let maps = Maps { uids: ranges.clone(), gids: vec![Range::one(5)] };
        assert!(maps.has_user(65_546) && !maps.has_user(65_547) && !maps.has_group(1));
        assert!(!maps.allows_groups());
        assert_eq!(maps.last_group(), 0);
        let groups = vec![Range::one(5), Range { inside: 1, outside: 9, count: 4 }];
        assert_eq!(Maps { uids: ranges, gids: groups }.last_group(), 4);
    }

    #[test]
    fn ranges_are_read_and_lead_there_and_back() {
        let range = Range::parse("0:100000:65536").unwrap();
        assert_eq!(range, Range { inside: 0, outside: 100_000, count: 65_536 });
        assert_eq!(Range::parse("5:7").unwrap().count, 1);
        for bad in
            ["", "0", "0:1:0", "a:1:1", "0:1:1:1", "-1:0:1", "1:4294967295:1", "4294967295:0:9"]
        {
            assert!(Range::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(to_outside(&[range], 33), Some(100_033));
        assert_eq!(to_outside(&[range], 65_536), None);
        assert_eq!(to_inside(&[range], 100_033), Some(33));
        assert_eq!(to_inside(&[range], 99_999), None);
    }

    #[test]
    fn maps_within_maps_are_cut_where_the_outer_one_is() {
        let outer = lay_out(Range::one(1000), &[(100_000, 65_536)]);
        let range = |word: &str| Range::parse(word).unwrap();
        let inner = [range("0:1:1000"), range("1000:0"), range("1001:1001:64536")];
        let expected = [range("0:100000:1000"), range("1000:1000"), range("1001:101000:64536")];
        assert_eq!(through(&inner, &outer).unwrap(), expected);
        let whole = [range("0:0:65537")];
        assert_eq!(through(&whole, &outer).unwrap(), outer);
        assert_eq!(through(&[range("0:0:65538")], &outer), Err(65_537));
    }

    #[test]
    fn maps_that_no_kernel_takes_are_refused() {
        let maps = |words: &[&str]| -> Vec<Range> {
            words.iter().map(|word| Range::parse(word).unwrap()).collect()
        };
        assert!(check(&maps(&["0:100000:10", "10:5"])).is_ok());
        for bad in [&["1:5"][..], &["0:5:2", "1:9"], &["0:5:2", "2:6"], &[]] {
            assert!(check(&maps(bad)).is_err(), "{bad:?}");
        }
    }
}
