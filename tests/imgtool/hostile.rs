//! Registries that lie, stall, storm or lead astray: one line, the store as it was, and no
//! credential where it should not be.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use super::{Cmd, Image, Outcome, Scene, load, scene};
use crate::harness::hostile::{Content, Hostile, MANIFEST, Request, reply};
use crate::harness::image::digest;
use crate::harness::tarball::{Entry, Tarball};

const BASIC: &str = "Basic dGVzdGVyOnMzOmNyZXQ=";
const CREDS: [&str; 2] = ["--creds", "tester:s3:cret"];

pub(super) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn small() -> Content {
    Content::new(vec![Tarball::of([Entry::file("file", noise(200_000))]).bytes()])
}

fn files(scene: &Scene) -> BTreeSet<String> {
    let find = Cmd::line("find").arg(scene.store()).args(["-type", "f"]).run();
    find.stdout.lines().map(str::to_owned).collect()
}

/// A pull that fails with one line that has these words in it, and leaves the store as it was.
#[track_caller]
fn refused(scene: &Scene, registry: &Hostile, words: &[&str]) -> Outcome {
    load(scene, &Image::probe(&[]), "e2e.test/before:1");
    let before = files(scene);
    let pull = scene.imgtool().args(["pull", "--retry-delay", "0", &registry.name()]);
    // A registry can't make us use memory either.
    let outcome = limited(pull).run().refused(words);
    let after = files(scene);
    // What came before the network failed is kept for the next attempt, and is no image.
    if outcome.stderr.contains("ended after") {
        assert_eq!(scene.imgtool().args(["images", "-q"]).run().stdout.lines().count(), 1);
        fs::remove_dir_all(scene.path("store")).unwrap();
    } else {
        assert_eq!(after, before);
    }
    scene.imgtool().arg("verify").run().success();
    outcome
}

/// The same command with half a gigabyte of address space.
fn limited(cmd: Cmd) -> Cmd {
    cmd.prefix(&["prlimit", "--as=536870912", "--"])
}

#[test]
fn lies_about_content_are_found_out() {
    scene(|scene| {
        let lies: [(&str, &[&str]); 4] = [
            ("other", &["wrong content"]),
            ("longer", &["larger than"]),
            ("shorter", &["ended after"]),
            ("nothing", &["ended after"]),
        ];
        for (lie, words) in lies {
            println!("{lie}");
            let content = small();
            let registry = Hostile::start(move |request, stream| match content.layer(request) {
                None => content.answer(request, stream),
                Some(layer) => {
                    let body = match lie {
                        "other" => vec![b'x'; layer.len()],
                        "longer" => [layer, &[0; 100_000]].concat(),
                        "shorter" => layer[..layer.len() - 1].to_vec(),
                        _ => Vec::new(),
                    };
                    reply(stream, "200 OK", "", &body);
                }
            });
            refused(scene, &registry, words);
        }
    });
}

#[test]
fn manifests_that_are_too_large_or_two_things_or_not_what_was_asked_for() {
    let index = "application/vnd.oci.image.index.v1+json";
    let other = digest(b"other");
    let cases: Vec<(&str, String, Vec<u8>, &str)> = vec![
        ("100 MB", String::new(), vec![b' '; 100 << 20], "limit"),
        (
            "both",
            format!("Content-Type: {MANIFEST}\r\n"),
            br#"{"schemaVersion":2,"manifests":[],"layers":[],"config":{}}"#.to_vec(),
            "both an index and a manifest",
        ),
        ("type", format!("Content-Type: {index}\r\n"), small().manifest, "announced"),
        (
            "digest",
            format!("Content-Type: {MANIFEST}\r\nDocker-Content-Digest: {other}\r\n"),
            small().manifest,
            "the registry says",
        ),
        ("html", "Content-Type: text/html\r\n".into(), b"<html>".to_vec(), "manifest"),
        ("deep", String::new(), "[".repeat(1 << 20).into_bytes(), "manifest"),
        ("schema 1", String::new(), br#"{"schemaVersion":1}"#.to_vec(), "schema 1"),
        (
            "path",
            String::new(),
            br#"{"schemaVersion":2,"config":{"digest":"sha256:../../../etc/passwd","size":1},"layers":[]}"#
                .to_vec(),
            "invalid digest",
        ),
        (
            "negative",
            String::new(),
            small().change(|m| m["layers"][0]["size"] = (-1).into()).manifest,
            "manifest",
        ),
        (
            "null",
            String::new(),
            small().change(|m| m["layers"][0] = serde_json::Value::Null).manifest,
            "manifest",
        ),
    ];
    scene(|scene| {
        for (case, headers, body, word) in cases {
            println!("{case}");
            let registry = Hostile::start(move |request, stream| {
                if request.path == "/v2/" {
                    return reply(stream, "200 OK", "", b"{}");
                }
                reply(stream, "200 OK", &headers, &body);
            });
            refused(scene, &registry, &[word]);
        }
    });
}

#[test]
fn indexes_without_end() {
    scene(|scene| {
        // Each names the next; the digests are right all the way down.
        let mut documents = vec![small().manifest];
        for _ in 0..10 {
            let last = documents.last().unwrap();
            let kind = match documents.len() {
                1 => MANIFEST,
                _ => "application/vnd.oci.image.index.v1+json",
            };
            let entry = json!({ "mediaType": kind, "digest": digest(last), "size": last.len() });
            documents.push(json!({ "schemaVersion": 2, "manifests": [entry] }).to_string().into());
        }
        let registry = Hostile::start(move |request, stream| {
            let asked = documents.iter().find(|bytes| request.path.ends_with(&digest(bytes)));
            reply(stream, "200 OK", "", asked.unwrap_or(documents.last().unwrap()));
        });
        refused(scene, &registry, &["nested too deeply"]);
    });
}

#[test]
fn storms_end_and_wishes_to_wait_are_heeded() {
    scene(|scene| {
        for (status, headers) in [
            ("429 Too Many Requests", "Retry-After: 0\r\nRateLimit-Limit: 100;w=21600\r\n"),
            ("503 Service Unavailable", ""),
            ("500 Internal Server Error", "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n"),
        ] {
            let registry = Hostile::start(move |request, stream| {
                let status = if request.path == "/v2/" { "200 OK" } else { status };
                let body = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow \u001b]0;down\u0007"}]}"#;
                reply(stream, status, headers, body);
            });
            let told = refused(scene, &registry, &["slow"]);
            assert!(!told.stderr.contains('\u{1b}'), "{:?}", told.stderr);
            assert_eq!(registry.asked().iter().filter(|r| r.path != "/v2/").count(), 5);
        }
        // Once refused and then given: it is waited for.
        let (content, refusals) = (small(), AtomicUsize::new(0));
        let registry = Hostile::start(move |request, stream| {
            if content.layer(request).is_some() && refusals.fetch_add(1, Ordering::SeqCst) < 2 {
                return reply(stream, "429 Too Many Requests", "Retry-After: 1\r\n", b"");
            }
            content.answer(request, stream);
        });
        let begun = std::time::Instant::now();
        scene.imgtool().args(["pull", &registry.name()]).run().success();
        assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    });
}

#[test]
fn a_server_that_says_nothing_or_a_byte_at_a_time_is_given_up() {
    scene(|scene| {
        for drip in [false, true] {
            let content = small();
            let registry = Hostile::start(move |request, stream| match content.layer(request) {
                None => content.answer(request, stream),
                Some(layer) => {
                    let _ = write!(
                        stream,
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                        layer.len()
                    );
                    let (_never, wait) = std::sync::mpsc::channel::<()>();
                    // Until the client has had enough.
                    while !drip || stream.write_all(b"x").is_ok() {
                        let _ = wait.recv_timeout(Duration::from_millis(300));
                    }
                }
            });
            let pull = scene.imgtool().args(["pull", "--retry", "1", "--timeout", "1"]);
            pull.arg(registry.name()).run().refused(&["lib/app"]);
        }
    });
}

#[test]
fn credentials_stay_with_whom_they_are_for() {
    scene(|scene| {
        let content = small();
        let layer = content.layers[0].clone();
        let storage = Hostile::start(move |_, stream| reply(stream, "200 OK", "", &layer));
        // One that asks for a login of its own, and names a server to send it to.
        let thief = Hostile::start(|_, stream| {
            let ask = "WWW-Authenticate: Basic realm=\"x\"\r\n\
                       WWW-Authenticate: Bearer realm=\"http://127.0.0.1:1/token\"\r\n";
            reply(stream, "401 Unauthorized", ask, b"");
        });
        for other in [&storage, &thief] {
            let (content, other_host) = (small(), other.host.clone());
            let registry = Hostile::start(move |request, stream| {
                if request.header("authorization") != Some(BASIC) {
                    let ask = "WWW-Authenticate: Basic realm=\"tests\"\r\n";
                    return reply(stream, "401 Unauthorized", ask, b"");
                }
                if content.layer(request).is_some() {
                    let to = format!("Location: http://{other_host}/blob?signature=x\r\n");
                    return reply(stream, "307 Temporary Redirect", &to, b"");
                }
                content.answer(request, stream);
            });
            let pull = scene.imgtool().arg("pull").args(CREDS).arg(registry.name()).run();
            assert_eq!(pull.code == 0, other.host == storage.host, "{pull:?}");
            scene.imgtool().args(["rmi", "--force", &registry.name()]).run().success();
            assert!(!other.asked().is_empty());
            for request in other.asked() {
                assert_eq!(request.header("authorization"), None, "{request:?}");
            }
        }
        // An upload that goes on elsewhere is not shown them either.
        load(scene, &Image::probe(&[]), "e2e.test/up:1");
        let elsewhere = thief.host.clone();
        let registry = Hostile::start(move |request, stream| {
            if request.header("authorization") != Some(BASIC) {
                let ask = "WWW-Authenticate: Basic realm=\"tests\"\r\n";
                return reply(stream, "401 Unauthorized", ask, b"");
            }
            match request.method.as_str() {
                "POST" => {
                    let to = format!("Location: http://{elsewhere}/upload\r\n");
                    reply(stream, "202 Accepted", &to, b"");
                }
                _ => reply(stream, "404 Not Found", "", b""),
            }
        });
        let push = scene.imgtool().args(["push", "e2e.test/up:1", &registry.name()]).args(CREDS);
        push.run().refused(&["push"]);
        assert!(thief.asked().iter().any(|request| request.method == "PATCH"));
        assert!(thief.asked().iter().all(|request| request.header("authorization").is_none()));
    });
}

#[test]
fn token_servers_can_not_be_anything() {
    scene(|scene| {
        for (realm, word) in [
            ("file:///etc/passwd", "bad realm"),
            ("http://user:pass@127.0.0.1/", "bad realm"),
            ("", "no realm"),
        ] {
            let ask = match realm {
                "" => "WWW-Authenticate: Bearer service=\"x\"\r\n".to_owned(),
                realm => format!("WWW-Authenticate: Bearer realm=\"{realm}\"\r\n"),
            };
            let registry =
                Hostile::start(move |_, stream| reply(stream, "401 Unauthorized", &ask, b""));
            refused(scene, &registry, &[word]);
        }
        let tokens: [(&[u8], &str); 4] = [
            (b"{}", "no token"),
            (b"{\"token\":\"a\\r\\nHost: b\"}", "malformed token"),
            (&[b' '; 2 << 20], "limit"),
            (b"not json", "parse token"),
        ];
        for (body, word) in tokens {
            let body = body.to_vec();
            let server = Hostile::start(move |_, stream| reply(stream, "200 OK", "", &body));
            let ask = format!("WWW-Authenticate: Bearer realm=\"http://{}/t\"\r\n", server.host);
            let registry =
                Hostile::start(move |_, stream| reply(stream, "401 Unauthorized", &ask, b""));
            refused(scene, &registry, &[word]);
        }
    });
}

#[test]
fn lists_without_end_and_redirects_in_circles() {
    scene(|scene| {
        let endless = |next: fn(usize) -> String| {
            let count = AtomicUsize::new(0);
            Hostile::start(move |request, stream| {
                if request.path == "/v2/" {
                    return reply(stream, "200 OK", "", b"{}");
                }
                let link = next(count.fetch_add(1, Ordering::SeqCst));
                let header = format!("Link: <{link}>; rel=\"next\"\r\n");
                reply(stream, "200 OK", &header, b"{\"tags\":[\"x\"]}");
            })
        };
        let list = |registry: &Hostile| {
            let name = format!("{}/lib/app", registry.host);
            limited(scene.imgtool().args(["list-tags", &name])).run()
        };
        list(&endless(|n| format!("/v2/lib/app/tags/list?last={n}"))).refused(&["pages"]);
        list(&endless(|_| "/v2/lib/app/tags/list?n=1000".into())).refused(&["goes on with itself"]);
        list(&endless(|_| "http://127.0.0.1:1/x".into())).refused(&["another server"]);
        let circle = Hostile::start(|request, stream| {
            if request.path == "/v2/" {
                return reply(stream, "200 OK", "", b"{}");
            }
            let to = format!("Location: {}\r\n", request.path);
            reply(stream, "307 Temporary Redirect", &to, b"");
        });
        list(&circle).refused(&["too many redirects"]);
        let header = format!("X: {}\r\n", "x".repeat(200_000));
        let heavy = Hostile::start(move |_, stream| reply(stream, "200 OK", &header, b"{}"));
        list(&heavy).refused(&["lib/app"]);
        let tags = Hostile::start(|_, stream| {
            reply(stream, "200 OK", "", b"{\"tags\":[\"a\\u001b[31m\",\"b\"]}");
        });
        let listed = list(&tags).success();
        assert!(!listed.stdout.contains('\u{1b}'), "{:?}", listed.stdout);
        let none = Hostile::start(|_, stream| reply(stream, "200 OK", "", b"{\"tags\":null}"));
        assert_eq!(list(&none).success().stdout, "");
    });
}

#[test]
fn bombs_do_not_fill_the_disk() {
    scene(|scene| {
        // A gigabyte of zeros is a megabyte of gzip.
        let layer = Cmd::new("sh").args(["-c", "head -c 1G /dev/zero | gzip -9 > $0"]);
        let file = scene.path("bomb");
        layer.arg(&file).run().success();
        let name = "e2e.test/bomb:1";
        let load = scene.imgtool().args(["load", "-i"]).arg(&file).run();
        load.refused(&["bomb", "--max-expansion"]);
        let import = scene.imgtool().arg("import").arg(&file).arg(name).run();
        import.refused(&["bomb", "--max-expansion"]);
        assert!(Cmd::line("du -sm").arg(scene.store()).run().stdout.starts_with(['1', '2']));
        // With the limit lifted it is read to its end, and found to be no archive of images.
        let lifted = scene.imgtool().args(["--max-expansion", "100000", "load", "-i"]).arg(&file);
        lifted.run().refused(&["not an image archive"]);
    });
}

#[test]
fn layers_that_lie_elsewhere_are_fetched_without_credentials() {
    scene(|scene| {
        let layer = small().layers[0].clone();
        let elsewhere = Hostile::start(move |_, stream| reply(stream, "200 OK", "", &layer));
        let url = format!("http://{}/layer.tar", elsewhere.host);
        let content = small().change(|m| m["layers"][0]["urls"] = json!([url]));
        let registry = Hostile::start(move |request: &Request, stream: &mut TcpStream| {
            if request.header("authorization") != Some(BASIC) {
                let ask = "WWW-Authenticate: Basic realm=\"tests\"\r\n";
                return reply(stream, "401 Unauthorized", ask, b"");
            }
            match content.layer(request) {
                Some(_) => reply(stream, "404 Not Found", "", b""),
                None => content.answer(request, stream),
            }
        });
        scene.imgtool().arg("pull").args(CREDS).arg(registry.name()).run().success();
        assert_eq!(elsewhere.asked().len(), 1);
        assert_eq!(elsewhere.asked()[0].header("authorization"), None);
    });
}

#[test]
fn a_connection_that_breaks_every_five_megabytes_still_gives_the_whole_image() {
    const PIECE: usize = 5 << 20;
    scene(|scene| {
        let content = Content::new(vec![noise(100_000_000), noise(30_000_001)]);
        let size = 130_000_001_usize;
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&sent);
        let registry = Hostile::start(move |request, stream| match content.layer(request) {
            None => content.answer(request, stream),
            Some(layer) => {
                let from = request.offset();
                let status = if from == 0 { "200 OK" } else { "206 Partial Content" };
                let range =
                    format!("Content-Range: bytes {from}-{}/{}\r\n", layer.len() - 1, layer.len());
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{range}\r\n",
                    layer.len() - from
                );
                let piece = &layer[from..layer.len().min(from + PIECE)];
                if stream.write_all(piece).is_ok() {
                    counter.fetch_add(piece.len(), Ordering::SeqCst);
                }
            }
        });
        let pull = scene.imgtool().args([
            "pull",
            "--no-unpack",
            "--retry-delay",
            "0.01",
            &registry.name(),
        ]);
        limited(pull).run().success();
        scene.imgtool().arg("verify").run().success();
        let sent = sent.load(Ordering::SeqCst);
        println!("{sent} bytes were sent for {size}");
        assert!(sent <= size + size / 10, "{sent} bytes were sent for {size}");
    });
}

#[test]
fn a_killed_pull_goes_on_where_it_was() {
    const KILLS: u64 = 20;
    scene(|scene| {
        let layers: Vec<Vec<u8>> =
            (1..=8).map(|n| noise(2_000_000 + n)).chain([noise(9_000_000)]).collect();
        let content = Content::new(layers);
        let finished = Arc::new(Mutex::new(BTreeSet::new()));
        let again = Arc::new(Mutex::new(Vec::new()));
        let blobs = scene.store().join("blobs/sha256");
        let (log, seen) = (Arc::clone(&again), Arc::clone(&finished));
        let registry = Hostile::start(move |request, stream| {
            if let Some(layer) = content.layer(request) {
                // Whatever lies in the store under its name is whole and never asked for again.
                let name = request.path.rsplit_once(':').map(|(_, hex)| hex.to_owned()).unwrap();
                if blobs.join(&name).exists() {
                    log.lock().unwrap().push(name.clone());
                }
                seen.lock().unwrap().insert(name);
                // A slow line, so that kills come in between.
                let from = request.offset();
                let status = if from == 0 { "200 OK" } else { "206 Partial Content" };
                let range =
                    format!("Content-Range: bytes {from}-{}/{}\r\n", layer.len() - 1, layer.len());
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{range}\r\n",
                    layer.len() - from
                );
                let (_never, wait) = std::sync::mpsc::channel::<()>();
                for piece in layer[from..].chunks(256 << 10) {
                    if stream.write_all(piece).is_err() {
                        return;
                    }
                    let _ = wait.recv_timeout(Duration::from_millis(2));
                }
                return;
            }
            content.answer(request, stream);
        });
        for kill in 0..KILLS {
            let time = Duration::from_millis(10 + kill * 13 % 170);
            scene.imgtool().args(["pull", "--no-unpack", &registry.name()]).kill_after(time).run();
            scene.imgtool().args(["verify", "--quiet"]).run().success();
        }
        scene.imgtool().args(["pull", "--no-unpack", &registry.name()]).run().success();
        scene.imgtool().arg("verify").run().success().stdout_has("1 images and 11 blobs are whole");
        assert_eq!(*again.lock().unwrap(), [""; 0], "finished blobs were fetched again");
        let staging = fs::read_dir(scene.store().join("staging")).unwrap().count();
        assert_eq!(staging, 0);
    });
}

#[test]
fn layers_are_unpacked_while_they_come_however_they_come() {
    scene(|scene| {
        let unpacked = |scene: &Scene| {
            let layers = fs::read_dir(scene.store().join("layers/sha256"));
            layers.into_iter().flatten().flatten().count()
        };
        // Pieces that go on, and pieces that begin anew since the server knows no ranges.
        for ranges in [true, false] {
            let files = (0..50).map(|n| Entry::file(&format!("{n}"), noise(20_000 + n)));
            let content = Content::new(vec![
                Tarball::of(files).bytes(),
                Tarball::of([Entry::file("7", "seven"), Entry::whiteout("8")]).bytes(),
            ]);
            let broken = AtomicUsize::new(0);
            let registry = Hostile::start(move |request, stream| match content.layer(request) {
                Some(layer) if ranges || broken.fetch_add(1, Ordering::SeqCst) < 3 => {
                    let from = if ranges { request.offset() } else { 0 };
                    let status = if from == 0 { "200 OK" } else { "206 Partial Content" };
                    let range = format!(
                        "Content-Range: bytes {from}-{}/{}\r\n",
                        layer.len() - 1,
                        layer.len()
                    );
                    let length = layer.len() - from;
                    let _ = write!(
                        stream,
                        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{range}\r\n"
                    );
                    let _ = stream.write_all(&layer[from..layer.len().min(from + 300_000)]);
                }
                Some(layer) => reply(stream, "200 OK", "", layer),
                None => content.answer(request, stream),
            });
            let pull = scene.imgtool().args(["pull", "--retry-delay", "0.01", &registry.name()]);
            pull.run().success();
            assert_eq!(unpacked(scene), 2);
            let file = scene.path("export.tar");
            let export = scene.imgtool().args(["export", &registry.name(), "-o"]).arg(&file);
            export.run().success();
            let listed = Cmd::line("tar -tf").arg(&file).run().success().stdout;
            assert_eq!(listed.lines().filter(|name| *name != "./").count(), 49, "{listed}");
            scene.imgtool().args(["rmi", &registry.name()]).run().success();
            assert_eq!(unpacked(scene), 0);
        }
        // A configuration that says something else of the layers than they are.
        let mut content = small();
        let lying = String::from_utf8(content.config.clone()).unwrap();
        let lying = lying.replace(&digest(&content.layers[0]), &digest(b"another"));
        content.config = lying.into_bytes();
        let config = content.config.clone();
        let content = content.change(|m| m["config"]["digest"] = digest(&config).into());
        let registry = Hostile::start(move |request, stream| content.answer(request, stream));
        refused(scene, &registry, &["diff ID"]);
        assert_eq!(unpacked(scene), 0);
    });
}
