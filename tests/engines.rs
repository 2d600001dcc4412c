//! Our runtime under the engines that people use: each is given it as its runtime, does what users do,
//! and must be seen to have called it.

mod buildah;
mod containerd;
mod cri;
mod docker;
mod networks;
mod podman;
mod probes;

use std::path::PathBuf;

use crate::harness::Scene;
use crate::harness::image::{BUSYBOX as IMAGE, Image};

/// [`IMAGE`] in the form that every engine loads.
fn archive(scene: &Scene) -> PathBuf {
    Image::busybox().docker_archive(&scene.path("image.tar"), IMAGE)
}
