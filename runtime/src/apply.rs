//! Carries plans out inside the container's process.

pub(crate) mod devices;
pub(crate) mod identity;
pub(crate) mod limits;
pub(crate) mod lsm;
pub(crate) mod mounts;
pub(crate) mod program;
pub(crate) mod rootfs;
pub(crate) mod scheduling;
pub(crate) mod seccomp;
pub(crate) mod sysctl;
pub(crate) mod terminal;
