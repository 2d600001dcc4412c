//! Layers unpacked while they come.

use std::thread;

use anyhow::{Context, Result, anyhow};

use crate::layer;
use crate::manifest::{Descriptor, Document, MAX_CONFIG_SIZE, MAX_INDEX_DEPTH, Manifest, Platform};
use crate::output;
use crate::store::{Image, Store};
use crate::transport::Source;
use crate::transport::registry::Registry;

/// As much as a main thread has: trees are as deep there.
const STACK_BYTES: usize = 8 << 20;

/// Does `copy`, which brings the image at `entry` into the store, and unpacks its layers beside.
/// What is no image of archives is only brought. The caller holds the store's lock.
pub(super) fn while_it_comes(
    store: &Store,
    registry: &mut Registry<'_>,
    entry: &Descriptor,
    platform: &Platform,
    copy: impl FnOnce(&mut Registry<'_>) -> Result<()>,
) -> Result<()> {
    let Some(image) = image(store, registry, entry, platform)? else {
        return copy(registry);
    };
    let arrivals = registry.arrivals();
    let open = |layer: &Descriptor| -> Result<Box<dyn std::io::Read + Send>> {
        if store.has_blob(&layer.digest) {
            return Ok(Box::new(store.open_blob(&layer.digest)?));
        }
        match arrivals.open(&layer.digest) {
            Some(arriving) => Ok(Box::new(arriving)),
            None => Ok(Box::new(store.open_blob(&layer.digest)?)),
        }
    };
    let unpacked = thread::scope(|scope| {
        let unpack = || layer::unpack_from(store, &image, &open);
        let unpacking = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, unpack);
        let copied = copy(registry);
        arrivals.end();
        let unpacked = match unpacking {
            Ok(thread) => thread.join().map_err(|_| anyhow!("unpacking stopped"))?,
            Err(error) => Err(error).context("start a thread"),
        };
        // What kept the image from coming kept it from being unpacked.
        copied.map(|()| unpacked)
    })?;
    let unpacked = match unpacked {
        // The registry sent something anew in the midst of it; by now all is there.
        Err(_) if arrivals.began_anew() => layer::unpack(store, &image),
        unpacked => unpacked,
    };
    for warning in unpacked.context("unpack the image")?.warnings {
        output::say(&format!("warning: {warning}"));
    }
    Ok(())
}

/// The image as its documents say, before its layers are here.
fn image(
    store: &Store,
    registry: &mut Registry<'_>,
    entry: &Descriptor,
    platform: &Platform,
) -> Result<Option<Image>> {
    let Some((descriptor, manifest)) = manifest(registry, entry, platform)? else {
        return Ok(None);
    };
    if !manifest.layers.iter().all(Descriptor::is_archive) {
        return Ok(None);
    }
    if !store.has_blob(&manifest.config.digest) {
        registry.fetch_blobs(store, std::slice::from_ref(&manifest.config))?;
    }
    let config_bytes = store.read_blob(&manifest.config, MAX_CONFIG_SIZE)?;
    // What is wrong with it is told when the image is opened.
    Ok(Image::new(entry, descriptor, manifest, config_bytes).ok())
}

/// `None` where there is none for the platform, which the copy tells.
fn manifest(
    registry: &mut Registry<'_>,
    entry: &Descriptor,
    platform: &Platform,
) -> Result<Option<(Descriptor, Manifest)>> {
    let mut at = entry.clone();
    for _ in 0..MAX_INDEX_DEPTH {
        let Some(bytes) = registry.document(&at)? else { return Ok(None) };
        match Document::parse(&bytes, &at.media_type)
            .with_context(|| format!("read manifest {}", at.digest))?
        {
            Document::Manifest(manifest) => return Ok(Some((at, manifest))),
            Document::Index(index) => match platform.choose(&index.manifests) {
                Some(child) => at = child.clone(),
                None => return Ok(None),
            },
        }
    }
    Ok(None)
}
