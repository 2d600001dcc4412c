//! What CRIU has written about a failure.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Error, anyhow};

use super::swrk::Failed;

/// A failure of CRIU's with its reason and the place of the log.
pub(super) fn explain(error: Error, (directory, file): (&Path, &str)) -> Error {
    let Some(failed) = error.downcast_ref::<Failed>() else { return error };
    let path = directory.join(file);
    let log = format!("(log file: {})", path.display());
    let reason = match std::fs::read(&path) {
        Ok(text) => last_error(&String::from_utf8_lossy(&text)).map(str::to_owned),
        Err(reading) if reading.kind() == ErrorKind::NotFound => {
            return anyhow!("{failed}: {}", told(failed).unwrap_or("it has written no log"));
        }
        Err(reading) => return anyhow!("{failed} {log}: it can't be read: {reading}"),
    };
    match reason.as_deref().or(told(failed)) {
        Some(reason) => anyhow!("{failed}: {reason} {log}"),
        None => anyhow!("{failed} {log}"),
    }
}

/// The first error that it met, which need not be the one that it failed for.
fn told(failed: &Failed) -> Option<&str> {
    Some(failed.reason.as_str()).filter(|reason| !reason.is_empty())
}

/// The last of the errors that says more than that something has failed.
fn last_error(text: &str) -> Option<&str> {
    let errors = || text.lines().filter_map(|line| line.find("Error (").map(|at| &line[at..]));
    let telling = |line: &&str| !line.ends_with(" FAILED.") && !line.ends_with("failed with -1");
    errors().rfind(telling).or_else(|| errors().next_back()).map(str::trim_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_telling_error_is_told() {
        let text = "(00.01) Dumping\n(00.02) Error (criu/a.c:1): first\n\
            (00.03) Error (criu/mount.c:2): mnt: no way\n(00.04) Unlock network\n\
            (00.04) Error (criu/cr-dump.c:1698): Dump files (pid: 4) failed with -1\n\
            (00.05) Error (criu/cr-dump.c:1781): Dumping FAILED.\n";
        assert_eq!(last_error(text), Some("Error (criu/mount.c:2): mnt: no way"));
        let text = "(00.05) Error (criu/cr-dump.c:1781): Dumping FAILED.\n";
        assert_eq!(last_error(text), Some("Error (criu/cr-dump.c:1781): Dumping FAILED."));
        assert_eq!(last_error("(00.01) all is well\n"), None);
    }

    #[test]
    fn a_reason_that_was_told_needs_no_log() {
        let logs = (Path::new("/nowhere"), "dump.log");
        let told = Failed { text: "criu failed".to_owned(), reason: "why".to_owned() };
        let text = explain(told.into(), logs).to_string();
        assert_eq!(text, "criu failed: why");
        let silent = Failed { text: "criu failed".to_owned(), reason: String::new() };
        let text = explain(silent.into(), logs).to_string();
        assert_eq!(text, "criu failed: it has written no log");
        assert_eq!(explain(anyhow!("a hook"), logs).to_string(), "a hook");
    }
}
