//! What config.json tells the other binaries: facts of the image as
//! `org.opencontainers.image.*`, its labels, and our own words under [`PREFIX`].
//!
//! An image must not act on the host, so labels that runtimes, engines or we ourselves act on are
//! left out (CVE-2026-53488).

use std::collections::BTreeMap;

use crate::manifest::ImageConfig;

/// The prefix that is ours; whoever sees an annotation beneath it may rely on imgtool's having
/// written it.
pub(crate) const PREFIX: &str = "org.imgtool.";

/// Present in overlay bundles, whose `rootfs/` is empty until it is mounted. Value: `overlay`.
pub(crate) const BUNDLE: &str = "org.imgtool.bundle";
/// The name that `--name` gave.
pub(crate) const NAME: &str = "org.imgtool.name";
/// The reference of the image.
pub(crate) const IMAGE: &str = "org.imgtool.image";
/// The digest of the image's manifest.
pub(crate) const MANIFEST: &str = "org.imgtool.manifest";
/// The command line, as JSON.
pub(crate) const COMMAND: &str = "org.imgtool.command";
/// The check of whether the container is healthy, as JSON: `args`, `retries`, and in nanoseconds
/// `interval`, `timeout`, `startPeriod` and perhaps `startInterval`.
pub(crate) const HEALTHCHECK: &str = "org.imgtool.healthcheck";
/// `id`: nobody asked for a host name, so the container's short id may replace ours.
pub(crate) const HOSTNAME: &str = "org.imgtool.hostname";
/// The containers whose namespaces are joined, `KIND=ID` with commas between: the runtime looks for their
/// processes anew at each start, where the paths in the configuration say what they were.
pub(crate) const JOIN: &str = "org.imgtool.join";
/// When `runtime run --supervise` starts the container again, unless its own flag says otherwise.
pub(crate) const RESTART: &str = "org.imgtool.restart";
/// Seconds from the signal to stop to the kill; -1 for ever.
pub(crate) const STOP_TIMEOUT: &str = "org.imgtool.stop-timeout";
/// At how many bytes the log is moved aside, and how many files of it are kept.
pub(crate) const LOG_MAX_SIZE: &str = "org.imgtool.log-max-size";
pub(crate) const LOG_MAX_FILES: &str = "org.imgtool.log-max-files";
/// The volumes by name, with commas between.
pub(crate) const VOLUMES: &str = "org.imgtool.volumes";
/// `true`: keep standard input open.
pub(crate) const INTERACTIVE: &str = "org.imgtool.interactive";

/// Prefixes that somebody acts on.
const ACTING: [&str; 7] = [
    PREFIX,
    "io.containerd.",
    "io.katacontainers.",
    "io.kubernetes.",
    "org.criu.",
    "org.systemd.property.",
    "run.oci.",
];

/// The annotations that come from the image, and the keys of the labels left out.
pub(crate) fn of_image(image: &ImageConfig) -> (BTreeMap<String, String>, Vec<String>) {
    let mut annotations = BTreeMap::new();
    let mut set = |key: &str, value: &str| {
        if !value.is_empty() {
            annotations.insert(format!("org.opencontainers.image.{key}"), value.to_owned());
        }
    };
    set("os", &image.os);
    set("architecture", &image.architecture);
    set("variant", image.variant.as_deref().unwrap_or_default());
    set("os.version", image.os_version.as_deref().unwrap_or_default());
    if let Some(features) = image.other.get("os.features").and_then(|list| list.as_array()) {
        let features: Vec<&str> = features.iter().filter_map(|feature| feature.as_str()).collect();
        set("os.features", &features.join(","));
    }
    set("author", image.author.as_deref().unwrap_or_default());
    set("created", image.created.as_deref().unwrap_or_default());
    set("stopSignal", image.config.stop_signal.as_deref().unwrap_or_default());
    let ports: Vec<&str> = image.config.exposed_ports.keys().map(String::as_str).collect();
    set("exposedPorts", &ports.join(","));

    let mut dropped = Vec::new();
    for (key, value) in &image.config.labels {
        if key.is_empty() || ACTING.iter().any(|prefix| key.starts_with(prefix)) {
            dropped.push(key.clone());
        } else {
            annotations.insert(key.clone(), value.clone());
        }
    }
    (annotations, dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(labels: &[(&str, &str)]) -> ImageConfig {
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        let json = serde_json::json!({
            "architecture": "amd64", "os": "linux", "os.version": "12", "os.features": ["a", "b"],
            "author": "me", "created": "2024-01-01T00:00:00Z", "rootfs": {"type": "layers", "diff_ids": []},
            "config": {"StopSignal": "SIGQUIT", "ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "Labels": labels},
        });
        ImageConfig::parse(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn facts_of_the_image_are_named() {
        let (annotations, _) =
            of_image(&image(&[("org.opencontainers.image.author", "label wins")]));
        let found: Vec<_> = annotations
            .iter()
            .map(|(key, value)| {
                (key.trim_start_matches("org.opencontainers.image."), value.as_str())
            })
            .collect();
        assert_eq!(
            found,
            [
                ("architecture", "amd64"),
                ("author", "label wins"),
                ("created", "2024-01-01T00:00:00Z"),
                ("exposedPorts", "53/udp,80/tcp"),
                ("os", "linux"),
                ("os.features", "a,b"),
                ("os.version", "12"),
                ("stopSignal", "SIGQUIT"),
            ]
        );
    }

    #[test]
    fn labels_that_act_are_left_out() {
        let acting = [
            "org.imgtool.bundle",
            "io.containerd.x",
            "io.katacontainers.config.hypervisor.path",
            "io.kubernetes.cri.sandbox-id",
            "org.criu.config",
            "org.systemd.property.ExecStart",
            "run.oci.handler",
        ];
        let labels: Vec<_> =
            acting.iter().map(|key| (*key, "x")).chain([("maintainer", "m")]).collect();
        let (annotations, dropped) = of_image(&image(&labels));
        assert_eq!(
            dropped,
            acting
                .map(String::from)
                .into_iter()
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
        );
        assert_eq!(annotations.get("maintainer").map(String::as_str), Some("m"));
        assert!(acting.iter().all(|key| !annotations.contains_key(*key)));
    }
}
