//! The whole file system as this process sees it, a line a file: what two trees are compared by.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// A file's line, and its inode where it has several names.
type Line = (String, Option<(u64, u64)>);

/// Prints every file below `root`, sorted, as a process with that root would see it, but for the
/// `skipped` paths and all below them. `~PATH` leaves out only that path's time. Names of one file
/// are told by the first of them, and only among those that can be seen: the count of links is the
/// file system's own affair.
pub(crate) fn print(root: &Path, skipped: &[&str]) -> io::Result<()> {
    let mut lines = Vec::new();
    walk(root, Path::new("/"), skipped, &mut lines)?;
    let mut names: BTreeMap<(u64, u64), (String, usize)> = BTreeMap::new();
    for (line, inode) in &lines {
        if let Some(inode) = inode {
            let first = line.split(' ').next().unwrap_or_default().to_owned();
            names.entry(*inode).or_insert((first, 0)).1 += 1;
        }
    }
    for (line, inode) in &lines {
        match inode.and_then(|inode| names.get(&inode)) {
            Some((first, 2..)) => println!("{line} linked to {first}"),
            _ => println!("{line}"),
        }
    }
    Ok(())
}

/// `seen` is what `path` is called there.
fn walk(path: &Path, seen: &Path, skipped: &[&str], lines: &mut Vec<Line>) -> io::Result<()> {
    let text = seen.to_string_lossy();
    if skipped.contains(&&*text) {
        return Ok(());
    }
    let untimed = skipped.contains(&&*format!("~{text}"));
    lines.push(line(path, seen, untimed)?);
    if fs::symlink_metadata(path)?.is_dir() {
        let mut children: Vec<PathBuf> =
            fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        children.sort();
        for child in children {
            let name = child.file_name().unwrap_or_default();
            walk(&child, &seen.join(name), skipped, lines)?;
        }
    }
    Ok(())
}

fn line(path: &Path, seen: &Path, untimed: bool) -> io::Result<Line> {
    let meta = fs::symlink_metadata(path)?;
    let kind = meta.file_type();
    let mut words = vec![
        format!("\"{}\"", word(seen)),
        format!("{:06o}", meta.mode()),
        format!("{}:{}", meta.uid(), meta.gid()),
    ];
    if !untimed {
        words.push(format!("{}.{:09}", meta.mtime(), meta.mtime_nsec()));
    }
    if kind.is_symlink() {
        words.push(format!("-> {}", word(&fs::read_link(path)?)));
    } else if kind.is_char_device() || kind.is_block_device() {
        words.push(format!("dev {:x}", meta.rdev()));
    } else if kind.is_file() {
        words.push(format!("{} {}", meta.len(), content(path)?));
    }
    words.extend(xattrs(path)?);
    let inode = (meta.is_file() && meta.nlink() > 1).then_some((meta.dev(), meta.ino()));
    Ok((words.join(" "), inode))
}

/// A path without spaces and line ends.
fn word(path: &Path) -> String {
    path.as_os_str().as_bytes().escape_ascii().to_string().replace(' ', "\\x20")
}

fn content(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    Ok(hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

fn xattrs(path: &Path) -> io::Result<Vec<String>> {
    let mut names = vec![0; 1 << 16];
    let length = match rustix::fs::llistxattr(path, &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(errno.into()),
    };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 1 << 16];
        let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value)?;
        let value: String = value[..length].iter().map(|byte| format!("{byte:02x}")).collect();
        found.push(format!("{}={value}", String::from_utf8_lossy(name)));
    }
    found.sort();
    Ok(found)
}
