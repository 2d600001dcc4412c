//! Who may touch the store when. Two locks, always taken in this order:
//!
//! - `lock`: shared by everybody who adds to the store or relies on what is in
//!   it, exclusive for whoever deletes. It also says what in `staging/` is
//!   dead: whoever holds it exclusively knows that nobody else is staging.
//! - the root directory: exclusive while `index.json` is read and replaced.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{Store, cgroups};
use crate::userns;

/// Interrupted downloads are kept this long, so that a second pull resumes them.
const PARTIAL_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// The prefix of the names in `staging/` of what a step of a build runs in. Its control groups have
/// the same name.
pub(crate) const RUN_PREFIX: &str = "imgtool-run-";
/// The prefix of their names in `staging/`.
pub(super) const PARTIAL_PREFIX: &str = "partial-";

/// A held lock, given back on drop.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Flock<File>,
}

impl Store {
    /// Keeps what is in the store from being deleted. Waits for a deletion
    /// under way, and clears what dead processes left in staging.
    pub(crate) fn lock_shared(&self) -> Result<Lock> {
        let file = match Flock::lock(self.lock_file()?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => {
                self.clear_staging()?;
                lock.relock(FlockArg::LockShared).context("lock store")?;
                lock
            }
            Err((file, _)) => wait_lock(file, FlockArg::LockShared)?,
        };
        Ok(Lock { _file: file })
    }

    /// The same for who only reads, of a store that may be read-only. One
    /// without a lock file was never written to by us.
    pub(crate) fn lock_reading(&self) -> Result<Option<Lock>> {
        let path = self.root().join("lock");
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path);
        match opened {
            Ok(file) => Ok(Some(Lock { _file: wait_lock(file, FlockArg::LockShared)? })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("open {}", path.display())),
        }
    }

    /// Waits until nobody else uses the store; for deletions.
    pub(crate) fn lock_exclusive(&self) -> Result<Lock> {
        let file = wait_lock(self.lock_file()?, FlockArg::LockExclusive)?;
        self.clear_staging()?;
        Ok(Lock { _file: file })
    }

    /// The same if nobody uses the store at this moment.
    pub(crate) fn try_lock_exclusive(&self) -> Result<Option<Lock>> {
        match Flock::lock(self.lock_file()?, FlockArg::LockExclusiveNonblock) {
            Ok(file) => {
                self.clear_staging()?;
                Ok(Some(Lock { _file: file }))
            }
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno).context("lock store"),
        }
    }

    /// Serialises changes of `index.json`; never held for long.
    pub(super) fn lock_index(&self) -> Result<Lock> {
        let directory = File::open(self.root())
            .with_context(|| format!("open store {}", self.root().display()))?;
        Ok(Lock { _file: wait_lock(directory, FlockArg::LockExclusive)? })
    }

    fn lock_file(&self) -> Result<File> {
        let path = self.root().join("lock");
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))
    }

    /// Gives up what broken downloads left, however recent. The exclusive lock is witness that none is
    /// under way.
    pub(crate) fn forget_downloads(&self, _lock: &Lock) -> Result<()> {
        self.clear_staging_but(Duration::ZERO)
    }

    fn clear_staging(&self) -> Result<()> {
        self.clear_staging_but(PARTIAL_KEPT)
    }

    /// Removes what is left in staging, but for downloads that broke off more recently than this. Only
    /// for the holder of the exclusive lock.
    fn clear_staging_but(&self, kept: Duration) -> Result<()> {
        let staging = self.make_staging()?;
        let entries =
            fs::read_dir(&staging).with_context(|| format!("read {}", staging.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("read {}", staging.display()))?;
            let metadata = entry.metadata()?;
            let partial =
                entry.file_name().as_encoded_bytes().starts_with(PARTIAL_PREFIX.as_bytes());
            let recent =
                metadata.modified().is_ok_and(|time| time.elapsed().is_ok_and(|age| age < kept));
            if partial && recent && metadata.is_file() {
                continue;
            }
            userns::remove_tree(&entry.path())
                .with_context(|| format!("remove stale {}", entry.path().display()))?;
            if let Some(name) = entry.file_name().to_str().filter(|n| n.starts_with(RUN_PREFIX)) {
                cgroups::remove(name);
            }
        }
        Ok(())
    }
}

fn wait_lock(file: File, how: FlockArg) -> Result<Flock<File>> {
    let mut file = file;
    loop {
        match Flock::lock(file, how) {
            Ok(lock) => return Ok(lock),
            Err((again, Errno::EINTR)) => file = again,
            Err((_, errno)) => return Err(errno).context("lock store"),
        }
    }
}
