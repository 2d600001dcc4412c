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
mod locked;
mod log;
mod prepare;
mod protobuf;
pub(crate) mod restore;
mod rpc;
mod setting;
mod steps;
mod swrk;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_told_as_people_write_it() {
        assert_eq!(dotted(31_701), "3.17.1");
        assert_eq!(dotted(40_000), "4.0");
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
