//! End-to-end tests: the built binaries, run as a user would run them.

#![allow(clippy::disallowed_methods, reason = "tests look at the host by path")]
#![allow(clippy::unwrap_used, reason = "a test that can not go on fails")]

mod conformance;
mod engines;
mod harness;
mod imgtool;
mod invariants;
mod netsetup;
mod outputs;
mod packaging;
mod readme;
mod runtime;
mod together;
