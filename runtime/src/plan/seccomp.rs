//! `linux.seccomp` to a BPF program: profile -> decision per call and ABI -> segments of numbers
//! -> a balanced search over them. libseccomp's rules for what a profile means, runc's for calls
//! newer than the profile (ENOSYS, so that a C library falls back) and for words refused.

mod abi;
mod check;
mod decision;
mod emit;
mod multiplexed;
mod profile;
mod table;
#[cfg(test)]
mod tests;

use anyhow::Result;
use seccompiler::BpfProgram;

use self::abi::Abi;
use self::profile::Profile;
pub(crate) use self::profile::{ACTIONS, FLAGS, OPERATORS};
use crate::spec::seccomp::Seccomp;

/// A filter ready for the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    pub(crate) program: BpfProgram,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub(crate) flags: libc::c_ulong,
    /// The agent that the kernel's descriptor goes to, if some rule notifies.
    pub(crate) listener: Option<Listener>,
    /// What the user should hear of though it stops nothing.
    pub(crate) warnings: Vec<String>,
    /// Names of calls that we do not know and skipped.
    pub(crate) unknown: Vec<String>,
}

/// Who answers for notified calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Its socket.
    pub(crate) path: String,
    /// Opaque text for it.
    pub(crate) metadata: String,
}

/// Names of the architectures that a profile may list.
pub(crate) fn architectures() -> impl Iterator<Item = &'static str> {
    abi::NAMES.iter().map(|(name, _)| *name)
}

/// Compiles a profile; `None` if it says nothing at all.
pub(crate) fn compile(written: &Seccomp) -> Result<Option<Filter>> {
    if written.default_action.is_empty() && written.syscalls.is_empty() {
        return Ok(None);
    }
    let mut profile = Profile::parse(written)?;
    let mut warnings = Vec::new();
    let wait_killable = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    if profile.flags & wait_killable != 0 && !profile.notifies {
        profile.flags &= !wait_killable;
        warnings.push(
            "seccomp flag SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV has no effect: no rule notifies"
                .to_owned(),
        );
    }
    let program = assemble(&profile)?;
    check::check(&program)?;
    let listener = profile.notifies.then(|| Listener {
        path: written.listener_path.clone(),
        metadata: written.listener_metadata.clone(),
    });
    let unknown = profile.unknown.iter().map(|name| (*name).to_owned()).collect();
    Ok(Some(Filter { program, flags: profile.flags, listener, warnings, unknown }))
}

fn assemble(profile: &Profile) -> Result<BpfProgram> {
    // x32 is no architecture of its own: it lies among x86_64's numbers.
    let own_architecture = |abi: &&Abi| **abi != Abi::X32;
    let architectures: Vec<_> = profile
        .abis
        .iter()
        .filter(own_architecture)
        .map(|&abi| (abi.audit_arch(), decision::segments(profile, abi)))
        .collect();
    emit::program(&architectures, profile.default)
}
