//! What will be done for a container, decided in full before anything is touched: pure functions
//! from the document and the host's facts to plain values.

pub(crate) mod seccomp;
