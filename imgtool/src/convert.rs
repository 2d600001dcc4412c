//! An image in another form: OCI's documents or Docker's, layers compressed in another way. What
//! is new of it is written into the store; its configuration, and so its ID, stays as it is.

mod narrow;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::digest::{Digest, HashingReader};
use crate::layer::compress;
use crate::layer::gzip::GzipWriter;
use crate::manifest::{
    Descriptor, Dialect, Document, ImageConfig, Index, LayerKind, MAX_CONFIG_SIZE, MAX_INDEX_DEPTH,
    Manifest, Packing, media_type,
};
use crate::store::{BlobWriter, Store};
use crate::transport::Source;

pub(crate) use narrow::{for_platform, narrow};

const BUFFER: usize = 256 << 10;
/// The one that zstd's own program takes.
const ZSTD_LEVEL: i32 = 3;

/// The form that is wanted; `None` for what stays as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Form {
    pub(crate) dialect: Option<Dialect>,
    pub(crate) packing: Option<Packing>,
    /// How hard layers are compressed that are compressed anyway; `None` for what the programs of
    /// that compression do.
    pub(crate) level: Option<u32>,
}

impl Form {
    /// Whether anything is wanted.
    pub(crate) fn changes(self) -> bool {
        self.dialect.is_some() || self.packing.is_some()
    }
}

/// Gives the image or the index at `entry` in that form, and what has to be told of it. The
/// caller holds the store's lock, and discards what nothing needs afterwards.
pub(crate) fn convert(
    source: &mut dyn Source,
    store: &Store,
    entry: &Descriptor,
    form: Form,
) -> Result<(Descriptor, Vec<String>)> {
    if !form.changes() {
        return Ok((entry.clone(), Vec::new()));
    }
    let mut conversion = Conversion { source, store, form, layers: BTreeMap::new(), notes: vec![] };
    let entry = conversion.document(entry, 0)?;
    Ok((entry, conversion.notes))
}

struct Conversion<'a> {
    source: &'a mut dyn Source,
    store: &'a Store,
    form: Form,
    /// Layers that were compressed anew; images of an index share some.
    layers: BTreeMap<Digest, Descriptor>,
    notes: Vec<String>,
}

impl Conversion<'_> {
    fn document(&mut self, descriptor: &Descriptor, depth: usize) -> Result<Descriptor> {
        ensure!(depth < MAX_INDEX_DEPTH, "indexes are nested too deeply");
        let bytes = self
            .source
            .document(descriptor)?
            .with_context(|| format!("manifest {} is missing", descriptor.digest))?;
        let document = Document::parse(&bytes, &descriptor.media_type)
            .with_context(|| format!("read manifest {}", descriptor.digest))?;
        // Fields that we don't know stay.
        let value = serde_json::from_slice(&bytes).context("parse manifest")?;
        match document {
            Document::Manifest(manifest) => self.manifest(descriptor, &manifest, value),
            Document::Index(index) => self.index(descriptor, &index, value, depth),
        }
        .with_context(|| format!("convert {}", descriptor.digest))
    }

    fn index(
        &mut self,
        descriptor: &Descriptor,
        index: &Index,
        mut value: Value,
        depth: usize,
    ) -> Result<Descriptor> {
        let mut changed: BTreeMap<String, Digest> = BTreeMap::new();
        let mut children = Vec::with_capacity(index.manifests.len());
        for child in &index.manifests {
            // What is not here may be where it goes to; that is not ours to know.
            if child.is_attestation() || self.source.document(child)?.is_none() {
                children.push(child.clone());
                continue;
            }
            let converted = self.document(child, depth + 1)?;
            if converted.digest != child.digest {
                changed.insert(child.digest.to_string(), converted.digest.clone());
            }
            children.push(converted);
        }
        // What was attested is said of a digest that is not there any more.
        let before = children.len();
        children.retain(|child| child.attested().is_none_or(|it| !changed.contains_key(it)));
        if children.len() < before {
            let gone = before - children.len();
            self.notes.push(format!(
                "{gone} attestations are left out: they are about images of other digests"
            ));
        }
        let holds_oci = children.iter().any(|child| child.media_type == media_type::OCI_MANIFEST);
        let kind = match self.form.dialect {
            Some(Dialect::Docker) => media_type::DOCKER_LIST,
            Some(Dialect::Oci) => media_type::OCI_INDEX,
            None if holds_oci => media_type::OCI_INDEX,
            None => kind_of(descriptor, index.media_type.as_deref(), media_type::OCI_INDEX),
        };
        if changed.is_empty() && index.media_type.as_deref().unwrap_or(kind) == kind {
            return Ok(descriptor.clone());
        }
        value["mediaType"] = kind.into();
        value["manifests"] = serde_json::to_value(&children).context("write index")?;
        if kind == media_type::DOCKER_LIST {
            without(&mut value, &["annotations", "subject", "artifactType"]);
        }
        self.write(descriptor, kind, &value)
    }

    fn manifest(
        &mut self,
        descriptor: &Descriptor,
        manifest: &Manifest,
        mut value: Value,
    ) -> Result<Descriptor> {
        let kind = kind_of(descriptor, manifest.media_type.as_deref(), media_type::OCI_MANIFEST)
            .to_owned();
        let is_image = matches!(
            manifest.config.media_type.as_str(),
            media_type::OCI_CONFIG | media_type::DOCKER_CONFIG
        ) && manifest.layers.iter().all(Descriptor::is_archive);
        if !is_image {
            // An artifact has no other form.
            ensure!(
                self.form.dialect != Some(Dialect::Docker) || kind == media_type::DOCKER_MANIFEST,
                "it is an artifact and no image of layers, which Docker's manifests can't be"
            );
            return Ok(descriptor.clone());
        }
        let layers = self.layers(manifest)?;
        let old = if kind == media_type::DOCKER_MANIFEST { Dialect::Docker } else { Dialect::Oci };
        let zstd = layers.iter().any(|(_, kind)| kind.packing == Packing::Zstd);
        let dialect = match (self.form.dialect, old) {
            (Some(Dialect::Docker), _) if zstd => bail!(
                "Docker's manifests know no layers in zstd: compress them by gzip, or keep to OCI's"
            ),
            (Some(dialect), _) => dialect,
            (None, _) if zstd => Dialect::Oci,
            (None, old) => old,
        };
        let changed = layers.iter().zip(&manifest.layers).any(|((new, _), old)| new != old);
        if dialect == old && !changed {
            return Ok(descriptor.clone());
        }
        let (kind, config_kind) = match dialect {
            Dialect::Oci => (media_type::OCI_MANIFEST, media_type::OCI_CONFIG),
            Dialect::Docker => (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG),
        };
        value["mediaType"] = kind.into();
        value["config"]["mediaType"] = config_kind.into();
        let mut written = Vec::with_capacity(layers.len());
        for (mut layer, kind) in layers {
            layer.media_type = kind
                .media_type(dialect)
                .with_context(|| format!("layer {} has no such form", layer.digest))?;
            written.push(layer);
        }
        value["layers"] = serde_json::to_value(&written).context("write manifest")?;
        if dialect == Dialect::Docker {
            without(&mut value, &["annotations", "subject", "artifactType"]);
            without(&mut value["config"], &["annotations"]);
            for layer in value["layers"].as_array_mut().into_iter().flatten() {
                without(layer, &["annotations"]);
            }
        }
        self.write(descriptor, kind, &value)
    }

    /// The layers as they are to be, with what they are.
    fn layers(&mut self, manifest: &Manifest) -> Result<Vec<(Descriptor, LayerKind)>> {
        let mut layers = Vec::with_capacity(manifest.layers.len());
        for layer in &manifest.layers {
            let kind = LayerKind::parse(&layer.media_type)
                .with_context(|| format!("layer {} is {:?}", layer.digest, layer.media_type))?;
            layers.push((layer.clone(), kind));
        }
        let Some(packing) = self.form.packing else { return Ok(layers) };
        // What its maker wants to lie elsewhere is not ours to change.
        let others =
            |(_, kind): &&(Descriptor, LayerKind)| kind.packing != packing && !kind.foreign;
        let needed: Vec<Descriptor> = std::iter::once(&manifest.config)
            .chain(layers.iter().filter(others).map(|(layer, _)| layer))
            .filter(|blob| !self.layers.contains_key(&blob.digest))
            .filter(|blob| !self.store.has_blob(&blob.digest))
            .cloned()
            .collect();
        if !needed.is_empty() {
            self.source.fetch_blobs(self.store, &needed)?;
        }
        let config = self.store.read_blob(&manifest.config, MAX_CONFIG_SIZE)?;
        let diff_ids = ImageConfig::parse(&config)?.rootfs.diff_ids;
        ensure!(
            diff_ids.len() == layers.len(),
            "manifest has {} layers but the config has {} diff IDs",
            layers.len(),
            diff_ids.len()
        );
        for ((layer, kind), diff_id) in layers.iter_mut().zip(&diff_ids) {
            if kind.packing == packing || kind.foreign {
                continue;
            }
            let packed = match self.layers.get(&layer.digest) {
                Some(packed) => packed.clone(),
                None => repack(self.store, layer, diff_id, packing, self.form.level)
                    .with_context(|| format!("compress layer {} anew", layer.digest))?,
            };
            self.layers.insert(layer.digest.clone(), packed.clone());
            *layer = packed;
            kind.packing = packing;
        }
        Ok(layers)
    }

    fn write(&self, old: &Descriptor, kind: &str, value: &Value) -> Result<Descriptor> {
        let bytes = serde_json::to_vec(value).context("write manifest")?;
        let written = self.store.write_blob(kind, &bytes)?;
        let mut new = Descriptor {
            platform: old.platform.clone(),
            annotations: old.annotations.clone(),
            other: old.other.clone(),
            ..written
        };
        new.other.remove("data");
        Ok(new)
    }
}

fn kind_of<'a>(descriptor: &'a Descriptor, own: Option<&'a str>, default: &'a str) -> &'a str {
    match (own, descriptor.media_type.as_str()) {
        (Some(own), _) => own,
        (None, "") => default,
        (None, declared) => declared,
    }
}

fn without(value: &mut Value, keys: &[&str]) {
    if let Some(object) = value.as_object_mut() {
        for key in keys {
            object.remove(*key);
        }
    }
}

/// The same layer compressed in another way, which its diff ID proves.
fn repack(
    store: &Store,
    layer: &Descriptor,
    diff_id: &Digest,
    packing: Packing,
    level: Option<u32>,
) -> Result<Descriptor> {
    let plain = compress::reader(store.open_blob(&layer.digest)?).context("decompress")?;
    let mut plain = HashingReader::new(plain, diff_id.algorithm());
    let written = write_packed(&mut plain, store.blob_writer()?, packing, level)?;
    let (actual, _) = plain.finish();
    ensure!(actual == *diff_id, "its content has digest {actual}, the image config says {diff_id}");
    let (digest, size) = written.commit()?;
    let mut packed = Descriptor { digest, size, ..layer.clone() };
    // These tell of the blob and not of what is in it.
    for key in ["data", "urls"] {
        packed.other.remove(key);
    }
    packed.annotations.retain(|key, _| !key.starts_with("io.github.containers.zstd-chunked."));
    Ok(packed)
}

fn write_packed(
    plain: &mut impl Read,
    mut writer: BlobWriter,
    packing: Packing,
    level: Option<u32>,
) -> Result<BlobWriter> {
    let mut copy = |out: &mut dyn Write| -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            match plain.read(&mut buffer)? {
                0 => return Ok(()),
                n => out.write_all(&buffer[..n])?,
            }
        }
    };
    match packing {
        Packing::None => copy(&mut writer).context("decompress")?,
        Packing::Gzip => {
            let gzip = match level {
                None => GzipWriter::new(writer),
                Some(level) => GzipWriter::with_level(writer, level),
            };
            let mut gzip = gzip.context("compress")?;
            copy(&mut gzip).context("compress")?;
            return gzip.finish().context("compress");
        }
        Packing::Zstd => {
            let level = level.map_or(Ok(ZSTD_LEVEL), i32::try_from)?;
            let mut zstd = zstd::stream::write::Encoder::new(writer, level).context("compress")?;
            zstd.include_checksum(true).context("compress")?;
            copy(&mut zstd).context("compress")?;
            return zstd.finish().context("compress");
        }
    }
    Ok(writer)
}
