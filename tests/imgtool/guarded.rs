//! A registry that wants TLS, and to know who asks: every verb, by Debian's docker-registry.

use std::fs;
use std::path::Path;

use super::{Image, Scene, load, scene};
use crate::harness::registry::{Guard, PASSWORD, Registry, USER};
use crate::harness::tarball::{Entry, Tarball};

/// Our program at a home where the registry's certificates lie as podman has them.
fn at_home(scene: &Scene, words: &[&str]) -> super::Cmd {
    let home = scene.path("home");
    scene.imgtool().env("HOME", &home).env("XDG_RUNTIME_DIR", scene.path("run")).args(words)
}

fn install(scene: &Scene, registry: &Registry, files: &[(&Path, &str)]) {
    let dir = scene.path("home/.config/containers/certs.d").join(&registry.host);
    fs::create_dir_all(&dir).unwrap();
    for (from, name) in files {
        fs::copy(from, dir.join(name)).unwrap();
    }
}

/// All that is done with a registry, once it lets us in.
fn all_verbs(scene: &Scene, registry: &Registry) {
    let host = &registry.host;
    let run = |words: &[&str]| at_home(scene, words).run().success();
    let image = Image::probe(&[]).layer(Tarball::of([Entry::file("second", "layer")]));
    let (one, two) = (format!("{host}/lib/one:1"), format!("{host}/team/two:1"));
    load(scene, &image, &one);
    let pushed = run(&["push", &one]).stdout_has(": Pushed\n");
    let digest = pushed.stdout.split("digest: ").nth(1).unwrap().split(' ').next().unwrap();
    run(&["tag", &one, &two]);
    run(&["push", &two]).stdout_has(": Mounted from lib/one\n").stdout_has(digest);
    let (from, to) = (format!("docker://{one}"), format!("docker://{host}/lib/copied:2"));
    run(&["copy", &from, &to]).stdout_has(digest).stdout_has("Mounted from lib/one");
    run(&["rmi", &one, &two]);
    run(&["pull", &one]).stdout_has(&format!("Digest: {digest}"));
    let id = run(&["inspect", "-f", "{{.Id}}", &one]);
    assert_eq!(id.word(), image.id());
    assert_eq!(run(&["list-tags", &format!("{host}/lib/copied")]).stdout, "2\n");
    let found = run(&["search", "--format", "{{.Name}}", &format!("{host}/lib")]).stdout;
    assert_eq!(found, format!("{host}/lib/copied\n{host}/lib/one\n"));
    run(&["delete", &to]).stdout_has(&format!("Deleted: {digest}"));
    at_home(scene, &["pull", &to["docker://".len()..]]).run().refused(&["not found"]);
    run(&["rmi", &one]);
}

#[test]
fn behind_tls_and_a_password_every_verb_works() {
    scene(|scene| {
        let registry = Registry::guarded(scene, &Guard::Password);
        let name = format!("{}/lib/one:1", registry.host);
        at_home(scene, &["pull", &name]).run().refused(&["certificate", "certs.d"]);
        install(scene, &registry, &[(&registry.certificates.join("ca.crt"), "ca.crt")]);
        for words in [&["pull", &name][..], &["list-tags", &name[..name.len() - 2]]] {
            at_home(scene, words).run().refused(&["denied", "imgtool login"]);
        }
        let login = at_home(scene, &["login", "-u", USER, "--password-stdin", &registry.host]);
        login.stdin(PASSWORD).run().success().stdout_has("Login Succeeded");
        all_verbs(scene, &registry);
    });
}

#[test]
fn a_certificate_of_ours_opens_the_registry_that_wants_one() {
    scene(|scene| {
        let registry = Registry::guarded(scene, &Guard::Certificate);
        let name = format!("{}/lib/one:1", registry.host);
        let made = registry.certificates.parent().unwrap();
        install(scene, &registry, &[(&made.join("ca.crt"), "ca.crt")]);
        at_home(scene, &["pull", &name]).run().refused(&["ertificate"]);
        install(scene, &registry, &[(&made.join("client.cert"), "me.cert")]);
        at_home(scene, &["pull", &name]).run().refused(&["me.cert", "me.key"]);
        // What TLS can't use: another one's key, a certificate of an old kind.
        for (certificate, key) in [("client.cert", "server.key"), ("old.cert", "client.key")] {
            let pair = [(&*made.join(certificate), "me.cert"), (&*made.join(key), "me.key")];
            install(scene, &registry, &pair);
            at_home(scene, &["pull", &name]).run().refused(&["me.cert", "me.key"]);
        }
        let pair = [(&*made.join("client.cert"), "me.cert"), (&*made.join("client.key"), "me.key")];
        install(scene, &registry, &pair);
        all_verbs(scene, &registry);
    });
}
