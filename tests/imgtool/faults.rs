//! A kill or an error at every system call of what changes the store: whatever was half made, the store
//! is whole, the same command comes to what it would have come to, and pruned away it leaves nothing.
//!
//! A sample of the calls by default; all of them with `E2E_FAULTS=all`, as `tests/run --faults`
//! sets it. A call is named by its kind and how many of that kind came before: threads take turns.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;

use super::{Image, Scene, load, scene};
use crate::harness::Cmd;
use crate::harness::command::binary;
use crate::harness::disk::Disk;
use crate::harness::image::{BUSYBOX, Compression};
use crate::harness::registry::Registry;
use crate::harness::tarball::{Entry, Tarball};
use crate::harness::tracer::{self, At, Bounds, Fault, Traced};

/// How many faults of a command are tried in a sample.
const SAMPLE: usize = 24;

const BOUNDS: Bounds = Bounds { program: "imgtool", payload: "runtime" };

/// Which word of a file's line is its time.
const TIME: usize = 3;

/// What the commands make.
const NAME: &str = "e2e.test/faults:made";

/// A command that makes [`NAME`].
struct Case<'a> {
    scene: &'a Scene,
    words: Vec<String>,
    name: String,
}

/// The store lies in memory: its disk is synced a hundred times for every command.
fn in_memory(scene: &Scene) -> Disk {
    Disk::at(&scene.store(), "size=50%")
}

/// Two layers of all kinds of entries, the upper of which takes away from the lower.
fn image() -> Image {
    let lower = Tarball::of([
        Entry::dir("etc"),
        Entry::file("etc/passwd", "root:x:0:0::/:/\n").mode(0o640),
        Entry::file("etc/away", "away"),
        Entry::dir("old"),
        Entry::file("old/file", vec![b'x'; 70_000]),
        Entry::hardlink("old/name", "old/file"),
        Entry::symlink("link", "etc/passwd"),
    ]);
    let upper = Tarball::of([
        Entry::file("etc/new", "new"),
        Entry::whiteout("etc/away"),
        Entry::dir("old"),
        Entry::opaque("old"),
    ]);
    let config = serde_json::json!({ "Cmd": ["/bin/sh"] });
    Image { layers: vec![lower.bytes(), upper.bytes()], config }
}

#[test]
fn whatever_a_pull_came_to_the_next_one_finishes() {
    scene(|scene| {
        let _memory = in_memory(scene);
        let registry = Registry::start(scene);
        let authority = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
                         -subj /CN=e2e -keyout /dev/null -out";
        Cmd::line(authority).arg(scene.path("authority.pem")).run().success();
        let name = format!("{}/lib/faults:1", registry.host);
        let layout = image().layout(&scene.path("layout"), "it", Compression::Gzip);
        registry.push(&layout, "it", "lib/faults:1");
        Case::of(scene, &["pull", "--retry-delay", "0", &name], &name).try_all();
    });
}

#[test]
fn whatever_a_load_came_to_the_next_one_finishes() {
    scene(|scene| {
        let _memory = in_memory(scene);
        let archive = image().docker_archive(&scene.path("image.tar"), NAME).display().to_string();
        Case::of(scene, &["load", "--input", &archive], NAME).try_all();
    });
}

#[test]
fn whatever_a_commit_came_to_the_next_one_finishes() {
    scene(|scene| {
        let _memory = in_memory(scene);
        load(scene, &image(), "e2e.test/faults:base");
        let bundle = super::bundle(scene, &[], "e2e.test/faults:base", "bundle", &[]);
        fs::write(bundle.join("rootfs/etc/added"), "added").unwrap();
        fs::remove_file(bundle.join("rootfs/link")).unwrap();
        let path = bundle.display().to_string();
        Case::of(scene, &["commit", &path, NAME], NAME).try_all();
        super::remove(scene, "bundle");
    });
}

#[test]
fn whatever_a_build_came_to_the_next_one_finishes() {
    scene(|scene| {
        let _memory = in_memory(scene);
        load(scene, &Image::busybox(), BUSYBOX);
        let context = scene.path("context");
        fs::create_dir(&context).unwrap();
        let file = "FROM e2e.test/busybox AS one\nCOPY a /a\nRUN echo one > /one\n\
            FROM e2e.test/busybox\nCOPY --from=one /one /\nENV A=b\n";
        fs::write(context.join("Dockerfile"), file).unwrap();
        fs::write(context.join("a"), "A").unwrap();
        let context = context.display().to_string();
        Case::of(scene, &["build", "--progress", "plain", "--tag", NAME, &context], NAME).try_all();
    });
}

impl<'a> Case<'a> {
    fn of(scene: &'a Scene, words: &[&str], name: &str) -> Self {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Self { scene, words, name: name.to_owned() }
    }

    fn imgtool(&self) -> Cmd {
        let imgtool = self.scene.imgtool().env("SOURCE_DATE_EPOCH", "1700000000");
        // One, instead of the hundreds of the host.
        let imgtool = imgtool.env("SSL_CERT_FILE", self.scene.path("authority.pem"));
        imgtool.env("SSL_CERT_DIR", "")
    }

    fn observe(&self, plan: Option<(At, Fault)>) -> Traced {
        tracer::observe(self.imgtool().args(&self.words), plan, BOUNDS)
    }

    fn try_all(&self) {
        let model = self.observe(None);
        assert_eq!(model.code, 0, "{:?}: {model:?}", self.words);
        let made = self.made();
        self.forget();
        let without = self.listed();
        let (mut tried, mut found) = (BTreeMap::new(), Vec::new());
        for (number, (at, fault)) in faults(&model).into_iter().enumerate() {
            let once = AssertUnwindSafe(|| self.try_once((at, fault), number % 2 == 0, &made));
            let seen = catch_unwind(once).and_then(|seen| {
                catch_unwind(AssertUnwindSafe(|| {
                    self.forget();
                    assert_eq!(self.listed(), without, "left after a prune");
                    seen
                }))
            });
            match seen {
                Ok(seen) => *tried.entry(seen).or_insert(0) += 1,
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                    found.push(format!("{fault:?} at {at:?}: {text}"));
                    self.forget();
                }
            }
        }
        let calls = model.calls.len();
        println!("{}: {calls} calls; (hit, exit 0): {tried:?}", self.words[0]);
        assert!(found.is_empty(), "{} findings:\n{}", found.len(), found.join("\n"));
    }

    /// Whether the fault was met, and whether the command succeeded all the same.
    fn try_once(&self, plan: (At, Fault), again: bool, made: &[String]) -> (bool, bool) {
        let traced = self.observe(Some(plan));
        let told = || format!("{:?}, exit {}, {:?}", traced.struck, traced.code, traced.stderr);
        assert!(!traced.hung, "hangs: {}", told());
        if traced.code == 0 {
            assert!(self.is_made(made), "another image: {}", told());
        } else if plan.1 != Fault::Kill {
            assert!(!traced.stderr.trim().is_empty(), "no word on stderr: {}", told());
        }
        let verified = self.imgtool().args(["verify", "--quiet"]).run();
        assert_eq!(verified.code, 0, "{}: {verified:?}", told());
        if again {
            let outcome = self.imgtool().args(&self.words).run();
            assert_eq!(outcome.code, 0, "again after {}: {outcome:?}", told());
            assert!(self.is_made(made), "another image after {}", told());
        }
        (traced.struck.is_some(), traced.code == 0)
    }

    /// Whether it is what it was; tells where not.
    fn is_made(&self, before: &[String]) -> bool {
        let now = self.made();
        if let Some(other) = before.iter().zip(&now).find(|(before, now)| before != now) {
            println!("{other:?}");
        }
        now == before
    }

    /// The image, and its layers as they lie unpacked. A build that can't mount them unpacks others.
    fn made(&self) -> Vec<String> {
        let id =
            self.imgtool().args(["inspect", "--format", "{{.Id}}", &self.name]).run().success();
        let layers = self.scene.store().join("layers/sha256");
        let mut made = vec![id.stdout];
        if self.words[0] == "build" {
            return made;
        }
        let mut names: Vec<_> = fs::read_dir(layers).into_iter().flatten().flatten().collect();
        names.sort_by_key(fs::DirEntry::file_name);
        for layer in names {
            let tree = Cmd::new(binary("probe")).arg("tree-of").arg(layer.path());
            made.push(layer.path().display().to_string());
            made.extend(tree.arg("~/").run().success().stdout.lines().map(seen));
        }
        made
    }

    /// Takes away all that the command made and what builds keep.
    fn forget(&self) {
        self.imgtool().args(["rmi", "--force", &self.name]).run().success();
        self.imgtool().args(["prune", "--force", "--build-cache"]).run().success();
    }

    /// All that the store holds.
    fn listed(&self) -> Vec<String> {
        let find = Cmd::line("find").arg(self.scene.store()).run().success().stdout;
        let mut found: Vec<String> = find.lines().map(str::to_owned).collect();
        found.sort();
        found
    }
}

/// A file's line; a whiteout has the time of its making.
fn seen(line: &str) -> String {
    let words = line.split(' ').enumerate();
    let timeless = line.ends_with(" dev 0");
    let kept = words.filter(|(place, _)| !timeless || *place != TIME).map(|(_, word)| word);
    kept.collect::<Vec<_>>().join(" ")
}

/// What can befall the calls of a command, or a sample of that.
fn faults(model: &Traced) -> Vec<(At, Fault)> {
    let mut kinds: HashMap<i64, usize> = HashMap::new();
    let mut faults = Vec::new();
    for (&call, starting) in model.calls.iter().zip(&model.starting) {
        let before = kinds.entry(call).or_insert(0);
        let at = At::Nth { call, before: *before };
        *before += 1;
        if *starting {
            continue;
        }
        faults.extend(tracer::kill_or_error(call).into_iter().map(|fault| (at, fault)));
        if tracer::may_fail(call) {
            faults.push((at, Fault::Errno(Errno::EINTR)));
        }
    }
    let step = match std::env::var("E2E_FAULTS").as_deref() {
        Ok("all") => 1,
        _ => faults.len().div_ceil(SAMPLE),
    };
    faults.into_iter().step_by(step).collect()
}
