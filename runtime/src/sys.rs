//! System calls that no crate of ours wraps: the only unsafe code.

pub(crate) mod seccomp;
