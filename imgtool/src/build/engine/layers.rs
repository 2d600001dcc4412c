//! The layers of a stage: looked at, unpacked, and added to.

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::{Engine, lock};
use crate::build::origin::Origin;
use crate::build::report;
use crate::build::run::{Ground, Left, Ran};
use crate::build::state::{State, entry};
use crate::build::view::{Layer, View};
use crate::bundle::overlay;
use crate::digest::{Algorithm, Digest, HashingWriter};
use crate::layer::diff::{Baseline, diff};
use crate::layer::gzip::GzipWriter;
use crate::layer::lower;
use crate::layer::record::Record;
use crate::layer::{self, tar};
use crate::manifest::{Descriptor, media_type};
use crate::store::cache::{self, Made};
use crate::store::{Image, chain_ids, make_dir, sync_dir};
use crate::userns;

/// A layer's blob and its diff ID; `None` if nothing changed.
pub(super) type Written = Option<(Descriptor, Digest)>;

impl Engine<'_> {
    /// Takes what the step with this key made before, or has it made and remembers it.
    pub(super) fn layer_step(
        &self,
        state: &mut State,
        text: String,
        shown: &report::Step<'_>,
        make: impl FnOnce(&State) -> Result<Written>,
    ) -> Result<()> {
        let known = match self.settings.no_cache || state.anew {
            true => None,
            false => cache::get(self.store, &state.key).or_else(|| self.made_elsewhere(state)),
        };
        let (record, was_known) = match known {
            Some(record) => (record, true),
            None => {
                let written = make(state).inspect_err(|error| shown.failed(error))?;
                let layer = written.map(|(blob, diff_id)| {
                    let mut diff_ids = state.parts.config.rootfs.diff_ids.clone();
                    diff_ids.push(diff_id.clone());
                    // There is one, since there is a diff ID.
                    let chain_id = chain_ids(&diff_ids).pop().unwrap_or_else(|| diff_id.clone());
                    Made { blob, diff_id, chain_id }
                });
                let record = cache::Record { created: self.created(), layer };
                cache::put(self.store, &state.key, &record)?;
                (record, false)
            }
        };
        lock(&self.steps).insert(state.key.clone(), record.clone());
        let created = Some(record.created);
        match record.layer {
            Some(made) => state.parts.add_layer(made.blob, made.diff_id, entry(text, created)),
            None => state.note(text, created),
        }
        match was_known {
            true => shown.cached(state.key.short()),
            false => shown.done(state.key.short()),
        }
    }

    fn made_elsewhere(&self, state: &State) -> Option<cache::Record> {
        (self.known)(&state.key, &state.parts.config.rootfs.diff_ids)
    }

    /// What the layers show together; nothing is unpacked for it.
    pub(super) fn view(&self, state: &State) -> Result<View> {
        let diff_ids = &state.parts.config.rootfs.diff_ids;
        let mut layers = Vec::new();
        for (blob, chain_id) in state.parts.layers.iter().zip(chain_ids(diff_ids)) {
            if let Some(known) = lock(&self.known_layers).get(&chain_id) {
                layers.push(Arc::clone(known));
                continue;
            }
            let unpacked = self.home(&chain_id).join("diff");
            // What was unpacked where all files are ours does not tell whose they are.
            let unpacked = Some(unpacked).filter(|_| userns::gives_files_away());
            let layer = Arc::new(Layer::open(self.store, blob, unpacked.as_deref())?);
            lock(&self.known_layers).insert(chain_id, Arc::clone(&layer));
            layers.push(layer);
        }
        Ok(View { layers })
    }

    fn home(&self, chain_id: &Digest) -> PathBuf {
        self.store.layers_dir().join(chain_id.hex())
    }

    /// The directories of the layers, bottom first, unpacked if need be.
    pub(super) fn unpacked(&self, state: &State) -> Result<Vec<PathBuf>> {
        let image = image_of(state);
        let layer::Unpacked { layers, warnings } = layer::unpack(self.store, &image)?;
        for warning in warnings {
            self.reporter.note(&format!("warning: {warning}"));
        }
        // Those that were packed when they were looked at are directories now.
        lock(&self.known_layers).clear();
        Ok(layers)
    }

    /// Whether layers can be mounted above each other. Where not, their files are copied.
    pub(super) fn stacks(&self) -> Result<bool> {
        if let Some(known) = self.stacks.get() {
            return Ok(*known);
        }
        let works = if nix::unistd::geteuid().is_root() {
            let home = self.store.staging_subdirectory()?;
            match overlay::probe(home.path()) {
                Ok(()) => true,
                Err(error) if overlay::is_unsupported(&error) => {
                    let text = "no overlay can be mounted here, copying instead";
                    self.reporter.note(&format!("{text}: {error:#}"));
                    false
                }
                Err(error) => return Err(error),
            }
        } else {
            false
        };
        Ok(*self.stacks.get_or_init(|| works))
    }

    /// What a command of this stage runs on.
    pub(super) fn ground(&self, state: &State) -> Result<Ground> {
        Ok(match self.stacks()? {
            true => Ground::Layers(self.unpacked(state)?),
            false => Ground::Copy(Box::new(image_of(state))),
        })
    }

    /// The whole tree of a stage or image, to copy from.
    pub(super) fn tree(&self, state: &State, label: &str) -> Result<Origin> {
        let holder = self.store.staging_subdirectory()?;
        let root = if self.stacks()? {
            let layers = self.unpacked(state)?;
            match &layers[..] {
                [] => lower::make_root(&holder.path().join("diff"))?,
                [only] => lower::open_directory(only)?,
                layers => {
                    let (upper, work) = (holder.path().join("diff"), holder.path().join("work"));
                    drop(lower::make_root(&upper)?);
                    make_dir(&work)?;
                    lower::mount_writable(layers, &upper, &work)?
                }
            }
        } else {
            let root = lower::make_root(&holder.path().join("diff"))?;
            for warning in layer::unpack_flat(self.store, &image_of(state), root.as_fd())? {
                self.reporter.note(&format!("warning: {warning}"));
            }
            root
        };
        Ok(Origin::of_image(root, holder, label))
    }

    /// The same with one layer, of the whole tree.
    pub(crate) fn squashed(&self, mut state: State) -> Result<State> {
        let home = self.store.staging_subdirectory()?;
        let root = lower::make_root(&home.path().join("rootfs"))?;
        layer::unpack_flat(self.store, &image_of(&state), root.as_fd())?;
        let gzip = GzipWriter::new(self.store.blob_writer()?).context("compress layer")?;
        let mut output = tar::Writer::new(HashingWriter::new(gzip, Algorithm::Sha256));
        let newest = self.settings.epoch.map(jiff::Timestamp::as_second);
        let nothing = Record::default();
        let whole = Baseline::Record(&nothing);
        diff(root.as_fd(), &whole, &std::collections::BTreeSet::new(), newest, &mut output)?;
        let (gzip, diff_id, _) = output.finish()?.finish();
        let (digest, size) = gzip.finish().context("compress layer")?.commit()?;
        state.parts.layers.clear();
        state.parts.config.rootfs.diff_ids.clear();
        state.parts.config.history.iter_mut().for_each(|step| step.empty_layer = true);
        let blob = Descriptor::new(media_type::OCI_LAYER_GZIP, digest, size);
        state.parts.add_layer(blob, diff_id, entry("squash # buildkit".to_owned(), None));
        Ok(state)
    }

    /// The layer of what a command changed. Its upper directory becomes the unpacked layer.
    pub(super) fn pack(&self, state: &State, ran: &Ran) -> Result<Written> {
        let (tree, baseline) = match &ran.left {
            Left::Upper(upper, layers) => (upper, Baseline::Layers(layers)),
            Left::Tree(tree, before) => (tree, Baseline::Record(before)),
        };
        let gzip = GzipWriter::new(self.store.blob_writer()?).context("compress layer")?;
        let mut output = tar::Writer::new(HashingWriter::new(gzip, Algorithm::Sha256));
        let newest = self.settings.epoch.map(jiff::Timestamp::as_second);
        let root = lower::open_directory(tree)?;
        let count =
            diff(root.as_fd(), &baseline, &std::collections::BTreeSet::new(), newest, &mut output)?;
        if count == 0 {
            return Ok(None);
        }
        let (gzip, diff_id, _) = output.finish()?.finish();
        let (digest, size) = gzip.finish().context("compress layer")?.commit()?;
        drop(root);
        // With the times of an epoch it is not what was packed.
        if let (Left::Upper(upper, _), None) = (&ran.left, newest) {
            let mut diff_ids = state.parts.config.rootfs.diff_ids.clone();
            diff_ids.push(diff_id.clone());
            if let Some(chain_id) = chain_ids(&diff_ids).pop() {
                self.keep_unpacked(upper, &chain_id)?;
            }
        }
        Ok(Some((Descriptor::new(media_type::OCI_LAYER_GZIP, digest, size), diff_id)))
    }

    fn keep_unpacked(&self, upper: &std::path::Path, chain_id: &Digest) -> Result<()> {
        let home = self.home(chain_id);
        make_dir(&self.store.layers_dir())?;
        let staged = self.store.staging_subdirectory()?;
        fs::rename(upper, staged.path().join("diff")).context("keep the unpacked layer")?;
        let directory = lower::open_directory(&self.store.layers_dir())?;
        let readable = crate::rooted::reopen(directory.as_fd())?;
        rustix::fs::syncfs(&readable).context("write the layer to the disk")?;
        match fs::rename(staged.path(), &home) {
            Ok(()) => drop(staged.keep()),
            // It is there already; what it has is the same.
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {}
            Err(error) => return Err(error).with_context(|| format!("create {}", home.display())),
        }
        sync_dir(&self.store.layers_dir()).context("write the layer to the disk")
    }
}

/// The stage so far, as what can be unpacked.
fn image_of(state: &State) -> Image {
    let config = state.parts.config.clone();
    let nothing = Descriptor::new("", Digest::of(b""), 0);
    Image {
        name: None,
        entry: nothing.clone(),
        manifest: nothing.clone(),
        config_descriptor: nothing,
        diff_ids: config.rootfs.diff_ids.clone(),
        config,
        config_bytes: Vec::new(),
        layers: state.parts.layers.clone(),
    }
}
