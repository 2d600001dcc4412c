//! The caller's half: a process that has nothing of ours becomes the supervisor.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::FdFlags;

use super::Settings;
use super::frame::{self, Kind};
use crate::apply::terminal::use_as_stdio;
use crate::error;
use crate::seal;
use crate::sys::{self, Cloned, Parent};

/// The hidden verb by which a process is told what it is.
pub(crate) const VERB: &str = "supervisor";

/// What a supervisor and its hooks' programs may need of the environment; all else may be secret.
const ENVIRONMENT: [&str; 8] = [
    "DBUS_SESSION_BUS_ADDRESS",
    "HOME",
    "PATH",
    "TZ",
    "USER",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
];

/// Starts a supervisor. What it has to say comes through the socket, in frames.
pub(crate) fn launch(settings: &Settings) -> Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair().context("socketpair")?;
    let text = serde_json::to_vec(settings).context("write the supervisor's settings")?;
    // A pipe takes this much without a reader.
    if text.len() > 60 * 1024 {
        bail!("the paths of the container are too long");
    }
    let (reader, writer) = std::io::pipe().context("pipe")?;
    let cloned = sys::clone3(0, None, Parent::Caller).context("clone3")?;
    if matches!(cloned, Cloned::Child) {
        drop(writer);
        drop(ours);
        let Err(why) = become_supervisor(&settings.id, &reader.into(), &theirs);
        let why = error::render(&why.context("start the supervisor"));
        // Our caller sees the end of the socket at least.
        let _ = (&theirs).write_all(&frame::of(Kind::Failed, why.as_bytes()));
        sys::exit_now(1);
    }
    drop(reader);
    { writer }.write_all(&text).context("tell the supervisor its settings")?;
    Ok(ours)
}

fn become_supervisor(id: &str, settings: &OwnedFd, caller: &UnixStream) -> Result<Infallible> {
    rustix::process::setsid().context("setsid")?;
    std::env::set_current_dir("/").context("chdir /")?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let null = rustix::fs::open("/dev/null", flags, Mode::empty()).context("open /dev/null")?;
    use_as_stdio([null.as_fd(); 3])?;
    sys::close_on_exec_from(3).context("close_range")?;
    let mut words: Vec<OsString> = vec!["runtime".into(), VERB.into(), id.into()];
    for kept in [settings.as_fd(), caller.as_fd()] {
        rustix::io::fcntl_setfd(kept, FdFlags::empty()).context("keep a descriptor")?;
        words.push(kept.as_raw_fd().to_string().into());
    }
    let environment = ENVIRONMENT
        .iter()
        .filter_map(|name| Some(((*name).into(), std::env::var_os(name)?)))
        .collect();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let exe =
        rustix::fs::openat(CWD, seal::OWN_EXE, flags, Mode::empty()).context("open our binary")?;
    seal::execute(&exe, words, environment)
}
