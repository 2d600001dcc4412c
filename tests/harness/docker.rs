//! Docker Engines of the tests' own, with all their state in one directory and in a mount namespace of
//! their own, so that the host's mounts and rules stay as they are. As judges of images they are started
//! once; one that runs containers by our runtime is one scene's.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::command::Cmd;
use super::daemon::{CgroupParent, Daemon};
use super::{Scene, Witness, requires};

/// A running engine.
pub(crate) struct Engine {
    host: String,
    _daemon: Option<Daemon>,
    _cgroup: Option<CgroupParent>,
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

    /// An engine of this scene that runs every container, also while it builds, by our runtime.
    pub(crate) fn under(witness: &Witness, scene: &Scene) -> Self {
        requires::program("dockerd", "docker.io");
        let dir = scene.path("docker");
        let host = host(&dir);
        let cgroup = CgroupParent::new(&scene.id("docker"));
        let program = witness.program();
        let mut words = words(&dir, &host, "overlay2");
        words.push(format!("--add-runtime=ours={}", program.display()));
        words.push("--default-runtime=ours".to_owned());
        words.push(format!("--cgroup-parent={}", cgroup.path()));
        // The engine's own BuildKit knows no other way to its runtime than the PATH.
        let path = std::env::var("PATH").unwrap_or_default();
        let bin = dir.join("bin");
        std::fs::create_dir_all(&bin).expect("make the engine's directory");
        std::os::unix::fs::symlink(&program, bin.join("runc")).expect("link the witness");
        let path = format!("PATH={}:{path}", bin.display());
        let words: Vec<String> = [path, "dockerd".to_owned()].into_iter().chain(words).collect();
        let daemon = Daemon::start(&dir, &[], "env", &words);
        Self { host, _daemon: Some(daemon), _cgroup: Some(cgroup) }
    }

    /// `docker <words>`, asked of this engine.
    pub(crate) fn docker<const N: usize>(&self, words: [&str; N]) -> Cmd {
        Cmd::new("docker").args(self.host_words()).args(words)
    }

    /// What makes a client ask this engine.
    pub(crate) fn host_words(&self) -> [&str; 2] {
        ["--host", &self.host]
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
        let engine = Self { host: host(&dir), _daemon: None, _cgroup: None };
        if UnixStream::connect(&socket).is_ok() {
            return engine;
        }
        std::fs::create_dir_all(&dir).expect("make the engine's directory");
        // A file left by an engine that was killed names a process that is no engine any more.
        let _ = std::fs::remove_file(dir.join("pid"));
        let log = File::create(dir.join("log")).expect("make the engine's log");
        Command::new("unshare")
            .args(["--mount", "--propagation", "private", "dockerd"])
            .args(words(&dir, &engine.host, driver))
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

fn host(dir: &Path) -> String {
    format!("unix://{}", dir.join("docker.sock").display())
}

/// What keeps an engine's state in `dir` and its hands off the host's network.
fn words(dir: &Path, host: &str, driver: &str) -> Vec<String> {
    let mut words: Vec<String> = [
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
        "--ip-masq=false",
        "--ip-forward=false",
    ]
    .map(str::to_owned)
    .into();
    words.push(format!("--host={host}"));
    words.push(format!("--storage-driver={driver}"));
    for (flag, name) in [("data-root", "data"), ("exec-root", "exec"), ("pidfile", "pid")] {
        words.push(format!("--{flag}={}", dir.join(name).display()));
    }
    words
}
