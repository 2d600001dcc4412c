//! Errors whose text engines match, and how a chain of causes is put into one line.

use anyhow::Error;
use nix::errno::Errno;

/// The texts that containerd, CRI-O, podman and docker look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Sentinel {
    #[error("container does not exist")]
    NotExist,
    #[error("container not running")]
    NotRunning,
    #[error("container not paused")]
    NotPaused,
    #[error("container with given ID already exists")]
    AlreadyExists,
    #[error("invalid container ID format")]
    InvalidId,
    #[error("container id cannot be empty")]
    EmptyId,
    #[error("JSON specification file config.json not found")]
    NoConfig,
    #[error("config cannot be null")]
    NullConfig,
}

/// True if `error` has `sentinel` among its causes.
pub(crate) fn is(error: &Error, sentinel: Sentinel) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<Sentinel>() == Some(&sentinel))
}

/// The chain of causes, outermost first, joined as Go joins them.
pub(crate) fn render(error: &Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause_text(cause);
        if line.ends_with(&text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    line
}

fn cause_text(cause: &(dyn std::error::Error + 'static)) -> String {
    if let Some(errno) = cause.downcast_ref::<Errno>() {
        return errno_text(*errno);
    }
    if let Some(errno) = cause.downcast_ref::<rustix::io::Errno>() {
        return errno_text(Errno::from_raw(errno.raw_os_error()));
    }
    if let Some(code) =
        cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error)
    {
        return errno_text(Errno::from_raw(code));
    }
    cause.to_string()
}

/// The errno's text as Go prints it, since engines search for "no such file or directory".
pub(crate) fn errno_text(errno: Errno) -> String {
    let full = std::io::Error::from_raw_os_error(errno as i32).to_string();
    let text = full.rsplit_once(" (os error").map_or(full.as_str(), |(text, _)| text);
    let mut letters = text.chars();
    match letters.next() {
        // "RFS specific error" keeps its capitals.
        Some(first) if letters.as_str().starts_with(|c: char| c.is_lowercase()) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn errno_is_spelled_as_go_spells_it() {
        assert_eq!(errno_text(Errno::ENOENT), "no such file or directory");
        assert_eq!(errno_text(Errno::EPERM), "operation not permitted");
        assert_eq!(errno_text(Errno::EBUSY), "device or resource busy");
    }

    #[test]
    fn a_chain_is_one_line() {
        let error = Err::<(), _>(std::io::Error::from_raw_os_error(libc::ENOENT))
            .context("chdir /x")
            .context("runc create failed")
            .unwrap_err();
        assert_eq!(render(&error), "runc create failed: chdir /x: no such file or directory");
    }

    #[test]
    fn a_sentinel_is_found_beneath_its_context() {
        let error = Error::from(Sentinel::NotExist).context("exec failed");
        assert!(is(&error, Sentinel::NotExist));
        assert!(!is(&error, Sentinel::NotRunning));
    }
}
