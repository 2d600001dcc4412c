//! Layers as other tools write them, entry by entry and byte by byte: each test says exactly what
//! stands in its archive, also what no well-behaved tool would write.

use tar::{EntryType, Header};

/// A tar archive being written.
#[derive(Default)]
pub(crate) struct Tarball(Vec<u8>);

/// One entry before it is written; made by [`Entry::new`] and the methods that change it.
#[derive(Clone)]
pub(crate) struct Entry {
    name: String,
    kind: EntryType,
    mode: u32,
    owner: (u64, u64),
    mtime: u64,
    link: String,
    device: (u32, u32),
    data: Vec<u8>,
    pax: Vec<(String, Vec<u8>)>,
    sparse: Option<(Vec<(u64, u64)>, u64)>,
}

impl Entry {
    pub(crate) fn new(kind: EntryType, name: &str) -> Self {
        let mode = if kind == EntryType::Directory { 0o755 } else { 0o644 };
        let (name, link) = (name.to_owned(), String::new());
        let (data, pax) = (Vec::new(), Vec::new());
        let mtime = 1_600_000_000;
        Self {
            name,
            kind,
            mode,
            owner: (0, 0),
            mtime,
            link,
            device: (0, 0),
            data,
            pax,
            sparse: None,
        }
    }

    pub(crate) fn file(name: &str, data: impl Into<Vec<u8>>) -> Self {
        Self { data: data.into(), ..Self::new(EntryType::Regular, name) }
    }

    pub(crate) fn dir(name: &str) -> Self {
        Self::new(EntryType::Directory, name)
    }

    pub(crate) fn symlink(name: &str, target: &str) -> Self {
        Self { link: target.to_owned(), mode: 0o777, ..Self::new(EntryType::Symlink, name) }
    }

    pub(crate) fn hardlink(name: &str, target: &str) -> Self {
        Self { link: target.to_owned(), ..Self::new(EntryType::Link, name) }
    }

    /// Takes away `name`, which a lower layer has.
    pub(crate) fn whiteout(name: &str) -> Self {
        let (dir, base) = name.rsplit_once('/').map_or(("", name), |(dir, base)| (dir, base));
        let slash = if dir.is_empty() { "" } else { "/" };
        Self::file(&format!("{dir}{slash}.wh.{base}"), "")
    }

    /// Takes away all that lower layers have in `dir`.
    pub(crate) fn opaque(dir: &str) -> Self {
        Self::file(&format!("{dir}/.wh..wh..opq"), "")
    }

    pub(crate) fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    pub(crate) fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.owner = (uid, gid);
        self
    }

    pub(crate) fn mtime(mut self, seconds: u64) -> Self {
        self.mtime = seconds;
        self
    }

    pub(crate) fn device(mut self, major: u32, minor: u32) -> Self {
        self.device = (major, minor);
        self
    }

    /// A record of the extended header before this entry; the value may hold any bytes.
    pub(crate) fn pax(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.pax.push((key.to_owned(), value.as_ref().to_owned()));
        self
    }

    pub(crate) fn xattr(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.pax(&format!("SCHILY.xattr.{name}"), value)
    }

    /// A sparse file as old GNU tar writes it: up to four pieces in the header, `size` in all.
    pub(crate) fn gnu_sparse(mut self, pieces: &[(u64, &[u8])], size: u64) -> Self {
        self.kind = EntryType::GNUSparse;
        self.data = pieces.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
        let map = pieces.iter().map(|(at, bytes)| (*at, bytes.len() as u64)).collect();
        self.sparse = Some((map, size));
        self
    }

    /// A sparse file in the PAX format 0.0: the map is in records of the extended header.
    pub(crate) fn pax_sparse_records(mut self, pieces: &[(u64, &[u8])], size: u64) -> Self {
        self.data = pieces.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
        let count = pieces.len().to_string();
        let head = self.pax("GNU.sparse.size", size.to_string()).pax("GNU.sparse.numblocks", count);
        pieces.iter().fold(head, |entry, (at, bytes)| {
            let entry = entry.pax("GNU.sparse.offset", at.to_string());
            entry.pax("GNU.sparse.numbytes", bytes.len().to_string())
        })
    }

    /// The same in the format 0.1: the map is one record.
    pub(crate) fn pax_sparse_map(mut self, pieces: &[(u64, &[u8])], size: u64) -> Self {
        self.data = pieces.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
        let map = pieces.iter().map(|(at, bytes)| format!("{at},{}", bytes.len()));
        let map = map.collect::<Vec<_>>().join(",");
        let name = std::mem::replace(&mut self.name, "GNUSparseFile.0/file".to_owned());
        self.pax("GNU.sparse.size", size.to_string())
            .pax("GNU.sparse.numblocks", pieces.len().to_string())
            .pax("GNU.sparse.name", name)
            .pax("GNU.sparse.map", map)
    }

    /// Records for all entries that follow.
    pub(crate) fn global(records: &[(&str, &str)]) -> Self {
        let records = records.iter().flat_map(|(key, value)| record(key, value.as_bytes()));
        Self { data: records.collect(), ..Self::new(EntryType::XGlobalHeader, "pax_global_header") }
    }

    /// What GNU tar puts before an entry whose name, or target, is too long for the header.
    pub(crate) fn gnu_long(kind: EntryType, text: &str) -> Self {
        Self { data: format!("{text}\0").into_bytes(), ..Self::new(kind, "././@LongLink") }
    }

    /// A sparse file in the PAX format 1.0: the map stands in front of the data.
    pub(crate) fn pax_sparse(mut self, pieces: &[(u64, &[u8])], size: u64) -> Self {
        let mut map = format!("{}\n", pieces.len());
        for (at, bytes) in pieces {
            map += &format!("{at}\n{}\n", bytes.len());
        }
        let mut data = map.into_bytes();
        data.resize(data.len().next_multiple_of(512), 0);
        data.extend(pieces.iter().flat_map(|(_, bytes)| bytes.iter().copied()));
        self.data = data;
        let name = std::mem::replace(&mut self.name, "GNUSparseFile.0/file".to_owned());
        self.pax("GNU.sparse.major", "1")
            .pax("GNU.sparse.minor", "0")
            .pax("GNU.sparse.name", name)
            .pax("GNU.sparse.realsize", size.to_string())
    }
}

impl Tarball {
    pub(crate) fn of(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut tarball = Self::default();
        for entry in entries {
            tarball.add(entry);
        }
        tarball
    }

    pub(crate) fn add(&mut self, mut entry: Entry) {
        // A name too long for the header goes into the extended one, as every writer does.
        if entry.name.len() > 100 {
            let name = entry.name.clone();
            entry = entry.pax("path", name);
            entry.name.truncate(90);
        }
        if entry.link.len() > 100 {
            let link = entry.link.clone();
            entry = entry.pax("linkpath", link);
            entry.link.truncate(90);
        }
        if !entry.pax.is_empty() {
            let records = entry.pax.iter().flat_map(|(key, value)| record(key, value)).collect();
            let mut extended = Entry::new(EntryType::XHeader, "PaxHeaders.0/entry");
            extended.data = records;
            self.block(&extended);
        }
        self.block(&entry);
    }

    fn block(&mut self, entry: &Entry) {
        let mut header =
            if entry.sparse.is_some() { Header::new_gnu() } else { Header::new_ustar() };
        // `set_path` would refuse what some tests are about: names with `..` and absolute ones.
        header.as_old_mut().name[..entry.name.len()].copy_from_slice(entry.name.as_bytes());
        header.as_old_mut().linkname[..entry.link.len()].copy_from_slice(entry.link.as_bytes());
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        header.set_uid(entry.owner.0);
        header.set_gid(entry.owner.1);
        header.set_mtime(entry.mtime);
        header.set_size(entry.data.len() as u64);
        if entry.kind.is_character_special() || entry.kind.is_block_special() {
            header.set_device_major(entry.device.0).expect("a ustar header has device numbers");
            header.set_device_minor(entry.device.1).expect("a ustar header has device numbers");
        }
        if let (Some((map, size)), Some(gnu)) = (&entry.sparse, header.as_gnu_mut()) {
            for (slot, (at, length)) in gnu.sparse.iter_mut().zip(map) {
                slot.offset.copy_from_slice(format!("{at:011o}\0").as_bytes());
                slot.numbytes.copy_from_slice(format!("{length:011o}\0").as_bytes());
            }
            gnu.realsize.copy_from_slice(format!("{size:011o}\0").as_bytes());
        }
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(&entry.data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    /// The archive with its two closing blocks.
    pub(crate) fn bytes(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}
