//! Changes a tree at random, each seed in its own way, as containers change theirs: what a layer must
//! be able to tell.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, RenameFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

/// Names that paths are made of: few, so that changes meet, and such as archives get wrong.
const NAMES: [&[u8]; 16] = [
    b"a",
    b"b",
    b"c",
    b"d",
    b"e",
    b"f",
    b"-rf",
    b"with space",
    b"new\nline",
    b"\xff\xfe not utf-8",
    "\u{fc}n\u{ef}".as_bytes(),
    b".whx",
    b".hidden",
    b"back\\slash",
    b"%2f",
    b"..more",
];

/// `security.capability` for `cap_net_bind_service=ep`, as `setcap` writes it.
const FILE_CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Makes `changes` changes beneath `root`, but not to the paths in `spared` nor beneath them. The
/// same seed in an equal tree makes the same changes, but for the times that the kernel sets.
pub(crate) fn mutate(root: &Path, seed: u64, changes: usize, spared: &[&str]) -> io::Result<()> {
    let spared = spared.iter().map(|path| root.join(path.trim_start_matches('/'))).collect();
    let mut mutator = Mutator {
        random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        root: root.to_owned(),
        spared,
    };
    (0..changes).try_for_each(|_| mutator.change())
}

struct Mutator {
    random: u64,
    root: PathBuf,
    spared: Vec<PathBuf>,
}

impl Mutator {
    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from((self.random >> 11) % end as u64).unwrap_or(0)
    }

    fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    fn change(&mut self) -> io::Result<()> {
        match self.below(20) {
            0..=6 => self.make_somewhere(),
            7 | 8 => self.with_any(|m, path| m.remove(&path)),
            // By something of another type, often.
            9 | 10 => self.with_any(|m, path| {
                m.remove(&path)?;
                m.make(&path)
            }),
            // A directory that hides what was in it.
            11 => self.with_any(|m, path| {
                if !fs::symlink_metadata(&path)?.is_dir() {
                    return Ok(());
                }
                m.remove(&path)?;
                m.directory(&path)?;
                let name = m.name();
                m.make(&path.join(name))
            }),
            12 | 13 => self.with_any(|m, path| m.rename(&path)),
            14 => self.with_any(|m, path| m.write_over(&path)),
            15 => self.with_any(|m, path| m.edit_unseen(&path)),
            16 => self.with_any(|m, path| m.replace_by_rename(&path)),
            17 => self.with_any(|m, path| m.xattr(&path)),
            18 => self.with_any(|m, path| m.describe(&path)),
            _ => {
                // As much as a directory's own metadata may change, the root's may.
                let root = self.root.clone();
                match self.below(4) {
                    0 => self.describe(&root),
                    _ => self.with_any(|m, path| m.link_again(&path)),
                }
            }
        }
    }

    /// All paths there are beneath the root, without the spared ones.
    fn paths(&self, directories: bool) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut open = vec![self.root.clone()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory)? {
                let entry = entry?;
                let path = entry.path();
                if self.spared.contains(&path) {
                    continue;
                }
                let is_directory = entry.file_type()?.is_dir();
                if is_directory {
                    open.push(path.clone());
                }
                if is_directory || !directories {
                    found.push(path);
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// Does something to a path that is there, if there is any.
    fn with_any(
        &mut self,
        work: impl FnOnce(&mut Self, PathBuf) -> io::Result<()>,
    ) -> io::Result<()> {
        let paths = self.paths(false)?;
        if paths.is_empty() {
            return self.make_somewhere();
        }
        let chosen = self.below(paths.len());
        work(self, paths[chosen].clone())
    }

    fn name(&mut self) -> OsString {
        if self.below(30) == 0 {
            return OsString::from("long".repeat(1 + self.below(60)));
        }
        OsString::from_vec(self.one_of(&NAMES).to_vec())
    }

    /// A path that may be there already.
    fn place(&mut self) -> io::Result<PathBuf> {
        let mut directories = self.paths(true)?;
        directories.push(self.root.clone());
        let chosen = self.below(directories.len());
        let path = directories[chosen].join(self.name());
        Ok(path)
    }

    fn make_somewhere(&mut self) -> io::Result<()> {
        let path = self.place()?;
        if self.spared.contains(&path) {
            return Ok(());
        }
        if path.symlink_metadata().is_ok() {
            self.remove(&path)?;
        }
        self.make(&path)
    }

    /// Makes something, unless there is something.
    fn make(&mut self, path: &Path) -> io::Result<()> {
        if path.symlink_metadata().is_ok() {
            return Ok(());
        }
        match self.below(16) {
            0..=4 => self.file(path)?,
            5..=8 => return self.directory(path),
            9 => self.sparse(path)?,
            10 | 11 => return self.symlink(path),
            12 => return self.hard_link(path),
            13 => node(path, FileType::Fifo, 0)?,
            14 => {
                let minor = u32::try_from(self.below(300)).unwrap_or(0);
                node(path, FileType::CharacterDevice, rustix::fs::makedev(1, minor))?;
            }
            _ => {
                let minor = u32::try_from(self.below(300)).unwrap_or(0);
                node(path, FileType::BlockDevice, rustix::fs::makedev(259, minor))?;
            }
        }
        self.maybe_describe(path)
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.one_of(&[0, 1, 511, 512, 513, 5000, 70_000]);
        let byte = u8::try_from(self.below(256)).unwrap_or(0);
        (0..length).map(|at| byte.wrapping_add(u8::try_from(at % 251).unwrap_or(0))).collect()
    }

    fn file(&mut self, path: &Path) -> io::Result<()> {
        let bytes = self.bytes();
        fs::write(path, bytes)
    }

    fn directory(&mut self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o755).create(path)?;
        for _ in 0..self.below(4) {
            let name = self.name();
            self.make(&path.join(name))?;
        }
        self.maybe_describe(path)
    }

    /// Data between holes, at the start, in the middle and at the end.
    fn sparse(&mut self, path: &Path) -> io::Result<()> {
        let mut file = fs::File::create_new(path)?;
        for block in 0..1 + self.below(40) {
            if self.below(3) == 0 {
                file.seek(SeekFrom::Start(block as u64 * 8192 + self.below(2) as u64 * 700))?;
                file.write_all(&self.bytes()[..])?;
            }
        }
        let end = file.metadata()?.len() + self.below(3) as u64 * 100_000;
        file.set_len(end)
    }

    fn symlink(&mut self, path: &Path) -> io::Result<()> {
        let name = self.name();
        let target = match self.below(5) {
            0 => PathBuf::from("/").join(name),
            1 => Path::new("../..").join(name),
            2 => PathBuf::from("no/where"),
            3 => PathBuf::from("t".repeat(1 + self.below(400))),
            _ => PathBuf::from(name),
        };
        std::os::unix::fs::symlink(target, path)?;
        if self.below(3) == 0 {
            self.own(path)?;
            self.time(path)?;
        }
        Ok(())
    }

    /// Another name of a file that has one elsewhere.
    fn hard_link(&mut self, path: &Path) -> io::Result<()> {
        let mut files = self.paths(false)?;
        files.retain(|path| fs::symlink_metadata(path).is_ok_and(|found| !found.is_dir()));
        if files.is_empty() {
            return self.file(path);
        }
        let chosen = self.below(files.len());
        fs::hard_link(&files[chosen], path)
    }

    fn link_again(&mut self, path: &Path) -> io::Result<()> {
        let place = self.place()?;
        if fs::symlink_metadata(path)?.is_dir() || place.symlink_metadata().is_ok() {
            return Ok(());
        }
        fs::hard_link(path, place)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        if fs::symlink_metadata(path)?.is_dir() {
            return fs::remove_dir_all(path);
        }
        fs::remove_file(path)
    }

    fn rename(&mut self, path: &Path) -> io::Result<()> {
        let to = self.place()?;
        if to.starts_with(path) || path.starts_with(&to) || self.spared.contains(&to) {
            return Ok(());
        }
        let flags = match self.below(3) {
            0 if to.symlink_metadata().is_ok() => RenameFlags::EXCHANGE,
            _ => RenameFlags::NOREPLACE,
        };
        match rustix::fs::renameat_with(CWD, path, CWD, &to, flags) {
            // A directory of a lower layer can't be moved in an overlay, nor always exchanged.
            Err(Errno::XDEV | Errno::EXIST | Errno::INVAL) => Ok(()),
            result => Ok(result?),
        }
    }

    fn write_over(&mut self, path: &Path) -> io::Result<()> {
        if !fs::symlink_metadata(path)?.is_file() {
            return self.describe(path);
        }
        let mut file = fs::OpenOptions::new().write(true).open(path)?;
        let length = file.metadata()?.len();
        match self.below(3) {
            0 => file.set_len(length / 2),
            1 => {
                file.seek(SeekFrom::Start(length))?;
                file.write_all(b"appended")
            }
            _ => file.write_all(b"written over"),
        }
    }

    /// Other contents with the size and the time that they had before.
    fn edit_unseen(&mut self, path: &Path) -> io::Result<()> {
        let before = fs::symlink_metadata(path)?;
        if !before.is_file() || before.len() == 0 {
            return Ok(());
        }
        let byte = [u8::try_from(self.below(256)).unwrap_or(0)];
        fs::OpenOptions::new().write(true).open(path)?.write_all(&byte)?;
        set_time(path, before.mtime(), before.mtime_nsec())
    }

    /// As editors and package managers write files.
    fn replace_by_rename(&mut self, path: &Path) -> io::Result<()> {
        if fs::symlink_metadata(path)?.is_dir() {
            return self.describe(path);
        }
        let beside = path.with_file_name("being written");
        self.file(&beside)?;
        self.maybe_describe(&beside)?;
        fs::rename(beside, path)
    }

    fn maybe_describe(&mut self, path: &Path) -> io::Result<()> {
        if self.below(2) == 0 { self.describe(path) } else { Ok(()) }
    }

    /// Owner, mode, time and attributes, or some of them.
    fn describe(&mut self, path: &Path) -> io::Result<()> {
        if self.below(2) == 0 {
            self.own(path)?;
        }
        let is_link = fs::symlink_metadata(path)?.file_type().is_symlink();
        if self.below(2) == 0 && !is_link {
            let mode = self.one_of(&[0o644, 0o755, 0o000, 0o4755, 0o2711, 0o1777, 0o6640, 0o400]);
            rustix::fs::chmod(path, Mode::from_raw_mode(mode))?;
        }
        if self.below(3) == 0 {
            self.xattr(path)?;
        }
        if self.below(2) == 0 {
            self.time(path)?;
        }
        Ok(())
    }

    fn own(&mut self, path: &Path) -> io::Result<()> {
        let mut id = || self.one_of(&[0, 1, 33, 1000, 65534, 2_097_151, 2_097_152, 3_000_000_000]);
        let (uid, gid) = (Uid::from_raw(id()), Gid::from_raw(id()));
        Ok(rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn time(&mut self, path: &Path) -> io::Result<()> {
        let seconds =
            self.one_of(&[0, 1, 1_000_000_000, 1_700_000_000, 4_000_000_000, 8_589_934_593]);
        let nanoseconds = self.one_of(&[0, 1, 500_000_000, 999_999_999]);
        set_time(path, seconds, nanoseconds)
    }

    fn xattr(&mut self, path: &Path) -> io::Result<()> {
        let kind = fs::symlink_metadata(path)?.file_type();
        if !kind.is_file() && !kind.is_dir() || kind.is_fifo() {
            return Ok(());
        }
        let name = self.one_of(&["user.one", "user.two", "user.a_b", "security.capability"]);
        if self.below(3) == 0 {
            return match rustix::fs::lremovexattr(path, name) {
                Err(Errno::NODATA) => Ok(()),
                result => Ok(result?),
            };
        }
        let value: &[u8] = match name {
            "security.capability" if kind.is_file() => &FILE_CAPABILITY,
            "security.capability" => return Ok(()),
            _ => self.one_of(&[b"plain", b"", b"new\nline\0zero=\xff", &[b'x'; 700]]),
        };
        Ok(rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())?)
    }
}

fn node(path: &Path, kind: FileType, device: u64) -> io::Result<()> {
    Ok(rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device)?)
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
