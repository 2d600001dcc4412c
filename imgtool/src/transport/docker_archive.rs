//! The archives of `docker save`: `manifest.json` names a config and layers by
//! file name. The config keeps its bytes, since its digest is the image ID;
//! the manifest is made by us.

use std::io::{BufReader, Read};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Deserializer, Serialize};

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
    #[serde(default, deserialize_with = "one_or_many")]
    pub(crate) repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub(crate) layers: Vec<String>,
}

/// Some of Bazel's rules write a single name as it is.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Names {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Option::<Names>::deserialize(deserializer)? {
        None => Vec::new(),
        Some(Names::One(name)) => vec![name],
        Some(Names::Many(names)) => names,
    })
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
    let names = item.layers.iter().chain([&item.config]);
    let stored = members.store(store, names.map(String::as_str))?;
    let layers = stored.into_iter().zip(types);
    let layers = layers.map(|((digest, size), kind)| Descriptor::new(kind, digest, size)).collect();
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::layer::tar;
    use crate::progress::Progress;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Some(&dir.path().join("store"))).unwrap();
        (dir, store)
    }

    fn config(layers: &[&[u8]]) -> Vec<u8> {
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
        serde_json::to_vec(&serde_json::json!({
            "architecture": "amd64", "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        }))
        .unwrap()
    }

    enum Entry<'a> {
        File(&'a str, &'a [u8]),
        Symlink(&'a str, &'a str),
    }

    fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
        let mut archive = tar::Writer::new(Vec::new());
        for entry in entries {
            match entry {
                Entry::File(name, content) => {
                    let mut header =
                        tar::Entry::new(name.as_bytes().to_vec(), tar::Kind::File, 0o644);
                    header.size = content.len() as u64;
                    archive.entry(&header).unwrap();
                    archive.contents(content).unwrap();
                }
                Entry::Symlink(name, target) => {
                    let mut header =
                        tar::Entry::new(name.as_bytes().to_vec(), tar::Kind::Symlink, 0o777);
                    header.link = target.as_bytes().to_vec();
                    archive.entry(&header).unwrap();
                }
            }
        }
        archive.finish().unwrap()
    }

    fn load_all(store: &Store, bytes: Vec<u8>) -> Result<Vec<Descriptor>> {
        let mut members = Members::read(store, std::io::Cursor::new(bytes), &Progress::Silent)?;
        items(store, &members)?.iter().map(|item| load(store, &mut members, item)).collect()
    }

    const LIST: &str =
        r#"[{"Config":"c.json","RepoTags":null,"Layers":["a/layer.tar","b/layer.tar"]}]"#;

    #[test]
    fn old_archives_share_layers_by_links() {
        let (_dir, store) = store();
        let config = config(&[b"one", b"one"]);
        let bytes = archive(&[
            Entry::File("a/layer.tar", b"one"),
            Entry::Symlink("b/layer.tar", "../a/layer.tar"),
            Entry::File("./c.json", &config),
            Entry::File("manifest.json", LIST.as_bytes()),
        ]);
        let loaded = load_all(&store, bytes).unwrap();
        let image = store.image(&loaded[0]).unwrap();
        assert_eq!(image.config_bytes, config);
        assert_eq!(image.layers[0], image.layers[1]);
        assert_eq!(image.layers[0].media_type, media_type::OCI_LAYER);
    }

    #[test]
    fn compressed_layers_stay_compressed() {
        let (_dir, store) = store();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(b"one").unwrap();
        let compressed = encoder.finish().unwrap();
        let bytes = archive(&[
            Entry::File("manifest.json", LIST.as_bytes()),
            Entry::File("c.json", &config(&[b"one", b"two"])),
            Entry::File("a/layer.tar", &compressed),
            Entry::File("b/layer.tar", b"two"),
        ]);
        let loaded = load_all(&store, bytes).unwrap();
        let image = store.image(&loaded[0]).unwrap();
        assert_eq!(image.layers[0].media_type, media_type::OCI_LAYER_GZIP);
        assert_eq!(image.layers[0].digest, Digest::of(&compressed));
        assert_eq!(image.diff_ids[0], Digest::of(b"one"));
    }

    #[test]
    fn bad_archives_store_nothing() {
        let good = config(&[b"one", b"two"]);
        let list = |config: &str| LIST.replace("c.json", config);
        let one = Entry::File("a/layer.tar", b"one");
        let two = Entry::File("b/layer.tar", b"two");
        let manifest = || Entry::File("manifest.json", LIST.as_bytes());
        let outside = list("../../etc/passwd");
        let absolute = list("/etc/passwd");
        let swapped = config(&[b"two", b"one"]);
        let whole = archive(&[manifest(), Entry::File("c.json", &good)]);
        let cases = [
            ("wrong layers", archive(&[one, two, manifest(), Entry::File("c.json", &swapped)])),
            ("no layers", whole.clone()),
            ("truncated", whole[..600].to_vec()),
            ("outside", archive(&[Entry::File("manifest.json", outside.as_bytes())])),
            ("absolute", archive(&[Entry::File("manifest.json", absolute.as_bytes())])),
            ("linked outside", archive(&[Entry::Symlink("c.json", "../etc/passwd"), manifest()])),
            ("loop", archive(&[Entry::Symlink("c.json", "c.json"), manifest()])),
            ("null", archive(&[Entry::File("manifest.json", b"null")])),
            ("text", b"not a tar archive at all".repeat(100)),
            ("xz", b"\xfd7zXZ\0".to_vec()),
            ("empty", Vec::new()),
        ];
        for (name, bytes) in cases {
            let (_dir, store) = store();
            assert!(load_all(&store, bytes).is_err(), "{name}");
            assert_eq!(store.blob_usage().unwrap().0, 0, "{name}");
            let left = std::fs::read_dir(store.staging_dir()).unwrap().count();
            assert_eq!(left, 0, "{name}");
        }
    }
}
