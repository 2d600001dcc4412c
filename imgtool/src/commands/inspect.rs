//! `imgtool inspect`: all about images, in docker's shape.

use std::io::Write;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::output;
use crate::store::{Image, Store, entry_name};

/// Print all about images, as a JSON array in docker's shape
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Names or IDs
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    let mut found = Vec::new();
    let mut failed = super::Failures::default();
    for name in &args.images {
        failed.collect(
            store
                .resolve(name)
                .and_then(|image| describe(store, &image))
                .map(|value| found.push(value)),
        );
    }
    let mut text = serde_json::to_string_pretty(&found).context("write the description")?;
    text.push('\n');
    failed.collect(output::stdout().write_all(text.as_bytes()).map_err(Into::into));
    failed.into_result()
}

fn describe(store: &Store, image: &Image) -> Result<Value> {
    let mut tags = Vec::new();
    let mut digests = Vec::new();
    for entry in &store.index()?.manifests {
        let Some(name) = entry_name(entry) else {
            continue;
        };
        let same = entry.digest == image.entry.digest
            || store.image(entry).is_ok_and(|other| other.id() == image.id());
        if !same {
            continue;
        }
        if name.tag().is_some() {
            tags.push(name.clone().without_digest().familiar());
        }
        digests.push(format!("{}@{}", name.familiar_repository(), entry.digest));
    }
    digests.dedup();
    // The config as written: its own types would lose the difference between
    // an empty list and none.
    let raw: Value = serde_json::from_slice(&image.config_bytes).context("parse image config")?;
    let text = |key: &str| raw.get(key).and_then(Value::as_str).unwrap_or_default();
    let comment = image.config.history.last().and_then(|step| step.comment.clone());
    let mut value = json!({
        "Id": image.id(),
        "RepoTags": tags,
        "RepoDigests": digests,
        "Parent": "",
        "Comment": comment.unwrap_or_default(),
        "Created": raw.get("created").cloned().unwrap_or(Value::Null),
        "DockerVersion": text("docker_version"),
        "Author": text("author"),
        "Config": raw.get("config").cloned().unwrap_or(Value::Null),
        "Architecture": image.config.architecture,
        "Os": image.config.os,
        "Size": image.size(),
        "GraphDriver": { "Name": "overlay", "Data": null },
        "RootFS": { "Type": "layers", "Layers": image.diff_ids },
        "Metadata": { "LastTagTime": "0001-01-01T00:00:00Z" },
        "Descriptor": {
            "mediaType": image.entry.media_type,
            "digest": image.entry.digest,
            "size": image.entry.size,
        },
    });
    let optional = [("Variant", &image.config.variant), ("OsVersion", &image.config.os_version)];
    for (key, content) in optional {
        if let Some(content) = content {
            value[key] = content.clone().into();
        }
    }
    Ok(value)
}
