//! What cgroup files held before they were written, for the way back.

use std::path::PathBuf;

use anyhow::{Context, Error, Result};

use super::files::{Dir, FileError};

/// The files that are keyed by something else than the numbers of a device.
const KEYED: [&str; 5] = ["rdma.max", "misc.max", "dmem.max", "dmem.low", "net_prio.ifpriomap"];

/// Old contents in the order they were overwritten.
#[derive(Debug)]
pub(crate) struct Journal {
    kept: Option<Vec<Entry>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    dir: PathBuf,
    file: String,
    /// What has to be written to have the old state back.
    text: String,
}

impl Journal {
    /// For what is thrown away as a whole when something fails.
    pub(super) fn none() -> Self {
        Self { kept: None }
    }

    /// Keeps everything.
    pub(crate) fn keeping() -> Self {
        Self { kept: Some(Vec::new()) }
    }

    /// Writes `value`, and keeps what it replaces.
    pub(super) fn write(&mut self, dir: &Dir, file: &str, value: &str) -> Result<(), FileError> {
        let Some(kept) = &mut self.kept else { return dir.write(file, value) };
        // What can't be read is no state (`cgroup.kill`), or its write fails for the same reason.
        let old = dir.read(file).ok();
        dir.write(file, value)?;
        if let Some(old) = old {
            let text = way_back(file, &old, value);
            kept.push(Entry { dir: dir.path.clone(), file: file.to_owned(), text });
        }
        Ok(())
    }

    /// Puts back what was overwritten, the last first: as every state on the way there was valid,
    /// so is every one on the way back. Returns `error`, with what could not be put back before it.
    pub(crate) fn undo(self, error: Error) -> Error {
        let restore = |entry: &Entry| -> Result<()> {
            Ok(Dir::open(&entry.dir)?.write(&entry.file, &entry.text)?)
        };
        let failures: Vec<String> = self
            .kept
            .iter()
            .flatten()
            .rev()
            .filter_map(|entry| restore(entry).context("restore the old limits").err())
            .map(|failure| crate::error::render(&failure))
            .collect();
        if failures.is_empty() { error } else { error.context(failures.join("; ")) }
    }
}

/// What to write to have `old` back after `written`.
fn way_back(file: &str, old: &str, written: &str) -> String {
    let key = written.split_whitespace().next().unwrap_or_default();
    let of_device = key.split_once(':').is_some_and(|(major, minor)| {
        [major, minor].iter().all(|it| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit()))
    });
    if of_device || KEYED.contains(&file) {
        let known = old.lines().find(|line| line.split_whitespace().next() == Some(key));
        return known.map_or_else(|| unlimited(file, key), |line| line.trim().to_owned());
    }
    if file == "memory.oom_control" {
        let disabled = old.lines().any(|line| line.trim() == "oom_kill_disable 1");
        return u8::from(disabled).to_string();
    }
    // A list of CPUs may be empty, but the kernel hears of no empty write.
    match old.lines().next() {
        Some(line) if !line.trim().is_empty() => line.trim().to_owned(),
        _ => "\n".to_owned(),
    }
}

/// How a file spells that it says nothing about `key`.
fn unlimited(file: &str, key: &str) -> String {
    match file {
        "io.max" => format!("{key} rbps=max wbps=max riops=max wiops=max"),
        "io.latency" => format!("{key} target=0"),
        _ if file.starts_with("blkio.throttle.") => format!("{key} 0"),
        _ if file.contains("weight") => format!("{key} default"),
        _ => format!("{key} max"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_speaks_the_language_of_the_file() {
        for (file, old, written, back) in [
            ("memory.max", "max\n", "100", "max"),
            ("cpu.max", "max 100000\n", "5000 10000", "max 100000"),
            ("io.weight", "default 100\n8:0 50\n", "7475", "default 100"),
            ("io.bfq.weight", "default 100\n", "8:0 50", "8:0 default"),
            ("cpuset.cpus", "\n", "0-1", "\n"),
            ("cpuset.cpus", "0-3\n", "0-1", "0-3"),
            ("io.max", "", "8:0 rbps=5", "8:0 rbps=max wbps=max riops=max wiops=max"),
            (
                "io.max",
                "8:16 rbps=1 wbps=max riops=max wiops=max\n8:0 rbps=2 wbps=max riops=max wiops=3\n",
                "8:0 rbps=5",
                "8:0 rbps=2 wbps=max riops=max wiops=3",
            ),
            ("blkio.throttle.read_bps_device", "8:16 7\n", "8:0 9", "8:0 0"),
            (
                "rdma.max",
                "mlx5_0 hca_handle=max hca_object=max\n",
                "mlx5_0 hca_handle=3",
                "mlx5_0 hca_handle=max hca_object=max",
            ),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", "1", "0"),
            ("net_prio.ifpriomap", "lo 0\neth0 3\n", "eth0 5", "eth0 3"),
        ] {
            assert_eq!(way_back(file, old, written), back, "{file}: {written}");
        }
    }
}
