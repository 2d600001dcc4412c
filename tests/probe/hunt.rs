//! Hunts for other processes of the container while they are still the runtime: what an attacker
//! who waits for `exec` can read of them and write to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::{Value, json};

/// Goes around in /proc until `stop` is a file; then what was found.
pub(super) fn until(stop: &str) -> io::Result<Value> {
    let own = std::process::id().to_string();
    let mut found = Found::default();
    while !Path::new(stop).exists() {
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != own && name.bytes().all(|byte| byte.is_ascii_digit()) {
                found.look_at(&name);
            }
        }
    }
    Ok(json!({
        "stages": found.stages.len(),
        "programs": found.programs,
        "descriptors": found.descriptors,
        "writes": found.writes,
    }))
}

#[derive(Default)]
struct Found {
    /// Processes that did not let us see what they are, or are not a program of the container.
    stages: BTreeSet<String>,
    /// Where their programs lie.
    programs: BTreeSet<String>,
    /// What is open in them that is not open in us.
    descriptors: BTreeSet<String>,
    /// How each attempt to open their program for writing, or to write it, ended.
    writes: BTreeMap<String, usize>,
}

impl Found {
    fn look_at(&mut self, pid: &str) {
        let exe = format!("/proc/{pid}/exe");
        match fs::read_link(&exe) {
            Ok(program) if program == Path::new("/probe") => return,
            Ok(program) => drop(self.programs.insert(program.display().to_string())),
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => {}
            Err(_) => return,
        }
        self.stages.insert(pid.to_owned());
        // A handle outlives the process, and with it the kernel's refusal to write what runs.
        let handle = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&exe);
        let mut paths = vec![exe];
        if let Ok(handle) = &handle {
            paths.push(format!("/proc/self/fd/{}", handle.as_raw_fd()));
        }
        self.read_descriptors(pid);
        for path in paths {
            for _ in 0..50 {
                let outcome = overwrite(&path);
                *self.writes.entry(outcome).or_default() += 1;
            }
        }
    }

    fn read_descriptors(&mut self, pid: &str) {
        let places = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let places = places.map(|entry| entry.path());
        for place in places.chain(["cwd", "root"].map(|name| format!("/proc/{pid}/{name}").into()))
        {
            // Through a directory of the host's one would come to all the host.
            if let Ok(text) = fs::read_to_string(place.join("canary/secret")) {
                self.descriptors.insert(format!("{}: {text}", place.display()));
            }
        }
    }
}

fn overwrite(path: &str) -> String {
    let attempt = OpenOptions::new().write(true).open(path).and_then(|mut file: File| {
        file.write_all(b"#!/bin/false\n")?;
        Ok("written".to_owned())
    });
    attempt.unwrap_or_else(|error| super::errno_name(&error))
}
