//! An image's `USER`, resolved in the passwd and group files beneath its root file system.
//!
//! The files belong to the image: they are opened by fd beneath the root, regular files only, read
//! up to a limit, and a number must be a plain one. A trick there must not yield uid 0
//! (CVE-2024-9676, CVE-2024-40635, CVE-2026-46680, CVE-2026-47262).

use std::io::Read;
use std::os::fd::BorrowedFd;

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// More than any real file has, little enough to hold in memory.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The two largest values mean "no id" to the kernel.
const MAX_ID: u32 = u32::MAX - 1;

/// What a process runs as.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The primary group comes first (CVE-2022-36109).
    pub(crate) additional_gids: Vec<u32>,
}

/// Resolves `user` (`name`, `uid`, `name:group`, `uid:gid`, or empty for root) beneath `rootfs`.
pub(crate) fn resolve(user: &str, rootfs: BorrowedFd<'_>) -> Result<Identity> {
    let file = |path: &str| match read(rootfs, path) {
        // Root needs neither: it is root whatever the image has in their place.
        Err(_) if user.is_empty() => Ok(String::new()),
        text => text.with_context(|| format!("read /{path} of the image")),
    };
    resolve_in(user, &file("etc/passwd")?, &file("etc/group")?)
}

/// Looks groups up, as names or numbers, beneath `rootfs`.
pub(crate) fn groups(words: &[String], rootfs: BorrowedFd<'_>) -> Result<Vec<u32>> {
    if words.is_empty() {
        return Ok(Vec::new());
    }
    let text = read(rootfs, "etc/group").context("read /etc/group of the image")?;
    let look = |word: &String| group_id(word, &text).with_context(|| format!("--group-add {word}"));
    words.iter().map(look).collect()
}

/// Reads a file of the image; an absent one is empty.
fn read(rootfs: BorrowedFd<'_>, path: &str) -> Result<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(rootfs, path, flags, Mode::empty(), resolve) {
        Ok(fd) => std::fs::File::from(fd),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        bail!("it is not a regular file");
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        bail!("it is larger than {MAX_FILE_BYTES} bytes");
    }
    // Names are compared bytewise with UTF-8 ones, so a lossy line only fails to match.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The same in the text of the two files.
pub(crate) fn resolve_in(word: &str, passwd: &str, group: &str) -> Result<Identity> {
    let (user, group_word) = match word.split_once(':') {
        Some((user, group_word)) => (user, Some(group_word)),
        None => (word, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let numeric = is_number(user)
        .then(|| id(user))
        .transpose()
        .with_context(|| format!("invalid user {user:?}"))?;
    let entry = lines(passwd).find(|fields| match numeric {
        Some(uid) => fields.get(2).is_some_and(|field| id(field).is_ok_and(|field| field == uid)),
        None => fields.first() == Some(&user),
    });
    let (uid, gid, name) = match (entry, numeric) {
        (Some(fields), _) => (
            field_id(&fields, 2).with_context(|| format!("uid of user {user:?} in /etc/passwd"))?,
            field_id(&fields, 3).with_context(|| format!("gid of user {user:?} in /etc/passwd"))?,
            fields.first().copied(),
        ),
        (None, Some(uid)) => (uid, 0, None),
        (None, None) => bail!("unable to find user {user}: no matching entries in passwd file"),
    };
    let mut identity = Identity { uid, gid, additional_gids: Vec::new() };
    match group_word.filter(|word| !word.is_empty()) {
        // An explicit group is all the groups there are.
        Some(word) => identity.gid = group_id(word, group)?,
        None => identity.additional_gids = memberships(name, group)?,
    }
    identity.additional_gids.retain(|&gid| gid != identity.gid);
    identity.additional_gids.insert(0, identity.gid);
    Ok(identity)
}

fn group_id(word: &str, group: &str) -> Result<u32> {
    if is_number(word) {
        return id(word).with_context(|| format!("invalid group {word:?}"));
    }
    let Some(fields) = lines(group).find(|fields| fields.first() == Some(&word)) else {
        bail!("unable to find group {word}: no matching entries in group file");
    };
    field_id(&fields, 2).with_context(|| format!("gid of group {word:?} in /etc/group"))
}

/// The groups that list `name` as a member.
fn memberships(name: Option<&str>, group: &str) -> Result<Vec<u32>> {
    let Some(name) = name else { return Ok(Vec::new()) };
    let mut gids = Vec::new();
    for fields in lines(group) {
        if fields
            .get(3)
            .is_some_and(|members| members.split(',').any(|member| member.trim() == name))
        {
            let gid = field_id(&fields, 2)
                .with_context(|| format!("gid of group {:?} in /etc/group", fields[0]))?;
            if !gids.contains(&gid) {
                gids.push(gid);
            }
        }
    }
    Ok(gids)
}

/// The fields of each line that says anything.
fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split(':').collect())
}

fn field_id(fields: &[&str], index: usize) -> Result<u32> {
    id(fields.get(index).copied().unwrap_or_default())
}

/// Whether a word claims to be a number, so that it is never looked up as a name.
fn is_number(word: &str) -> bool {
    word.bytes().all(|b| b.is_ascii_digit()) || word.starts_with(['+', '-'])
}

/// A decimal number without sign, blanks or leading zeros.
fn id(word: &str) -> Result<u32> {
    let canonical =
        word.bytes().all(|b| b.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    match word.parse() {
        Ok(id @ ..=MAX_ID) if canonical && id < MAX_ID => Ok(id),
        _ => bail!("{word:?} is not a number from 0 to {}", MAX_ID - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\n\napp:x:1000:1001::/home/app:\nbad:x:4294967296:0::/:\nspace:x: 0:0::/:\nweb:x:33:33\n";
    const GROUP: &str =
        "root:x:0:root\nwheel:x:10:root,app\napp:x:1001:\nextra:x:20:app\nbroken:x:zz:web\n";

    #[test]
    fn users_and_groups_are_looked_up() {
        for (word, uid, gid, additional) in [
            ("", 0, 0, vec![0, 10]),
            ("0", 0, 0, vec![0, 10]),
            ("root", 0, 0, vec![0, 10]),
            ("app", 1000, 1001, vec![1001, 10, 20]),
            ("1000", 1000, 1001, vec![1001, 10, 20]),
            ("app:", 1000, 1001, vec![1001, 10, 20]),
            ("app:wheel", 1000, 10, vec![10]),
            ("app:7", 1000, 7, vec![7]),
            ("4242", 4242, 0, vec![0]),
            ("4242:app", 4242, 1001, vec![1001]),
            (":wheel", 0, 10, vec![10]),
            ("2147483648", 2_147_483_648, 0, vec![0]),
        ] {
            let identity = resolve_in(word, PASSWD, GROUP).unwrap();
            assert_eq!(identity, Identity { uid, gid, additional_gids: additional }, "{word:?}");
        }
    }

    #[test]
    fn nothing_odd_becomes_root() {
        for word in [
            "4294967296",
            "4294967295",
            "4294967294",
            "18446744073709551616",
            "-1",
            "+0",
            " 0",
            "00",
            "0x0",
            "nobody",
            "bad",
            "space",
            "app:nogroup",
            "app:-1",
            "app:00",
            "web",
        ] {
            assert!(resolve_in(word, PASSWD, GROUP).is_err(), "{word:?}");
        }
    }

    #[test]
    fn absent_files_leave_numbers_usable() {
        assert_eq!(resolve_in("5:6", "", "").unwrap().gid, 6);
        assert!(resolve_in("app", "", "").is_err());
    }

    #[test]
    fn files_are_read_beneath_the_root_only() {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", etc.join("passwd")).unwrap();
        let fd = std::fs::File::open(root.path()).unwrap();
        // The link leads to itself inside the root, so it is an error and never the host's file.
        assert!(read(fd.as_fd(), "etc/passwd").is_err());

        std::fs::remove_file(etc.join("passwd")).unwrap();
        let huge = std::fs::File::create(etc.join("passwd")).unwrap();
        huge.set_len(2 << 30).unwrap();
        assert!(read(fd.as_fd(), "etc/passwd").is_err());

        std::fs::create_dir(etc.join("group")).unwrap();
        assert!(read(fd.as_fd(), "etc/group").is_err());
        assert_eq!(read(fd.as_fd(), "etc/absent").unwrap(), "");
    }
}
