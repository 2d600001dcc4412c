//! Paths followed by hand through trees that may be no directories of the host: the layers of an
//! image, packed or not. Links are resolved with the tree as their root.

use anyhow::{Result, bail};

/// Links on one way, as the kernel has it.
const MAX_LINKS: usize = 40;

/// What is at a path of a tree, itself.
pub(crate) enum Node {
    Nothing,
    Directory,
    Link(Vec<u8>),
    Other,
}

/// The path with no link in it; its last component is followed only if `follow`. Components that do
/// not exist are taken as they are.
pub(crate) fn resolve(
    path: &[u8],
    follow: bool,
    look: &dyn Fn(&[u8]) -> Result<Node>,
) -> Result<Vec<u8>> {
    let mut done: Vec<u8> = Vec::new();
    let mut rest = components(path);
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if name == b".." {
            truncate_to_parent(&mut done);
            continue;
        }
        let before = done.len();
        if !done.is_empty() {
            done.push(b'/');
        }
        done.extend_from_slice(&name);
        if rest.is_empty() && !follow {
            break;
        }
        if let Node::Link(target) = look(&done)? {
            links += 1;
            if links > MAX_LINKS {
                bail!("too many symbolic links in {:?}", String::from_utf8_lossy(path));
            }
            done.truncate(if target.starts_with(b"/") { 0 } else { before });
            rest.extend(components(&target));
        }
    }
    Ok(done)
}

/// The components, last first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/');
    names.filter(|name| !matches!(*name, b"" | b".")).map(<[u8]>::to_vec).rev().collect()
}

pub(crate) fn truncate_to_parent(path: &mut Vec<u8>) {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    path.truncate(slash.unwrap_or(0));
}

/// The directories above a path, topmost first, without the root.
pub(crate) fn above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at])
}

/// The path from the root, cleaned, of a word in an instruction that may be relative to a directory.
pub(crate) fn absolute(directory: &str, word: &str) -> String {
    let whole = if word.starts_with('/') { word.to_owned() } else { format!("{directory}/{word}") };
    crate::rooted::as_text(&whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_in_the_tree() {
        let look = |path: &[u8]| {
            Ok(match path {
                b"lib" => Node::Link(b"usr/lib".to_vec()),
                b"up" => Node::Link(b"../../../etc".to_vec()),
                b"abs" => Node::Link(b"/lib/x".to_vec()),
                b"loop" => Node::Link(b"loop".to_vec()),
                _ => Node::Directory,
            })
        };
        let resolve = |path: &str, follow| {
            resolve(path.as_bytes(), follow, &look).map(|path| String::from_utf8(path).unwrap())
        };
        assert_eq!(resolve("lib/a", false).unwrap(), "usr/lib/a");
        assert_eq!(resolve("lib", false).unwrap(), "lib");
        assert_eq!(resolve("lib", true).unwrap(), "usr/lib");
        assert_eq!(resolve("/up/./passwd", true).unwrap(), "etc/passwd");
        assert_eq!(resolve("abs/../y", true).unwrap(), "usr/lib/y");
        assert!(resolve("loop", true).is_err());
        assert_eq!(above(b"a/b/c").collect::<Vec<_>>(), [&b"a"[..], b"a/b"]);
    }
}
