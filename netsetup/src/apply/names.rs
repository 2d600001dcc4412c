//! Names: who is on a container's networks stands in its hosts file, between two lines of ours.
//! The file is written in place, since it is bound into the container by its inode.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::Host;
use crate::plan;
use crate::state::Attachment;

const BEGIN: &str = "# containers on the same networks, by netsetup";
const END: &str = "# end of what netsetup wrote";
/// No hosts file of a container's is larger than this.
const LIMIT: u64 = 16 << 20;

impl Host<'_> {
    /// Writes the names of a network's containers into the hosts files of all of them. What is
    /// wrong with `own`'s file is an error; those of others may be going away with their bundles.
    pub(super) fn spread_names(&mut self, network: &str, own: &str) -> Result<()> {
        for (id, path) in self.store.hosts(network)? {
            let written = self.write_names(&id, &path);
            if id == own {
                written?;
            }
        }
        Ok(())
    }

    /// Takes a network's names out of the files of all, a container's that leaves it too.
    pub(super) fn withdraw_names(&mut self, network: &str, id: &str) -> Result<()> {
        let files = self.store.hosts(network)?;
        self.store.forget_hosts(network, id)?;
        for (id, path) in files {
            // It may be gone with its bundle.
            drop(self.write_names(&id, &path));
        }
        Ok(())
    }

    fn write_names(&self, id: &str, path: &Path) -> Result<()> {
        rewrite(path, &self.names_for(id)?)
            .with_context(|| format!("write names into {}", path.display()))
    }

    /// A line for each address on those of a container's networks whose names its file has.
    fn names_for(&self, id: &str) -> Result<BTreeSet<String>> {
        let mut lines = BTreeSet::new();
        for attachment in self.store.attachments(id)? {
            if !self.store.has_hosts(&attachment.network, id) {
                continue;
            }
            for (member, interface) in self.store.members(&attachment.network)? {
                let all = self.store.attachments(&member)?;
                lines.extend(all.iter().filter(|it| it.interface == interface).flat_map(lines_of));
            }
        }
        Ok(lines)
    }
}

fn lines_of(attachment: &Attachment) -> Vec<String> {
    let names = attachment.names.iter().chain([&attachment.id]).map(String::as_str);
    // Other tools' names may be none that a file can hold.
    let names: Vec<&str> = names.filter(|name| plan::is_host_name(name)).collect();
    let names = names.join(" ");
    attachment.addresses.iter().map(|it| format!("{}\t{names}", it.address)).collect()
}

/// Puts the lines in place of those that stand there.
fn rewrite(path: &Path, lines: &BTreeSet<String>) -> Result<()> {
    // The container may write to the file; nobody puts another one in its place.
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let mut file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    ensure!(metadata.is_file() && metadata.len() <= LIMIT, "it is no hosts file");
    let text = read(&mut file)?;
    let new = replaced(&text, lines);
    if new == text {
        return Ok(());
    }
    // Whoever reads meanwhile finds a file with names in it, never an empty one.
    file.write_all_at(new.as_bytes(), 0)?;
    file.set_len(new.len() as u64)?;
    file.flush()?;
    Ok(())
}

fn read(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.take(LIMIT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn replaced(text: &str, lines: &BTreeSet<String>) -> String {
    let (mut kept, mut ours) = (String::new(), false);
    for line in text.lines() {
        ours |= line == BEGIN;
        if !ours {
            kept.push_str(line);
            kept.push('\n');
        }
        ours &= line != END;
    }
    if !lines.is_empty() {
        kept.push_str(BEGIN);
        for line in lines {
            kept.push('\n');
            kept.push_str(line);
        }
        kept.push('\n');
        kept.push_str(END);
        kept.push('\n');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_lines_replace_each_other_and_nothing_else() {
        let lines = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let first = replaced("127.0.0.1 localhost\n", &lines(&["10.0.0.2\tweb"]));
        assert!(first.starts_with("127.0.0.1 localhost\n") && first.contains("\n10.0.0.2\tweb\n"));
        let second = replaced(&(first + "1.2.3.4 mine\n"), &lines(&["10.0.0.3\tdb"]));
        assert!(second.contains("10.0.0.3\tdb") && !second.contains("web"));
        assert!(second.contains("1.2.3.4 mine\n"));
        assert_eq!(replaced(&second, &lines(&[])), "127.0.0.1 localhost\n1.2.3.4 mine\n");
    }
}
