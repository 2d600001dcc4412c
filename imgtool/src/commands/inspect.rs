//! `imgtool inspect`: all about images: of the store in docker's shape, of
//! other places in skopeo's.

mod elsewhere;

use std::io::Write;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::access;
use crate::manifest::{MAX_MANIFEST_SIZE, Platform};
use crate::output;
use crate::store::{Image, Store, entry_name};
use crate::template::Template;
use crate::transport::place::Place;

/// Print all about images: of the store a JSON array as docker does; of docker://NAME, oci:DIR,
/// docker-archive:FILE and the like an object as skopeo does
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Names or IDs, or places as copy has them
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// "json", or a Go template of the description
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print the manifest or index byte for byte; with --config, the config
    #[arg(long)]
    raw: bool,
    /// Print the config
    #[arg(long)]
    config: bool,
    /// List the tags of a registry's repository, too
    #[arg(long)]
    tags: bool,
    /// For skopeo's sake: tags are not listed unless asked for
    #[arg(short, long, conflicts_with = "tags")]
    no_tags: bool,
    /// The image of an index to take [default: this host's]
    #[arg(long, value_name = "OS/ARCH", value_parser = Platform::parse)]
    platform: Option<Platform>,
    #[command(flatten)]
    access: access::Flags,
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    let mut found = Vec::new();
    let mut failed = super::Failures::default();
    let mut all_here = true;
    for word in &args.images {
        let mut inspect = || -> Result<Option<Value>> {
            match Place::parse(word)? {
                Place::Store(name) => inspect_stored(store, &name, args),
                place => {
                    all_here = false;
                    elsewhere::inspect(store, &place, args)
                        .with_context(|| format!("inspect {word}"))
                }
            }
        };
        match inspect() {
            Ok(value) => found.extend(value),
            Err(error) => failed.collect(Err(error)),
        }
    }
    if !args.raw && !args.config {
        failed.collect(print(&found, args, all_here));
    }
    failed.into_result()
}

fn print(found: &[Value], args: &Args, as_array: bool) -> Result<()> {
    let mut out = output::stdout();
    match args.format.as_deref() {
        Some("json") => {
            for value in found {
                writeln!(out, "{}", serde_json::to_string(value)?)?;
            }
        }
        Some(format) => {
            let template = Template::parse(format)?;
            for value in found {
                writeln!(out, "{}", template.render(value)?)?;
            }
        }
        None if as_array => {
            writeln!(out, "{}", serde_json::to_string_pretty(found)?)?;
        }
        None => {
            for value in found {
                writeln!(out, "{}", serde_json::to_string_pretty(value)?)?;
            }
        }
    }
    Ok(())
}

/// `None` if what was asked for is printed already.
fn inspect_stored(store: &Store, name: &str, args: &Args) -> Result<Option<Value>> {
    ensure!(!args.tags, "--tags is for registries");
    if args.raw && !args.config {
        let entry = store.select(name)?.entry;
        output::stdout().write_all(&store.read_blob(&entry, MAX_MANIFEST_SIZE)?)?;
        return Ok(None);
    }
    let image = store.resolve_for(name, args.platform.as_ref())?;
    if args.config {
        print_config(&image.config_bytes, args.raw)?;
        return Ok(None);
    }
    describe(store, &image).map(Some)
}

fn print_config(bytes: &[u8], raw: bool) -> Result<()> {
    let mut out = output::stdout();
    if raw {
        return Ok(out.write_all(bytes)?);
    }
    let value: Value = serde_json::from_slice(bytes).context("parse image config")?;
    writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?;
    Ok(())
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
