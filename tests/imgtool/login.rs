//! Credentials: given, kept, found again, forgotten, and shown to nobody else.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{Cmd, Compression, Image, Scene, load, scene};
use crate::harness::registry::{Guard, PASSWORD, Registry, USER};
use crate::harness::token::{IDENTITY, TokenServer};

/// With a home of its own.
fn imgtool(scene: &Scene) -> Cmd {
    let home = scene.path("home");
    fs::create_dir_all(&home).unwrap();
    scene.imgtool().env("HOME", &home).env("XDG_RUNTIME_DIR", scene.path("run"))
}

fn config(scene: &Scene) -> String {
    fs::read_to_string(scene.path("home/.docker/config.json")).unwrap_or_default()
}

#[test]
fn a_login_is_tried_kept_used_and_forgotten() {
    scene(|scene| {
        let registry = Registry::guarded(scene, &Guard::Password);
        let host = registry.host.clone();
        let name = format!("{host}/lib/app:1");
        load(scene, &Image::probe(&[]), &name);
        let trust = ["--cert-dir", registry.certificates.to_str().unwrap()];
        // Without the authority's certificate nothing is sent.
        let login = ["login", "-u", USER, "--password-stdin", &host];
        let denied = imgtool(scene).args(login).stdin(PASSWORD).run();
        denied.refused(&["certificate", "--cert-dir"]);
        imgtool(scene).args(["push", &name]).args(trust).run().refused(&["login"]);
        let wrong = imgtool(scene).args(login).args(trust).stdin("wrong\n").run();
        wrong.refused(&["does not accept"]);
        assert_eq!(config(scene), "");

        let done = imgtool(scene).args(login).args(trust).stdin(format!("{PASSWORD}\n")).run();
        done.success().stdout_has("Login Succeeded").stderr_has("unencrypted");
        let file = scene.path("home/.docker/config.json");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let known = imgtool(scene).args(["login", "--get-login", &host]).run().success();
        assert_eq!(known.word(), USER);
        let again = imgtool(scene).args(["login", &host]).args(trust).run().success();
        again.stdout_has("existing credentials").stdout_has("Login Succeeded");

        let pushed = imgtool(scene).args(["push", &name]).args(trust).run().success();
        let digest = registry.digest("lib/app:1");
        pushed.stdout_has(&format!("1: digest: {digest} size: "));
        scene.imgtool().args(["rmi", &name]).run().success();
        let pulled = imgtool(scene).args(["pull", &name]).args(trust).run().success();
        pulled.stdout_has(&format!("Digest: {digest}"));
        let tags = imgtool(scene).args(["list-tags", &format!("{host}/lib/app")]).args(trust);
        assert_eq!(tags.run().success().stdout, "1\n");

        // skopeo and docker read what we wrote.
        let read = Cmd::line("skopeo login --get-login").arg(&host);
        let read = read.env("REGISTRY_AUTH_FILE", &file).run().success();
        assert_eq!(read.word(), USER);

        let gone = imgtool(scene).args(["logout", &host]).run().success();
        gone.stdout_has("Removing login credentials");
        let none = imgtool(scene).args(["logout", &host]).run().success();
        none.stdout_has("Not logged in");
        imgtool(scene).args(["pull", &name]).args(trust).run().refused(&["denied", "login"]);
    });
}

#[test]
fn passwords_on_the_command_line_are_warned_of_and_secrets_never_printed() {
    scene(|scene| {
        let registry = Registry::guarded(scene, &Guard::Password);
        let trust = ["--cert-dir", registry.certificates.to_str().unwrap()];
        let login = ["login", "-u", USER, "-p", PASSWORD, &registry.host];
        let done = imgtool(scene).args(login).args(trust).run().success();
        let done = done.stderr_has("--password-stdin").stdout_has("Login Succeeded");
        assert!(!(done.stdout + &done.stderr).contains(PASSWORD));
        imgtool(scene)
            .args(["login", "-u", USER, &registry.host])
            .args(trust)
            .run()
            .refused(&["no terminal"]);
        let both = ["login", "-u", USER, "-p", "x", "--password-stdin", &registry.host];
        imgtool(scene).args(both).run().code(125);
        imgtool(scene).args(["login", "--password-stdin", "h.example"]).run().code(1);
        fs::write(scene.path("bad.json"), "{\"auths\": {\"h\": {\"auth\": \"c2VjcmV0").unwrap();
        let bad = imgtool(scene).args(["list-tags", "--authfile"]).arg(scene.path("bad.json"));
        let told = bad.arg(format!("{}/x", registry.host)).run();
        assert!(!told.stderr.contains("c2VjcmV0"), "{}", told.stderr);
        told.refused(&["bad.json", "not JSON"]);
    });
}

#[test]
fn a_terminal_is_asked_without_an_echo() {
    scene(|scene| {
        let registry = Registry::guarded(scene, &Guard::Password);
        let certificates = registry.certificates.to_str().unwrap();
        let login = imgtool(scene).args(["login", "--cert-dir", certificates, &registry.host]);
        let done = login.stdin(format!("{USER}\n{PASSWORD}\n")).on_terminal().run().success();
        assert!(done.stdout.contains("Login Succeeded"), "{}", done.stdout);
    });
}

#[test]
fn credential_helpers_keep_what_the_file_does_not() {
    scene(|scene| {
        let registry = Registry::guarded(scene, &Guard::Password);
        let certificates = registry.certificates.to_str().unwrap();
        let host = &registry.host;
        let bin = scene.path("helpers");
        fs::create_dir_all(&bin).unwrap();
        let kept = scene.path("kept.json");
        let script = format!(
            "#!/bin/sh\nkept='{}'\necho \"$1 $#\" >> \"$kept.log\"\ncase $1 in\n\
             store) cat > \"$kept\" ;;\nget) cat > /dev/null; [ -f \"$kept\" ] && cat \"$kept\" \
             || {{ echo 'credentials not found in native keychain'; exit 1; }} ;;\n\
             erase) cat > /dev/null; rm \"$kept\" ;;\nesac\n",
            kept.display()
        );
        let helper = bin.join("docker-credential-e2e");
        fs::write(&helper, script).unwrap();
        fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all(scene.path("home/.docker")).unwrap();
        fs::write(scene.path("home/.docker/config.json"), r#"{"credsStore":"e2e"}"#).unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let run =
            |words: &[&str]| imgtool(scene).args(words).env("PATH", &path).stdin(PASSWORD).run();
        run(&["list-tags", "--cert-dir", certificates, &format!("{host}/x")]).refused(&["login"]);
        let login = ["login", "-u", USER, "--password-stdin", "--cert-dir", certificates, host];
        assert_eq!(run(&login).success().stderr, "");
        assert!(fs::read_to_string(&kept).unwrap().contains(PASSWORD));
        assert!(!config(scene).contains("auth\""), "{}", config(scene));
        let tags = run(&["list-tags", "--cert-dir", certificates, &format!("{host}/x")]);
        tags.refused(&["not found"]);
        run(&["logout", host]).success().stdout_has("Removing");
        assert!(!kept.exists());
        // Nothing but the verb stood on its command line.
        let log = fs::read_to_string(scene.path("kept.json.log")).unwrap();
        assert!(log.lines().all(|line| line.ends_with(" 1")), "{log}");
    });
}

#[test]
fn tokens_are_asked_for_exactly_what_is_done() {
    scene(|scene| {
        let tokens = TokenServer::start(scene);
        let guard = Guard::Token { realm: &tokens.realm, certificate: &tokens.certificate };
        let registry = Registry::guarded(scene, &guard);
        let host = registry.host.clone();
        let name = format!("{host}/lib/app:1");
        let image = Image::probe(&[]);
        load(scene, &image, &name);
        imgtool(scene).args(["push", &name]).run().refused(&["denied", "login"]);
        let login = ["login", "-u", USER, "--password-stdin", &host];
        imgtool(scene).args(login).stdin("wrong").run().refused(&["credentials are wrong"]);
        imgtool(scene).args(login).stdin(PASSWORD).run().success();
        // The server gave a token that stands for the password, and that is what is kept.
        assert!(config(scene).contains(IDENTITY), "{}", config(scene));
        assert!(!config(scene).contains("czM6Y3JldA"), "{}", config(scene));

        tokens.take_asked();
        imgtool(scene).args(["push", &name]).run().success();
        let asked = tokens.take_asked();
        assert_eq!(asked.len(), 1, "one token does for a whole push: {asked:?}");
        assert!(asked[0].contains("grant_type=refresh_token"), "{asked:?}");
        assert!(asked[0].contains("scope=repository:lib/app:pull,push"), "{asked:?}");

        // Pulling needs no login here, and asks for no more than it needs.
        scene.imgtool().args(["rmi", &name]).run().success();
        scene.imgtool().args(["pull", "--no-creds", &name]).run().success();
        let asked = tokens.take_asked();
        assert_eq!(asked, ["service=tests&scope=repository:lib/app:pull"]);

        // A mount asks for the right to read the other repository, too.
        let other = format!("{host}/lib/other:1");
        scene.imgtool().args(["tag", &name, &other]).run().success();
        let pushed = imgtool(scene).args(["push", &other]).run().success();
        pushed.stdout_has("Mounted from lib/app");
        let asked = tokens.take_asked().join("\n");
        assert!(asked.contains("repository:lib/app:pull"), "{asked}");

        let found = imgtool(scene).args(["search", &format!("{host}/other")]).run().success();
        found.stdout_has(&format!("{host}/lib/other"));
        let deleted = imgtool(scene).args(["delete", &other]).run().success();
        deleted.stdout_has("Deleted: sha256:");
        let layout = image.layout(&scene.path("layout"), "x", Compression::Gzip);
        let copied = format!("docker://{host}/lib/third:1");
        let source = format!("oci:{}:x", layout.display());
        imgtool(scene).args(["copy", &source, &copied]).run().success();
    });
}
