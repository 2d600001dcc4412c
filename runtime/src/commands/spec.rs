//! `spec`: a config.json to begin with.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::ser::PrettyFormatter;

use crate::args::{SPEC_VERSION, SpecFile};
use crate::bundle;
use crate::cgroup::Mode;
use crate::host::Host;
use crate::spec::{self, Linux, Namespace, Spec};

const DEFAULT: &[u8] = include_bytes!("spec/default.json");

pub(super) fn run(args: &SpecFile, host: &Host) -> Result<u8> {
    if let Some(dir) = &args.bundle {
        std::env::set_current_dir(dir).with_context(|| format!("chdir {}", dir.display()))?;
    }
    let mut spec = spec::parse(DEFAULT).context("read our own default")?;
    SPEC_VERSION.clone_into(&mut spec.oci_version);
    host.program.name().clone_into(&mut spec.hostname);
    // v1 shows a container only its own cgroups without; v2 would show it all of the host's.
    if Mode::probe()? == Mode::V2 {
        let linux = spec.linux.get_or_insert_with(Linux::default);
        linux.namespaces.push(Namespace { kind: "cgroup".to_owned(), path: String::new() });
    }
    if args.rootless {
        make_rootless(&mut spec, host)?;
    }
    let text = to_json(&spec)?;
    write_new(Path::new(bundle::CONFIG), &text)?;
    Ok(0)
}

fn write_new(path: &Path, text: &[u8]) -> Result<()> {
    let mut file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("File {} exists. Remove it first", path.display())
        }
        Err(error) => return Err(error).with_context(|| format!("create {}", path.display())),
    };
    file.write_all(text).with_context(|| format!("write {}", path.display()))
}

fn to_json(spec: &Spec) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut serializer =
        serde_json::Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"\t"));
    spec.serialize(&mut serializer).context("write config.json")?;
    Ok(text)
}

/// Only what an unprivileged user may do: one id mapped, the host's network and its /sys.
fn make_rootless(spec: &mut Spec, host: &Host) -> Result<()> {
    let linux = spec.linux.get_or_insert_with(Linux::default);
    linux.namespaces.retain(|namespace| namespace.kind != "network" && namespace.kind != "user");
    linux.namespaces.push(Namespace { kind: "user".to_owned(), path: String::new() });
    let gid = nix::unistd::getegid().as_raw();
    linux.uid_mappings = vec![one_id(host.euid)?];
    linux.gid_mappings = vec![one_id(gid)?];
    linux.resources = None;
    for mount in &mut spec.mounts {
        if mount.destination() == Path::new("/sys") {
            mount.set_typ(Some("none".to_owned())).set_source(Some("/sys".into()));
            let options = ["rbind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned);
            mount.set_options(Some(options.into()));
        } else if let Some(options) = mount.options() {
            let keep =
                |option: &&String| !option.starts_with("gid=") && !option.starts_with("uid=");
            let kept: Vec<String> = options.iter().filter(keep).cloned().collect();
            mount.set_options(Some(kept));
        }
    }
    Ok(())
}

fn one_id(id: u32) -> Result<spec::IdMapping> {
    oci_spec::runtime::LinuxIdMappingBuilder::default()
        .host_id(id)
        .container_id(0_u32)
        .size(1_u32)
        .build()
        .context("map one id")
}
