//! A registry of the world that sends us to this host or its neighbours: nothing is asked of them.
//! The tests have a network of their own, where the registry has an address that is nobody's.

use std::sync::atomic::{AtomicUsize, Ordering};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use super::{Image, Scene, load, scene};
use crate::harness::Cmd;
use crate::harness::hostile::{Content, Hostile, reply};
use crate::harness::tarball::{Entry, Tarball};

/// Of a network that documents speak of, and so neither private nor anybody's.
const WORLD: &str = "198.51.100.7";

/// Runs `body` in a network with [`WORLD`] on it, and a name for this host's own address.
fn in_the_world(body: impl FnOnce(&Scene) + Send) {
    scene(|scene| {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
                let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
                mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
                let hosts = scene.path("hosts");
                std::fs::write(&hosts, "127.0.0.1 inside.example\n198.51.100.7 world.example\n")
                    .unwrap();
                let bind = MsFlags::MS_BIND;
                mount(Some(&hosts), "/etc/hosts", None::<&str>, bind, None::<&str>).unwrap();
                Cmd::line("ip link set lo up").run().success();
                Cmd::line("ip addr add")
                    .arg(format!("{WORLD}/32"))
                    .args(["dev", "lo"])
                    .run()
                    .success();
                body(scene);
            });
            if let Err(panic) = inside.join() {
                std::panic::resume_unwind(panic);
            }
        });
    });
}

fn content() -> Content {
    Content::new(vec![Tarball::of([Entry::file("file", "x")]).bytes()])
}

/// What lies on this host, that nobody from outside may have us ask.
fn neighbour() -> Hostile {
    Hostile::start(|_, stream| reply(stream, "200 OK", "", b"{\"token\":\"t\"}"))
}

fn port(host: &str) -> &str {
    host.rsplit_once(':').unwrap().1
}

fn pull(scene: &Scene, registry: &Hostile, host: &str, words: &[&str]) {
    let name = format!("{host}:{}/lib/app:1", port(&registry.host));
    let pull = scene.imgtool().args(["pull", "--tls-verify=false", "--retry", "0"]);
    pull.args(["--creds", "me:s3cret", &name]).run().refused(words);
}

#[test]
fn token_servers_on_this_host_are_not_asked() {
    in_the_world(|scene| {
        let inside = neighbour();
        for (host, word) in [
            ("127.0.0.1", "private address"),
            ("localhost", "private address"),
            ("[::ffff:127.0.0.1]", "private address"),
            ("0.0.0.0", "private address"),
            // By its name it could be anywhere.
            ("inside.example", "private address"),
        ] {
            println!("{host}");
            let ask = format!(
                "WWW-Authenticate: Bearer realm=\"http://{host}:{}/token\"\r\n",
                port(&inside.host)
            );
            let registry = Hostile::start_at(WORLD, move |_, stream| {
                reply(stream, "401 Unauthorized", &ask, b"");
            });
            pull(scene, &registry, WORLD, &[word]);
            pull(scene, &registry, "world.example", &[word]);
        }
        assert_eq!(inside.asked().len(), 0);
    });
}

#[test]
fn redirects_and_addresses_that_lead_to_this_host_are_not_followed() {
    in_the_world(|scene| {
        let inside = neighbour();
        for host in ["127.0.0.1", "inside.example"] {
            println!("{host}");
            let to = format!("http://{host}:{}/", port(&inside.host));
            // A blob that lies there.
            let (content_one, location) = (content(), format!("Location: {to}\r\n"));
            let registry =
                Hostile::start_at(WORLD, move |request, stream| match content_one.layer(request) {
                    Some(_) => reply(stream, "307 Temporary Redirect", &location, b""),
                    None => content_one.answer(request, stream),
                });
            pull(scene, &registry, WORLD, &["private address"]);
            // A layer whose maker says it is there.
            let content_two = content().change(|m| m["layers"][0]["urls"] = json!([to]));
            let registry =
                Hostile::start_at(WORLD, move |request, stream| match content_two.layer(request) {
                    Some(_) => reply(stream, "404 Not Found", "", b""),
                    None => content_two.answer(request, stream),
                });
            pull(scene, &registry, WORLD, &["private address"]);
            // A manifest.
            let location = format!("Location: {to}\r\n");
            let registry = Hostile::start_at(WORLD, move |request, stream| {
                match request.path.contains("/manifests/") {
                    true => reply(stream, "307 Temporary Redirect", &location, b""),
                    false => reply(stream, "200 OK", "", b"{}"),
                }
            });
            pull(scene, &registry, WORLD, &["private address"]);
            // An upload that is to go on there.
            let location = format!("Location: {to}\r\n");
            let registry =
                Hostile::start_at(WORLD, move |request, stream| match request.method.as_str() {
                    "POST" => reply(stream, "202 Accepted", &location, b""),
                    "GET" => reply(stream, "200 OK", "", b"{}"),
                    _ => reply(stream, "404 Not Found", "", b""),
                });
            load(scene, &Image::probe(&[]), "e2e.test/up:1");
            let name = format!("{WORLD}:{}/lib/app:1", port(&registry.host));
            let push = scene.imgtool().args(["push", "--tls-verify=false", "--retry", "0"]);
            push.args(["e2e.test/up:1", &name]).run().refused(&["private address"]);
        }
        assert_eq!(inside.asked().len(), 0);
    });
}

#[test]
fn a_redirect_to_another_server_of_the_world_is_followed_without_credentials() {
    in_the_world(|scene| {
        let layer = content().layers[0].clone();
        let storage =
            Hostile::start_at(WORLD, move |_, stream| reply(stream, "200 OK", "", &layer));
        // The same name with another port is another server.
        let location = format!("Location: http://{WORLD}:{}/blob\r\n", port(&storage.host));
        let (content, refusals) = (content(), AtomicUsize::new(0));
        let registry = Hostile::start_at(WORLD, move |request, stream| {
            if request.header("authorization").is_none() {
                refusals.fetch_add(1, Ordering::SeqCst);
                let ask = "WWW-Authenticate: Basic realm=\"tests\"\r\n";
                return reply(stream, "401 Unauthorized", ask, b"");
            }
            match content.layer(request) {
                Some(_) => reply(stream, "307 Temporary Redirect", &location, b""),
                None => content.answer(request, stream),
            }
        });
        let name = format!("{WORLD}:{}/lib/app:1", port(&registry.host));
        let pull = scene.imgtool().args(["pull", "--tls-verify=false", "--creds", "me:s3cret"]);
        pull.arg(&name).run().success();
        assert_eq!(storage.asked().len(), 1);
        assert_eq!(storage.asked()[0].header("authorization"), None);
        // Credentials for one host are not those of another that begins alike.
        let auth = scene.path("auth.json");
        let text = json!({ "auths": { WORLD: { "auth": "bWU6czNjcmV0" },
            "world.example": { "auth": "bWU6czNjcmV0" } } });
        std::fs::write(&auth, text.to_string()).unwrap();
        let other = Hostile::start_at(WORLD, |_, stream| {
            let ask = "WWW-Authenticate: Basic realm=\"tests\"\r\n";
            reply(stream, "401 Unauthorized", ask, b"");
        });
        for host in [WORLD, "world.example", "world.example.evil"] {
            let name = format!("{host}:{}/lib/app:1", port(&other.host));
            let pull = scene.imgtool().args(["pull", "--tls-verify=false", "--retry", "0", &name]);
            let told = pull.args(["--authfile"]).arg(&auth).run();
            assert_ne!(told.code, 0);
        }
        assert!(other.asked().len() >= 2);
        assert!(other.asked().iter().all(|request| request.header("authorization").is_none()));
    });
}
