//! A file system of a few megabytes, in memory, where something of a scene lies.

use std::fs;
use std::path::{Path, PathBuf};

use super::command::Cmd;

/// Mounted until it is dropped.
pub(crate) struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts it, with options of tmpfs.
    pub(crate) fn at(path: &Path, options: &str) -> Self {
        fs::create_dir_all(path).unwrap();
        let options = format!("mode=700,{options}");
        Cmd::line("mount -t tmpfs tmpfs -o").arg(options).arg(path).run().success();
        Self { path: path.to_owned() }
    }

    /// Leaves only so many bytes free, in a file that is then removed to make room.
    pub(crate) fn fill_but(&self, free: u64) -> PathBuf {
        let state = rustix::fs::statvfs(&self.path).unwrap();
        let filler = self.path.join("filler");
        let length = (state.f_bavail * state.f_frsize).saturating_sub(free);
        fs::write(&filler, vec![0; usize::try_from(length).unwrap()]).unwrap();
        filler
    }

    /// From now on nothing can be written, or again.
    pub(crate) fn remount(&self, how: &str) {
        Cmd::line("mount -o").arg(format!("remount,{how}")).arg(&self.path).run().success();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Cmd::line("umount --lazy").arg(&self.path).run();
    }
}
