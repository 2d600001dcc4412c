//! Labels of the security modules. They are written through a procfs that the container can't
//! divert, without following a link or a mount (CVE-2019-16884, CVE-2025-52881).

use std::os::fd::BorrowedFd;

use anyhow::{Context, Error, Result, anyhow, bail};
use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use crate::plan::process::ProcessPlan;
use crate::procfs::Procfs;

/// Has the next exec change to what config.json asks for. A socket's label is left alone: exec
/// resets it, and no socket is made before.
pub(crate) fn set_for_exec(plan: &ProcessPlan, procfs: &Procfs) -> Result<()> {
    if !plan.apparmor_profile.is_empty() {
        set_profile(&plan.apparmor_profile, procfs)
            .context("apparmor failed to apply profile")
            .context("process.apparmorProfile")?;
    }
    if !plan.selinux_label.is_empty() {
        write(procfs, "attr/exec", &plan.selinux_label)
            .context("can't set process label")
            .context("process.selinuxLabel")?;
    }
    Ok(())
}

fn set_profile(profile: &str, procfs: &Procfs) -> Result<()> {
    let word = format!("exec {profile}");
    match write(procfs, "attr/apparmor/exec", &word) {
        // Before Linux 5.8 the modules shared one directory.
        Err(error) if is_missing(&error) => match write(procfs, "attr/exec", &word) {
            Err(older) if is_missing(&older) => Err(error),
            other => other,
        },
        other => other,
    }
}

/// Has keys made from now on get this label; empty is the default.
pub(super) fn label_new_keys(label: &str, procfs: &Procfs) -> Result<()> {
    write(procfs, "attr/keycreate", label)
        .context("can't set the label of keys")
        .context("process.selinuxLabel")
}

/// Gives the directory that `mount` is the root of a label, where no mount option does.
pub(super) fn label_root(mount: BorrowedFd, label: &str) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(mount, ".", flags, Mode::empty()).context("open the mount")?;
    rustix::fs::fsetxattr(&root, "security.selinux", label.as_bytes(), XattrFlags::empty())
        .with_context(|| format!("linux.mountLabel: set label {label:?}"))
}

/// The file did not exist, as opposed to the kernel having refused what was written.
fn is_missing(error: &Error) -> bool {
    error.is::<Unopened>() && error.chain().any(|it| it.downcast_ref() == Some(&Errno::NOENT))
}

#[derive(Debug, thiserror::Error)]
#[error("open `/proc/thread-self/{0}`")]
struct Unopened(&'static str);

/// Writes in one call, as these files want it. Engines look for the path in these quotes.
fn write(procfs: &Procfs, name: &'static str, word: &str) -> Result<()> {
    let file = match procfs.try_open_own(name, OFlags::WRONLY)? {
        Ok(file) => file,
        Err(errno) => return Err(Error::from(errno).context(Unopened(name))),
    };
    let written = rustix::io::write(&file, word.as_bytes())
        .map_err(|errno| anyhow!(errno).context(format!("write `/proc/thread-self/{name}`")))?;
    if written != word.len() {
        bail!("write `/proc/thread-self/{name}`: only {written} of {} bytes went", word.len());
    }
    Ok(())
}
