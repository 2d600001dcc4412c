//! What is to be known of the host and of ourselves, found out once at the start.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Under which name we were called: as `runc` we are its replacement and show none of our own
/// extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Runc,
    Runtime,
}

impl Program {
    /// Decides by the last part of `argv[0]`.
    pub(crate) fn from_argv0(argv0: &OsStr) -> Self {
        let name = Path::new(argv0).file_name();
        if name == Some(OsStr::new("runc")) { Program::Runc } else { Program::Runtime }
    }

    /// The name to print.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Program::Runc => "runc",
            Program::Runtime => "runtime",
        }
    }
}

/// The facts every command may need.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) program: Program,
    pub(crate) euid: u32,
    /// We run in a user namespace other than the first.
    pub(crate) in_userns: bool,
    /// Limits that our rights do not reach may be left out: `--rootless`, else found out.
    pub(crate) rootless: bool,
    /// `--systemd-cgroup`
    pub(crate) systemd_cgroup: bool,
    /// `--rootless`, if it was said.
    pub(crate) rootless_said: Option<bool>,
}

impl Host {
    /// Looks at the process and its host; `rootless` is the user's word, if any.
    pub(crate) fn probe(
        program: Program,
        rootless: Option<bool>,
        systemd_cgroup: bool,
    ) -> Result<Self> {
        let euid = nix::unistd::geteuid().as_raw();
        let in_userns = in_user_namespace()?;
        let rootless_said = rootless;
        let rootless = rootless.unwrap_or(euid != 0 || in_userns);
        Ok(Host { program, euid, in_userns, rootless, systemd_cgroup, rootless_said })
    }

    /// Where state records lie: `--root`, else the usual place.
    pub(crate) fn root(&self, given: Option<&Path>) -> Result<PathBuf> {
        given.map_or_else(|| Ok(self.default_root()), resolve_root)
    }

    /// Where what outlives a reboot is kept: `--records`, else the usual place; `None` if there is
    /// none.
    pub(crate) fn records(&self, given: Option<&Path>) -> Result<Option<PathBuf>> {
        if self.program == Program::Runc {
            return Ok(None);
        }
        if let Some(given) = given {
            return std::path::absolute(given)
                .with_context(|| format!("resolve {}", given.display()))
                .map(Some);
        }
        if self.default_root() == Path::new("/run/runtime") {
            return Ok(Some("/var/lib/runtime".into()));
        }
        let from = |name| std::env::var_os(name).filter(|path| Path::new(path).is_absolute());
        let data = from("XDG_DATA_HOME").map(PathBuf::from);
        let data = data.or_else(|| Some(Path::new(&from("HOME")?).join(".local/share")));
        Ok(data.map(|data| data.join("runtime")))
    }

    /// Where state records lie when `--root` does not say.
    pub(crate) fn default_root(&self) -> PathBuf {
        // Engines start us without a USER in the user namespace of whoever started them.
        let user_is_root = std::env::var_os("USER").is_some_and(|user| user == "root");
        let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty());
        match runtime_dir {
            Some(path) if self.euid != 0 || (self.in_userns && !user_is_root) => {
                Path::new(&path).join(self.program.name())
            }
            _ => Path::new("/run").join(self.program.name()),
        }
    }
}

/// Whether the kernel confines by AppArmor profiles, as runc finds it out: a container's view of the
/// host may hide the one or the other.
pub(crate) fn apparmor_is_enabled() -> bool {
    Path::new("/sys/kernel/security/apparmor").exists()
        && std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
            .is_ok_and(|text| text.starts_with('Y'))
}

/// Whether the kernel labels processes and files by SELinux.
pub(crate) fn selinux_is_enabled() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// The first user namespace maps every id to itself.
fn in_user_namespace() -> Result<bool> {
    let map = match crate::pseudo::read_to_string("/proc/self/uid_map") {
        Ok(map) => map,
        // A kernel without user namespaces.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).context("read /proc/self/uid_map"),
    };
    Ok(map.split_whitespace().ne(["0", "0", "4294967295"]))
}

/// `--root` made absolute and clean.
fn resolve_root(given: &Path) -> Result<PathBuf> {
    let absolute =
        std::path::absolute(given).with_context(|| format!("resolve {}", given.display()))?;
    let mut clean = PathBuf::from("/");
    for part in absolute.components() {
        match part {
            std::path::Component::Normal(name) => clean.push(name),
            std::path::Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    if clean == Path::new("/") {
        bail!("Option --root argument should not be set to /");
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_runc_makes_us_runc() {
        for (argv0, program) in [
            ("runc", Program::Runc),
            ("/usr/bin/runc", Program::Runc),
            ("runtime", Program::Runtime),
            ("./x/runc-dev", Program::Runtime),
        ] {
            assert_eq!(Program::from_argv0(OsStr::new(argv0)), program, "{argv0}");
        }
    }

    #[test]
    fn root_is_cleaned_and_never_the_root_directory() {
        assert_eq!(resolve_root(Path::new("/a/../b/./c/")).unwrap(), Path::new("/b/c"));
        assert!(resolve_root(Path::new("/a/..")).is_err());
    }
}
