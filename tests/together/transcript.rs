//! The tutorial as a person follows it at a terminal, from `transcript.txt`: what is typed, and what
//! is seen of it.
//!
//! `$ line` is typed into the shell, `< line` into the program that runs in it; each `> text` is
//! then seen, in this order. `E2E_SCREEN=FILE` keeps all that was seen.

use std::fs;
use std::path::Path;

use crate::harness::image::{Compression, Image};
use crate::harness::netns::Netns;
use crate::harness::pty::Pty;
use crate::harness::registry::{Guard, PASSWORD, Registry, USER};
use crate::harness::tarball::{Entry, Tarball};
use crate::harness::{Scene, scene, web};

use super::tutorial::{as_centos, line};

const TRANSCRIPT: &str = include_str!("transcript.txt");
const PROMPT: &str = "me@host# ";
/// What `netsetup forward on --persist` writes.
const KEPT: &str = "/etc/sysctl.d/99-netsetup.conf";
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// A shell at a terminal, and all that was seen on it.
struct Screen {
    terminal: Pty,
    seen: String,
}

impl Screen {
    fn start(scene: &Scene) -> Self {
        let dir = scene.path("work").display().to_string();
        let shell = line(scene, &format!("cd {dir} && PS1='{PROMPT}' exec sh -i"));
        let mut screen = Self { terminal: Pty::start(shell, 24, 120), seen: String::new() };
        screen.expect(PROMPT);
        screen
    }

    #[track_caller]
    fn expect(&mut self, text: &str) {
        let seen = self.terminal.expect(text);
        self.seen.push_str(&seen);
    }

    /// What is to be seen before the next prompt.
    #[track_caller]
    fn expect_of_command(&mut self, text: &str) {
        let seen = self.terminal.expect_before(text, PROMPT);
        self.seen.push_str(&seen);
    }

    /// Types a line into the shell; its echo is seen before anything of the program's is.
    #[track_caller]
    fn command(&mut self, text: &str) {
        self.terminal.type_in(&format!("{text}\n"));
        self.expect(&format!("{text}\r\n"));
    }
}

/// What the tutorial finds: a hub, registries, a build's context, a host outside.
fn follow(scene: &Scene, transcript: &str) {
    for dir in ["home", "work", "work/context"] {
        fs::create_dir(scene.path(dir)).unwrap();
    }
    let hub = web::serve(|_| {
        r#"{"num_results":1,"results":[{"name":"centos","description":"DEPRECATED; The official build of CentOS.","star_count":7762,"is_official":true}]}"#.to_owned()
    });
    let public = Registry::start(scene);
    let centos = as_centos(Image::debian());
    let layout = centos.layout(&scene.path("layout"), "latest", Compression::Gzip);
    public.push(&layout, "latest", "lib/centos:latest");
    let own = Registry::guarded(scene, &Guard::Password);
    let certificates = scene.path("home/.config/containers/certs.d").join(&own.host);
    fs::create_dir_all(&certificates).unwrap();
    fs::copy(own.certificates.join("ca.crt"), certificates.join("ca.crt")).unwrap();
    context(&scene.path("work/context"));
    let outside = Netns::remote_host();

    let words = [
        ("HUB", hub.as_str()),
        ("PUBLIC", &public.host),
        ("OWN", &own.host),
        ("OUTSIDE", &outside.name),
        ("USER", USER),
        ("PASSWORD", PASSWORD),
    ];
    let mut screen = Screen::start(scene);
    let mut at_prompt = true;
    for row in transcript.lines() {
        let text = |text: &str| {
            words.iter().fold(text.to_owned(), |text, (name, value)| {
                text.replace(&format!("{{{name}}}"), value)
            })
        };
        match row.split_at_checked(2) {
            Some(("$ ", command)) => {
                if !at_prompt {
                    screen.expect(PROMPT);
                }
                at_prompt = false;
                screen.command(&text(command));
            }
            Some(("> ", seen)) => screen.expect_of_command(&text(seen)),
            Some(("< ", typed)) => screen.terminal.type_in(&format!("{}\n", text(typed))),
            _ => assert!(row.is_empty() || row.starts_with('#'), "a row of no kind: {row:?}"),
        }
    }
    screen.expect(PROMPT);
    screen.terminal.type_in("exit\n");
    let (_, rest) = screen.terminal.end();
    screen.seen.push_str(&rest);
    if let Ok(path) = std::env::var("E2E_SCREEN") {
        fs::write(path, screen.seen.replace("\r\n", "\n")).unwrap();
    }
}

/// A Dockerfile of the old school, and what it adds.
fn context(dir: &Path) {
    let dockerfile = "FROM centos\nMAINTAINER me <me@example.org>\nRUN mkdir /www\n\
                      ADD index.html /www/index.html\nADD site.tar /www/\nEXPOSE 80\n\
                      CMD [\"busybox\", \"httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/www\"]\n";
    fs::write(dir.join("Dockerfile"), dockerfile).unwrap();
    fs::write(dir.join("index.html"), "Hello from the tutorial.\n").unwrap();
    let site = Tarball::of([Entry::file("more.html", "There is more.\n")]);
    fs::write(dir.join("site.tar"), site.bytes()).unwrap();
}

#[test]
fn the_tutorial_is_typed_at_a_terminal_and_every_screen_is_as_promised() {
    scene(|scene| {
        let forward = fs::read_to_string(FORWARD).unwrap();
        follow(scene, TRANSCRIPT);
        fs::write(FORWARD, forward).unwrap();
        fs::remove_file(KEPT).unwrap();
    });
}
