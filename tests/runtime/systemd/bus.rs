//! Hosts without systemd, and buses that fail: one line, and nothing is left. A bus of the test's
//! own serves, so these run where there is no other to fall back to.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::harness::{Bundle, Outcome, Scene, scene};

/// Where the bus of the test goes.
#[derive(Clone, Copy, PartialEq)]
enum Goes {
    AtOnce,
    /// When it is asked for the version.
    Early,
    /// When it is asked for the unit: there is a process already.
    Late,
    /// Never; it answers with an error then.
    Refuses,
}

fn serve(scene: &Scene, goes: Goes) -> (String, JoinHandle<()>) {
    let path = scene.path("bus");
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).expect("listen");
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        if goes != Goes::AtOnce {
            talk(&mut stream, goes);
        }
    });
    (format!("unix:path={}", path.display()), served)
}

fn talk(stream: &mut UnixStream, goes: Goes) {
    let mut line = Vec::new();
    while !line.ends_with(b"BEGIN\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("read the authentication");
        line.push(byte[0]);
    }
    stream.write_all(b"DATA\r\nOK 00\r\n").expect("approve");
    loop {
        let mut head = [0; 16];
        if stream.read_exact(&mut head).is_err() {
            return;
        }
        let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four"));
        let fields = number(12).next_multiple_of(8) as usize;
        let mut rest = vec![0; fields + number(4) as usize];
        stream.read_exact(&mut rest).expect("read a call");
        let asks = |member: &[u8]| rest.windows(member.len()).any(|part| part == member);
        let (serial, silent) = (number(8), head[2] & 1 == 1);
        let answer = match (asks(b"Version"), asks(b"StartTransientUnit")) {
            (true, _) if goes == Goes::Early => return,
            (_, true) if goes == Goes::Late => return,
            (_, true) => message(3, serial, b"\x06\0\0\0no way\0", "s"),
            _ => message(2, serial, b"\x01s\0\0\x05\0\0\x00252.1\0", "v"),
        };
        if !silent {
            stream.write_all(&answer).expect("answer");
        }
    }
}

/// An answer: the serial replied to, the name of an error, the signature, and the body.
fn message(kind: u8, serial: u32, body: &[u8], signature: &str) -> Vec<u8> {
    let mut fields = vec![5, 1, b'u', 0];
    fields.extend(serial.to_le_bytes());
    fields.extend(b"\x04\x01s\0\x05\0\0\0a.b.c\0\0\0");
    fields.extend([8, 1, b'g', 0, 1, signature.as_bytes()[0], 0]);
    let mut message = vec![b'l', kind, 0, 1];
    message.extend(u32::try_from(body.len()).expect("short").to_le_bytes());
    message.extend(7u32.to_le_bytes());
    message.extend(u32::try_from(fields.len()).expect("short").to_le_bytes());
    message.extend(fields);
    message.resize(message.len().next_multiple_of(8), 0);
    message.extend(body);
    message
}

fn run(scene: &Scene, bus: &str) -> Outcome {
    let bundle = Bundle::new(scene, &["pause"]);
    scene
        .runtime()
        .env("DBUS_SYSTEM_BUS_ADDRESS", bus)
        .args(["--systemd-cgroup", "run", "--bundle"])
        .arg(bundle.write())
        .arg(scene.id("bus"))
        .run()
}

/// Says why and returns true where a real systemd would come to the rescue.
fn rescued() -> bool {
    let there = Path::new("/run/systemd/private").exists();
    if there {
        println!("SKIP: this host has a systemd to fall back to");
    }
    there
}

#[test]
fn a_host_without_systemd_is_told_from_a_bus_that_fails() {
    if rescued() {
        return;
    }
    scene(|scene| {
        let outcome = run(scene, "unix:path=/nowhere");
        outcome.refused(&["this host is not run by systemd", "/nowhere: no such file", "leave"]);
        for (goes, words) in [
            (Goes::AtOnce, ["authenticate to", "systemd cgroup flag passed"]),
            (Goes::Early, ["ask for its Version", "closed the connection"]),
            (Goes::Late, ["unable to start unit", "closed the connection"]),
            (Goes::Refuses, ["unable to start unit", "no way"]),
        ] {
            let (bus, served) = serve(scene, goes);
            let before = Instant::now();
            run(scene, &bus).refused(&words);
            assert!(before.elapsed() < Duration::from_secs(20), "it waited for a dead bus");
            scene.runtime().args(["state", &scene.id("bus")]).run().refused(&["does not exist"]);
            served.join().expect("the bus fails as it should");
        }
    });
}
