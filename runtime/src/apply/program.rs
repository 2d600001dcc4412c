//! The program: found as Go's `exec.LookPath` finds it, since engines match its words, and executed.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use rustix::fs::{Access, AtFlags, CWD, FileType};

use crate::error::errno_text;

/// The path to execute for `name`, sought in `search_path` unless it is a path itself.
pub(crate) fn find(name: &CStr, search_path: &str) -> Result<CString> {
    let shown = name.to_string_lossy();
    let name = Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()));
    if name.as_os_str().as_bytes().contains(&b'/') {
        check(name).map_err(|why| anyhow!("exec: {shown:?}: {why}"))?;
        return c_path(name);
    }
    for directory in search_path.split(':').filter(|_| !name.as_os_str().is_empty()) {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate: PathBuf = Path::new(directory).join(name);
        if check(&candidate).is_err() {
            continue;
        }
        if !candidate.is_absolute() {
            return Err(anyhow!(
                "exec: {shown:?}: cannot run executable found relative to current directory"
            ));
        }
        return c_path(&candidate);
    }
    Err(anyhow!("exec: {shown:?}: executable file not found in $PATH"))
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).context("name the program")
}

/// Why it can't be executed, if so.
fn check(path: &Path) -> Result<(), String> {
    let text = |error: rustix::io::Errno| errno_text(Errno::from_raw(error.raw_os_error()));
    let stat = rustix::fs::stat(path)
        .map_err(|error| format!("stat {}: {}", path.display(), text(error)))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(errno_text(Errno::EISDIR));
    }
    match rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        Ok(()) => Ok(()),
        // The seccomp filter may refuse the newer call: the mode bits have to do.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) if stat.st_mode & 0o111 != 0 => {
            Ok(())
        }
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => Err(errno_text(Errno::EACCES)),
        Err(error) => Err(text(error)),
    }
}

/// Becomes the program.
pub(crate) fn execute(path: &CStr, argv: &[CString], env: &[CString]) -> Result<Infallible> {
    nix::unistd::execve(path, argv, env)
        .map_err(|error| anyhow!("exec {}: {}", path.to_string_lossy(), errno_text(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &CStr, path: &str) -> String {
        find(name, path).unwrap_err().to_string()
    }

    #[test]
    fn refusals_are_worded_as_go_words_them() {
        assert_eq!(refusal(c"nope", "/bin"), "exec: \"nope\": executable file not found in $PATH");
        assert_eq!(refusal(c"/nope", ""), "exec: \"/nope\": stat /nope: no such file or directory");
        assert_eq!(refusal(c"/etc", ""), "exec: \"/etc\": is a directory");
        assert_eq!(refusal(c"/etc/passwd", ""), "exec: \"/etc/passwd\": permission denied");
    }

    #[test]
    fn a_name_is_sought_along_the_path() {
        assert_eq!(find(c"sh", "/nope:/bin").unwrap().as_c_str(), c"/bin/sh");
    }
}
