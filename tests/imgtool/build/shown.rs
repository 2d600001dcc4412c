//! How a build is shown: a view on a terminal, lines elsewhere.

use super::{NAME, build, busybox, context};
use crate::harness::pty::Pty;
use crate::harness::{Scene, scene};

fn on_terminal(scene: &Scene, words: &[&str]) -> Pty {
    let build = scene.imgtool().args(["build", "--tag", NAME]).args(words);
    let store = format!("IMGTOOL_ROOT={}", scene.store().display());
    let build = build.arg(scene.path("context")).prefix(&["env", "TERM=xterm", &store]);
    Pty::start(build, 24, 60)
}

const FILE: &str = "FROM e2e.test/busybox\nCOPY a /a\nRUN echo one; printf 'two\\033[2J\\n'; cat";

#[test]
fn a_terminal_gets_a_view_that_is_drawn_over_itself() {
    scene(|scene| {
        busybox(scene);
        let go = scene.path("context/go");
        context(scene, &[("a", ""), ("go", "")]);
        std::fs::remove_file(&go).unwrap();
        nix::unistd::mkfifo(&go, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        // The command waits until it was seen.
        let file =
            FILE.replace("; cat", "; read word < /w/go; echo \"got $word\"; test $word = yes");
        let file = file.replace("RUN ", "RUN --mount=target=/w ");
        context(scene, &[("Dockerfile", &file)]);
        for (word, code) in [("no", 1), ("yes", 0)] {
            let mut terminal = on_terminal(scene, &[]);
            terminal.expect("[+] Building ");
            terminal.expect(" => => # one");
            terminal.expect(" => => # two\r\n");
            std::fs::write(&go, format!("{word}\n")).unwrap();
            let (ended, seen) = terminal.end();
            assert_eq!(ended, code, "{seen}");
            assert!(!seen.contains("\u{1b}[2J"), "{seen:?}");
            // What is drawn last stays.
            let last = &seen[seen.rfind("[+] Building ").unwrap()..];
            assert!(last.contains("[stage-0 1/3] FROM e2e.test/busybox"), "{last}");
            let view = last.lines().take_while(|line| !line.starts_with("------"));
            assert!(view.take(5).all(|line| line.chars().count() < 80), "{last}");
            if code == 0 {
                assert!(last.contains("(4/4) FINISHED"), "{last}");
                assert!(last.contains(" => [exporting] to image"), "{last}");
                assert!(!last.contains("# got"), "{last}");
                assert!(last.trim_end().lines().last().unwrap().starts_with("sha256:"), "{last}");
            } else {
                assert!(last.contains(" => ERROR [stage-0 3/3] RUN"), "{last}");
                assert!(last.contains("one\r\ntwo\r\ngot no\r\n------"), "{last}");
                assert!(last.contains(">>> RUN"), "{last}");
            }
        }
    });
}

#[test]
fn who_shows_it_and_how_is_chosen_by_flag_variable_and_terminal() {
    scene(|scene| {
        busybox(scene);
        context(scene, &[("Dockerfile", "FROM e2e.test/busybox\nCOPY a /a\n"), ("a", "")]);
        let seen = |words: &[&str]| on_terminal(scene, words).end().1;
        assert!(seen(&[]).contains("[+] Building "));
        assert!(seen(&["--progress", "plain"]).contains("#2 [stage-0 2/2] COPY a /a\r\n"));
        assert!(seen(&["--quiet"]).starts_with("sha256:"));
        let plain = build(scene, &[]).success();
        plain.stderr_has("#2 [stage-0 2/2] COPY a /a\n#2 CACHED\n");
        build(scene, &["--progress", "auto"]).success().stderr_has("#2 CACHED\n");
        build(scene, &["--progress", "rawjson"]).success().stderr_has("{\"vertexes\":");
        build(scene, &["--progress", "tty"]).refused(&["tty needs a terminal", "auto or plain"]);
        let variable = |word: &str| {
            let build = scene.imgtool().args(["build"]).arg(scene.path("context"));
            build.env("BUILDKIT_PROGRESS", word).run()
        };
        assert!(variable("quiet").success().stderr.is_empty());
        variable("fancy").refused(&["BUILDKIT_PROGRESS", "\"fancy\" is not one of auto"]);
    });
}
