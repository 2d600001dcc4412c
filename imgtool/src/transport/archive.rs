//! The members of a tar archive, each written to staging and hashed as it
//! streams by: archives come through pipes, with their manifest first or last.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};

use anyhow::{Context, Result, bail, ensure};

use crate::digest::{Algorithm, Digest};
use crate::error::printable;
use crate::layer::compress;
use crate::layer::tar::{Kind, Reader};
use crate::manifest::Descriptor;
use crate::progress::{Item, Progress};
use crate::store::{StagedBlob, Store};

/// An image has a few members per layer; this is far above any real archive.
const MAX_MEMBERS: usize = 100_000;
/// Links may point at links, as in the archives of old engines.
const MAX_LINKS: usize = 16;
const BUFFER: usize = 256 << 10;
/// No tar archive is smaller; of what is, nobody needs to see that it comes.
const SMALLEST_SHOWN: u64 = 1024;

enum Member {
    File(StagedBlob),
    /// Another member's name.
    Link(String),
    /// A file that was moved into the store.
    Stored {
        digest: Digest,
        size: u64,
    },
}

/// What an archive holds, by normalised name.
pub(crate) struct Members {
    members: HashMap<String, Member>,
}

impl Members {
    /// Reads a whole archive, compressed or not. Bounded memory; nothing of it
    /// stays if the result is dropped.
    pub(crate) fn read(
        store: &Store,
        input: impl Read + Send + 'static,
        progress: &Progress,
    ) -> Result<Self> {
        let mut input = BufReader::with_capacity(BUFFER, input);
        ensure!(!input.fill_buf().context("read archive")?.is_empty(), "archive is empty");
        let input = compress::reader(input)?;
        let mut archive = Reader::new(BufReader::with_capacity(BUFFER, input));
        let mut members = HashMap::new();
        let mut first = Some(archive.next_entry().context("not a tar archive")?);
        while let Some(entry) = match first.take() {
            Some(entry) => entry,
            None => archive.next_entry()?,
        } {
            ensure!(members.len() < MAX_MEMBERS, "archive has more than {MAX_MEMBERS} members");
            let name = normalise("", &String::from_utf8_lossy(&entry.path))?;
            let target = |base: &str| normalise(base, &String::from_utf8_lossy(&entry.link));
            let member = match entry.kind {
                Kind::File => {
                    let mut writer = store.blob_writer_for(algorithm_of(&name))?;
                    let mut shown = Shown::new(progress, &name, entry.size);
                    archive
                        .contents(|bytes| {
                            shown.add(bytes)?;
                            writer.write_all(bytes).context("write staged member")
                        })
                        .with_context(|| format!("read {name}"))?;
                    shown.finish()?;
                    Member::File(writer.finish())
                }
                Kind::Symlink => Member::Link(target(parent(&name))?),
                Kind::HardLink => Member::Link(target("")?),
                Kind::Directory => continue,
                other => bail!("archive member {name} is neither file nor link: {other:?}"),
            };
            members.insert(name, member);
        }
        Ok(Self { members })
    }

    /// The file that a name stands for, links followed.
    fn find(&self, name: &str) -> Result<Option<(&str, &Member)>> {
        let mut name = normalise("", name)?;
        for _ in 0..MAX_LINKS {
            match self.members.get_key_value(&name) {
                Some((_, Member::Link(target))) => name.clone_from(target),
                Some((key, member)) => return Ok(Some((key, member))),
                None => return Ok(None),
            }
        }
        bail!("archive has a loop of links at {name}")
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        matches!(self.find(name), Ok(Some(_)))
    }

    /// Digest and size of a member.
    pub(crate) fn digest(&self, name: &str) -> Result<Option<(Digest, u64)>> {
        Ok(self.find(name)?.and_then(|(_, member)| match member {
            Member::File(staged) => Some((staged.digest().clone(), staged.size())),
            Member::Stored { digest, size } => Some((digest.clone(), *size)),
            Member::Link(_) => None,
        }))
    }

    /// A small member's bytes, if there is such a member.
    pub(crate) fn document(
        &self,
        store: &Store,
        name: &str,
        limit: u64,
    ) -> Result<Option<Vec<u8>>> {
        let bytes = match self.find(name)? {
            None | Some((_, Member::Link(_))) => return Ok(None),
            Some((_, Member::File(staged))) => staged.read(limit),
            Some((_, Member::Stored { digest, size })) => {
                store.read_blob(&Descriptor::new("", digest.clone(), *size), limit)
            }
        };
        bytes.with_context(|| format!("read {name}")).map(Some)
    }

    /// A member's content as a stream.
    pub(crate) fn open(&self, store: &Store, name: &str) -> Result<File> {
        match self.find(name)? {
            Some((_, Member::File(staged))) => staged.open(),
            Some((_, Member::Stored { digest, .. })) => store.open_blob(digest),
            None | Some((_, Member::Link(_))) => bail!("archive has no {name}"),
        }
    }

    /// Moves members into the store, and gives the digest and size of each.
    pub(crate) fn store<'n>(
        &mut self,
        store: &Store,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Result<Vec<(Digest, u64)>> {
        let (mut stored, mut staged) = (Vec::new(), Vec::new());
        for name in names {
            let Some((key, _)) = self.find(name)? else { bail!("archive has no {name}") };
            let key = key.to_owned();
            let (digest, size) = match self.members.remove(&key) {
                Some(Member::File(blob)) => {
                    let named = (blob.digest().clone(), blob.size());
                    staged.push(blob);
                    named
                }
                Some(Member::Stored { digest, size }) => (digest, size),
                Some(Member::Link(_)) | None => bail!("archive has no {name}"),
            };
            self.members.insert(key, Member::Stored { digest: digest.clone(), size });
            stored.push((digest, size));
        }
        store.commit_blobs(staged)?;
        Ok(stored)
    }
}

/// How a member's way into staging is shown, if it is a layer: what that is, the archive says at
/// its end, and until then only documents are known not to be.
struct Shown<'a> {
    progress: &'a Progress,
    name: &'a str,
    size: u64,
    read: u64,
    item: Option<Item>,
}

impl<'a> Shown<'a> {
    fn new(progress: &'a Progress, name: &'a str, size: u64) -> Self {
        Self { progress, name, size, read: 0, item: None }
    }

    fn add(&mut self, bytes: &[u8]) -> Result<()> {
        let is_document = bytes.starts_with(b"{") || bytes.starts_with(b"[");
        if self.read == 0 && self.size >= SMALLEST_SHOWN && !is_document {
            self.item = Some(self.progress.loading(&short(self.name), self.size)?);
        }
        self.read += bytes.len() as u64;
        if let Some(item) = &self.item {
            item.set(self.read);
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        self.item.map_or(Ok(()), Item::finish)
    }
}

/// What a member is shown as: the twelve digits that engines show of a digest, whichever part of
/// the name has them.
fn short(name: &str) -> String {
    let is_id = |part: &&str| part.len() >= 12 && part.bytes().all(|b| b.is_ascii_hexdigit());
    match name.split(['/', ':', '.']).rfind(is_id) {
        Some(id) => id[..12].to_owned(),
        None => printable(name),
    }
}

/// Blobs of a layout are hashed with what their directory says.
fn algorithm_of(name: &str) -> Algorithm {
    if name.starts_with("blobs/sha512/") { Algorithm::Sha512 } else { Algorithm::Sha256 }
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// `name` seen from `base`, without `.` and `..`; never out of the archive.
fn normalise(base: &str, name: &str) -> Result<String> {
    ensure!(!name.starts_with('/'), "archive member {name:?} has an absolute name");
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    bail!("archive member {name:?} points outside the archive");
                }
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_archive() {
        assert_eq!(normalise("", "./a//b/./c").unwrap(), "a/b/c");
        assert_eq!(normalise("a", "../b/layer.tar").unwrap(), "b/layer.tar");
        assert!(normalise("a", "../../b").is_err());
        assert!(normalise("", "/etc/passwd").is_err());
    }

    #[test]
    fn members_are_shown_by_their_digest() {
        let hex = "0123456789abcdef".repeat(4);
        for name in ["blobs/sha256/HEX", "HEX/layer.tar", "HEX.tar.gz", "sha256:HEX"] {
            assert_eq!(short(&name.replace("HEX", &hex)), "0123456789ab");
        }
        assert_eq!(short("layer.tar"), "layer.tar");
    }
}
