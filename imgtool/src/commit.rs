//! A container's changes become a layer on its image: packed, hashed and compressed in one pass,
//! with a new config and manifest around it. The layers beneath are kept as they are.

pub(crate) mod change;
mod pause;
pub(crate) mod tree;

use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use jiff::Timestamp;
use serde_json::Value;

use self::change::Change;
pub(crate) use self::pause::Pause;
use self::pause::Paused;
use self::tree::{Tree, bundle_config};
use crate::bundle::{self, Record};
use crate::digest::{Algorithm, Digest, HashingWriter};
use crate::layer::diff::diff;
use crate::layer::gzip::GzipWriter;
use crate::layer::tar;
use crate::manifest::{Descriptor, History, ImageConfig, Manifest, media_type};
use crate::reference::Reference;
use crate::store::{Image, StagedBlob, Store};
use crate::userns;

/// What the user wishes.
#[derive(Debug)]
pub(crate) struct Request {
    /// The bundle, by its directory or by the name of it or of its container.
    pub(crate) bundle: String,
    pub(crate) name: Option<Reference>,
    pub(crate) changes: Vec<Change>,
    pub(crate) author: Option<String>,
    pub(crate) message: Option<String>,
    /// The time that the image says it was made.
    pub(crate) created: Timestamp,
    /// The latest time that a file of the layer may have, in seconds since 1970.
    pub(crate) newest: Option<i64>,
    /// Whether all layers become one.
    pub(crate) squash: bool,
    pub(crate) pause: Pause,
}

/// Makes the image and gives its ID.
pub(crate) fn commit(store: &Store, request: &Request) -> Result<Digest> {
    let directory = bundle::locate(store, &request.bundle)?;
    let paused = Paused::new(request.pause, &directory)?;
    match (commit_paused(store, request, &directory), paused.resume()) {
        (committed, Ok(())) => committed,
        (Ok(_), Err(error)) => Err(error),
        (Err(error), Err(second)) => Err(anyhow!("{error:#}; then: {second:#}")),
    }
}

fn commit_paused(store: &Store, request: &Request, directory: &Path) -> Result<Digest> {
    if request.squash {
        bundle::mount(store, directory)?;
    }
    let _lock = store.lock_shared()?;
    // A removal half done would look like changes.
    let held = bundle::hold(store, directory)?;
    // The owners are to be those that the container sees.
    userns::enter()?;
    let record = &held.entry.record;
    let document = bundle_config(directory)?;
    let image = store
        .image(&record.manifest)
        .with_context(|| format!("read the image {} of the bundle", record.image))?;
    let layer = write_layer(store, &image, directory, record, &document, request)
        .with_context(|| format!("pack {}", directory.display()))?;
    let diff_id = layer.as_ref().map(|layer| &layer.diff_id);
    let config = config(&image, request, &document, diff_id);
    let docker = image.manifest.media_type == media_type::DOCKER_MANIFEST;
    let bytes = serde_json::to_vec(&config).context("write image config")?;
    let config_type = if docker { media_type::DOCKER_CONFIG } else { media_type::OCI_CONFIG };
    let (config, staged) = store.stage_blob(config_type, &bytes)?;
    let id = config.digest.clone();
    let mut blobs = vec![staged];
    let mut layers = if request.squash { Vec::new() } else { image.layers };
    if let Some(layer) = layer {
        layers.push(layer.descriptor);
        blobs.push(layer.blob);
    }
    let mut manifest = Manifest::new(config, layers);
    if docker {
        manifest.media_type = Some(media_type::DOCKER_MANIFEST.to_owned());
    }
    let manifest_type = manifest.media_type.clone().unwrap_or_default();
    let bytes = serde_json::to_vec(&manifest).context("write manifest")?;
    let (entry, staged) = store.stage_blob(&manifest_type, &bytes)?;
    blobs.push(staged);
    match &request.name {
        Some(name) => drop(store.tag_new(name, &entry, blobs)?),
        None => store.add_unnamed_new(&entry, blobs)?,
    }
    Ok(id)
}

/// A layer that is packed, and not in the store yet.
struct Packed {
    descriptor: Descriptor,
    diff_id: Digest,
    blob: StagedBlob,
}

/// The new layer, or `None` where nothing changed.
fn write_layer(
    store: &Store,
    image: &Image,
    directory: &Path,
    origin: &Record,
    document: &Value,
    request: &Request,
) -> Result<Option<Packed>> {
    let gzip = GzipWriter::new(store.blob_writer()?).context("compress layer")?;
    let mut output = tar::Writer::new(HashingWriter::new(gzip, Algorithm::Sha256));
    let tree = match request.squash {
        true => Tree::whole(directory, origin)?,
        false => Tree::open(store, image, directory, origin, document)?,
    };
    let count =
        diff(tree.root.as_fd(), &tree.baseline(), &tree.mount_points, request.newest, &mut output)?;
    if count == 0 {
        return Ok(None);
    }
    let (gzip, diff_id, _) = output.finish()?.finish();
    let blob = gzip.finish().context("compress layer")?.finish();
    let kind = match image.manifest.media_type.as_str() {
        media_type::DOCKER_MANIFEST => media_type::DOCKER_LAYER_GZIP,
        _ => media_type::OCI_LAYER_GZIP,
    };
    let descriptor = Descriptor::new(kind, blob.digest().clone(), blob.size());
    Ok(Some(Packed { descriptor, diff_id, blob }))
}

fn config(
    image: &Image,
    request: &Request,
    document: &Value,
    diff_id: Option<&Digest>,
) -> ImageConfig {
    let mut config = image.config.clone();
    let created = Some(request.created.to_string());
    // What Docker notes of the container that made the parent.
    for key in ["container", "container_config"] {
        config.other.remove(key);
    }
    config.created.clone_from(&created);
    if request.author.is_some() {
        config.author.clone_from(&request.author);
    }
    change::apply(&request.changes, &mut config.config);
    config.rootfs.kind = "layers".to_owned();
    if request.squash {
        config.rootfs.diff_ids.clear();
        config.history.clear();
    }
    config.rootfs.diff_ids.extend(diff_id.cloned());
    config.history.push(History {
        created,
        created_by: command_line(document),
        author: request.author.clone(),
        comment: request.message.clone(),
        empty_layer: diff_id.is_none(),
        ..History::default()
    });
    config
}

fn command_line(document: &Value) -> Option<String> {
    let words = document["process"]["args"].as_array()?;
    Some(words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "))
}
