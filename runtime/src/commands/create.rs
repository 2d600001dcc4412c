//! `create`: everything up to the program itself, which waits for `start`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::args::{Create, ProcessSetup, Setup};
use crate::bundle::Bundle;
use crate::host::Host;
use crate::log;
use crate::records::Supervised;
use crate::spawn::{self, Console, CreateRequest, SpawnOptions, Spawned, Stdio};
use crate::state::StateStore;

pub(super) fn run(args: Create, host: &Host, store: &StateStore) -> Result<u8> {
    create(args.setup, host, store)
        .with_context(|| format!("{} create failed", host.program.name()))
}

fn create(setup: Setup, host: &Host, store: &StateStore) -> Result<u8> {
    let prepared = Prepared::new(setup)?;
    let console = console(prepared.terminal(), true, prepared.console_socket.as_deref())?;
    let (id, generated) = (prepared.id.clone(), prepared.generated);
    prepared.spawn(console, Stdio::Inherit, host, store)?;
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
}

impl Prepared {
    /// Changes into the bundle; relative paths of files are the user's, so they come before.
    pub(super) fn new(setup: Setup) -> Result<Self> {
        let Setup { bundle, config, mut process, no_pivot, no_new_keyring, id } = setup;
        let config = absolute(config)?;
        process.pid_file = absolute(process.pid_file)?;
        process.pidfd_socket = absolute(process.pidfd_socket)?;
        let console_socket = absolute(process.console_socket.take())?;
        let generated = id.is_none();
        let id = id.map_or_else(generate_id, Ok)?;
        let bundle = Bundle::enter(bundle.as_deref().unwrap_or(Path::new(".")), config.as_deref())?;
        Ok(Prepared {
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
    pub(crate) fn again(record: &Supervised) -> Result<Self> {
        let setup = &record.setup;
        Prepared::new(Setup {
            bundle: Some(record.bundle.clone()),
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
        })
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

fn generate_id() -> Result<String> {
    let mut bytes = [0_u8; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags).context("getrandom")?;
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_id_is_64_hex_digits_and_new() {
        let id = generate_id().unwrap();
        assert_eq!(id.len(), 64);
        assert!(id.chars().all(|c| c.is_ascii_hexdigit()));
        assert_ne!(id, generate_id().unwrap());
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
