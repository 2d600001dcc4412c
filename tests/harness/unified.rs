//! A host with cgroup v2 alone: this one if it is so, else a mount namespace that shows it so.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::command::Cmd;

const MOUNT: &str = "/sys/fs/cgroup";

/// Commands run in it see the unified hierarchy only.
pub(crate) struct Unified {
    /// Keeps the mount namespace.
    holder: Option<Child>,
}

impl Unified {
    pub(crate) fn new() -> Self {
        if Path::new(MOUNT).join("cgroup.controllers").exists() {
            return Self { holder: None };
        }
        let script = format!(
            "umount -R {MOUNT} && mount -t cgroup2 none {MOUNT} && echo there && exec sleep 600"
        );
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start unshare");
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("it is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("read from the holder");
        assert_eq!(line, "there\n", "no view of cgroup v2 alone");
        Self { holder: Some(holder) }
    }

    /// Tells why and returns true unless containers can have all of `controllers`.
    pub(crate) fn lacks(&self, controllers: &[&str]) -> bool {
        let there = self.read("cgroup.controllers");
        let reason = controllers.iter().find_map(|wanted| {
            if !there.split(' ').any(|known| known == *wanted) {
                return Some(format!("the cgroup v2 hierarchy of this host has no {wanted}"));
            }
            let handed_down = fs::write(self.path("cgroup.subtree_control"), format!("+{wanted}"));
            handed_down.err().map(|error| format!("{wanted} can't be handed to cgroups: {error}"))
        });
        if let Some(reason) = &reason {
            println!("SKIP: {reason}");
        }
        reason.is_some()
    }

    /// The same command as seen by a process of this host.
    pub(crate) fn cmd(&self, program: impl AsRef<Path>) -> Cmd {
        match &self.holder {
            None => Cmd::new(program.as_ref()),
            Some(holder) => Cmd::new("nsenter")
                .arg(format!("--mount=/proc/{}/ns/mnt", holder.id()))
                .arg("--")
                .arg(program.as_ref()),
        }
    }

    /// Where the cgroup, or a file in it, can be reached from here.
    pub(crate) fn path(&self, cgroup: &str) -> PathBuf {
        let root = match &self.holder {
            None => PathBuf::from("/"),
            Some(holder) => PathBuf::from(format!("/proc/{}/root", holder.id())),
        };
        root.join(&MOUNT[1..]).join(cgroup.trim_start_matches('/'))
    }

    #[track_caller]
    pub(crate) fn read(&self, file: &str) -> String {
        let path = self.path(file);
        let text = fs::read_to_string(&path);
        text.unwrap_or_else(|error| panic!("read {}: {error}", path.display())).trim_end().into()
    }

    #[track_caller]
    pub(crate) fn write(&self, file: &str, text: &str) {
        let path = self.path(file);
        fs::write(&path, text).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
    }

    /// A cgroup of the test's own.
    #[track_caller]
    pub(crate) fn make(&self, cgroup: &str) {
        let path = self.path(cgroup);
        fs::create_dir(&path).unwrap_or_else(|error| panic!("mkdir {}: {error}", path.display()));
    }

    #[track_caller]
    pub(crate) fn remove(&self, cgroup: &str) {
        let path = self.path(cgroup);
        fs::remove_dir(&path).unwrap_or_else(|error| panic!("rmdir {}: {error}", path.display()));
    }
}

impl Drop for Unified {
    fn drop(&mut self) {
        if let Some(holder) = &mut self.holder {
            // It may have ended by itself; either way it is waited for.
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}
