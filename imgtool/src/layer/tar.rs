//! Tar archives as image layers use them: ustar, PAX and GNU headers in, a deterministic PAX
//! archive out. Parsing only; nothing here touches a file.

mod pax;
mod reader;
mod sparse;
mod writer;

pub(crate) use reader::Reader;
pub(crate) use sparse::Segment;
pub(crate) use writer::Writer;

/// Length of a block; headers and contents are padded to it.
pub(crate) const BLOCK: usize = 512;

/// Most bytes that a header beside an entry (PAX, GNU long name, sparse map) may have.
const MAX_HEADER: u64 = 4 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file.
    File,
    /// Another name of an entry before it (or of a lower layer): `Entry::link`.
    HardLink,
    /// A symbolic link to `Entry::link`.
    Symlink,
    /// A character device: `Entry::device`.
    CharDevice,
    /// A block device: `Entry::device`.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A type that this version does not know.
    Unknown(u8),
}

/// A point in time; the nanoseconds count upwards, before 1970 too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time {
    /// Seconds since 1970.
    pub(crate) seconds: i64,
    /// 0 to 999,999,999.
    pub(crate) nanoseconds: u32,
}

/// One entry, whatever headers described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The name as the archive gives it.
    pub(crate) path: Vec<u8>,
    /// What it is.
    pub(crate) kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Time of last modification.
    pub(crate) mtime: Time,
    /// Target of a symbolic or hard link.
    pub(crate) link: Vec<u8>,
    /// Major and minor number of a device.
    pub(crate) device: (u32, u32),
    /// Length of the file; holes count.
    pub(crate) size: u64,
    /// Extended attributes, sorted by name.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the contents belong, if the file has holes.
    pub(crate) segments: Option<Vec<Segment>>,
}

impl Entry {
    /// An entry without contents, owned by root, of 1970.
    pub(crate) fn new(path: Vec<u8>, kind: Kind, mode: u32) -> Self {
        Self {
            path,
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            link: Vec::new(),
            device: (0, 0),
            size: 0,
            xattrs: Vec::new(),
            segments: None,
        }
    }
}

/// Zero bytes after `size` bytes up to the next block.
fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}
