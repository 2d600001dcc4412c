//! Control groups that a killed build left: a runtime that was killed too could not remove them.

use std::fs;
use std::path::{Path, PathBuf};

/// Removes the groups of this name in every hierarchy. Nothing can be in them any more, and whoever
/// may not remove them has not made them.
pub(super) fn remove(name: &str) {
    let Ok(table) = fs::read_to_string("/proc/self/mountinfo") else { return };
    for line in table.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        if !after.starts_with("cgroup") {
            continue;
        }
        if let Some(mounted) = before.split(' ').nth(4) {
            remove_at(&PathBuf::from(mounted).join(name));
        }
    }
}

fn remove_at(path: &Path) {
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_at(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}
