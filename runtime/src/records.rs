//! What is kept of supervised containers: `<records>/<id>/record.json` and beside it the log. It
//! lies where a reboot spares it, apart from the live state that runc's users know.
//!
//! The record is only ever replaced whole, unless there is no room for another. While a supervisor lives, its own children write it; a
//! command that starts or deletes a container holds the lock on its directory meanwhile.

use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::Sentinel;
use crate::state::{self, StateStore};

pub(crate) mod health;
pub(crate) mod names;
mod record;
pub(crate) mod standing;

pub(crate) use record::{Life, LogPlan, ProcessId, Setup, Supervised};

const RECORD_FILE: &str = "record.json";
const TEMPORARY: &str = ".record.json.tmp";
/// What the kernel counts the room of a file in.
const BLOCK: u64 = 512;
/// Present once somebody has asked for the end: then no policy starts the container again.
const STOPPED: &str = "stopped";
/// The socket that `attach` goes through.
pub(crate) const SOCKET: &str = "attach";

/// Held while a container is started or deleted.
#[derive(Debug)]
pub(crate) struct Held(#[expect(dead_code, reason = "dropping it lets go")] Flock<File>);

/// The records that belong to one directory of live state.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    /// `None` where there can be none: called `runc`, or without a home.
    dir: Option<PathBuf>,
    root: PathBuf,
}

impl Records {
    /// Touches nothing; `root` is where the containers' live state lies.
    pub(crate) fn new(dir: Option<PathBuf>, root: &Path) -> Self {
        Records { dir, root: root.to_owned() }
    }

    fn dir(&self) -> Result<&Path> {
        self.dir.as_deref().context(
            "nowhere to keep the record of a supervised container: set XDG_DATA_HOME or HOME, or \
             say --records DIR",
        )
    }

    /// Where they all lie.
    pub(crate) fn place(&self) -> Result<PathBuf> {
        self.dir().map(Path::to_owned)
    }

    /// The directory of one.
    pub(crate) fn directory(&self, id: &str) -> Result<PathBuf> {
        Ok(self.dir()?.join(id))
    }

    /// Whether there is one of this id, of whatever root.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.dir.as_ref().is_some_and(|dir| dir.join(id).exists())
    }

    /// Takes the id.
    pub(crate) fn create(&self, record: &Supervised) -> Result<Held> {
        state::check_id(&record.id)?;
        let dir = self.dir()?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("mkdir {}", dir.display()))?;
        let own = dir.join(&record.id);
        match DirBuilder::new().mode(0o700).create(&own) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(Sentinel::AlreadyExists.into());
            }
            Err(error) => return Err(error).with_context(|| format!("mkdir {}", own.display())),
        }
        let made = self.hold(&record.id).and_then(|held| {
            self.save(record)?;
            Ok(held)
        });
        if made.is_err() {
            self.remove(&record.id)?;
        }
        made
    }

    /// Waits until no other command starts or deletes it.
    pub(crate) fn hold(&self, id: &str) -> Result<Held> {
        let directory = self.directory(id)?;
        let file = match File::open(&directory) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Sentinel::NotExist.into());
            }
            Err(error) => {
                return Err(error).with_context(|| format!("open {}", directory.display()));
            }
        };
        Flock::lock(file, FlockArg::LockExclusive)
            .map(Held)
            .map_err(|(_, error): (_, Errno)| error)
            .with_context(|| format!("lock {}", directory.display()))
    }

    /// Replaces the record in one step. On a full disk, which is often full of the container's own log,
    /// it is overwritten: how the container ended must not be lost for want of a second copy.
    pub(crate) fn save(&self, record: &Supervised) -> Result<()> {
        let directory = self.directory(&record.id)?;
        let bytes = serde_json::to_vec_pretty(record).context("write the record")?;
        let full = |error: &anyhow::Error| {
            let errno =
                error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
            errno.is_some_and(|errno| [libc::ENOSPC, libc::EDQUOT].contains(&errno))
        };
        match state::replace(&directory, TEMPORARY, RECORD_FILE, &bytes) {
            Err(error) if full(&error) => {
                overwrite(&directory.join(RECORD_FILE), &bytes).map_err(|_| error)
            }
            replaced => replaced,
        }
    }

    /// Waits until what was saved would outlive a crash of the host.
    pub(crate) fn sync(&self, id: &str) -> Result<()> {
        let path = self.directory(id)?.join(RECORD_FILE);
        File::open(&path)
            .and_then(|file| file.sync_data())
            .with_context(|| format!("sync {}", path.display()))
    }

    /// Reads one; of another root's it says whose it is.
    pub(crate) fn load(&self, id: &str) -> Result<Supervised> {
        state::check_id(id)?;
        let Some(dir) = &self.dir else { return Err(Sentinel::NotExist.into()) };
        let record: Supervised = state::read(&dir.join(id).join(RECORD_FILE))?;
        if record.root != self.root {
            let root = record.root.display();
            return Err(anyhow!(Sentinel::NotExist).context(format!("it is of --root {root}")));
        }
        Ok(record)
    }

    /// The same where there may be none.
    pub(crate) fn find(&self, id: &str) -> Result<Option<Supervised>> {
        match self.load(id) {
            Ok(record) => Ok(Some(record)),
            Err(error) if crate::error::is(&error, Sentinel::NotExist) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All that belong to our root, by id; what can't be read comes as its error.
    pub(crate) fn all(&self) -> Result<Vec<(String, Result<Supervised>)>> {
        let Some(dir) = &self.dir else { return Ok(Vec::new()) };
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("open {}", dir.display())),
        };
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("read {}", dir.display()))?;
            let id = entry.file_name().to_string_lossy().into_owned();
            match self.load(&id) {
                // Another root's, or gone meanwhile, or on its way to be.
                Err(error) if crate::error::is(&error, Sentinel::NotExist) => {}
                other => all.push((id, other)),
            }
        }
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(all)
    }

    /// Forgets one; a second time is no error.
    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        state::check_id(id)?;
        let directory = self.directory(id)?;
        match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", directory.display()))
            }
            _ => Ok(()),
        }
    }

    /// Notes that somebody wants it to end, and to stay ended.
    pub(crate) fn mark_stopped(&self, id: &str) -> Result<()> {
        let path = self.directory(id)?.join(STOPPED);
        File::create(&path).map(drop).with_context(|| format!("create {}", path.display()))
    }

    /// Takes that back.
    pub(crate) fn unmark_stopped(&self, id: &str) -> Result<()> {
        let path = self.directory(id)?.join(STOPPED);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Whether somebody has asked for its end.
    pub(crate) fn is_marked_stopped(&self, id: &str) -> bool {
        self.directory(id).is_ok_and(|directory| directory.join(STOPPED).exists())
    }

    /// The id that `word` means: an id, a name, or the beginning of a generated id. A word that
    /// means nothing stays as it is, for the command to say so.
    pub(crate) fn resolve(&self, word: &str, store: &StateStore) -> Result<String> {
        if word.is_empty() || store.directory(word).exists() || self.has(word) {
            return Ok(word.to_owned());
        }
        choose(word, &self.names(store)?)
    }

    /// Ids and names of all containers.
    pub(crate) fn names(&self, store: &StateStore) -> Result<Vec<(String, String)>> {
        let mut known: Vec<(String, String)> = Vec::new();
        for (id, record) in self.all()? {
            known.push((id, record.map(|record| record.name).unwrap_or_default()));
        }
        for id in store.ids()?.unwrap_or_default() {
            if known.iter().all(|(other, _)| *other != id) {
                let name =
                    store.load(&id).ok().map(|record| names::of(&record)).unwrap_or_default();
                known.push((id, name));
            }
        }
        Ok(known)
    }

    /// Refuses a name that a container other than `id` has, as its name or its id.
    pub(crate) fn check_name(&self, name: &str, id: &str, store: &StateStore) -> Result<()> {
        state::check_id(name).with_context(|| format!("name {name:?}"))?;
        let known = self.names(store)?;
        let mut others = known.iter().filter(|(other, _)| other != id);
        match others.find(|(other, its)| its == name || other == name) {
            Some((owner, _)) => {
                let owner = short(owner);
                bail!(
                    "the name {name:?} is container {owner}'s: delete that, or say another --name"
                )
            }
            None => Ok(()),
        }
    }
}

/// By name, else by the beginning of a generated id, which must be one's alone.
fn choose(word: &str, known: &[(String, String)]) -> Result<String> {
    if let Some((id, _)) = known.iter().find(|(_, name)| name == word) {
        return Ok(id.clone());
    }
    let mut found = known.iter().filter(|(id, _)| is_generated(id) && id.starts_with(word));
    match (found.next(), found.next()) {
        (Some((id, _)), None) => Ok(id.clone()),
        (Some(_), Some(_)) => {
            Err(anyhow!("more than one container's id begins with {word}: say more of it"))
        }
        _ => Ok(word.to_owned()),
    }
}

/// 64 hexadecimal digits: ours, and not a user's word.
pub(crate) fn is_generated(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// So many digits of a generated id are shown to people.
pub(crate) const SHORT_ID: usize = 12;

/// How an id is shown to people.
pub(crate) fn short(id: &str) -> &str {
    if is_generated(id) { &id[..SHORT_ID] } else { id }
}

/// Overwrites a file that has room for so many bytes on the disk already.
fn overwrite(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let file = File::options().write(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    let metadata = file.metadata()?;
    let mut bytes = bytes.to_vec();
    // One write, and no other length before it and after it: who reads meanwhile sees JSON.
    bytes.resize(bytes.len().max(usize::try_from(metadata.len()).unwrap_or(0)), b'\n');
    if bytes.len() as u64 > metadata.blocks() * BLOCK {
        return Err(ErrorKind::StorageFull.into());
    }
    file.write_all_at(&bytes, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_means_a_name_or_the_one_id_that_begins_with_it() {
        let (a, b) = (format!("ab{}", "0".repeat(62)), format!("ac{}", "1".repeat(62)));
        let known = [
            (a.clone(), "quick_heron".to_owned()),
            (b.clone(), "ab".to_owned()),
            ("web".to_owned(), String::new()),
        ];
        assert_eq!(choose("quick_heron", &known).unwrap(), a);
        assert_eq!(choose("ab0", &known).unwrap(), a);
        assert_eq!(choose("ab", &known).unwrap(), b, "a name comes before a beginning");
        assert_eq!(choose("w", &known).unwrap(), "w", "only generated ids are cut short");
        assert_eq!(choose("zz", &known).unwrap(), "zz");
        let error = choose("a", &known).unwrap_err().to_string();
        assert!(error.contains("more than one"), "{error}");
    }

    #[test]
    fn a_generated_id_is_shown_by_its_first_digits() {
        assert_eq!(short(&"0f".repeat(32)), "0f0f0f0f0f0f");
        assert_eq!(short("web"), "web");
    }
}
