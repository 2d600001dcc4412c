//! Checkpoint and restore by CRIU, spoken to over a socket in its own protocol.
//!
//! ```text
//!   runtime                               criu swrk FD
//!     |--- request: DUMP, RESTORE, ... --->|
//!     |<------ NOTIFY, a step and a pid ---|   network-lock, post-dump, setup-namespaces,
//!     |--- NOTIFY, success or not -------->|   post-restore, orphan-pts-master, ...
//!     |<----------------------- answer ----|   and it exits
//! ```

pub(crate) mod dump;
mod log;
mod prepare;
mod protobuf;
pub(crate) mod restore;
mod rpc;
mod steps;
mod swrk;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::apply::mounts::CgroupView;
use crate::rooted::Root;

/// The oldest that we speak to: from it on the version can be asked for.
const OLDEST: u32 = 30_000;

/// An installed CRIU.
#[derive(Debug)]
struct Criu {
    program: PathBuf,
    /// 3.17.1 is 31701.
    version: u32,
}

impl Criu {
    /// Looks for it on the PATH and asks it for its version.
    fn find() -> Result<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = std::env::split_paths(&path)
            .map(|directory| directory.join("criu"))
            .find(|program| is_executable(program))
            .context(
                "criu is not on the PATH: install the package criu, without which there are no \
                 checkpoints",
            )?;
        let version = swrk::version(&program).context("CRIU version check failed")?;
        crate::log::debug(format_args!("Using CRIU {version}"));
        let criu = Criu { program, version };
        criu.require(OLDEST, "this runtime")?;
        Ok(criu)
    }

    /// Refuses what needs a newer one.
    fn require(&self, version: u32, what: &str) -> Result<()> {
        if self.version < version {
            bail!(
                "{what} requires at least CRIU {}, but {} is {}: install a newer one",
                dotted(version),
                self.program.display(),
                dotted(self.version)
            );
        }
        Ok(())
    }

    fn is_at_least(&self, version: u32) -> bool {
        self.version >= version
    }
}

fn is_executable(program: &Path) -> bool {
    let executable = rustix::fs::access(program, rustix::fs::Access::EXEC_OK).is_ok();
    executable && program.is_file()
}

fn dotted(version: u32) -> String {
    let (major, minor, patch) = (version / 10_000, version / 100 % 100, version % 100);
    if patch == 0 { format!("{major}.{minor}") } else { format!("{major}.{minor}.{patch}") }
}

/// A directory for CRIU to open.
fn open_directory(path: &Path) -> Result<OwnedFd> {
    let directory = File::open(path).with_context(|| format!("open {}", path.display()))?;
    if !directory.metadata().with_context(|| format!("stat {}", path.display()))?.is_dir() {
        bail!("{} is not a directory", path.display());
    }
    Ok(directory.into())
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
    fn a_version_is_told_as_people_write_it() {
        assert_eq!(dotted(31_701), "3.17.1");
        assert_eq!(dotted(40_000), "4.0");
    }

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

    #[test]
    fn an_old_criu_is_named_with_the_remedy() {
        let criu = Criu { program: "/usr/sbin/criu".into(), version: 20_600 };
        let error = criu.require(OLDEST, "this runtime").unwrap_err().to_string();
        assert_eq!(
            error,
            "this runtime requires at least CRIU 3.0, but /usr/sbin/criu is 2.6: install a newer \
             one"
        );
        assert!(criu.require(20_600, "x").is_ok() && !criu.is_at_least(20_601));
    }
}
