//! Who the process is: ids, groups, capabilities, privileges, keyring.

use std::ffi::CString;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, Uid};

use super::lsm;
use crate::plan::process::{CapabilityPlan, ProcessPlan};
use crate::procfs::Procfs;
use crate::rooted::Root;
use crate::sys;

/// A longer /etc/passwd is not read to its end.
const MAX_PASSWD: u64 = 4 << 20;

/// Gives up what the bounding set does not have. From here on no exec can bring it back.
pub(crate) fn bound_capabilities(plan: &CapabilityPlan) -> Result<()> {
    for number in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if plan.bounding & one.bits() != 0 {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // The kernel knows none from here on.
            Err(Errno::INVAL) => break,
            Err(error) => {
                return Err(error).with_context(|| format!("drop capability {number}"));
            }
        }
    }
    Ok(())
}

/// Becomes the user, for good. The groups come first, since only the privileged may set them.
pub(crate) fn become_user(plan: &ProcessPlan, procfs: &Procfs) -> Result<()> {
    let groups: Vec<Gid> = plan.groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
    match rustix::thread::set_thread_groups(&groups) {
        Err(Errno::PERM) if groups_are_denied(procfs)? => {
            if !groups.is_empty() {
                bail!("cannot set any additional groups in a rootless container");
            }
        }
        other => other.context("setgroups")?,
    }
    set_ids(plan.uid, plan.gid)
}

/// Sets all the ids and looks whether that came true.
pub(crate) fn set_ids(uid: u32, gid: u32) -> Result<()> {
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(group, group, group).map_err(|error| match error {
        Errno::INVAL => {
            anyhow::anyhow!("cannot setgid to unmapped gid {gid} in user namespace")
        }
        other => anyhow::Error::from(other).context("setgid"),
    })?;
    rustix::thread::set_thread_res_uid(user, user, user).map_err(|error| match error {
        Errno::INVAL => {
            anyhow::anyhow!("cannot setuid to unmapped uid {uid} in user namespace")
        }
        other => anyhow::Error::from(other).context("setuid"),
    })?;
    let real = (rustix::process::getuid(), rustix::process::getgid());
    let effective = (rustix::process::geteuid(), rustix::process::getegid());
    if real != (user, group) || effective != (user, group) {
        bail!("setuid and setgid did not make us {uid}:{gid}");
    }
    Ok(())
}

/// A user namespace whose maker was not privileged may not set groups at all.
fn groups_are_denied(procfs: &Procfs) -> Result<bool> {
    Ok(procfs.read_own("setgroups")?.trim_ascii() == b"deny")
}

/// Sets the four sets that a process has by itself; returns a warning for each capability that the
/// kernel would not make ambient.
pub(crate) fn set_capabilities(plan: &CapabilityPlan) -> Result<Vec<String>> {
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(plan.effective),
        permitted: CapabilitySet::from_bits_retain(plan.permitted),
        inheritable: CapabilitySet::from_bits_retain(plan.inheritable),
    };
    rustix::thread::set_capabilities(None, sets).context("unable to apply caps")?;
    rustix::thread::clear_ambient_capability_set().context("clear the ambient capabilities")?;
    let mut warnings = Vec::new();
    for number in (0..64).filter(|number| plan.ambient & (1 << number) != 0) {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if let Err(error) = rustix::thread::configure_capability_in_ambient_set(one, true) {
            let name = caps::all()
                .into_iter()
                .find(|capability| capability.index() == number)
                .map_or_else(|| number.to_string(), |capability| capability.to_string());
            let error = crate::error::render(&error.into());
            warnings.push(format!("can't raise ambient capability {name}: {error}"));
        }
    }
    Ok(warnings)
}

/// A session keyring of the container's own: the caller's holds keys that are not for it. SELinux
/// takes it for the process of that label.
pub(crate) fn join_keyring(name: &CString, plan: &ProcessPlan, procfs: &Procfs) -> Result<()> {
    if !plan.selinux_label.is_empty() {
        lsm::label_new_keys(&plan.selinux_label, procfs)?;
    }
    let joined = match sys::join_session_keyring(name) {
        // A kernel without keys has none to leak.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        other => other.context("unable to join session keyring"),
    };
    if !plan.selinux_label.is_empty() {
        lsm::label_new_keys("", procfs)?;
    }
    joined
}

/// The home directory of `uid` by the container's /etc/passwd, or `/`.
pub(crate) fn home(root: &Root, uid: u32) -> Result<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let passwd = match root.open(Path::new("etc/passwd"), flags) {
        Ok(passwd) => passwd,
        // The image has none, or none for us to read.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS | Errno::NXIO) => {
            return Ok("/".to_owned());
        }
        Err(error) => return Err(error).context("open /etc/passwd"),
    };
    let stat = rustix::fs::fstat(passwd.as_fd()).context("stat /etc/passwd")?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok("/".to_owned());
    }
    let file = std::io::Read::take(std::fs::File::from(passwd), MAX_PASSWD);
    for line in BufReader::new(file).split(b'\n') {
        let line = line.context("read /etc/passwd")?;
        let line = String::from_utf8_lossy(&line);
        let fields: Vec<&str> = line.split(':').collect();
        // name:password:uid:gid:comment:home:shell
        if let [_, _, id, _, _, home, ..] = fields[..]
            && id.parse() == Ok(uid)
        {
            return Ok(if home.is_empty() { "/".to_owned() } else { home.to_owned() });
        }
    }
    Ok("/".to_owned())
}
