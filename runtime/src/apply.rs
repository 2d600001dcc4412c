//! Carries plans out inside the container's process.

pub(crate) mod seccomp;
