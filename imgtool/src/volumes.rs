//! Volumes by name: directories of the store that outlive bundles, `volumes/NAME/_data`, each with
//! a record beside it.

pub(crate) mod options;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::store::{Lock, Store, make_dir, names_in, sync_dir};
use crate::{bundle, rooted, userns};

const DIRECTORY: &str = "volumes";
const DATA: &str = "_data";
const RECORD: &str = "volume.json";
const MAX_RECORD_BYTES: u64 = 1 << 20;

/// A volume, as its record has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) created: String,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// What makes it a mount of something else.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) options: BTreeMap<String, String>,
}

/// Docker's rule; such a name is no path.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    ensure!(
        name.len() > 1
            && name.len() <= 255
            && name.as_bytes()[0].is_ascii_alphanumeric()
            && name.bytes().all(plain),
        "invalid name of a volume {name:?}: [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 2 to 255 of them; \
         a directory is written with a slash: ./{name}"
    );
    Ok(())
}

impl Store {
    fn volumes_dir(&self) -> PathBuf {
        self.root().join(DIRECTORY)
    }

    /// Where the content of a volume lies.
    pub(crate) fn volume_data(&self, name: &str) -> PathBuf {
        self.volumes_dir().join(name).join(DATA)
    }

    /// Makes a volume; one that is there stays as it is. The caller holds the store's lock.
    pub(crate) fn create_volume(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        options: &BTreeMap<String, String>,
    ) -> Result<()> {
        check_name(name)?;
        make_dir(&self.volumes_dir())?;
        let target = self.volumes_dir().join(name);
        if target.exists() {
            let other = !options.is_empty() && self.volume(name)?.options != *options;
            ensure!(!other, "volume {name} is there already, with other options");
            return Ok(());
        }
        let made = || -> Result<()> {
            let staged =
                tempfile::Builder::new().prefix("volume-").tempdir_in(self.make_staging()?)?;
            fs::DirBuilder::new().mode(0o755).create(staged.path().join(DATA))?;
            let volume = Volume {
                name: name.to_owned(),
                created: Timestamp::now().to_string(),
                labels: labels.clone(),
                options: options.clone(),
            };
            fs::write(staged.path().join(RECORD), serde_json::to_vec_pretty(&volume)?)?;
            match fs::rename(staged.path(), &target) {
                // Somebody else was faster.
                Err(_) if target.exists() => Ok(()),
                renamed => Ok(renamed.and_then(|()| sync_dir(&self.volumes_dir()))?),
            }
        };
        made().with_context(|| format!("create volume {name}"))
    }

    /// The directory of a volume that a bundle mounts, made if it is not there.
    pub(crate) fn use_volume(&self, name: &str) -> Result<PathBuf> {
        self.create_volume(name, &BTreeMap::new(), &BTreeMap::new())?;
        let data = self.volume_data(name);
        data.canonicalize().with_context(|| format!("find {}", data.display()))
    }

    /// All of them, by name.
    pub(crate) fn volumes(&self) -> Result<Vec<Volume>> {
        let mut volumes = Vec::new();
        for name in names_in(&self.volumes_dir())? {
            volumes.push(self.volume(&name.to_string_lossy())?);
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    pub(crate) fn volume(&self, name: &str) -> Result<Volume> {
        check_name(name)?;
        let path = self.volumes_dir().join(name).join(RECORD);
        let mut bytes = Vec::new();
        match fs::File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("no such volume: {name} (imgtool volume list shows those here)")
            }
            file => file.and_then(|file| file.take(MAX_RECORD_BYTES).read_to_end(&mut bytes)),
        }
        .with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("parse {}", path.display()))
    }

    /// Removes a volume that no bundle mounts. The lock keeps bundles from being made meanwhile.
    pub(crate) fn remove_volume(&self, name: &str, _lock: &Lock) -> Result<()> {
        let volume = self.volume(name)?;
        let data = self.volume_data(&volume.name);
        let data = data.canonicalize().unwrap_or(data);
        if let Some(user) = bundle::users_of_volume(self, name, &data)?.first() {
            bail!("volume {name} is in use by bundle {} (imgtool rm removes that)", user.display());
        }
        // What is half removed must not be found under the name.
        let grave = tempfile::Builder::new()
            .prefix("volume-")
            .tempdir_in(self.make_staging()?)
            .with_context(|| format!("remove volume {name}"))?;
        let buried = grave.path().join("removed");
        fs::rename(self.volumes_dir().join(name), &buried)
            .with_context(|| format!("remove volume {name}"))?;
        // A container may have left what is not ours alone.
        userns::enter()?;
        rooted::remove_path(&buried).with_context(|| format!("remove volume {name}"))?;
        grave.close().with_context(|| format!("remove volume {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_paths() {
        for good in ["data", "a1", "Web_1.x-y"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a", ".", "..", ".a", "-a", "a/b", "a b", "a\n", "../x"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn volumes_are_made_once_listed_and_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Store::open(Some(&scratch.path().join("store"))).unwrap();
        assert!(store.volumes().unwrap().is_empty());
        let labels = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        let none = BTreeMap::new();
        store.create_volume("data", &labels, &none).unwrap();
        fs::write(store.use_volume("data").unwrap().join("kept"), "x").unwrap();
        store.create_volume("data", &none, &none).unwrap();
        let other = BTreeMap::from([("type".to_owned(), "tmpfs".to_owned())]);
        assert!(store.create_volume("data", &none, &other).is_err());
        assert_eq!(store.volume("data").unwrap().labels, labels);
        assert!(store.volume_data("data").join("kept").exists());
        store.use_volume("another").unwrap();
        let names: Vec<_> = store.volumes().unwrap().into_iter().map(|v| v.name).collect();
        assert_eq!(names, ["another", "data"]);
        let lock = store.lock_exclusive().unwrap();
        store.remove_volume("data", &lock).unwrap();
        assert!(store.remove_volume("data", &lock).is_err());
        assert!(!scratch.path().join("store/volumes/data").exists());
    }
}
