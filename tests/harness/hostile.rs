//! Registries that no real server would be: what they say and how they say it is up to the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::image::digest;

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Where a resumed download begins.
    pub(crate) fn offset(&self) -> usize {
        let range = self.header("range").and_then(|range| range.strip_prefix("bytes="));
        range.and_then(|range| range.trim_end_matches('-').parse().ok()).unwrap_or(0)
    }
}

/// Serves until the process ends.
pub(crate) struct Hostile {
    /// Its address and port.
    pub(crate) host: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Hostile {
    /// Every request is answered by what `answer` writes; the connection ends after it.
    pub(crate) fn start(answer: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1", answer)
    }

    /// The same at another address of this host.
    pub(crate) fn start_at(
        address: &str,
        answer: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((address, 0)).expect("listen");
        let host = listener.local_addr().expect("a listener has an address").to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&requests), Arc::new(answer));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let Some(request) = read(&stream) else { return };
                    log.lock().unwrap().push(request.clone());
                    answer(&request, &mut stream);
                });
            }
        });
        Self { host, requests }
    }

    /// What was asked until now.
    pub(crate) fn asked(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn name(&self) -> String {
        format!("{}/lib/app:1", self.host)
    }
}

pub(crate) fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.and_then(|(_, length)| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers })
}

/// Writes an answer. The client may have what it wanted and be gone.
pub(crate) fn reply(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) {
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n",
        body.len()
    );
    let _ = stream.write_all(body);
}

/// An image whose layers are any bytes, as a registry has it.
pub(crate) struct Content {
    pub(crate) layers: Vec<Vec<u8>>,
    digests: Vec<String>,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

impl Content {
    pub(crate) fn new(layers: Vec<Vec<u8>>) -> Self {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        let config = json!({ "architecture": architecture, "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": diff_ids } });
        let config = config.to_string().into_bytes();
        let describe = |bytes: &[u8], kind: &str| {
            json!({ "mediaType": format!("application/vnd.oci.image.{kind}"),
                "digest": digest(bytes), "size": bytes.len() })
        };
        let described: Vec<Value> =
            layers.iter().map(|layer| describe(layer, "layer.v1.tar")).collect();
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST,
            "config": describe(&config, "config.v1+json"), "layers": described });
        Self { layers, digests: diff_ids, config, manifest: manifest.to_string().into_bytes() }
    }

    /// The same with another manifest, made of this one.
    pub(crate) fn change(mut self, change: impl FnOnce(&mut Value)) -> Self {
        let mut manifest = serde_json::from_slice(&self.manifest).unwrap();
        change(&mut manifest);
        self.manifest = manifest.to_string().into_bytes();
        self
    }

    /// The layer that a request is for.
    pub(crate) fn layer(&self, request: &Request) -> Option<&[u8]> {
        let path = request.path.split('?').next()?;
        let position = self.digests.iter().position(|digest| path.ends_with(digest))?;
        Some(&self.layers[position])
    }

    /// Answers as an honest registry does.
    pub(crate) fn answer(&self, request: &Request, stream: &mut TcpStream) {
        if request.path == "/v2/" {
            return reply(stream, "200 OK", "", b"{}");
        }
        if request.path.contains("/manifests/") {
            let kind = format!("Content-Type: {MANIFEST}\r\n");
            return reply(stream, "200 OK", &kind, &self.manifest);
        }
        let body = self.layer(request).unwrap_or(&self.config);
        match request.offset() {
            0 => reply(stream, "200 OK", "", body),
            from => {
                let range =
                    format!("Content-Range: bytes {from}-{}/{}\r\n", body.len() - 1, body.len());
                reply(stream, "206 Partial Content", &range, &body[from..]);
            }
        }
    }
}
