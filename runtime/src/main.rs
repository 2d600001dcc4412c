//! `runtime`: runs OCI bundles as containers, with runc's command line.

#[allow(dead_code, reason = "used by the plan")]
mod spec;

fn main() {}
