//! `imgtool volume`: directories by name, which outlive the containers that use them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};

use anyhow::{Context, Result};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::error::printable;
use crate::output;
use crate::store::Store;
use crate::table;
use crate::template::Format;
use crate::volumes::{Volume, options};

/// Make, list and remove volumes, which `bundle -v NAME:/path` mounts
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a volume and print its name
    Create {
        /// Name of the volume [default: one that nobody else has]
        name: Option<String>,
        /// Set a label
        #[arg(short, long, value_name = "KEY[=VALUE]")]
        label: Vec<String>,
        /// The driver; there is one
        #[arg(short, long, value_name = "NAME", default_value = "local", value_parser = ["local"])]
        driver: String,
        /// What it is a mount of: type=nfs|ext4|tmpfs|none|..., device=SOURCE, o=OPTION,...
        #[arg(short, long, value_name = "KEY=VALUE")]
        opt: Vec<String>,
    },
    /// List the volumes of the store
    #[command(visible_alias = "ls")]
    List {
        /// Print names only
        #[arg(short, long)]
        quiet: bool,
        /// "table", "json", or a Go template of .Name .Driver .Mountpoint .Scope .Labels
        #[arg(long, value_name = "FORMAT", default_value = "table")]
        format: String,
    },
    /// Print all about volumes as a JSON array
    Inspect {
        #[arg(required = true)]
        names: Vec<String>,
        /// "json", or a Go template
        #[arg(short, long, value_name = "FORMAT")]
        format: Option<String>,
    },
    /// Remove volumes that no bundle mounts
    #[command(visible_alias = "remove")]
    Rm {
        /// A volume that is not there is no failure
        #[arg(short, long)]
        force: bool,
        #[arg(required = true)]
        names: Vec<String>,
    },
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    match &args.command {
        Command::Create { name, label, driver: _, opt } => {
            let name = name.clone().map_or_else(random_name, Ok)?;
            let labels: BTreeMap<String, String> = label
                .iter()
                .map(|word| word.split_once('=').unwrap_or((word, "")))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect();
            let options = options::parse(opt)?;
            let _lock = store.lock_shared()?;
            store.create_volume(&name, &labels, &options)?;
            Ok(writeln!(output::stdout(), "{name}")?)
        }
        Command::List { quiet, format } => list(store, *quiet, format),
        Command::Inspect { names, format } => inspect(store, names, format.as_deref()),
        Command::Rm { force, names } => {
            let lock = store.lock_exclusive()?;
            let mut failed = super::Failures::default();
            for name in names {
                if *force && store.volume(name).is_err() {
                    continue;
                }
                failed.collect(store.remove_volume(name, &lock).and_then(|()| {
                    writeln!(output::stdout(), "{name}")?;
                    Ok(())
                }));
            }
            failed.into_result()
        }
    }
}

fn list(store: &Store, quiet: bool, format: &str) -> Result<()> {
    let format = Format::parse(format)?;
    let volumes = store.volumes()?;
    let mut out = output::stdout();
    if quiet {
        for volume in &volumes {
            writeln!(out, "{}", volume.name)?;
        }
        return Ok(());
    }
    if !matches!(format, Format::Table) {
        let labels = |volume: &Volume| {
            let pairs: Vec<String> =
                volume.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            json!(printable(&pairs.join(",")))
        };
        return format.write(
            &mut out,
            volumes.iter().map(|volume| {
                let mut value = describe(store, volume);
                value["Labels"] = labels(volume);
                value
            }),
        );
    }
    let rows: Vec<Vec<String>> =
        volumes.iter().map(|volume| vec!["local".to_owned(), volume.name.clone()]).collect();
    Ok(table::write(&mut out, &["DRIVER", "VOLUME NAME"], &rows)?)
}

fn inspect(store: &Store, names: &[String], format: Option<&str>) -> Result<()> {
    let format = format.map(Format::parse).transpose()?;
    let mut values = Vec::with_capacity(names.len());
    for name in names {
        values.push(describe(store, &store.volume(name)?));
    }
    let mut out = output::stdout();
    match format {
        Some(format) => format.write(&mut out, values.into_iter()),
        None => Ok(writeln!(out, "{}", serde_json::to_string_pretty(&values)?)?),
    }
}

/// Docker's description.
fn describe(store: &Store, volume: &Volume) -> Value {
    json!({
        "CreatedAt": volume.created, "Driver": "local", "Labels": volume.labels,
        "Mountpoint": store.volume_data(&volume.name), "Name": volume.name,
        "Options": if volume.options.is_empty() { Value::Null } else { json!(volume.options) },
        "Scope": "local",
    })
}

/// 64 hexadecimal digits, as docker's.
fn random_name() -> Result<String> {
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
