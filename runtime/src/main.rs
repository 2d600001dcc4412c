//! An OCI runtime with runc's command line.

#[allow(dead_code, reason = "the commands are not wired yet")]
mod apply;
#[allow(dead_code, reason = "the commands are not wired yet")]
mod bundle;
#[allow(dead_code, unused_imports, reason = "the commands are not wired yet")]
mod cgroup;
#[allow(dead_code, reason = "the commands are not wired yet")]
mod channel;
#[allow(dead_code, reason = "the commands are not wired yet")]
mod clock;
#[allow(dead_code, reason = "the commands are not wired yet")]
mod error;
#[allow(dead_code, reason = "the commands are not wired yet")]
mod hooks;
#[allow(dead_code, reason = "the commands are not wired yet")]
mod host;
#[allow(dead_code, reason = "the commands are not wired yet")]
mod log;
#[allow(dead_code, unused_imports, reason = "the commands are not wired yet")]
mod plan;
#[allow(dead_code, reason = "the commands are not wired yet")]
mod procfs;
#[allow(dead_code, reason = "the commands are not wired yet")]
mod rooted;
#[allow(dead_code, reason = "the commands are not wired yet")]
mod signals;
#[allow(dead_code, reason = "the commands are not wired yet")]
mod spec;
#[allow(dead_code, reason = "the commands are not wired yet")]
mod state;
#[allow(unsafe_code)]
#[allow(dead_code, reason = "the commands are not wired yet")]
mod sys;
#[allow(dead_code, reason = "the commands are not wired yet")]
mod validate;

fn main() {}
