//! Images that are not in the store, without their layers.

use std::io::Write;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::Args;
use crate::commands::copy::origin::Origin;
use crate::convert;
use crate::manifest::{Descriptor, Document, MAX_CONFIG_SIZE, Manifest, Platform};
use crate::output;
use crate::progress::Progress;
use crate::store::Store;
use crate::transport::Source;
use crate::transport::place::Place;

/// `None` if what was asked for is printed already.
pub(super) fn inspect(store: &Store, place: &Place, args: &Args) -> Result<Option<Value>> {
    let access = args.access.access()?;
    let progress = Progress::Silent;
    // The config comes by way of the store.
    store.in_passing(|| {
        let mut origin = Origin::open(store, place, &access, &progress)?;
        look(store, &mut origin, args)
    })
}

fn look(store: &Store, origin: &mut Origin<'_>, args: &Args) -> Result<Option<Value>> {
    let top = origin.entry().clone();
    let bytes = document(origin, &top)?;
    if args.raw && !args.config {
        output::stdout().write_all(&bytes)?;
        return Ok(None);
    }
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let descriptor = convert::for_platform(origin, &top, &platform)?;
    let bytes = document(origin, &descriptor)?;
    let Document::Manifest(manifest) = Document::parse(&bytes, &descriptor.media_type)? else {
        bail!("indexes are nested too deeply");
    };
    if !store.has_blob(&manifest.config.digest) {
        origin.fetch_blobs(store, std::slice::from_ref(&manifest.config))?;
    }
    let config = store.read_blob(&manifest.config, MAX_CONFIG_SIZE)?;
    if args.config {
        super::print_config(&config, args.raw)?;
        return Ok(None);
    }
    let tags = match origin.repository().filter(|_| args.tags) {
        Some(repository) => repository.tags()?,
        None => Vec::new(),
    };
    let name = origin.name().map(|name| format!("{}/{}", name.host(), name.path()));
    describe(name.as_deref().unwrap_or_default(), &top, &manifest, &config, &tags).map(Some)
}

fn document(origin: &mut Origin<'_>, descriptor: &Descriptor) -> Result<Vec<u8>> {
    origin
        .document(descriptor)?
        .with_context(|| format!("manifest {} is missing", descriptor.digest))
}

/// In skopeo's shape.
fn describe(
    name: &str,
    top: &Descriptor,
    manifest: &Manifest,
    config: &[u8],
    tags: &[String],
) -> Result<Value> {
    // An artifact's config may be anything; what it lacks is empty.
    let config: Map<String, Value> = serde_json::from_slice(config).unwrap_or_default();
    let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default();
    let settings = |key: &str| config.get("config").and_then(|settings| settings.get(key)).cloned();
    let layers: Vec<_> = manifest.layers.iter().map(|layer| layer.digest.to_string()).collect();
    let data: Vec<Value> = manifest
        .layers
        .iter()
        .map(|layer| {
            json!({
                "MIMEType": layer.media_type, "Digest": layer.digest, "Size": layer.size,
                "Annotations": layer.annotations,
            })
        })
        .collect();
    Ok(json!({
        "Name": name,
        "Digest": top.digest,
        "RepoTags": tags,
        "Created": config.get("created").cloned().unwrap_or(Value::Null),
        "DockerVersion": text("docker_version"),
        "Labels": settings("Labels").unwrap_or(Value::Null),
        "Architecture": text("architecture"),
        "Os": text("os"),
        "Layers": layers,
        "LayersData": data,
        "Env": settings("Env").unwrap_or(Value::Null),
    }))
}
