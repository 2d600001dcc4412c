//! `ps`: the host's own ps, reduced to the processes in the container's cgroup.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::args::Ps;
use crate::host::Host;
use crate::log;
use crate::state::{Record, StateStore};

pub(super) fn run(args: &Ps, host: &Host, store: &StateStore) -> Result<u8> {
    let record = store.load(&args.id)?;
    let pids = if host.rootless && record.cgroup_paths.is_empty() {
        neighbours(&record)?
    } else {
        record.cgroup().pids()?
    };
    let text = match args.format.as_str() {
        "json" if pids.is_empty() => "null\n".to_owned(),
        "json" => serde_json::to_string(&pids).context("write the pids")? + "\n",
        "table" => {
            let pids = pids.iter().map(ToString::to_string).collect();
            filter(&host_ps(&args.args)?, &pids)?
        }
        _ => bail!("invalid format option"),
    };
    std::io::stdout().write_all(text.as_bytes()).context("print the processes")?;
    Ok(0)
}

/// Without a cgroup of its own, a container is told by its pid namespace.
fn neighbours(record: &Record) -> Result<Vec<i32>> {
    let Some(_alive) = record.pidfd()? else { return Ok(Vec::new()) };
    let init = record.init_process_pid;
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid"));
    let own = namespace(&init.to_string()).context("read the container's pid namespace")?;
    if own == namespace("self").context("read our pid namespace")? {
        log::warn("no cgroup and no pid namespace of its own: only its first process is known");
        return Ok(vec![init]);
    }
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc").context("read /proc")? {
        let name = entry.context("read /proc")?.file_name();
        let Some((name, pid)) = name.to_str().and_then(|it| Some((it, it.parse().ok()?))) else {
            continue;
        };
        // Other users' namespaces are not for us to see, and whoever has ended has none.
        if namespace(name).is_ok_and(|other| other == own) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

fn host_ps(args: &[String]) -> Result<String> {
    let default = ["-ef".to_owned()];
    let args = if args.is_empty() { default.as_slice() } else { args };
    let output =
        Command::new("ps").args(args).stdin(Stdio::null()).output().context("execute ps")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("{}: {text}{errors}", output.status);
    }
    Ok(text)
}

/// The header and the rows whose PID column is one of ours.
fn filter(text: &str, pids: &BTreeSet<String>) -> Result<String> {
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let Some(column) = header.split_whitespace().position(|title| title == "PID") else {
        bail!("couldn't find PID field in ps output");
    };
    let mut out = format!("{header}\n");
    for line in lines {
        if line.split_whitespace().nth(column).is_some_and(|pid| pids.contains(pid)) {
            out.push_str(line);
            out.push('\n');
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_kept_by_the_pid_column() {
        let pids = BTreeSet::from(["12".to_owned()]);
        let text = "USER  PID CMD\nroot   12 a\nroot    1 12\n";
        assert_eq!(filter(text, &pids).unwrap(), "USER  PID CMD\nroot   12 a\n");
        assert!(filter("USER CMD\n", &pids).is_err());
    }
}
