//! Where images really come from: mirrors, short names, proxies, as the host's files and environment
//! say.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;

use super::{Cmd, Compression, Image, Outcome, Scene, load, scene};
use crate::harness::hostile::{Content, Hostile, Request, read, reply};
use crate::harness::registry::{Guard, PASSWORD, Registry, USER};
use crate::harness::tarball::{Entry, Tarball};

fn content() -> Content {
    Content::new(vec![Tarball::of([Entry::file("file", "x")]).bytes()])
}

/// containerd's settings for one registry.
fn hosts(scene: &Scene, registry: &str, text: &str) -> PathBuf {
    let dir = scene.path("hosts");
    fs::create_dir_all(dir.join(registry)).unwrap();
    fs::write(dir.join(registry).join("hosts.toml"), text).unwrap();
    dir
}

#[test]
fn containerd_s_mirrors_are_asked_for_whom_they_stand() {
    scene(|scene| {
        let content = content();
        let mirror = Hostile::start(move |request, stream| content.answer(request, stream));
        let pull = |dir: &PathBuf| {
            let pull = scene.imgtool().args(["pull", "example.invalid/lib/app:1", "--hosts-dir"]);
            pull.arg(dir).args(["--retry", "0"]).run()
        };
        let text = |capabilities: &str| {
            format!(
                "server = \"http://127.0.0.1:1\"\n[host.\"http://{}/cache\"]\n\
                 capabilities = {capabilities}\n",
                mirror.host
            )
        };
        // One that resolves no tags is not asked for one.
        let dir = hosts(scene, "example.invalid", &text("[\"pull\"]"));
        pull(&dir).refused(&["127.0.0.1:1"]);
        assert_eq!(mirror.asked().len(), 0);
        let dir = hosts(scene, "example.invalid", &text("[\"pull\", \"resolve\"]"));
        let pulled = pull(&dir).success();
        pulled.stdout_has("newer image for example.invalid/lib/app:1");
        let asked = mirror.asked();
        assert!(asked.len() >= 3);
        for request in asked {
            assert!(request.path.starts_with("/cache/v2/"), "{request:?}");
            assert!(request.path.contains("ns=example.invalid"), "{request:?}");
        }
        let dir = hosts(scene, "example.invalid", "server = 7\n");
        pull(&dir).refused(&["hosts.toml"]);

        // What it says of TLS, and where pushes go.
        let registry = Registry::guarded(scene, &Guard::Password);
        let text = format!(
            "[host.\"https://{}\"]\nca = \"{}/ca.crt\"\n",
            registry.host,
            registry.certificates.display()
        );
        let dir = hosts(scene, "push.invalid", &text);
        load(scene, &Image::probe(&[]), "push.invalid/lib/app:2");
        let creds = ["--creds", &format!("{USER}:{PASSWORD}"), "--hosts-dir"];
        let push = scene.imgtool().args(["push", "push.invalid/lib/app:2"]).args(creds);
        push.arg(&dir).run().success();
        let tags = scene.imgtool().args(["list-tags", "push.invalid/lib/app"]).args(creds);
        assert_eq!(tags.arg(&dir).run().success().stdout, "2\n");
    });
}

#[test]
fn short_names_are_what_the_files_say() {
    scene(|scene| {
        let registry = Registry::start(scene);
        let layout = Image::probe(&[]).layout(&scene.path("layout"), "x", Compression::Gzip);
        registry.push(&layout, "x", "team/app:1");
        registry.push(&layout, "x", "other:1");
        let conf = scene.path("registries.conf");
        let host = &registry.host;
        let search = format!("unqualified-search-registries = [\"127.0.0.1:1\", \"{host}\"]\n");
        let aliases = format!("[aliases]\n\"app\" = \"{host}/team/app\"\n");
        fs::write(&conf, format!("{search}{aliases}")).unwrap();
        let imgtool = |words: &[&str]| {
            scene.imgtool().args(words).env("CONTAINERS_REGISTRIES_CONF", &conf).run()
        };
        let pulled = imgtool(&["pull", "app:1"]).success();
        pulled
            .stdout_has("Resolved \"app:1\" as an alias")
            .stdout_has(&format!("{host}/team/app:1"));
        // From then on it has that name here, too.
        imgtool(&["inspect", "app:1"]).success();
        imgtool(&["pull", "--quiet", "other:1"]).success().stdout_has(&format!("{host}/other:1"));
        let none = imgtool(&["pull", "--retry", "0", "none:1"]);
        none.refused(&["127.0.0.1:1", &format!("{host}/none:1")]);
        imgtool(&["rmi", "other:1"]).success();
        imgtool(&["rmi", "other:1"]).refused(&["no such image"]);
        fs::write(&conf, format!("short-name-mode = \"enforcing\"\n{search}")).unwrap();
        imgtool(&["pull", "other:1"]).refused(&["may be any of", &format!("{host}/other:1")]);
        fs::write(&conf, "[registries.search]\nregistries = ['x']\n").unwrap();
        imgtool(&["pull", "other:1"]).refused(&["registries.conf", "version 1"]);
    });
}

/// Our program on a host where docker has these settings, and nobody else any.
fn with_docker_s_settings(scene: &Scene, settings: &str, words: &[&str]) -> Outcome {
    let file = scene.path("daemon.json");
    fs::write(&file, settings).unwrap();
    let script = "mount -t tmpfs none /etc && mkdir /etc/docker && cp \"$0\" /etc/docker && \
                  exec \"$@\"";
    let inside = Cmd::line("unshare --mount sh -c").arg(script).arg(file);
    let inside = inside.arg(crate::harness::command::binary("imgtool")).args(words);
    inside.env("IMGTOOL_ROOT", scene.store()).run()
}

#[test]
fn docker_s_mirrors_stand_for_docker_hub_and_for_nobody_else() {
    scene(|scene| {
        let registry = Registry::start(scene);
        let layout = Image::probe(&[]).layout(&scene.path("layout"), "x", Compression::Gzip);
        registry.push(&layout, "x", "library/app:1");
        registry.push(&layout, "x", "me/app:1");
        // The first of them is not there.
        let mirrors = format!(
            "{{\"registry-mirrors\": [\"http://127.0.0.1:1\", \"http://{}/\"]}}",
            registry.host
        );
        let pull =
            |name: &str| with_docker_s_settings(scene, &mirrors, &["pull", "--retry", "0", name]);
        pull("app:1").success().stdout_has("docker.io/library/app:1").stderr_has("127.0.0.1:1");
        pull("me/app:1").success().stdout_has("Status: Downloaded newer image for me/app:1");
        pull("registry.invalid/me/app:1").refused(&["registry.invalid"]);
        for bad in ["{", "{\"registry-mirrors\": 7}"] {
            let told = with_docker_s_settings(scene, bad, &["pull", "app:1"]);
            told.refused(&["/etc/docker/daemon.json"]);
        }
    });
}

/// A proxy that is itself whatever it is asked to connect to.
fn proxy() -> Hostile {
    let content = content();
    Hostile::start(move |request: &Request, stream: &mut TcpStream| {
        if request.method != "CONNECT" {
            return reply(stream, "403 Forbidden", "", b"");
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        if let Some(inner) = read(stream) {
            content.answer(&inner, stream);
        }
    })
}

#[test]
fn proxies_of_the_environment_are_used_for_what_they_are_for() {
    scene(|scene| {
        let name = "registry.invalid:5000/lib/app:1";
        let pull = |proxies: &[(&str, &str)], name: &str| {
            let mut pull =
                scene.imgtool().args(["pull", "--tls-verify=false", "--retry", "0", name]);
            for key in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy"] {
                pull = pull.env(key, "");
            }
            for (key, value) in proxies {
                pull = pull.env(key, value);
            }
            pull.run()
        };
        let url = |proxy: &Hostile| format!("http://someone:s3cret@{}", proxy.host);
        for key in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
            println!("{key}");
            let proxy = proxy();
            let pulled = pull(&[(key, &url(&proxy))], name).success();
            assert!(!(pulled.stdout + &pulled.stderr).contains("s3cret"));
            let asked = proxy.asked();
            assert!(!asked.is_empty());
            for request in asked {
                assert_eq!(
                    (request.method.as_str(), request.path.as_str()),
                    ("CONNECT", "registry.invalid:5000")
                );
                // "someone:s3cret"
                assert_eq!(
                    request.header("proxy-authorization"),
                    Some("Basic c29tZW9uZTpzM2NyZXQ=")
                );
            }
            scene.imgtool().args(["rmi", name]).run().success();
        }
        // A proxy for https alone is not one for http.
        let https = proxy();
        pull(&[("HTTPS_PROXY", &url(&https))], name).refused(&["registry.invalid"]);
        assert_eq!(https.asked().len(), 1);
        // What goes straight, and this host itself.
        let unused = proxy();
        let straight = [("ALL_PROXY", url(&unused)), ("NO_PROXY", "a, .invalid".to_owned())];
        let straight = straight.each_ref().map(|(key, value)| (*key, value.as_str()));
        pull(&straight, name).refused(&["registry.invalid"]);
        let content = content();
        let local = Hostile::start(move |request, stream| content.answer(request, stream));
        pull(&[("ALL_PROXY", &url(&unused))], &local.name()).success();
        assert_eq!(unused.asked().len(), 0);
        let told = pull(&[("ALL_PROXY", "http://:s3cret@")], name).refused(&["ALL_PROXY"]);
        assert!(!told.stderr.contains("s3cret"), "{}", told.stderr);
        // A proxy that does not do it.
        let refusing = Hostile::start(|_, stream| reply(stream, "407 Denied", "", b""));
        pull(&[("ALL_PROXY", &url(&refusing))], name).refused(&["lib/app"]);
    });
}
