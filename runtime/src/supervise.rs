//! `run --supervise`: one small process beside each container, which owns its stdio, writes its log,
//! records how it ended and starts it again if its policy says so.
//!
//! ```text
//!   caller ──fork, exec──▶ supervisor ──fork──▶ midwife: reads config.json, makes the container,
//!     │                        │                starts it, records that, and exits: the container
//!     │ one socket, frames     │                is then the supervisor's child
//!     └──────────────────────▶ │ ◀── attach: frames through the socket in the record
//!                              │──fork──▶ nurse: checks the container's health, notes what came of it
//!                              │──fork──▶ undertaker: removes the live state, records the end
//! ```
//!
//! The supervisor is executed anew, so nothing of its caller is in its memory; whatever needs
//! config.json is done by its children. So it stays small and knows no secret.

mod attend;
mod birth;
mod burial;
mod checks;
mod client;
mod clients;
mod detach;
mod frame;
mod launch;
pub(crate) mod log;
mod nurse;
mod policy;
pub(crate) mod reader;
mod settings;
mod streams;
mod supervisor;

pub(crate) use client::{Ending, Visit, await_end, await_start, connect, converse};
pub(crate) use detach::{DEFAULT_KEYS, Keys};
pub(crate) use launch::{VERB, launch};
pub(crate) use policy::Restart;
pub(crate) use settings::Settings;
pub(crate) use supervisor::main;
