//! `imgtool logout`: forgets credentials.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;

use crate::output;
use crate::store::Store;
use crate::transport::credentials::{AuthFile, file_to_write};

/// Log out from a registry
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The registry [default: Docker Hub]
    #[arg(value_name = "SERVER", conflicts_with = "all")]
    server: Option<String>,
    /// From all registries
    #[arg(short, long)]
    all: bool,
    /// The file that it is kept in [default: docker's config.json]
    #[arg(long, alias = "compat-auth-file", value_name = "FILE")]
    authfile: Option<PathBuf>,
}

pub(crate) fn run(_store: &Store, args: &Args) -> Result<()> {
    let path = file_to_write(args.authfile.as_deref())?;
    let mut file = AuthFile::read_or_new(&path)?;
    let hosts = match args.all {
        true => file.hosts(),
        false => vec![super::login::host(args.server.as_deref())?],
    };
    let mut out = output::stdout();
    for host in hosts {
        if file.remove(&host)? {
            writeln!(out, "Removing login credentials for {host}")?;
        } else {
            writeln!(out, "Not logged in to {host}")?;
        }
    }
    Ok(())
}
