//! `create`: everything up to the program itself, which waits for `start`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::cidfile::CidFile;
use crate::args::{Create, ProcessSetup, Setup};
use crate::bundle::{Bundle, joined};
use crate::host::{Host, Program};
use crate::log;
use crate::records::names::NAME_ANNOTATION;
use crate::records::{Records, SHORT_ID, Supervised};
use crate::spawn::{self, Console, CreateRequest, SpawnOptions, Spawned, Stdio};
use crate::state::StateStore;

/// `id`: the host name is the beginning of an id that the container may have.
const HOSTNAME_ANNOTATION: &str = "org.imgtool.hostname";

pub(super) fn run(args: Create, host: &Host, store: &StateStore, records: &Records) -> Result<u8> {
    create(args.setup, host, store, records)
        .with_context(|| format!("{} create failed", host.program.name()))
}

fn create(setup: Setup, host: &Host, store: &StateStore, records: &Records) -> Result<u8> {
    let prepared = Prepared::new(setup, host, store, records)?;
    let console = console(prepared.terminal(), true, prepared.console_socket.as_deref())?;
    let (id, generated) = (prepared.id.clone(), prepared.generated);
    prepared.spawn(console, Stdio::Inherit, host, store)?;
    prepared.keep_cidfile();
    if generated {
        writeln!(std::io::stdout(), "{id}").context("print the id")?;
    }
    Ok(0)
}

/// The request of `create` and of `run`, read and with absolute paths.
pub(crate) struct Prepared {
    pub(crate) id: String,
    /// The user left the id out.
    pub(super) generated: bool,
    pub(crate) bundle: Bundle,
    pub(super) console_socket: Option<PathBuf>,
    /// The document in place of the bundle's config.json.
    pub(super) config: Option<PathBuf>,
    pub(super) process: ProcessSetup,
    pub(super) no_pivot: bool,
    pub(super) no_new_keyring: bool,
    /// Where the id stands, for scripts.
    pub(super) cidfile: Option<CidFile>,
}

impl Prepared {
    /// Changes into the bundle; relative paths of files are the user's, so they come before.
    pub(super) fn new(
        setup: Setup,
        host: &Host,
        store: &StateStore,
        records: &Records,
    ) -> Result<Self> {
        let Setup { bundle, name, cidfile, config, mut process, no_pivot, no_new_keyring, id } =
            setup;
        let cidfile = absolute(cidfile)?;
        let config = absolute(config)?;
        process.pid_file = absolute(process.pid_file)?;
        process.pidfd_socket = absolute(process.pidfd_socket)?;
        let console_socket = absolute(process.console_socket.take())?;
        let generated = id.is_none();
        let mut bundle =
            Bundle::enter(bundle.as_deref().unwrap_or(Path::new(".")), config.as_deref())?;
        if host.program == Program::Runtime {
            joined::follow(&mut bundle.spec, store)?;
        }
        let id = match id {
            Some(id) => id,
            None => generate_id(wanted_beginning(&bundle, store, records)?)?,
        };
        if let Some(name) = name {
            records.check_name(&name, &id, store)?;
            bundle.spec.annotations.insert(NAME_ANNOTATION.to_owned(), name);
        }
        let cidfile = cidfile.map(|path| CidFile::write(path, &id)).transpose()?;
        Ok(Prepared {
            cidfile,
            id,
            generated,
            bundle,
            console_socket,
            config,
            process,
            no_pivot,
            no_new_keyring,
        })
    }

    /// What was asked for when the container was first run.
    pub(crate) fn again(
        record: &Supervised,
        host: &Host,
        store: &StateStore,
        records: &Records,
    ) -> Result<Self> {
        let setup = &record.setup;
        let setup = Setup {
            bundle: Some(record.bundle.clone()),
            name: None,
            cidfile: None,
            config: record.config.clone(),
            process: ProcessSetup {
                console_socket: None,
                pidfd_socket: None,
                pid_file: setup.pid_file.clone(),
                preserve_fds: 0,
            },
            no_pivot: setup.no_pivot,
            no_new_keyring: setup.no_new_keyring,
            id: Some(record.id.clone()),
        };
        Prepared::new(setup, host, store, records)
    }

    /// The program is to get a terminal.
    pub(crate) fn terminal(&self) -> bool {
        self.bundle.spec.process.as_ref().is_some_and(|process| process.terminal)
    }

    /// Refuses, before anything is made, what could be created but not started.
    pub(crate) fn must_have_process(&self) -> Result<()> {
        match self.bundle.spec.process {
            Some(_) => Ok(()),
            None => bail!("process property must not be empty"),
        }
    }

    /// The container is there.
    pub(super) fn keep_cidfile(&self) {
        if let Some(file) = &self.cidfile {
            file.keep();
        }
    }

    /// Makes the container, and logs what was left undone.
    pub(super) fn spawn(
        &self,
        console: Console,
        stdio: Stdio,
        host: &Host,
        store: &StateStore,
    ) -> Result<Spawned> {
        let spawned = self.make(console, stdio, host, store)?;
        for warning in &spawned.warnings {
            log::warn(warning);
        }
        Ok(spawned)
    }

    /// Makes the container.
    pub(crate) fn make(
        &self,
        console: Console,
        stdio: Stdio,
        host: &Host,
        store: &StateStore,
    ) -> Result<Spawned> {
        let request = CreateRequest {
            id: &self.id,
            bundle: &self.bundle,
            host,
            store,
            no_pivot: self.no_pivot,
            options: SpawnOptions {
                console,
                stdio,
                pidfd_socket: self.process.pidfd_socket.clone(),
                pid_file: self.process.pid_file.clone(),
                preserve_fds: self.process.preserve_fds,
                no_new_keyring: self.no_new_keyring,
            },
        };
        spawn::create(&request)
    }
}

/// A path as it is meant where the user stands.
pub(super) fn absolute(path: Option<PathBuf>) -> Result<Option<PathBuf>> {
    match path {
        Some(path) if !path.as_os_str().is_empty() => {
            let full = std::path::absolute(&path)
                .with_context(|| format!("resolve {}", path.display()))?;
            Ok(Some(full))
        }
        _ => Ok(None),
    }
}

/// Who gets the terminal's other end: somebody must, and nobody else may ask for it.
pub(super) fn console(terminal: bool, detach: bool, socket: Option<&Path>) -> Result<Console> {
    match socket {
        None if detach && terminal => {
            bail!("cannot allocate tty if runc will detach without setting console socket")
        }
        Some(_) if !detach || !terminal => {
            bail!("cannot use console socket if runc will not detach or allocate tty")
        }
        Some(socket) => Ok(Console::Socket(socket.to_owned())),
        None => Ok(Console::Returned),
    }
}

/// The short id that a bundle has as its host name already, where nobody asked for another and no
/// container has it: what people see is then the same everywhere.
fn wanted_beginning<'a>(
    bundle: &'a Bundle,
    store: &StateStore,
    records: &Records,
) -> Result<&'a str> {
    let (hostname, annotations) = (bundle.spec.hostname.as_str(), &bundle.spec.annotations);
    let is_short = annotations.get(HOSTNAME_ANNOTATION).is_some_and(|value| value == "id")
        && hostname.len() == SHORT_ID
        && hostname.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if !is_short {
        return Ok("");
    }
    let live = store.ids()?.unwrap_or_default();
    let kept = records.all()?.into_iter().map(|(id, _)| id);
    let taken = live.into_iter().chain(kept).any(|id| id.starts_with(hostname));
    Ok(if taken { "" } else { hostname })
}

/// 64 hexadecimal digits, the first of which may be given.
fn generate_id(beginning: &str) -> Result<String> {
    let mut bytes = [0_u8; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags).context("getrandom")?;
    }
    let mut id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    id.replace_range(..beginning.len(), beginning);
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_id_is_64_hex_digits_and_new() {
        let id = generate_id("").unwrap();
        assert_eq!(id.len(), 64);
        assert!(id.chars().all(|c| c.is_ascii_hexdigit()));
        assert_ne!(id, generate_id("").unwrap());
        let begun = generate_id("0123456789ab").unwrap();
        assert!(begun.len() == 64 && begun.starts_with("0123456789ab"), "{begun}");
    }

    #[test]
    fn a_terminal_needs_somebody_who_holds_it() {
        let socket = Path::new("/s");
        assert!(console(true, true, None).is_err());
        assert!(console(true, false, Some(socket)).is_err());
        assert!(console(false, true, Some(socket)).is_err());
        assert!(matches!(console(true, true, Some(socket)), Ok(Console::Socket(_))));
        assert!(matches!(console(false, true, None), Ok(Console::Returned)));
    }
}
