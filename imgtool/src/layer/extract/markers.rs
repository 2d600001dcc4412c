//! Markers: what a layer takes away from those beneath it.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result};
use rustix::fs::{self, FileType, Mode};

use super::{Extractor, Target, join, set_opaque, split};
use crate::rooted;

impl Extractor<'_> {
    /// A marker that hides one name of the lower layers.
    pub(super) fn hide(&mut self, parent: &[u8], name: &[u8]) -> Result<()> {
        if self.target == Target::Flat {
            let Some(parent) = self.directories.existing(parent)? else { return Ok(()) };
            return self.strip(parent.fd(), parent.inode(), name).map(drop);
        }
        if self.leads_through_no_directory(parent)? {
            return Ok(());
        }
        let path = join(parent, name);
        let parent = self.parent(parent)?;
        match rooted::try_stat(parent.fd(), name)? {
            Some(stat) if rooted::file_type(&stat) == FileType::Directory => {
                set_opaque(rooted::open_child(parent.fd(), name)?.as_fd())
            }
            // Whatever else this layer has there hides the lower entry by itself.
            Some(_) => Ok(()),
            None => {
                let mode = Mode::empty();
                fs::mknodat(parent.fd(), name, FileType::CharacterDevice, mode, 0)
                    .context("make whiteout")?;
                self.summary.whiteouts.push(path);
                Ok(())
            }
        }
    }

    /// Whether this layer has something else than directories on the way to `path`, by which all that
    /// lower layers have there is hidden already. Markers take nothing of their own layer away.
    fn leads_through_no_directory(&mut self, path: &[u8]) -> Result<bool> {
        let mut at = path;
        while !at.is_empty() && self.directories.existing(at)?.is_none() {
            let (above, name) = split(at);
            if let Some(above) = self.directories.existing(above)?
                && let Some(stat) = rooted::try_stat(above.fd(), name)?
            {
                return Ok(rooted::file_type(&stat) != FileType::Symlink);
            }
            at = above;
        }
        Ok(false)
    }

    /// A marker that hides all names that the lower layers have in a directory.
    pub(super) fn opaque(&mut self, path: &[u8]) -> Result<()> {
        if self.target == Target::Overlay {
            if self.leads_through_no_directory(path)? {
                return Ok(());
            }
            return set_opaque(self.parent(path)?.fd());
        }
        let Some(directory) = self.directories.existing(path)? else { return Ok(()) };
        for name in rooted::names(rooted::reopen(directory.fd())?)? {
            self.strip(directory.fd(), directory.inode(), name.to_bytes())?;
        }
        Ok(())
    }

    /// Removes what this layer did not give, at any depth, wherever in the archive the marker
    /// stands. Tells whether anything stays.
    fn strip(&mut self, parent: BorrowedFd<'_>, inode: u64, name: &[u8]) -> Result<bool> {
        let Some(stat) = rooted::try_stat(parent, name)? else { return Ok(false) };
        let mut stays = self.made.contains(&(inode, name.to_vec()));
        if rooted::file_type(&stat) == FileType::Directory {
            let directory = rooted::open_child(parent, name)?;
            for child in rooted::names(&directory)? {
                stays |= self.strip(directory.as_fd(), stat.st_ino, child.to_bytes())?;
            }
        }
        if !stays {
            rooted::remove(parent, name).context("remove what a whiteout hides")?;
            if matches!(rooted::file_type(&stat), FileType::Directory | FileType::Symlink) {
                self.directories.forget();
            }
        }
        Ok(stays)
    }
}
