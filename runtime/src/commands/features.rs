//! `features`: what this build can do, for engines that ask before they use it.

use std::io::Write;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::ser::PrettyFormatter;
use serde_json::{Value, json};

use crate::args::SPEC_VERSION;

pub(super) fn run() -> Result<u8> {
    let mut text = Vec::new();
    let mut serializer =
        serde_json::Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    "));
    features().serialize(&mut serializer).context("write the features")?;
    text.push(b'\n');
    std::io::stdout().write_all(&text).context("print the features")?;
    Ok(0)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Features {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: &'static [&'static str],
    mount_options: Vec<&'static str>,
    linux: Value,
    annotations: Value,
    potentially_unsafe_config_annotations: &'static [&'static str],
}

fn features() -> Features {
    Features {
        oci_version_min: "1.0.0",
        oci_version_max: SPEC_VERSION,
        hooks: &[
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ],
        mount_options: mount_options(),
        linux: linux(),
        annotations: json!({}),
        potentially_unsafe_config_annotations: &["bundle"],
    }
}

fn mount_options() -> Vec<&'static str> {
    vec![]
}

fn linux() -> Value {
    json!({})
}
