//! Images made by tests, in the forms that other tools write.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::command::{Cmd, binary};
use super::requires;
use super::tarball::{Entry, Tarball};

/// An image: uncompressed layers, bottom first, and the configuration a container gets.
pub(crate) struct Image {
    pub(crate) layers: Vec<Vec<u8>>,
    /// The `config` object of the image's configuration.
    pub(crate) config: Value,
}

/// The name under which tests load [`Image::busybox`].
pub(crate) const BUSYBOX: &str = "e2e.test/busybox:latest";

/// The packages of [`Image::debian`].
const DEBIAN: &str = "base-files,bash,coreutils,dash,grep,hostname,libacl1,libattr1,libc6,libgmp10,libpcre2-8-0,\
    libselinux1,libssl3,libtinfo6";

/// What tests run in a busybox image.
const APPLETS: [&str; 16] = [
    "cat", "dd", "echo", "false", "grep", "hostname", "id", "ip", "ls", "pwd", "readlink", "sh",
    "sleep", "test", "touch", "true",
];

/// How layers lie in an archive or a layout.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Image {
    /// One layer with the probe in it.
    pub(crate) fn probe(words: &[&str]) -> Self {
        let probe = fs::read(binary("probe")).expect("read the probe");
        let layer = Tarball::of([
            Entry::dir("etc"),
            Entry::file("etc/passwd", "root:x:0:0::/root:/probe\nuser:x:1000:1000::/home:/probe\n"),
            Entry::file("etc/group", "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n"),
            Entry::file("probe", probe).mode(0o755),
            Entry::dir("tmp").mode(0o1777),
        ]);
        let command: Vec<&str> = std::iter::once("/probe").chain(words.iter().copied()).collect();
        Self { layers: vec![layer.bytes()], config: json!({ "Cmd": command }) }
    }

    /// One layer with a shell and the other small programs of busybox.
    pub(crate) fn busybox() -> Self {
        requires::program("busybox", "busybox-static");
        let busybox = fs::read("/bin/busybox").expect("read busybox");
        let mut layer = Tarball::of([
            Entry::dir("etc"),
            Entry::file("etc/passwd", "root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n"),
            Entry::file("etc/group", "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n"),
            Entry::dir("tmp").mode(0o1777),
            Entry::dir("bin"),
            Entry::file("bin/busybox", busybox).mode(0o755),
        ]);
        for name in APPLETS {
            layer.add(Entry::hardlink(&format!("bin/{name}"), "bin/busybox").mode(0o755));
        }
        let config = json!({ "Cmd": ["/bin/sh"], "Env": ["PATH=/bin"] });
        Self { layers: vec![layer.bytes()], config }
    }

    /// Debian's shell and programs as its packages have them, and busybox for what else a test starts. The
    /// packages are unpacked once for this list of them.
    pub(crate) fn debian() -> Self {
        requires::program("mmdebstrap", "mmdebstrap");
        requires::program("busybox", "busybox-static");
        let name = format!("debian-{}.tar", &digest(DEBIAN.as_bytes())["sha256:".len()..][..16]);
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        if !kept.exists() {
            let fresh = kept.with_extension(format!("{}.tar", std::process::id()));
            let mirror = std::env::var("E2E_VM_MIRROR");
            let mirror = mirror.unwrap_or_else(|_| "http://deb.debian.org/debian".to_owned());
            let unpack = Cmd::line("mmdebstrap --quiet --mode=root --variant=extract")
                .arg(format!("--include={DEBIAN}"))
                .args(
                    ["doc", "locale", "man"]
                        .map(|what| format!("--dpkgopt=path-exclude=/usr/share/{what}/*")),
                );
            unpack.arg("bookworm").arg(&fresh).arg(mirror).run().success();
            fs::rename(&fresh, &kept).expect("keep the archive");
        }
        let busybox = fs::read("/bin/busybox").expect("read busybox");
        let more = Tarball::of([
            Entry::file("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"),
            Entry::file("etc/group", "root:x:0:\n"),
            Entry::file("bin/busybox", busybox).mode(0o755),
        ]);
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let config = json!({ "Cmd": ["/bin/bash"], "Env": [path] });
        Self { layers: vec![fs::read(kept).expect("read the archive")], config }.layer(more)
    }

    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.config[key] = value.into();
        self
    }

    pub(crate) fn layer(mut self, layer: Tarball) -> Self {
        self.layers.push(layer.bytes());
        self
    }

    /// The image's configuration, as its file stands.
    /// The archives of its layers, bottom first.
    pub(crate) fn layers(&self) -> Vec<Vec<u8>> {
        self.layers.clone()
    }

    pub(crate) fn config_bytes(&self) -> Vec<u8> {
        let ids: Vec<String> = self.layers.iter().map(|layer| digest(layer)).collect();
        let history: Vec<Value> =
            ids.iter().map(|_| json!({ "created_by": "a test", "created": TIME })).collect();
        let config = json!({
            "architecture": architecture(), "os": "linux", "created": TIME,
            "config": self.config, "history": history,
            "rootfs": { "type": "layers", "diff_ids": ids },
        });
        config.to_string().into_bytes()
    }

    /// The image's id: the digest of its configuration.
    pub(crate) fn id(&self) -> String {
        digest(&self.config_bytes())
    }

    /// Writes it as `docker save` does.
    pub(crate) fn docker_archive(&self, path: &Path, name: &str) -> PathBuf {
        let config = self.config_bytes();
        let config_name = format!("{}.json", &digest(&config)[7..]);
        let mut archive = Tarball::default();
        let mut names = Vec::new();
        for layer in &self.layers {
            let name = format!("{}/layer.tar", &digest(layer)[7..]);
            archive.add(Entry::file(&name, layer.clone()));
            names.push(name);
        }
        archive.add(Entry::file(&config_name, config));
        let manifest = json!([{ "Config": config_name, "RepoTags": [name], "Layers": names }]);
        archive.add(Entry::file("manifest.json", manifest.to_string()));
        fs::write(path, archive.bytes()).expect("write the archive");
        path.to_owned()
    }

    /// Writes it as an OCI image layout directory with `name` as its reference.
    pub(crate) fn layout(&self, dir: &Path, name: &str, compression: Compression) -> PathBuf {
        fs::create_dir_all(dir.join("blobs/sha256")).expect("make the layout");
        let put = |bytes: &[u8], kind: &str| {
            let id = digest(bytes);
            fs::write(dir.join("blobs/sha256").join(&id[7..]), bytes).expect("write a blob");
            json!({ "mediaType": kind, "digest": id, "size": bytes.len() })
        };
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|layer| {
                let (bytes, kind) = compress(layer, compression);
                put(&bytes, &format!("application/vnd.oci.image.layer.v1.{kind}"))
            })
            .collect();
        let config = put(&self.config_bytes(), "application/vnd.oci.image.config.v1+json");
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers,
        });
        let mut descriptor = put(manifest.to_string().as_bytes(), kind);
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
        fs::write(dir.join("index.json"), index.to_string()).expect("write index.json");
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
            .expect("write oci-layout");
        dir.to_owned()
    }
}

const TIME: &str = "2024-05-06T07:08:09Z";

/// `sha256:` and 64 hex digits.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// The bytes, and what the media type says after `layer.v1.`.
pub(crate) fn compress(bytes: &[u8], compression: Compression) -> (Vec<u8>, &'static str) {
    match compression {
        Compression::None => (bytes.to_owned(), "tar"),
        Compression::Gzip => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            writer.write_all(bytes).expect("compress in memory");
            (writer.finish().expect("compress in memory"), "tar+gzip")
        }
        Compression::Zstd => (zstd::encode_all(bytes, 1).expect("compress in memory"), "tar+zstd"),
    }
}
