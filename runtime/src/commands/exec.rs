//! `exec`: one more process in a container that is created or running.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::create::{absolute, console};
use crate::args::Exec;
use crate::bundle;
use crate::foreground::{self, Foreground};
use crate::host::Host;
use crate::log;
use crate::spawn::{self, Console, ExecRequest, SpawnOptions, Spawned, Stdio};
use crate::spec::{self, Capabilities, Process, Spec};
use crate::state::{self, Record, StateStore, Status};

pub(super) fn run(args: Exec, host: &Host, store: &StateStore) -> Result<u8> {
    exec(args, host, store).context("exec failed")
}

fn exec(mut args: Exec, host: &Host, store: &StateStore) -> Result<u8> {
    args.process_setup.pid_file = absolute(args.process_setup.pid_file)?;
    args.process_setup.pidfd_socket = absolute(args.process_setup.pidfd_socket)?;
    let socket = absolute(args.process_setup.console_socket.take())?;
    let record = store.load(&args.id)?;
    match state::status(store, &record)? {
        Status::Stopped => bail!("cannot exec in a stopped container"),
        Status::Paused if !args.ignore_paused => {
            bail!("cannot exec in a paused container (use --ignore-paused to override)")
        }
        Status::Running if !args.ignore_paused && record.cgroup().is_held()? => bail!(
            "cannot exec in a paused container: a cgroup above its own is frozen (use \
             --ignore-paused to override)"
        ),
        _ => {}
    }
    let config = store.config(&args.id)?;
    let spec = bundle::parse_config(&config)?;
    let process = match &args.process {
        Some(path) => read_process(path)?,
        None => process_of_bundle(&args, &record, &spec, &config)?,
    };
    let terminal = process.terminal;
    let console = console(terminal, args.detach, socket.as_deref())?;
    let exec = Prepared { args: &args, process: &process, spec };
    if args.detach {
        exec.spawn(console, Stdio::Inherit, &record, host)?;
        return Ok(0);
    }
    let (ours, theirs) = foreground::stdio(terminal, &exec.spec)?;
    let mut foreground = Foreground::new(ours, false)?;
    let spawned = exec.spawn(console, theirs, &record, host)?;
    foreground.wait(spawned)
}

struct Prepared<'a> {
    args: &'a Exec,
    process: &'a Process,
    spec: Spec,
}

impl Prepared<'_> {
    fn spawn(
        &self,
        console: Console,
        stdio: Stdio,
        record: &Record,
        host: &Host,
    ) -> Result<Spawned> {
        let setup = &self.args.process_setup;
        let request = ExecRequest {
            host,
            record,
            spec: &self.spec,
            process: self.process,
            sub_cgroups: &self.args.cgroup,
            options: SpawnOptions {
                console,
                stdio,
                pidfd_socket: setup.pidfd_socket.clone(),
                pid_file: setup.pid_file.clone(),
                preserve_fds: setup.preserve_fds,
                no_new_keyring: record.config.no_new_keyring,
            },
        };
        let spawned = spawn::exec(&request)?;
        for warning in &spawned.warnings {
            log::warn(warning);
        }
        Ok(spawned)
    }
}

/// With `--process` nothing is merged in from elsewhere.
fn read_process(path: &Path) -> Result<Process> {
    let raw = std::fs::read(path).with_context(|| format!("open {}", path.display()))?;
    let process = spec::parse_process(&raw).with_context(|| path.display().to_string())?;
    if process.args.is_empty() {
        bail!("args must not be empty");
    }
    Ok(process)
}

/// The bundle's own process, changed by the flags; `own` is what the container was made of, read from
/// `config`.
fn process_of_bundle(args: &Exec, record: &Record, own: &Spec, config: &[u8]) -> Result<Process> {
    if args.args.is_empty() {
        bail!("process args cannot be empty");
    }
    let process = if record.config_elsewhere {
        own.process.clone()
    } else {
        let raw = bundle::read_config(&record.bundle().join(bundle::CONFIG))?;
        if raw == config { own.process.clone() } else { bundle::parse_config(&raw)?.process }
    };
    merge(process.context("process property must not be empty")?, args)
}

fn merge(mut process: Process, args: &Exec) -> Result<Process> {
    process.args.clone_from(&args.args);
    process.terminal = args.tty;
    if let Some(cwd) = args.cwd.as_ref().filter(|cwd| !cwd.is_empty()) {
        process.cwd.clone_from(cwd);
    }
    if let Some(profile) = &args.apparmor {
        process.apparmor_profile.clone_from(profile);
    }
    if let Some(label) = &args.process_label {
        process.selinux_label.clone_from(label);
    }
    process.env.extend(args.env.iter().cloned());
    process.no_new_privileges |= args.no_new_privs;
    if let Some(user) = args.user.as_deref().filter(|user| !user.is_empty()) {
        let (uid, gid) = match user.split_once(':') {
            Some((uid, gid)) => (uid, Some(gid)),
            None => (user, None),
        };
        process.user.uid = uid.parse().with_context(|| format!("bad uid {uid:?}"))?;
        if let Some(gid) = gid {
            process.user.gid = gid.parse().with_context(|| format!("bad gid {gid:?}"))?;
        }
    }
    process.user.additional_gids.extend(&args.additional_gids);
    if !args.cap.is_empty() {
        add_capabilities(process.capabilities.get_or_insert_default(), &args.cap);
    }
    Ok(process)
}

/// Ambient only where the spec lets the capability be inherited, as the kernel would insist.
fn add_capabilities(sets: &mut Capabilities, added: &[String]) {
    for name in added {
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            push_new(set, name);
        }
        if sets.inheritable.contains(name) {
            push_new(&mut sets.ambient, name);
        }
    }
}

fn push_new(set: &mut Vec<String>, name: &String) {
    if !set.contains(name) {
        set.push(name.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::ProcessSetup;

    fn args() -> Exec {
        Exec {
            interactive: false,
            process_setup: ProcessSetup {
                console_socket: None,
                pidfd_socket: None,
                pid_file: None,
                preserve_fds: 0,
            },
            cwd: None,
            env: vec![],
            tty: false,
            user: None,
            additional_gids: vec![],
            process: None,
            detach: false,
            process_label: None,
            apparmor: None,
            no_new_privs: false,
            cap: vec![],
            cgroup: vec![],
            ignore_paused: false,
            id: "c".to_owned(),
            args: vec!["ls".to_owned()],
        }
    }

    #[test]
    fn a_terminal_is_taken_from_the_flag_alone() {
        let process = Process { terminal: true, ..Process::default() };
        assert!(!merge(process, &args()).unwrap().terminal);
    }

    #[test]
    fn user_and_group_are_numbers() {
        let with = |user: &str| Exec { user: Some(user.to_owned()), ..args() };
        let process = merge(Process::default(), &with("7:8")).unwrap();
        assert_eq!((process.user.uid, process.user.gid), (7, 8));
        assert!(merge(Process::default(), &with("root")).is_err());
    }

    #[test]
    fn an_added_capability_is_ambient_only_if_inheritable() {
        let mut sets = Capabilities::default();
        sets.inheritable.push("CAP_A".to_owned());
        add_capabilities(&mut sets, &["CAP_A".to_owned(), "CAP_B".to_owned()]);
        assert_eq!(sets.bounding, ["CAP_A", "CAP_B"]);
        assert_eq!(sets.ambient, ["CAP_A"]);
    }
}
