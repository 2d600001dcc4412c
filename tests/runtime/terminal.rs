//! Terminals: of a foreground run, of exec, and handed to a console socket.

use std::io::Read;
use std::os::unix::net::UnixListener;

use serde_json::json;

use super::under_both;
use crate::harness::Bundle;

#[test]
fn a_foreground_terminal_carries_the_program() {
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &["report"]).edit("/process/terminal", true);
        let run = it.cmd(["run", "--bundle"]).arg(bundle.write()).arg(it.scene.id("tty"));
        let report = run.on_terminal().run().success().json();
        assert_eq!(report["tty"], true);
        assert_eq!(report["mounts"]["/dev/console"]["type"], "devpts");
    });
}

#[test]
fn exec_with_a_terminal() {
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &["pause"]);
        let id = it.scene.id("exec-tty");
        it.start_pausing(bundle.write(), &id);
        let report = it.cmd(["exec", "--tty", &id, "/probe"]).on_terminal().run().success().json();
        assert_eq!(report["tty"], true);
        it.cmd(["exec", "--tty", &id, "/probe", "exit", "9"]).on_terminal().run().code(9);
        it.run(["delete", "--force", &id]).success();
    });
}

#[test]
fn a_console_socket_gets_the_terminal() {
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &["echo", "through the console"]);
        let bundle = bundle
            .edit("/process/terminal", true)
            .edit("/process/consoleSize", json!({ "height": 10, "width": 110 }));
        let id = it.scene.id("console");
        let path = it.scene.path("console.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let received = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            crate::harness::receive_descriptor(&stream)
        });
        let create = it.cmd(["create", "--console-socket"]).arg(&path).arg("--bundle");
        create.arg(bundle.write()).arg(&id).run().success();
        let mut console = received.join().unwrap();
        let size = rustix::termios::tcgetwinsize(&console).unwrap();
        assert_eq!((size.ws_row, size.ws_col), (10, 110));
        it.run(["start", &id]).success();
        let mut text = Vec::new();
        // The last process closing a terminal makes its other side fail with EIO: that is its end.
        let end = console.read_to_end(&mut text).expect_err("a terminal ends with an error");
        assert_eq!(end.raw_os_error(), Some(libc::EIO));
        assert_eq!(String::from_utf8_lossy(&text), "through the console\r\n");
        it.run(["delete", "--force", &id]).success();
    });
}

#[test]
fn a_terminal_needs_a_console_socket_to_be_detached() {
    under_both(|it| {
        let bundle = Bundle::new(it.scene, &["pause"]).edit("/process/terminal", true);
        let id = it.scene.id("no-socket");
        let create = it.cmd(["create", "--bundle"]).arg(bundle.write()).arg(&id).run();
        create.code(1).stderr_has("cannot allocate tty if runc will detach");
        it.run(["state", &id]).code(1);
    });
}
