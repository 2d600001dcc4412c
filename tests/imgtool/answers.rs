//! What servers say beside what was asked for, and the user sees.

use super::scene;
use crate::harness::hostile::{Content, Hostile, reply};

#[test]
fn a_registry_s_warnings_are_shown_once_and_can_not_drive_the_terminal() {
    scene(|scene| {
        let registry = Hostile::start(|_, stream| {
            let headers = "Warning: 299 - \"this registry moves to \\\"new.example\\\"\"\r\n\
                           Warning: 299 - \"\u{9b}31m\"\r\nWarning: 110 - \"stale\"\r\n";
            reply(stream, "200 OK", headers, b"{\"tags\":[\"a\"]}");
        });
        let name = format!("{}/lib/app", registry.host);
        let told = scene.imgtool().args(["list-tags", &name]).run().success();
        let shown = format!("warning of {}: this registry moves to \"new.example\"", registry.host);
        assert_eq!(told.stderr.matches(&shown).count(), 1, "{}", told.stderr);
        assert!(!told.stderr.contains("stale") && !told.stderr.contains('\u{9b}'));
        assert_eq!(told.stdout, "a\n");
        assert!(registry.asked().len() > 1);

        // Not those of servers that a registry only sends us to.
        let layer = crate::harness::tarball::Tarball::default().bytes();
        let (content, served) = (Content::new(vec![layer.clone()]), layer);
        let storage = Hostile::start(move |_, stream| {
            reply(stream, "200 OK", "Warning: 299 - \"advertisement\"\r\n", &served);
        });
        let to = format!("Location: http://{}/blob\r\n", storage.host);
        let registry = Hostile::start(move |request, stream| match content.layer(request) {
            Some(_) => reply(stream, "307 Temporary Redirect", &to, b""),
            None => content.answer(request, stream),
        });
        let told = scene.imgtool().args(["pull", &registry.name()]).run().success();
        assert_eq!(storage.asked().len(), 1);
        assert!(!told.stderr.contains("advertisement"), "{}", told.stderr);
    });
}

/// A program would think that it needs as much as four gigabytes before a byte is there.
#[test]
fn what_compression_says_that_it_needs_has_a_limit() {
    scene(|scene| {
        let small = scene.path("small.xz");
        let make = "head -c 1000 /dev/zero | xz --lzma2=preset=0,dict=1GiB > $0";
        super::Cmd::new("sh").args(["-c", make]).arg(&small).run().success();
        let load = scene.imgtool().args(["load", "-i"]).arg(&small);
        load.prefix(&["prlimit", "--as=900000000", "--"]).run().refused(&["small.xz", "mem_limit"]);
    });
}
