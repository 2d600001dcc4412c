//! `--volumes-from`: the volumes of another bundle, as its config.json has them.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::config::Mount;
use super::flags::{PROPAGATION, VolumesFrom};
use super::record::Record;
use super::{annotations, locate};
use crate::commit::tree::bundle_config;
use crate::store::Store;

/// What is mounted there, with absolute sources.
pub(crate) fn volumes(store: &Store, from: &VolumesFrom) -> Result<Vec<Mount>> {
    let directory = locate(store, &from.container)?;
    let record = Record::read(&directory)?;
    let document = bundle_config(&directory)?;
    let mounts = document["mounts"].as_array().into_iter().flatten();
    let is_volume = |mount: &&Value| {
        let target = mount["destination"].as_str();
        record.volumes.iter().any(|volume| Some(volume.as_str()) == target)
    };
    mounts
        .filter(is_volume)
        .map(|mount| {
            read(mount, &directory, from.read_only).with_context(|| {
                let (target, bundle) = (&mount["destination"], directory.display());
                format!("--volumes-from: what bundle {bundle} mounts on {target} is not understood")
            })
        })
        .collect()
}

/// The volumes that have names, for whoever asks whether they are used.
pub(crate) fn names(store: &Store, container: &str) -> Result<Vec<String>> {
    let document = bundle_config(&locate(store, container)?)?;
    let named = document["annotations"][annotations::VOLUMES].as_str().unwrap_or_default();
    Ok(named.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

fn read(mount: &Value, directory: &Path, read_only: bool) -> Option<Mount> {
    let options: Vec<&str> =
        mount["options"].as_array()?.iter().filter_map(|option| option.as_str()).collect();
    let kind = mount["type"].as_str()?;
    let source = mount["source"].as_str()?;
    let has = |word: &str| options.contains(&word);
    let propagation = PROPAGATION.into_iter().find(|word| has(word)).unwrap_or("rprivate");
    // Its own words are said again by whoever writes the mount.
    let own = |word: &&str| !matches!(*word, "ro" | "idmap") && !PROPAGATION.contains(word);
    let others: Vec<String> = options.iter().copied().filter(own).map(str::to_owned).collect();
    let bound = kind == "bind";
    Some(Mount {
        source: if bound { directory.join(source).to_str()?.to_owned() } else { source.to_owned() },
        target: mount["destination"].as_str()?.to_owned(),
        read_only: read_only || has("ro"),
        propagation,
        filesystem: (!bound || others != ["rbind"]).then(|| (kind.to_owned(), others)),
        mapped: has("idmap"),
    })
}
