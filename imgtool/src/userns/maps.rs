//! Maps of ids: what /etc/subuid and /etc/subgid give a user, and how a namespace lays it out.

use std::fmt;
use std::path::Path;

use anyhow::{Result, ensure};

/// More lines than this no map has (the kernel's limit is 340).
const MAX_RANGES: usize = 339;

/// The ids of a user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Maps {
    pub(crate) uids: Vec<Range>,
    pub(crate) gids: Vec<Range>,
}

/// `count` ids from `inside` on, which are those from `outside` on to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

    fn has(self, id: u32) -> bool {
        id.checked_sub(self.inside).is_some_and(|offset| offset < self.count)
    }
}

/// As the kernel and the programs that write maps read it.
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.inside, self.outside, self.count)
    }
}

impl Maps {
    pub(crate) fn has_user(&self, uid: u32) -> bool {
        self.uids.iter().any(|range| range.has(uid))
    }

    pub(crate) fn has_group(&self, gid: u32) -> bool {
        self.gids.iter().any(|range| range.has(gid))
    }

    /// Fails if the user that the word names, or its group, is not among them.
    pub(crate) fn check(&self, word: &str, uid: u32, gid: u32) -> Result<()> {
        ensure!(
            self.has_user(uid),
            "user {word:?} is {uid}, which is not among the ids you have: /etc/subuid has to give \
             you more (now: {} users)",
            self.users()
        );
        ensure!(
            self.has_group(gid),
            "group {gid} of user {word:?} is not among the ids you have: /etc/subgid has to give \
             you more (now: {} groups)",
            self.groups()
        );
        Ok(())
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
    }
}
