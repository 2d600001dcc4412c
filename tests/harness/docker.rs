//! Docker Engines of the tests' own, as judges: each started once, with all its state in one directory
//! and in a mount namespace of its own, so that the host's mounts and rules stay as they are.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::command::Cmd;
use super::requires;

/// A running engine.
pub(crate) struct Engine {
    host: String,
}

impl Engine {
    /// The engine as users have it.
    pub(crate) fn overlay() -> &'static Self {
        static ENGINE: OnceLock<Engine> = OnceLock::new();
        ENGINE.get_or_init(|| Self::start("overlay2"))
    }

    /// The engine that unpacks each layer onto a whole copy of those below.
    pub(crate) fn vfs() -> &'static Self {
        static ENGINE: OnceLock<Engine> = OnceLock::new();
        ENGINE.get_or_init(|| Self::start("vfs"))
    }

    /// `docker <words>`, asked of this engine.
    pub(crate) fn docker<const N: usize>(&self, words: [&str; N]) -> Cmd {
        Cmd::new("docker").args(["--host", &self.host]).args(words)
    }

    /// It serves all test processes until the machine ends or `tests/run` ends it by its pid file.
    #[allow(
        clippy::zombie_processes,
        reason = "the engine outlives this process for the next test"
    )]
    fn start(driver: &str) -> Self {
        requires::program("dockerd", "docker.io");
        let dir = Self::root().join(driver);
        let socket = dir.join("docker.sock");
        let engine = Self { host: format!("unix://{}", socket.display()) };
        if UnixStream::connect(&socket).is_ok() {
            return engine;
        }
        std::fs::create_dir_all(&dir).expect("make the engine's directory");
        // A file left by an engine that was killed names a process that is no engine any more.
        let _ = std::fs::remove_file(dir.join("pid"));
        let log = File::create(dir.join("log")).expect("make the engine's log");
        Command::new("unshare")
            .args(["--mount", "--propagation", "private", "dockerd", "--host", &engine.host])
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-masq=false"])
            .args(["--ip-forward=false", "--storage-driver", driver])
            .arg("--data-root")
            .arg(dir.join("data"))
            .arg("--exec-root")
            .arg(dir.join("exec"))
            .arg("--pidfile")
            .arg(dir.join("pid"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("dup the log"))
            .stderr(log)
            .spawn()
            .expect("start dockerd");
        engine.wait_until_it_answers();
        engine
    }

    /// Where `tests/run` finds the engines to end them.
    fn root() -> PathBuf {
        std::env::temp_dir().join("e2e-docker")
    }

    fn wait_until_it_answers(&self) {
        // dockerd tells nobody when it is ready: asking is the only way, each time a little later.
        let ask = format!(
            "for i in $(seq 300); do docker --host {} version && exit 0; sleep 0.1; done; exit 1",
            self.host
        );
        let outcome = Cmd::new("sh").args(["-c", &ask]).run();
        assert_eq!(outcome.code, 0, "dockerd does not answer at {}: see its log there", self.host);
    }
}
