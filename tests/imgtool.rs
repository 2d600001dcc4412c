//! `imgtool`, verb by verb, and against the tools whose formats it shares.

use std::path::PathBuf;

use crate::harness::image::{Compression, Image};
use crate::harness::{Cmd, Outcome, Scene, scene};

mod answers;
mod archives;
mod as_docker;
mod astray;
mod bad_input;
mod build;
mod bundles;
mod cdi;
mod commit;
mod config;
mod copy;
mod corpus;
mod cp;
mod crowd;
mod diff;
mod docker_flags;
mod edit;
mod equality;
mod faults;
mod flat;
mod form;
mod guarded;
mod hostile;
mod init;
mod interop;
mod killed;
mod life;
mod lists;
mod login;
mod mirrors;
mod names;
mod namespaces;
mod platforms;
mod policy;
mod property;
mod push;
mod referrers;
mod rootless;
mod scarce;
mod transfers;
mod userns;
mod volumes;

/// Loads `image` as `name`.
pub(crate) fn load(scene: &Scene, image: &Image, name: &str) -> PathBuf {
    let archive = image.docker_archive(&scene.path("image.tar"), name);
    scene.imgtool().args(["load", "--input"]).arg(&archive).run().success();
    archive
}

/// A bundle at `<scene>/<dir>`; `words` are flags, the image, and what follows the directory.
fn bundle(scene: &Scene, flags: &[&str], image: &str, dir: &str, words: &[&str]) -> PathBuf {
    let path = scene.path(dir);
    let made = scene.imgtool().arg("bundle").args(flags).arg(image).arg(&path);
    let made = if words.is_empty() { made } else { made.arg("--").args(words) };
    made.run().success();
    path
}

/// Runs the bundle in the foreground.
fn run(scene: &Scene, dir: &str) -> Outcome {
    scene.runtime().args(["run", "--bundle"]).arg(scene.path(dir)).arg(scene.id(dir)).run()
}

fn remove(scene: &Scene, dir: &str) {
    scene.imgtool().arg("rm").arg(scene.path(dir)).run().success();
}
