//! Many imgtools at once on one store: nobody fails but by what another removed, and what stays is
//! whole and all that there is.
//!
//! `E2E_CROWD=SECONDS` keeps them at it for so long.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::killed::left;
use super::{Compression, Image, Scene, scene};
use crate::harness::image::digest;
use crate::harness::registry::Registry;
use crate::harness::tarball::{Entry, Tarball};

const WORKERS: u64 = 16;
/// What each does if no time is given.
const STEPS: usize = 3;
const TAGS: u64 = 3;
/// What an error may say: another one took it.
const GONE: [&str; 2] = ["no such image", "no such bundle"];

/// Images that share their lower layers.
fn images(registry: &Registry, scene: &Scene) {
    for tag in 0..TAGS {
        let mut image = Image::probe(&["report"]);
        for layer in 0..=tag {
            let files = (0..40)
                .map(|n| Entry::file(&format!("layer-{layer}/{n}"), vec![b'x'; 3000 + 7 * n]));
            image = image.layer(Tarball::of(files));
        }
        let name = format!("t{tag}");
        let layout = image.layout(&scene.path(&name), &name, Compression::Gzip);
        registry.push(&layout, &name, &format!("lib/crowd:{name}"));
    }
}

struct Worker<'a> {
    scene: &'a Scene,
    registry: &'a str,
    random: u64,
}

impl Worker<'_> {
    fn below(&mut self, end: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % end
    }

    /// Runs imgtool; `None` where what it needs is gone.
    fn imgtool(&self, words: &[&str]) -> Option<String> {
        let outcome = self.scene.imgtool().args(words).run();
        if outcome.code == 0 {
            return Some(outcome.stdout);
        }
        // A bundle that is used is not removed, nor is its image.
        let excused = GONE.iter().any(|text| outcome.stderr.contains(text))
            || words[0] == "rmi" && outcome.stderr.contains(" uses it");
        assert!(excused, "{words:?}: {}\n{}", outcome.code, outcome.stderr);
        None
    }

    /// A bundle, if there is one.
    fn any_bundle(&mut self) -> Option<String> {
        let listed = self.imgtool(&["bundles", "--quiet"]).unwrap_or_default();
        let bundles: Vec<&str> = listed.lines().collect();
        let chosen = self.below(bundles.len().max(1) as u64);
        bundles.get(usize::try_from(chosen).unwrap()).map(|bundle| (*bundle).to_owned())
    }

    fn step(&mut self) {
        let registry = self.registry;
        let image = format!("{registry}/lib/crowd:t{}", self.below(TAGS));
        let made = format!("e2e.test/crowd:{}", self.below(5));
        match self.below(12) {
            0..=2 => drop(self.imgtool(&["pull", "--quiet", &image])),
            3..=5 => self.use_bundle(&image, &made),
            6 => drop(self.imgtool(&["bundle", "--network", "none", &made])),
            7 => {
                if let Some(bundle) = self.any_bundle() {
                    self.imgtool(&["commit", &bundle, &made]);
                }
            }
            8 => {
                if let Some(bundle) = self.any_bundle() {
                    self.imgtool(&["rm", &bundle]);
                }
            }
            9 => drop(self.imgtool(&["rmi", &image])),
            10 => drop(self.imgtool(&["rmi", &made])),
            _ => drop(self.imgtool(&["prune", "--force"])),
        }
    }

    /// What one who works does: a bundle, a change in it, an image of that. Others may take the bundle
    /// away at any time.
    fn use_bundle(&mut self, image: &str, made: &str) {
        let flags: &[&str] = if self.below(3) == 0 { &["--copy"] } else { &[] };
        let words = [&["bundle", "--network", "none"], flags, &[image]].concat();
        let Some(bundle) = self.imgtool(&words) else { return };
        let bundle = bundle.trim_end();
        let change = format!("{:x}", self.random);
        if fs::write(Path::new(bundle).join("rootfs/change"), change).is_ok() {
            self.imgtool(&["commit", bundle, made]);
        }
        if self.below(3) != 0 {
            self.imgtool(&["rm", bundle]);
        }
    }
}

fn json(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap()
}

/// The blobs and the unpacked layers that the index leads to.
fn referenced(store: &Path) -> BTreeSet<String> {
    let blobs = store.join("blobs/sha256");
    let mut found = BTreeSet::new();
    let mut open = vec![json(&fs::read(store.join("index.json")).unwrap())];
    while let Some(document) = open.pop() {
        let lists = ["manifests", "layers"].iter().filter_map(|key| document[key].as_array());
        for descriptor in lists.flatten().chain([&document["config"]]) {
            let Some(name) = descriptor["digest"].as_str() else { continue };
            let kind = descriptor["mediaType"].as_str().unwrap();
            found.insert(name[7..].to_owned());
            if kind.contains("json") {
                open.push(json(&fs::read(blobs.join(&name[7..])).unwrap()));
            }
        }
        let mut chain = String::new();
        for id in document["rootfs"]["diff_ids"].as_array().into_iter().flatten() {
            let id = id.as_str().unwrap();
            chain = match chain.as_str() {
                "" => id.to_owned(),
                below => digest(format!("{below} {id}").as_bytes()),
            };
            found.insert(chain[7..].to_owned());
        }
    }
    found
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

#[test]
fn a_crowd_on_one_store_hinders_nobody_and_leaves_it_whole() {
    let seconds = std::env::var("E2E_CROWD").ok().map(|text| text.parse().unwrap());
    scene(|scene| {
        let registry = Registry::start(scene);
        images(&registry, scene);
        let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let steps: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (1..=WORKERS)
                .map(|number| {
                    let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    let mut worker = Worker { scene, registry: &registry.host, random };
                    scope.spawn(move || {
                        let mut steps = 0;
                        while end.map_or(steps < STEPS, |end| Instant::now() < end) {
                            worker.step();
                            steps += 1;
                        }
                        steps
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().expect("a worker failed")).sum()
        });
        println!("{steps} steps");

        let imgtool = |words: &[&str]| scene.imgtool().args(words).run().success().stdout;
        imgtool(&["prune", "--force"]);
        imgtool(&["verify"]);
        let wanted = referenced(&scene.store());
        for dir in ["blobs/sha256", "blobs/sha512", "layers/sha256"] {
            let there = names(&scene.store().join(dir));
            let surplus: Vec<_> = there.difference(&wanted).collect();
            assert!(surplus.is_empty(), "{dir}: nothing needs {surplus:?}");
        }
        assert_eq!(names(&scene.store().join("staging")), BTreeSet::new());

        for bundle in imgtool(&["bundles", "--quiet"]).lines() {
            imgtool(&["rm", bundle]);
        }
        imgtool(&["prune", "--all", "--force"]);
        assert_eq!(left(scene), [""; 0]);
    });
}
