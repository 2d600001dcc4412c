//! Carries plans out. What is about to be made is recorded first; a failure is undone by the
//! same code that takes things away later, which therefore accepts any half-made state.

mod adopt;
mod attach;
mod bridge;
mod check;
mod detach;
mod foresee;
mod link;
mod names;
mod ports;
mod sublink;
mod vlan;

use anyhow::{Context, Error, Result, anyhow};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};

use crate::netlink::{Connection, is_errno};
use crate::netns::NetworkNamespace;
use crate::nft::{self, Contents, Published};
use crate::state::Store;

pub(crate) use self::sublink::parse_mode;

/// The host, as far as we change it: open sockets to its kernel and the locked state.
pub(crate) struct Host<'store> {
    home: NetworkNamespace,
    pub(crate) store: &'store Store,
    pub(crate) route: Connection,
    pub(crate) netfilter: Connection,
}

impl Host<'_> {
    /// Opens the sockets, and collects what containers left that are gone.
    pub(crate) fn open(store: &Store) -> Result<Host<'_>> {
        let mut host = Host::open_at_once(store)?;
        host.collect()?;
        Ok(host)
    }

    /// Opens the sockets. What attaches and publishes looks for the dead only when they are in
    /// the way, so that its cost does not grow with the number of containers.
    pub(crate) fn open_at_once(store: &Store) -> Result<Host<'_>> {
        hold_signals()?;
        Ok(Host {
            home: NetworkNamespace::own()?,
            store,
            route: Connection::route()?,
            netfilter: Connection::netfilter()?,
        })
    }

    /// Takes away what is recorded for containers whose namespace no longer exists, and what a
    /// killed command left. Says whether there was anything.
    fn collect(&mut self) -> Result<bool> {
        let mut found = false;
        for id in self.store.container_ids()? {
            if !self.is_there(&id)? {
                found = true;
                self.detach(&id, None)
                    .with_context(|| format!("collect what container {id} left"))?;
            }
        }
        let found = self.collect_bridges()? || found;
        self.store.forget_tuned_dead()?;
        // A command killed at the very end leaves nothing but empty directories.
        self.store.tidy()?;
        Ok(found)
    }

    /// Whether our table exists; fails where the kernel or our rights do not allow one.
    pub(crate) fn has_table(&mut self) -> Result<bool> {
        nft::exists(&mut self.netfilter)
    }

    /// Everything that our table should hold.
    fn whole_contents(&self) -> Result<Contents> {
        let mut contents = Contents::default();
        let records = self.store.bridges()?.into_iter();
        contents.bridges = records.map(|it| it.bridge).filter(|bridge| !bridge.bare).collect();
        for container in self.store.container_ids()? {
            for binding in self.store.bindings(&container)? {
                contents.ports.push(Published { binding, container: container.clone() });
            }
        }
        Ok(contents)
    }

    /// Adds to our table. If it does not exist, for the first time or because somebody flushed
    /// the ruleset, all of it is made from the state, which holds the addition already.
    fn add_to_table(&mut self, contents: &Contents) -> Result<()> {
        if contents.bridges.iter().all(|bridge| bridge.bare) && contents.ports.is_empty() {
            return Ok(());
        }
        if !nft::exists(&mut self.netfilter)? {
            let whole = self.whole_contents()?;
            return nft::create(&mut self.netfilter, &whole);
        }
        match nft::add(&mut self.netfilter, contents) {
            // A set is missing: somebody took it away, or the table is of an earlier version.
            Err(error) if is_errno(&error, Errno::ENOENT) => {
                let whole = self.whole_contents()?;
                nft::replace(&mut self.netfilter, &whole)
            }
            outcome => outcome,
        }
    }

    fn remove_from_table(&mut self, contents: &Contents) -> Result<()> {
        if nft::exists(&mut self.netfilter)? {
            nft::remove(&mut self.netfilter, contents)
        } else {
            Ok(())
        }
    }
}

/// A change is made whole before the process dies of ^C or a hook's time limit: all that follows
/// takes milliseconds. What kills at once is what the records are for.
fn hold_signals() -> Result<()> {
    held_signals().thread_block().context("hold signals back")
}

/// Does what comes between changes with signals let in: a program that is started has them as we
/// do, and would never hear of them.
pub(crate) fn with_signals<T>(work: impl FnOnce() -> T) -> Result<T> {
    held_signals().thread_unblock().context("let signals in")?;
    let outcome = work();
    hold_signals()?;
    Ok(outcome)
}

fn held_signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

/// Failures of a teardown, which goes on after each.
#[derive(Default)]
struct Failures(Vec<Error>);

impl Failures {
    fn note(&mut self, outcome: Result<()>) {
        self.0.extend(outcome.err());
    }

    fn into_result(self) -> Result<()> {
        let mut failures = self.0.into_iter();
        let Some(first) = failures.next() else { return Ok(()) };
        let rest: Vec<String> = failures.map(|error| format!("{error:#}")).collect();
        if rest.is_empty() { Err(first) } else { Err(anyhow!("{first:#}; {}", rest.join("; "))) }
    }
}

/// The error of a step that failed, with that of undoing what came before if that failed too.
fn undone(error: Error, undoing: Result<()>) -> Error {
    match undoing {
        Ok(()) => error,
        Err(second) => anyhow!("{error:#}; and undoing it failed: {second:#}"),
    }
}
