//! An ordinary user, known to the commands that run as this user and to nobody else: each sees an
//! /etc of its own, so that the host's users and their ranges of ids stay as they are.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::bundle;
use super::command::{Cmd, binary};
use super::image::Image;
use super::requires;
use super::scene::{Scene, scene};

/// The user's number, for both the user and the group.
pub(crate) const UID: u32 = 61_234;
/// The first of the further ids, if there are any.
pub(crate) const FIRST_SUBID: u32 = 700_000;
pub(crate) const SUBIDS: u32 = 65_536;

/// Whether /etc/subuid and /etc/subgid give the user ids besides its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subids {
    Granted,
    None,
}

/// The user, with a home and a runtime directory in the scene.
pub(crate) struct Ordinary {
    dir: PathBuf,
}

/// Takes the words of the command from the third on; `$1` is the user's directory, `$2` that of
/// the binaries.
const ENTER: &str = "set -e
mount --bind \"$1/etc\" /etc
for name in runtime imgtool netsetup probe; do mount --bind \"$2/$name\" \"$1/bin/$name\"; done
mkdir -p /dev/net && mount -t tmpfs tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200
cd \"$1/home\"
dir=$1; shift 2
exec setpriv --reuid=61234 --regid=61234 --clear-groups -- env -i HOME=\"$dir/home\" USER=ord \\
    XDG_RUNTIME_DIR=\"$dir/run\" PATH=\"$dir/bin:/usr/bin:/bin:/usr/sbin:/sbin\" \"$@\"";

impl Ordinary {
    pub(crate) fn new(scene: &Scene, subids: Subids) -> Self {
        let dir = scene.path("ordinary");
        for (name, mode) in [("etc", 0o755), ("bin", 0o755), ("home", 0o755), ("run", 0o700)] {
            fs::create_dir_all(dir.join(name)).expect("make the user's directories");
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(dir.join(name), mode).expect("chmod the user's directories");
        }
        // The scene itself is for root alone.
        let root = dir.parent().expect("the user's directory lies in the scene");
        fs::set_permissions(root, fs::Permissions::from_mode(0o711)).expect("chmod the scene");
        // What is mounted there for the user, who might not get at the original's directory.
        for name in ["runtime", "imgtool", "netsetup", "probe"] {
            fs::write(dir.join("bin").join(name), "").expect("make a mount point");
        }
        for name in ["home", "run"] {
            chown(dir.join(name), Some(UID), Some(UID)).expect("chown the user's directories");
        }
        let etc = |name: &str, text: String| {
            fs::write(dir.join("etc").join(name), text).expect("write the user's /etc");
        };
        let own = |name: &str| fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default();
        let home = dir.join("home").display().to_string();
        etc("passwd", format!("root:x:0:0::/root:/bin/sh\nord:x:{UID}:{UID}::{home}:/bin/sh\n"));
        etc("group", format!("root:x:0:\nord:x:{UID}:\n"));
        etc("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n".to_owned());
        for name in ["resolv.conf", "hosts"] {
            etc(name, own(name));
        }
        let range = match subids {
            Subids::Granted => format!("ord:{FIRST_SUBID}:{SUBIDS}\n"),
            Subids::None => String::new(),
        };
        etc("subuid", range.clone());
        etc("subgid", range);
        Self { dir }
    }

    /// Runs `body` as one that has loaded the image under this name.
    pub(crate) fn with(subids: Subids, image: &Image, name: &str, body: impl FnOnce(&Self)) {
        requires::program("newuidmap", "uidmap");
        scene(|scene| {
            let user = Self::new(scene, subids);
            let archive = user.home("image.tar");
            image.docker_archive(&archive, name);
            user.own(&archive);
            user.cmd("imgtool").args(["load", "--input"]).arg(&archive).run().success();
            body(&user);
        });
    }

    /// A program as the user runs it: one of our binaries by its name, or any other.
    pub(crate) fn cmd(&self, program: &str) -> Cmd {
        let binaries = binary("runtime");
        let binaries = binaries.parent().expect("a binary lies in a directory");
        Cmd::line("unshare --mount --propagation private -- sh -c")
            .args([ENTER, "sh"])
            .arg(&self.dir)
            .arg(binaries)
            .arg(program)
    }

    /// Where one of our binaries is for the user.
    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }

    pub(crate) fn home(&self, name: &str) -> PathBuf {
        self.dir.join("home").join(name)
    }

    /// `$XDG_RUNTIME_DIR`
    pub(crate) fn run_dir(&self, name: &str) -> PathBuf {
        self.dir.join("run").join(name)
    }

    /// Gives the user what is at `path`, with all beneath it.
    pub(crate) fn own(&self, path: &Path) {
        Cmd::new("chown").args(["-R", &format!("{UID}:{UID}")]).arg(path).run().success();
    }

    /// A bundle as `spec --rootless` of this program begins it, that runs `/probe <words>`.
    pub(crate) fn bundle(&self, program: &str, name: &str, words: &[&str]) -> PathBuf {
        let dir = self.home(name);
        bundle::rootfs(&dir.join("rootfs"));
        self.own(&dir);
        self.cmd(program).args(["spec", "--rootless", "--bundle"]).arg(&dir).run().success();
        let words: Vec<&str> = std::iter::once("/probe").chain(words.iter().copied()).collect();
        self.edit(&dir, |config| {
            config["process"]["args"] = words.into();
            config["process"]["terminal"] = false.into();
            config["root"]["readonly"] = false.into();
        });
        dir
    }

    /// Changes the config.json of a bundle.
    pub(crate) fn edit(&self, bundle: &Path, change: impl FnOnce(&mut serde_json::Value)) {
        let path = bundle.join("config.json");
        let text = fs::read_to_string(&path).expect("read config.json");
        let mut config = serde_json::from_str(&text).expect("config.json is JSON");
        change(&mut config);
        fs::write(&path, config.to_string()).expect("write config.json");
    }
}

impl Drop for Ordinary {
    /// A failed test may have left a container.
    fn drop(&mut self) {
        for root in ["runtime", "runc"] {
            for entry in fs::read_dir(self.run_dir(root)).into_iter().flatten().flatten() {
                self.cmd(root).args(["delete", "-f"]).arg(entry.file_name()).run();
            }
        }
    }
}
