//! A container that stands still while its files are packed.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};

use crate::bundle::{self, Container};
use crate::output;

/// Whether a running container is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// If that can be done; else the user is told.
    IfPossible,
    Always,
    Never,
}

/// Containers that go on at [`Paused::resume`], or else when this is dropped.
pub(super) struct Paused {
    containers: Vec<Container>,
    /// The signals that were blocked before; while a container stands still none ends us.
    signals: Option<SigSet>,
}

impl Paused {
    /// Pauses what runs from the bundle at `directory`. Call it before any thread is started, which
    /// would get the signals.
    pub(super) fn new(pause: Pause, directory: &Path) -> Result<Self> {
        let mut paused = Self { containers: Vec::new(), signals: None };
        if pause == Pause::Never {
            return Ok(paused);
        }
        for container in bundle::running(directory) {
            match paused.add(container) {
                Err(error) if pause == Pause::IfPossible => {
                    output::say(&format!("{error:#}: its files are read while it runs"));
                }
                added => added.context("--pause=false reads its files while it runs")?,
            }
        }
        Ok(paused)
    }

    fn add(&mut self, container: Container) -> Result<()> {
        if status(&container)? == "paused" {
            return Ok(());
        }
        if self.signals.is_none() {
            let deadly = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
            let deadly: SigSet = deadly.into_iter().collect();
            let mut before = SigSet::empty();
            sigprocmask(SigmaskHow::SIG_BLOCK, Some(&deadly), Some(&mut before))
                .context("block signals")?;
            self.signals = Some(before);
        }
        runtime(&container, "pause")?;
        self.containers.push(container);
        Ok(())
    }

    /// Lets them go on.
    pub(super) fn resume(mut self) -> Result<()> {
        self.release()
    }

    fn release(&mut self) -> Result<()> {
        let mut result = Ok(());
        for container in self.containers.drain(..) {
            result = runtime(&container, "resume").map(drop).and(result);
        }
        if let Some(before) = self.signals.take() {
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None).context("unblock signals")?;
        }
        result
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            output::say(&format!("{error:#}"));
        }
    }
}

fn status(container: &Container) -> Result<String> {
    let state = runtime(container, "state")?;
    let state: serde_json::Value = serde_json::from_slice(&state)
        .with_context(|| format!("read the state of container {}", container.id))?;
    Ok(state["status"].as_str().unwrap_or_default().to_owned())
}

/// Runs a verb of the runtime that has the container; its directory of containers has its name.
fn runtime(container: &Container, verb: &str) -> Result<Vec<u8>> {
    let program = bundle::sibling(container.root.file_name().unwrap_or("runtime".as_ref()));
    let doing = || format!("{verb} container {}", container.id);
    let output = Command::new(&program)
        .arg("--root")
        .arg(&container.root)
        .args([verb, &container.id])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {}", program.display()))
        .with_context(doing)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next_back().unwrap_or_default();
        return Err(anyhow::anyhow!("{}: {}: {said}", program.display(), output.status))
            .with_context(doing);
    }
    Ok(output.stdout)
}
