//! `COPY` and `ADD`: what is to be copied becomes a layer, without anything being unpacked but what
//! stands in the layer itself. Directories above that the stage has already are named with the
//! metadata they have there, so that the layer changes nothing of them wherever it is unpacked.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};

use super::chmod::Chmod;
use super::ignore::Ignore;
use super::origin::{Content, Found, Item, Origin};
use super::paths;
use super::remote::Fetched;
use super::view::View;
use crate::digest::{Algorithm, Digest, HashingWriter};
use crate::layer::compress::{self, BUFFER};
use crate::layer::extract::{join, split};
use crate::layer::gzip::GzipWriter;
use crate::layer::pack::Links;
use crate::layer::tar::{Entry, Kind, Reader, Time, Writer};
use crate::manifest::{Descriptor, media_type};
use crate::rooted;
use crate::store::{BlobWriter, Store};

/// A `COPY` or `ADD` with its variables replaced.
pub(crate) struct Transfer {
    pub(crate) add: bool,
    pub(crate) sources: Vec<Source>,
    /// From the root and clean, and whether it is said to be a directory.
    pub(crate) target: String,
    pub(crate) into: bool,
    pub(crate) chmod: Option<Chmod>,
    pub(crate) parents: bool,
    pub(crate) exclude: Ignore,
    pub(crate) unpack: Option<bool>,
}

pub(crate) enum Source {
    Path(String),
    /// A file that stands in the Dockerfile.
    Text {
        name: String,
        body: String,
    },
    /// From a web server.
    Fetched(Fetched),
    /// All of a git repository.
    Repository(Origin, String),
}

/// What one source came to.
pub(crate) struct Picked {
    /// The name it has in a directory.
    name: Vec<u8>,
    what: What,
}

enum What {
    /// Itself, with an empty path, then what is in it.
    Directory(Vec<Item>),
    File(Item),
    /// To be unpacked: where it is in the origin.
    Archive(Item),
    /// With the directories above them, from the root of the origin or the pivot on.
    Tree(Vec<Item>),
}

impl Picked {
    pub(crate) fn items(&self) -> &[Item] {
        match &self.what {
            What::Directory(items) | What::Tree(items) => items,
            What::File(item) | What::Archive(item) => std::slice::from_ref(item),
        }
    }
}

/// Looks up all sources.
pub(crate) fn pick(transfer: &Transfer, origin: &Origin, now: Time) -> Result<Vec<Picked>> {
    let mut picked = Vec::new();
    for source in &transfer.sources {
        match source {
            Source::Text { name, body } => {
                let mut entry = Entry::new(Vec::new(), Kind::File, 0o644);
                (entry.size, entry.mtime) = (body.len() as u64, now);
                let content = Content::Bytes(body.clone().into_bytes());
                let item = Item { to: Vec::new(), entry, content, stat: None };
                picked.push(Picked { name: name.clone().into_bytes(), what: What::File(item) });
            }
            Source::Fetched(fetched) => picked.push(fetched_item(transfer, origin, fetched)?),
            Source::Repository(tree, _) => {
                let mut items = Vec::new();
                tree.take(b"", b"", &transfer.exclude, &mut items)?;
                picked.push(Picked { name: Vec::new(), what: What::Directory(items) });
            }
            Source::Path(path) => {
                for found in origin.find(path)? {
                    picked.extend(one(transfer, origin, path, &found)?);
                }
            }
        }
    }
    Ok(picked)
}

/// Unpacked only if that is asked for.
fn fetched_item(transfer: &Transfer, origin: &Origin, fetched: &Fetched) -> Result<Picked> {
    let mut entry = Entry::new(Vec::new(), Kind::File, 0o600);
    (entry.size, entry.mtime) = (fetched.file.as_file().metadata()?.len(), fetched.mtime);
    let content = Content::Fetched(Arc::clone(&fetched.file));
    let archive = transfer.unpack == Some(true) && is_archive(origin.contents(&content)?)?;
    ensure!(
        !fetched.name.is_empty() || archive || !transfer.into,
        "the URL names no file: give the destination a name"
    );
    let item = Item { to: Vec::new(), entry, content, stat: None };
    let what = if archive { What::Archive(item) } else { What::File(item) };
    Ok(Picked { name: fetched.name.clone().into_bytes(), what })
}

fn one(
    transfer: &Transfer,
    origin: &Origin,
    source: &str,
    found: &Found,
) -> Result<Option<Picked>> {
    let (_, name) = split(&found.named);
    if transfer.parents {
        let mut items = Vec::new();
        with_parents(origin, source, found, &transfer.exclude, &mut items)?;
        return Ok(Some(Picked { name: Vec::new(), what: What::Tree(items) }));
    }
    if !found.is_directory && transfer.exclude.leaves_out(name) {
        return Ok(None);
    }
    let mut items = Vec::new();
    origin.take(&found.path, b"", &transfer.exclude, &mut items)?;
    let what = if found.is_directory {
        What::Directory(items)
    } else {
        let Some(item) = items.pop() else { return Ok(None) };
        let unpack = transfer.add && transfer.unpack != Some(false);
        match &item.content {
            Content::File(path) if unpack && is_archive(origin.open(path)?)? => What::Archive(item),
            _ => What::File(item),
        }
    };
    Ok(Some(Picked { name: name.to_vec(), what }))
}

/// What was found with all directories from the pivot `/./` of the source on.
fn with_parents(
    origin: &Origin,
    source: &str,
    found: &Found,
    exclude: &Ignore,
    items: &mut Vec<Item>,
) -> Result<()> {
    let pivot = source.split_once("/./").map(|(before, _)| rooted::as_text(before));
    let skipped = pivot.filter(|before| !before.is_empty()).map_or(0, |before| {
        let depth = before.split('/').count();
        let mut slashes = found.named.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        slashes.nth(depth - 1).map_or(found.named.len(), |(at, _)| at + 1)
    });
    let kept = &found.named[skipped..];
    for above in paths::above(kept) {
        let whole = &found.named[..skipped + above.len()];
        if let Some(entry) = origin.directory(whole)? {
            items.push(Item { to: above.to_vec(), entry, content: Content::None, stat: None });
        }
    }
    origin.take(&found.path, kept, exclude, items)
}

/// Whether a file is an archive that `ADD` unpacks, by its contents.
pub(crate) fn is_archive(file: File) -> Result<bool> {
    let Ok(plain) = compress::reader(BufReader::new(file)) else { return Ok(false) };
    let mut block = Vec::new();
    if plain.take(512).read_to_end(&mut block).is_err() || block.len() < 512 {
        return Ok(false);
    }
    // An old archive has no magic word, but its checksum is right.
    let stated = std::str::from_utf8(&block[148..156])
        .ok()
        .and_then(|text| u32::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok());
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    Ok(stated == Some(sum) && block[0] != 0)
}

/// How files appear in a layer.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    pub(crate) owner: (u32, u32),
    /// Whether what is copied keeps its own.
    pub(crate) keeps_owners: bool,
    pub(crate) chmod: Option<Chmod>,
    /// The time of what is made and not copied.
    pub(crate) now: Time,
    /// The latest time that anything may have.
    pub(crate) newest: Option<Time>,
}

type Output = Writer<HashingWriter<GzipWriter<BlobWriter>>>;

/// A layer that is being written.
pub(crate) struct Layer<'a> {
    view: &'a View,
    manner: Manner,
    output: Output,
    written: HashSet<Vec<u8>>,
    links: Links,
}

impl<'a> Layer<'a> {
    pub(crate) fn new(store: &Store, view: &'a View, manner: Manner) -> Result<Self> {
        let gzip = GzipWriter::new(store.blob_writer()?).context("compress layer")?;
        let output = Writer::new(HashingWriter::new(gzip, Algorithm::Sha256));
        let (written, links) = (HashSet::new(), Links::default());
        Ok(Self { view, manner, output, written, links })
    }

    /// The blob and its diff ID; `None` if nothing came.
    pub(crate) fn finish(self) -> Result<Option<(Descriptor, Digest)>> {
        if self.written.is_empty() {
            return Ok(None);
        }
        let (gzip, diff_id, _) = self.output.finish()?.finish();
        let (digest, size) = gzip.finish().context("compress layer")?.commit()?;
        Ok(Some((Descriptor::new(media_type::OCI_LAYER_GZIP, digest, size), diff_id)))
    }

    /// Makes a directory and those above it, as far as they are missing.
    pub(crate) fn make_directory(&mut self, path: &str) -> Result<()> {
        let path = self.view.resolve(path.as_bytes(), true)?;
        match self.view.get(&path)? {
            Some(entry) if entry.kind == Kind::Directory => Ok(()),
            Some(_) => bail!("/{} is no directory", String::from_utf8_lossy(&path)),
            None if path.is_empty() => Ok(()),
            None => {
                self.parents(&path)?;
                let entry = self.made();
                self.write(&path, entry, None)
            }
        }
    }

    /// Writes what was picked; what stands in a tree of its own is read from there.
    pub(crate) fn copy(
        &mut self,
        transfer: &Transfer,
        picked: Vec<Picked>,
        origin: &Origin,
    ) -> Result<()> {
        let own = transfer.sources.iter().find_map(|source| match source {
            Source::Repository(tree, _) => Some(tree),
            _ => None,
        });
        let origin = own.unwrap_or(origin);
        let several =
            picked.len() > 1 && picked.iter().any(|one| !matches!(one.what, What::Directory(_)));
        let target = self.view.resolve(transfer.target.as_bytes(), true)?;
        let existing = self.view.get(&target)?.map(|entry| entry.kind);
        let into =
            target.is_empty() || transfer.into || several || existing == Some(Kind::Directory);
        for Picked { name, what } in picked {
            match what {
                What::Directory(items) => self.directory(&target, items, origin)?,
                What::Tree(items) => {
                    self.directory_at(&target)?;
                    for item in items {
                        self.item(&target, item, origin)?;
                    }
                }
                What::File(mut item) => {
                    if into {
                        self.directory_at(&target)?;
                        item.to = name;
                    }
                    self.item(&target, item, origin)?;
                }
                What::Archive(item) => {
                    self.archive(&target, origin.contents(&item.content)?)?;
                }
            }
        }
        Ok(())
    }

    fn directory(&mut self, target: &[u8], items: Vec<Item>, origin: &Origin) -> Result<()> {
        let is_new = self.view.get(target)?.is_none() && !self.written.contains(target);
        self.check_directory(target)?;
        for mut item in items {
            if item.to.is_empty() {
                // What is in it is copied, not the directory: one that is there stays as it is, and
                // a new one has nothing of the source's.
                if !is_new || target.is_empty() {
                    continue;
                }
                item.entry = self.made();
            }
            self.item(target, item, origin)?;
        }
        Ok(())
    }

    fn directory_at(&mut self, path: &[u8]) -> Result<()> {
        self.check_directory(path)?;
        self.parents(&join(path, b"x"))
    }

    fn check_directory(&self, path: &[u8]) -> Result<()> {
        match self.view.get(path)? {
            Some(entry) if entry.kind != Kind::Directory => {
                bail!("cannot copy to non-directory: /{}", String::from_utf8_lossy(path))
            }
            _ => Ok(()),
        }
    }

    fn item(&mut self, target: &[u8], item: Item, origin: &Origin) -> Result<()> {
        let Item { to, mut entry, content, stat } = item;
        let path = match (target, &to[..]) {
            (target, b"") => target.to_vec(),
            (target, to) => join(target, to),
        };
        ensure!(!path.is_empty() || entry.kind == Kind::Directory, "/ is a directory");
        let shown = || format!("copy to {:?}", format!("/{}", String::from_utf8_lossy(&path)));
        if let Some(existing) = self.view.get(&path)? {
            let (was, is) = (existing.kind == Kind::Directory, entry.kind == Kind::Directory);
            ensure!(
                was || !is,
                "cannot copy to non-directory: /{}",
                String::from_utf8_lossy(&path)
            );
            ensure!(
                !was || is,
                "cannot replace to directory /{} with file",
                String::from_utf8_lossy(&path)
            );
        }
        self.parents(&path)?;
        if !self.manner.keeps_owners {
            (entry.uid, entry.gid) = self.manner.owner;
        }
        if let Some(chmod) = &self.manner.chmod
            && matches!(entry.kind, Kind::File | Kind::Directory)
        {
            entry.mode = chmod.apply(entry.mode, entry.kind == Kind::Directory);
        }
        entry.path.clone_from(&path);
        if let Some(stat) = &stat
            && self.links.is_another_name(&mut entry, stat)
        {
            return self.write(&path, entry, None).with_context(shown);
        }
        match content {
            Content::None => self.write(&path, entry, None),
            Content::Bytes(bytes) => self.write(&path, entry, Some(&mut &bytes[..])),
            content @ (Content::File(_) | Content::Fetched(_)) => {
                let mut file = origin.contents(&content)?;
                // It may have grown since it was looked at; the digest was of all of it.
                entry.size = file.metadata()?.len();
                self.write(&path, entry, Some(&mut file))
            }
        }
        .with_context(shown)
    }

    fn archive(&mut self, target: &[u8], file: File) -> Result<()> {
        self.directory_at(target)?;
        let plain = compress::reader(BufReader::new(file))?;
        let mut plain = BufReader::with_capacity(BUFFER, plain);
        let mut reader = Reader::new(&mut plain);
        while let Some(mut entry) = reader.next_entry()? {
            let shown = format!("unpack {:?}", String::from_utf8_lossy(&entry.path));
            let inside = beneath(&entry.path).context(shown.clone())?;
            if inside.is_empty() || matches!(entry.kind, Kind::Unknown(_)) {
                continue;
            }
            let path = self.view.resolve(&join(target, &inside), false)?;
            ensure!(
                !split(&path).1.starts_with(b".wh."),
                "{shown}: the name means something else in a layer"
            );
            if entry.kind == Kind::HardLink {
                entry.link = join(target, &beneath(&entry.link).context(shown.clone())?);
            }
            self.parents(&path)?;
            let size = if entry.kind == Kind::File { entry.size } else { 0 };
            ensure!(
                entry.segments.is_none(),
                "{shown}: files with holes are not taken from archives"
            );
            self.begin(&path, entry)?;
            if size > 0 {
                reader.contents(|piece| self.output.contents(piece)).context(shown)?;
            }
        }
        Ok(())
    }

    /// Names the directories above a path.
    fn parents(&mut self, path: &[u8]) -> Result<()> {
        for above in paths::above(path) {
            if self.written.contains(above) {
                continue;
            }
            match self.view.get(above)? {
                Some(entry) if entry.kind == Kind::Directory => self.begin(above, entry)?,
                Some(_) => {
                    bail!("cannot copy to non-directory: /{}", String::from_utf8_lossy(above))
                }
                None => {
                    let entry = self.made();
                    self.write(above, entry, None)?;
                }
            }
        }
        Ok(())
    }

    fn made(&self) -> Entry {
        let mut entry = Entry::new(Vec::new(), Kind::Directory, 0o755);
        (entry.uid, entry.gid) = self.manner.owner;
        entry.mtime = self.manner.now;
        entry
    }

    fn begin(&mut self, path: &[u8], mut entry: Entry) -> Result<()> {
        ensure!(
            !split(path).1.starts_with(b".wh."),
            "{:?}: the name means something else in a layer",
            String::from_utf8_lossy(path)
        );
        self.written.insert(path.to_vec());
        entry.path = path.to_vec();
        if entry.kind == Kind::Directory {
            entry.path.push(b'/');
        }
        if let Some(newest) = self.manner.newest {
            entry.mtime = entry.mtime.min(newest);
        }
        self.output.entry(&entry)
    }

    fn write(&mut self, path: &[u8], entry: Entry, content: Option<&mut dyn Read>) -> Result<()> {
        self.begin(path, entry)?;
        let Some(content) = content else { return Ok(()) };
        let mut buffer = vec![0; BUFFER];
        loop {
            match content.read(&mut buffer).context("read file")? {
                0 => return Ok(()),
                read => self.output.contents(&buffer[..read])?,
            }
        }
    }
}

/// A path of an archive, which may not lead out of where it is unpacked.
fn beneath(path: &[u8]) -> Result<Vec<u8>> {
    let mut components: Vec<&[u8]> = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => ensure!(components.pop().is_some(), "the path leads out of the archive"),
            name => components.push(name),
        }
    }
    Ok(components.join(&b'/'))
}

/// Whether the target must be given as a directory.
pub(crate) fn check_target(transfer: &Transfer) -> Result<()> {
    let several = transfer.sources.len() > 1;
    ensure!(
        !several || transfer.into,
        "when using {} with more than one source file, the destination must be a directory and end \
         with a /",
        if transfer.add { "ADD" } else { "COPY" }
    );
    Ok(())
}
