//! What a dump and a restore begin with: the container as it is planned, CRIU's directories, and what
//! comes into the container from outside.

use std::fs::{DirBuilder, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::Criu;
use crate::apply::mounts::CgroupView;
use crate::cgroup::Cgroup;
use crate::plan::Plan;
use crate::plan::criu::{self as plan_criu, ExternalMount, Lasting, Options, Outside};
use crate::plan::namespaces::Kind;
use crate::rooted::Root;
use crate::spawn::cgroup_view;

/// CRIU would take the host's mounts for the container's.
pub(super) fn refuse_host_mounts(plan: &Plan) -> Result<()> {
    if plan.namespaces.has(Kind::Mount) {
        return Ok(());
    }
    bail!(
        "there are no checkpoints of a container that shares the host's mount namespace: add \
         {{\"type\": \"mount\"}} to linux.namespaces"
    )
}

/// The namespaces that outlive the container, each of which this CRIU finds again.
pub(super) fn lasting(criu: &Criu, plan: &Plan) -> Result<Vec<Lasting>> {
    let lasting = plan_criu::lasting(&plan.namespaces);
    for namespace in &lasting {
        criu.require(namespace.since, "an external namespace")?;
    }
    Ok(lasting)
}

/// Where the images are or come to be, and the log.
#[derive(Clone, Copy)]
pub(super) struct Directories<'a> {
    pub(super) images: &'a Path,
    /// `None` is the same one.
    pub(super) work: Option<&'a Path>,
}

impl Directories<'_> {
    /// Names them in the options, by the descriptors that come back.
    pub(super) fn open(self, options: &mut Options) -> Result<Vec<OwnedFd>> {
        let images = open_directory(self.images)?;
        options.images_dir = images.as_raw_fd();
        let mut open = vec![images];
        if let Some(path) = self.work {
            make_directory(path)?;
            let work = open_directory(path)?;
            options.work_dir = Some(work.as_raw_fd());
            open.push(work);
        }
        Ok(open)
    }

    /// Where CRIU writes its log.
    pub(super) fn logs(&self) -> &Path {
        self.work.unwrap_or(self.images)
    }
}

/// The mounts that come from outside, as `list` has them, for a container of this cgroup.
pub(super) fn external_mounts(
    plan: &Plan,
    rootfs: &Path,
    cgroup: &Cgroup,
    list: impl FnOnce(Outside) -> Vec<ExternalMount>,
) -> Result<Vec<ExternalMount>> {
    let root = Root::new(open_directory(rootfs)?);
    let view = cgroup_view(cgroup.mode(), cgroup.record(), &plan.namespaces);
    Ok(list(Outside {
        mounts: &plan.mounts,
        nodes: plan.nodes.as_deref().unwrap_or_default(),
        resolve: &|path| resolve(&root, path),
        cgroups: &bound_cgroups(view),
    }))
}

/// A directory for CRIU to open.
pub(super) fn open_directory(path: &Path) -> Result<OwnedFd> {
    let directory = File::open(path).with_context(|| format!("open {}", path.display()))?;
    if !directory.metadata().with_context(|| format!("stat {}", path.display()))?.is_dir() {
        bail!("{} is not a directory", path.display());
    }
    Ok(directory.into())
}

/// A container can be saved more than once, so it may be there. What is saved is all of the
/// container's memory: it is for nobody else.
pub(super) fn make_directory(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("mkdir {}", path.display()))
}

/// Where a path leads in the root file system; what is not there is taken as it is written.
fn resolve(root: &Root, path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let Ok(found) = root.name_of(ancestor) {
            let rest = path.strip_prefix(ancestor).unwrap_or(path);
            // Joined with nothing it would end with a slash, which is not how CRIU spells it.
            return found.join(rest).components().collect();
        }
    }
    path.to_owned()
}

/// The directories of v1 hierarchies that are bound into the container.
fn bound_cgroups(view: CgroupView) -> Vec<(String, PathBuf)> {
    match view {
        CgroupView::V1 { hierarchies, namespaced: false } => {
            hierarchies.into_iter().map(|it| (it.name(), it.own)).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_resolved_as_far_as_it_exists() {
        let path = std::env::temp_dir().join(format!("criu-resolve-{}", std::process::id()));
        std::fs::create_dir_all(path.join("real")).unwrap();
        std::os::unix::fs::symlink("/real", path.join("link")).unwrap();
        let root = Root::new(open_directory(&path).unwrap());
        let resolved = |text: &str| resolve(&root, Path::new(text)).display().to_string();
        assert_eq!(resolved("link"), "real");
        assert_eq!(resolved("link/a/b"), "real/a/b");
        assert_eq!(resolved("none/a"), "none/a");
        std::fs::remove_dir_all(path).unwrap();
    }
}
