//! What the verbs do for containers that have a supervisor, or had one.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use super::create::{self, Prepared};
use super::update;
use crate::args::{Run, Supervision};
use crate::clock;
use crate::error::Sentinel;
use crate::foreground::terminal;
use crate::host::Host;
use crate::records::names::{self, NAME_ANNOTATION};
use crate::records::{Life, LogPlan, Records, Setup, Supervised};
use crate::state::StateStore;
use crate::supervise::{self, DEFAULT_KEYS, Ending, Keys, Restart, Settings, Visit};

mod life;

pub(super) use life::{Patience, delete, note_kill, start, stop_all, wanted_at_boot};

/// By which imgtool passes on the user's `--interactive`.
const INTERACTIVE_ANNOTATION: &str = "org.imgtool.interactive";
/// The command line, as imgtool writes it down.
const COMMAND_ANNOTATION: &str = "org.imgtool.command";
/// What the bundle wishes where no flag says otherwise.
const RESTART_ANNOTATION: &str = "org.imgtool.restart";
const LOG_MAX_SIZE_ANNOTATION: &str = "org.imgtool.log-max-size";
const LOG_MAX_FILES_ANNOTATION: &str = "org.imgtool.log-max-files";
const DEFAULT_LOG_BYTES: i64 = 20 << 20;
const DEFAULT_LOG_FILES: u32 = 5;
const LOG_FILE: &str = "log";

/// `run --supervise`
pub(super) fn run(args: Run, host: &Host, store: &StateStore, records: &Records) -> Result<u8> {
    let supervision = &args.supervision;
    refuse_nonsense(&args)?;
    let keys = Keys::parse(supervision.detach_keys.as_deref().unwrap_or(DEFAULT_KEYS))?;
    let log_path = create::absolute(supervision.log_path.clone())?;
    let prepared = Prepared::new(args.setup, host, store, records)?;
    prepared.must_have_process()?;
    if store.directory(&prepared.id).exists() {
        return Err(Sentinel::AlreadyExists.into());
    }
    let record = new_record(&prepared, supervision, log_path, host, store, records)?;
    let mut settings = Settings::of(&record, records.place()?)?;
    let held = records.create(&record)?;
    settings.attached = !args.detach;
    if record.terminal && !args.detach {
        settings.size = terminal::own_size()?;
    }
    let begun = supervise::launch(&settings).and_then(|mut socket| {
        supervise::await_start(&mut socket)?;
        Ok(socket)
    });
    let socket = match begun {
        Ok(socket) => socket,
        Err(error) => {
            records.remove(&record.id)?;
            return Err(error);
        }
    };
    drop(held);
    prepared.keep_cidfile();
    if args.detach {
        if prepared.generated {
            writeln!(std::io::stdout(), "{}", record.id).context("print the id")?;
        }
        return Ok(0);
    }
    let input = record.interactive || record.terminal;
    let visit = Visit { input, forward_signals: true, detach: keys, repaint: false };
    match supervise::converse(socket, visit, record.terminal)? {
        Ending::Exit(code) => Ok(code),
        Ending::Detached => Ok(0),
    }
}

/// What only a supervisor can do is refused without one.
pub(super) fn refuse_without(flags: &Supervision) -> Result<()> {
    let given = [
        ("interactive", flags.interactive),
        ("rm", flags.rm),
        ("restart", flags.restart.is_some()),
        ("log-path", flags.log_path.is_some()),
        ("log-max-size", flags.log_max_size.is_some()),
        ("log-max-files", flags.log_max_files.is_some()),
        ("detach-keys", flags.detach_keys.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((flag, _)) => bail!("--{flag} needs --supervise"),
        None => Ok(()),
    }
}

/// What the bundle asks for, and nobody but a supervisor does, is not dropped in silence.
pub(super) fn tell_what_is_not_done(prepared: &Prepared) {
    let policy = prepared.bundle.spec.annotations.get(RESTART_ANNOTATION);
    if let Some(policy) = policy.filter(|policy| *policy != "no") {
        crate::log::warn(format_args!(
            "the bundle asks for --restart {policy}: only `run --supervise` starts it again"
        ));
    }
}

fn refuse_nonsense(args: &Run) -> Result<()> {
    let process = &args.setup.process;
    let given = [
        ("console-socket", process.console_socket.is_some()),
        ("pidfd-socket", process.pidfd_socket.is_some()),
        ("preserve-fds", process.preserve_fds > 0),
        ("keep", args.keep),
        ("no-subreaper", args.no_subreaper),
    ];
    if let Some((flag, _)) = given.iter().find(|(_, given)| *given) {
        bail!("--{flag} and --supervise exclude each other");
    }
    Ok(())
}

fn new_record(
    prepared: &Prepared,
    flags: &Supervision,
    log_path: Option<PathBuf>,
    host: &Host,
    store: &StateStore,
    records: &Records,
) -> Result<Supervised> {
    let (id, bundle) = (&prepared.id, &prepared.bundle);
    let annotations = &bundle.spec.annotations;
    let directory = records.directory(id)?;
    let process = bundle.spec.process.as_ref();
    let command = annotations
        .get(COMMAND_ANNOTATION)
        .and_then(|text| serde_json::from_str(text).ok())
        .or_else(|| process.map(|process| process.args.clone()))
        .unwrap_or_default();
    let said = annotations.get(INTERACTIVE_ANNOTATION).is_some_and(|value| value == "true");
    Ok(Supervised {
        id: id.clone(),
        name: name(id, annotations.get(NAME_ANNOTATION), store, records)?,
        root: store.root().to_owned(),
        bundle: bundle.dir.clone(),
        config: prepared.config.clone(),
        rootfs: bundle.rootfs.clone(),
        oci_version: bundle.spec.oci_version.clone(),
        annotations: annotations.clone(),
        command,
        terminal: prepared.terminal(),
        created: clock::nanoseconds(SystemTime::now()),
        setup: Setup {
            no_pivot: prepared.no_pivot,
            no_new_keyring: prepared.no_new_keyring,
            systemd_cgroup: host.systemd_cgroup,
            rootless: host.rootless_said,
            pid_file: prepared.process.pid_file.clone(),
        },
        log: log_plan(flags, annotations, log_path.unwrap_or_else(|| directory.join(LOG_FILE)))?,
        restart: restart(flags, annotations)?,
        interactive: flags.interactive || said,
        remove: flags.rm,
        life: Life::default(),
    })
}

fn restart(flags: &Supervision, annotations: &BTreeMap<String, String>) -> Result<Restart> {
    let text = match (&flags.restart, annotations.get(RESTART_ANNOTATION)) {
        (Some(text), _) | (None, Some(text)) => text,
        (None, None) => "no",
    };
    if flags.rm && text != "no" {
        bail!("--rm and --restart exclude each other");
    }
    Restart::parse(text)
}

fn log_plan(
    flags: &Supervision,
    annotations: &BTreeMap<String, String>,
    path: PathBuf,
) -> Result<LogPlan> {
    let max_bytes = match flags.log_max_size.as_ref().or(annotations.get(LOG_MAX_SIZE_ANNOTATION)) {
        None => DEFAULT_LOG_BYTES,
        Some(text) => match update::size(text) {
            Some(bytes) if bytes > 0 => bytes,
            _ => bail!("invalid value {text:?} for --log-max-size: a size such as 20m"),
        },
    };
    let max_files = match (flags.log_max_files, annotations.get(LOG_MAX_FILES_ANNOTATION)) {
        (Some(files), _) => files,
        (None, Some(text)) => text
            .parse()
            .with_context(|| format!("annotation {LOG_MAX_FILES_ANNOTATION}: {text:?}"))?,
        (None, None) => DEFAULT_LOG_FILES,
    };
    if max_files == 0 {
        bail!("invalid value 0 for --log-max-files: at least the file that is written to is kept");
    }
    Ok(LogPlan { path, max_bytes: max_bytes.unsigned_abs(), max_files })
}

/// The name that was asked for, if nobody has it; else words that nobody has.
fn name(id: &str, asked: Option<&String>, store: &StateStore, records: &Records) -> Result<String> {
    if let Some(asked) = asked {
        records.check_name(asked, id, store)?;
        return Ok(asked.clone());
    }
    let taken = records.names(store)?;
    if !crate::records::is_generated(id) {
        return Ok(id.to_owned());
    }
    let free = |name: &String| taken.iter().all(|(_, other)| other != name);
    // With a thousand names and more containers than that, two share one.
    let name = (0..4096).map(|turn| names::generate(id, turn)).find(free);
    Ok(name.unwrap_or_else(|| names::generate(id, 0)))
}

/// The record of one that is supervised; of another, why there is none.
pub(super) fn load(id: &str, records: &Records, store: &StateStore) -> Result<Supervised> {
    match records.find(id)? {
        Some(record) => Ok(record),
        None if store.find(id)?.is_some() => {
            bail!("container {id} has no supervisor: only `run --supervise` gives it one")
        }
        None => Err(Sentinel::NotExist.into()),
    }
}
