//! End-to-end tests: the built binaries, run as a user would run them.

#![allow(clippy::disallowed_methods, reason = "tests look at the host by path")]

mod conformance;
mod harness;
mod invariants;
mod runtime;
