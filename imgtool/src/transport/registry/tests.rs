//! Against a registry of a few lines that misbehaves on demand.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::credentials::Lookup;
use super::super::http::Patience;
use super::*;
use crate::copy::{self, Wanted};
use crate::manifest::{Platform, media_type};

/// One request: path and headers, names in lower case.
struct Request {
    path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name)?;
        Some(&found.1)
    }
}

/// A server on loopback that answers every request with what `answer` writes.
fn serve(answer: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let Some(Ok(first)) = lines.next() else { return };
                let path = first.split(' ').nth(1).unwrap().to_owned();
                let headers = lines
                    .map_while(Result::ok)
                    .take_while(|line| !line.is_empty())
                    .filter_map(|line| {
                        let (name, value) = line.split_once(": ")?;
                        Some((name.to_ascii_lowercase(), value.to_owned()))
                    })
                    .collect();
                answer(&Request { path, headers }, &mut { stream });
            });
        }
    });
    address
}

fn reply(stream: &mut TcpStream, status: &str, headers: &str, length: usize, body: &[u8]) {
    // The client may have what it wanted and be gone.
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n"
    );
    let _ = stream.write_all(body);
}

/// An image of one layer.
struct Fixture {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Fixture {
    fn new() -> Self {
        let layer: Vec<u8> = (0..400_000_u32).flat_map(u32::to_le_bytes).collect();
        let config = serde_json::to_vec(&serde_json::json!({
            "architecture": Platform::host().architecture, "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer)] },
        }))
        .unwrap();
        let describe =
            |kind, bytes: &[u8]| Descriptor::new(kind, Digest::of(bytes), bytes.len() as u64);
        let manifest = crate::manifest::Manifest::new(
            describe(media_type::OCI_CONFIG, &config),
            vec![describe(media_type::OCI_LAYER, &layer)],
        );
        let manifest = serde_json::to_vec(&manifest).unwrap();
        Self { layer, config, manifest }
    }

    fn is_layer(&self, request: &Request) -> bool {
        request.path.ends_with(Digest::of(&self.layer).hex())
    }

    fn answer(&self, request: &Request, stream: &mut TcpStream) {
        let kind = format!("Content-Type: {}\r\n", media_type::OCI_MANIFEST);
        let (headers, body) = match &request.path {
            path if path.contains("/manifests/") => (kind.as_str(), &self.manifest),
            _ if self.is_layer(request) => ("", &self.layer),
            _ => ("", &self.config),
        };
        reply(stream, "200 OK", headers, body.len(), body);
    }
}

fn anonymous() -> Access {
    Access { lookup: Lookup::Anonymous, ..Access::default() }
}

/// Pulls from the server; also says how many files are left in staging.
fn pull(address: &str) -> (Result<()>, usize) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Some(&dir.path().join("store"))).unwrap();
    let name = Reference::parse(&format!("{address}/lib/app:1")).unwrap();
    let progress = Progress::Silent;
    let run = || {
        let access = Access {
            patience: Patience {
                attempts: 4,
                delay: Duration::ZERO,
                silence: Duration::from_secs(60),
            },
            ..anonymous()
        };
        let mut registry = Registry::open(&store, &name, &access, &progress)?;
        let entry = registry.resolve()?;
        let wanted = Wanted::Platforms(vec![Platform::host()]);
        copy::copy(&mut registry, &store, &entry, &wanted, &progress)?;
        store.tag(&name, &entry)?;
        store.image(&entry).map(drop)
    };
    let result = run();
    let left = std::fs::read_dir(store.staging_dir()).unwrap().count();
    (result, left)
}

#[test]
fn broken_connections_go_on_where_they_stopped() {
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&ranges);
    let image = Fixture::new();
    let address = serve(move |request, stream| {
        if !image.is_layer(request) {
            return image.answer(request, stream);
        }
        let range = request.header("range").map(str::to_owned);
        seen.lock().unwrap().push(range.clone());
        match range {
            None => reply(stream, "200 OK", "", image.layer.len(), &image.layer[..500_000]),
            Some(range) => {
                let from: usize = range["bytes=".len()..range.len() - 1].parse().unwrap();
                let header = format!("Content-Range: bytes {from}-/{}\r\n", image.layer.len());
                let rest = &image.layer[from..];
                reply(stream, "206 Partial Content", &header, rest.len(), rest);
            }
        }
    });
    let (result, left) = pull(&address);
    result.unwrap();
    assert_eq!(left, 0);
    assert_eq!(*ranges.lock().unwrap(), [None, Some("bytes=500000-".to_owned())]);
}

#[test]
fn tokens_never_reach_another_host() {
    let shown = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&shown);
    let image = Fixture::new();
    let layer = image.layer.clone();
    let store_of_blobs = serve(move |request, stream| {
        seen.lock().unwrap().push(request.header("authorization").map(str::to_owned));
        reply(stream, "200 OK", "", layer.len(), &layer);
    });
    let tokens = serve(|request, stream| {
        assert!(request.path.contains("scope=repository:lib/app:pull"), "{}", request.path);
        reply(stream, "200 OK", "", 19, b"{\"token\":\"SECRET\"} ");
    });
    let address = serve(move |request, stream| {
        if request.path == "/v2/" {
            return reply(stream, "200 OK", "", 0, b"");
        }
        if request.header("authorization") != Some("Bearer SECRET") {
            let challenge =
                format!("WWW-Authenticate: Bearer realm=\"http://{tokens}/t\",service=\"x\"\r\n");
            return reply(stream, "401 Unauthorized", &challenge, 0, b"");
        }
        if image.is_layer(request) {
            let location = format!("Location: http://{store_of_blobs}/blob\r\n");
            return reply(stream, "307 Temporary Redirect", &location, 0, b"");
        }
        image.answer(request, stream);
    });
    pull(&address).0.unwrap();
    assert_eq!(*shown.lock().unwrap(), [None]);
}

#[test]
fn wrong_content_leaves_nothing() {
    let image = Fixture::new();
    let address = serve(move |request, stream| {
        if image.is_layer(request) {
            let other = vec![b'x'; image.layer.len()];
            return reply(stream, "200 OK", "", other.len(), &other);
        }
        image.answer(request, stream);
    });
    let (result, left) = pull(&address);
    let error = format!("{:#}", result.unwrap_err());
    assert!(error.contains("wrong content"), "{error}");
    assert_eq!(left, 0);
}

#[test]
fn oversized_and_ambiguous_manifests_are_refused() {
    let both = br#"{"schemaVersion":2,"manifests":[],"layers":[],"config":{}}"#.to_vec();
    for (body, wanted) in [(vec![b' '; 5 << 20], "limit"), (both, "both")] {
        let address = serve(move |_, stream| {
            reply(stream, "200 OK", "", body.len(), &body);
        });
        let error = format!("{:#}", pull(&address).0.unwrap_err());
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn what_the_registry_says_is_passed_on() {
    let address = serve(|request, stream| {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        let status = if request.path == "/v2/" { "200 OK" } else { "404 Not Found" };
        reply(stream, status, "", body.len(), body);
    });
    let error = format!("{:#}", pull(&address).0.unwrap_err());
    assert!(error.contains("not found") && error.ends_with("manifest unknown"), "{error}");
}
