//! The archives of `docker save`: `manifest.json` names a config and layers by
//! file name. The config keeps its bytes, since its digest is the image ID;
//! the manifest is made by us.

use std::io::{BufReader, Read};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::archive::Members;
use crate::digest::{Algorithm, Digest, HashingReader};
use crate::layer::compress;
use crate::manifest::{
    Descriptor, ImageConfig, MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE, Manifest, media_type,
    null_as_default,
};
use crate::store::Store;

const BUFFER: usize = 256 << 10;

/// One image of `manifest.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Item {
    pub(crate) config: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub(crate) repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub(crate) layers: Vec<String>,
}

/// The images that `manifest.json` lists; none if there is no such file.
pub(crate) fn items(store: &Store, members: &Members) -> Result<Vec<Item>> {
    let Some(bytes) = members.document(store, "manifest.json", MAX_MANIFEST_SIZE)? else {
        return Ok(Vec::new());
    };
    let items: Option<Vec<Item>> =
        serde_json::from_slice(&bytes).context("parse manifest.json of the archive")?;
    match items {
        Some(items) if !items.is_empty() => Ok(items),
        _ => bail!("manifest.json of the archive lists no image"),
    }
}

/// Stores one image and returns the descriptor of its manifest. The caller
/// holds the store's lock.
pub(crate) fn load(store: &Store, members: &mut Members, item: &Item) -> Result<Descriptor> {
    let Some(config_bytes) = members.document(store, &item.config, MAX_CONFIG_SIZE)? else {
        bail!("archive has no {:?}, the config of an image", item.config);
    };
    let config_digest = Digest::of(&config_bytes);
    check_name(&item.config, &config_digest)?;
    let config = ImageConfig::parse(&config_bytes)
        .with_context(|| format!("read {:?} of the archive", item.config))?;
    let diff_ids = &config.rootfs.diff_ids;
    ensure!(
        diff_ids.len() == item.layers.len(),
        "image has {} layers in manifest.json but {} in its config",
        item.layers.len(),
        diff_ids.len()
    );
    // All is verified before anything is stored.
    let mut types = Vec::with_capacity(item.layers.len());
    for (name, diff_id) in item.layers.iter().zip(diff_ids) {
        types.push(
            check_layer(store, members, name, diff_id)
                .with_context(|| format!("layer {name:?}"))?,
        );
    }
    let mut layers = Vec::with_capacity(item.layers.len());
    for (name, media_type) in item.layers.iter().zip(types) {
        let (digest, size) = members.store(name)?;
        layers.push(Descriptor::new(media_type, digest, size));
    }
    members.store(&item.config)?;
    let config = Descriptor::new(media_type::OCI_CONFIG, config_digest, config_bytes.len() as u64);
    let manifest = serde_json::to_vec(&Manifest::new(config, layers)).context("write manifest")?;
    let mut descriptor = store.write_blob(media_type::OCI_MANIFEST, &manifest)?;
    descriptor.platform = None;
    Ok(descriptor)
}

/// Verifies a layer against its diff ID and says what kind of blob it is.
fn check_layer(
    store: &Store,
    members: &Members,
    name: &str,
    diff_id: &Digest,
) -> Result<&'static str> {
    let Some((digest, _)) = members.digest(name)? else {
        bail!("archive has no such member");
    };
    check_name(name, &digest)?;
    if digest == *diff_id {
        return Ok(media_type::OCI_LAYER);
    }
    let mut start = [0; 4];
    let n = members.open(store, name)?.take(4).read(&mut start).context("read layer")?;
    let media_type = match &start[..n] {
        [0x1f, 0x8b, ..] => media_type::OCI_LAYER_GZIP,
        [0x28, 0xb5, 0x2f, 0xfd] => media_type::OCI_LAYER_ZSTD,
        _ => media_type::OCI_LAYER,
    };
    let file = BufReader::with_capacity(BUFFER, members.open(store, name)?);
    let mut reader = HashingReader::new(compress::reader(file)?, diff_id.algorithm());
    std::io::copy(&mut reader, &mut std::io::sink()).context("decompress layer")?;
    let (actual, _) = reader.finish();
    ensure!(actual == *diff_id, "content has digest {actual}, the image config says {diff_id}");
    Ok(media_type)
}

/// Members are often named by their digest: then it has to be that.
fn check_name(name: &str, digest: &Digest) -> Result<()> {
    let stem = name.rsplit('/').next().unwrap_or(name);
    let stem = stem.strip_prefix("sha256:").unwrap_or(stem);
    let stem = stem.strip_suffix(".json").unwrap_or(stem);
    let named = format!("{}:{stem}", Algorithm::Sha256.name()).parse::<Digest>();
    // Old engines name layers by other ids, but only as directories.
    if let Ok(named) = named {
        ensure!(
            named == *digest,
            "archive member {name:?} has wrong content: its digest is {digest}"
        );
    }
    Ok(())
}
