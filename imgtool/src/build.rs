//! Dockerfiles become images: the file is read and planned, the stages that the target needs are
//! built step by step, and what the last one came to becomes an image of the store.

mod chmod;
mod context;
pub(crate) mod dockerfile;
pub(crate) mod engine;
mod expand;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod git;
mod ignore;
pub(crate) mod lint;
mod mounts;
mod origin;
mod paths;
mod pattern;
mod remote;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod settings;
pub(crate) mod shared;
mod stages;
mod state;
mod transfer;
mod view;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use nix::sched::{CloneFlags, unshare};

use self::context::Context;
pub(crate) use self::context::Named;
use self::dockerfile::{At, Dockerfile};
use self::engine::mounts::Secret;
use self::engine::{Engine, Pull, Settings, lock};
use self::lint::{Check, Surroundings, Warning};
use self::report::{Reporter, Style};
use self::run::Network;
use self::shared::Caches;
use self::stages::{Plan, Wishes};
use self::state::State;
use crate::digest::Digest;
use crate::manifest::{Descriptor, History, Index, Platform, media_type};
use crate::reference::Reference;
use crate::store::Store;
use crate::store::cache::{self, Record};
use crate::userns::{self, Owners};

/// What the user wishes.
pub(crate) struct Request {
    /// A directory, or `-` for standard input.
    pub(crate) context: String,
    pub(crate) file: Option<PathBuf>,
    pub(crate) arguments: BTreeMap<String, String>,
    pub(crate) target: Option<String>,
    /// Several make an index of images.
    pub(crate) platforms: Vec<Platform>,
    pub(crate) names: Vec<Reference>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    /// By their names in lower case.
    pub(crate) contexts: BTreeMap<String, Named>,
    /// Whether all layers become one.
    pub(crate) squash: bool,
    /// Whether the image stays in the store.
    pub(crate) keep: bool,
    pub(crate) no_cache: bool,
    /// The stages that are built anew, in lower case.
    pub(crate) no_cache_stages: Vec<String>,
    /// Whether newer images are asked for.
    pub(crate) pull: bool,
    /// That of commands that ask for none.
    pub(crate) network: Network,
    /// Whether `RUN --network=host` is allowed where that is another.
    pub(crate) host_network: bool,
    /// Whether `RUN --security=insecure` is allowed.
    pub(crate) insecure: bool,
    /// Lines for `/etc/hosts`.
    pub(crate) hosts: Vec<(String, IpAddr)>,
    pub(crate) style: Style,
    pub(crate) runtime: Option<PathBuf>,
    pub(crate) epoch: Option<Timestamp>,
    pub(crate) secrets: BTreeMap<String, Secret>,
    pub(crate) agents: BTreeMap<String, PathBuf>,
}

/// What went wrong, with the file for an excerpt.
pub(crate) struct Failure {
    pub(crate) error: anyhow::Error,
    /// The name and text of the Dockerfile, if it was read.
    pub(crate) file: Option<(String, String)>,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { error, file: None }
    }
}

/// An image that was built.
pub(crate) struct Built {
    pub(crate) id: Digest,
    /// Its manifest, or the index of those for several platforms.
    pub(crate) entry: Descriptor,
    /// The layers of the one image.
    pub(crate) diff_ids: Vec<Digest>,
}

/// Does something with the image before the store may forget it.
pub(crate) type Deliver<'a> = &'a dyn Fn(&Store, &Built) -> Result<()>;

/// Builds the image.
pub(crate) fn build(
    store: &Store,
    request: &Request,
    pull: Pull<'_>,
    caches: &Caches<'_>,
    deliver: Deliver<'_>,
) -> Result<Built, Failure> {
    // What we make ourselves is the same whatever the user's mask is.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let _lock = store.lock_shared()?;
    let context = Context::open(store, &request.context, request.file.as_deref())?;
    let fail = |error| Failure { error, file: Some((context.name.clone(), context.text.clone())) };
    let one = |platform: &Platform, kept: Kept| {
        with_file(store, request, pull, caches, &context, platform, kept).map_err(fail)
    };
    let built = match &request.platforms[..] {
        [] => one(&Platform::host(), Kept::Named)?,
        [platform] => one(platform, Kept::Named)?,
        several => {
            let mut index = Index::empty();
            for platform in several {
                let mut entry = one(platform, Kept::InIndex)?.entry;
                entry.platform = Some(platform.clone());
                index.manifests.push(entry);
            }
            joined(store, request, &index)?
        }
    };
    deliver(store, &built)?;
    Ok(built)
}

/// Whether an image stands for itself in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Named,
    InIndex,
}

/// The images for several platforms as one.
fn joined(store: &Store, request: &Request, index: &Index) -> Result<Built> {
    let bytes = serde_json::to_vec(index).context("write the index")?;
    let entry = store.write_blob(media_type::OCI_INDEX, &bytes)?;
    for name in &request.names {
        store.tag(name, &entry)?;
    }
    if request.names.is_empty() && request.keep {
        store.add_unnamed(&entry)?;
    }
    Ok(Built { id: entry.digest.clone(), entry, diff_ids: Vec::new() })
}

fn with_file(
    store: &Store,
    request: &Request,
    pull: Pull<'_>,
    caches: &Caches<'_>,
    context: &Context,
    platform: &Platform,
    kept: Kept,
) -> Result<Built> {
    let file = Dockerfile::parse(&context.text)?;
    let wishes =
        Wishes { target: request.target.as_deref(), arguments: &request.arguments, platform };
    let plan = Plan::make(&file, &wishes)?;
    let settings = Settings {
        arguments: request.arguments.clone(),
        platform: platform.clone(),
        runtime: run::runtime(request.runtime.as_deref()),
        no_cache: request.no_cache,
        no_cache_stages: request.no_cache_stages.clone(),
        pull: request.pull,
        network: request.network.clone(),
        host_network: request.host_network,
        insecure: request.insecure,
        hosts: request.hosts.clone(),
        epoch: request.epoch,
        directives: file.directives.clone(),
        secrets: request.secrets.clone(),
        agents: request.agents.clone(),
        contexts: request.contexts.clone(),
    };
    let wanted = plan.stages.iter().zip(&plan.needed).filter(|(_, needed)| **needed);
    let total = wanted.map(|(stage, _)| 1 + stage.steps.len()).sum();
    let reporter = Reporter::new(request.style, total);
    let (warnings, check) = findings(store, request, context, &file)?;
    tell(&warnings, &check, &reporter)?;
    if plan.makes_trees() {
        own_namespace(&reporter)?;
    }
    let known = |key: &Digest, below: &[Digest]| {
        caches.find(store, key, below, &|text| reporter.note(text))
    };
    let new_engine =
        || Engine::new(store, &plan, &settings, &reporter, &context.origin, pull, &known);
    let mut engine = new_engine();
    let mut state = engine.target();
    // A base may ask for a command by ONBUILD. It is begun anew, since only now there are no threads.
    if state.is_err() && engine.lacks_namespace() {
        own_namespace(&reporter)?;
        engine = new_engine();
        state = engine.target();
    }
    let state = state?;
    lock(&caches.used).extend(engine.steps());
    let unused = engine.unused_arguments();
    if !unused.is_empty() {
        let names = unused.join(" ");
        reporter.note(&format!("warning: one or more build-args [{names}] were not consumed"));
    }
    let state = if request.squash { engine.squashed(state)? } else { state };
    export(store, request, state, &reporter, kept)
}

/// Without root, trees are made in a user namespace, and mounted in a mount namespace that is its own.
fn own_namespace(reporter: &Reporter) -> Result<()> {
    match userns::enter()? {
        Owners::Anybody => return Ok(()),
        Owners::Mapped(_) => {}
        // Of this a command that is run tells with the same words.
        Owners::Ourselves { .. } if !nix::unistd::geteuid().is_root() => return Ok(()),
        Owners::Ourselves { because, .. } => {
            reporter.note(&format!("all files and processes get one owner, you: {because}"));
        }
    }
    unshare(CloneFlags::CLONE_NEWNS).context("unshare the mount namespace")
}

/// What the rules find in the file.
fn findings(
    store: &Store,
    request: &Request,
    context: &Context,
    file: &Dockerfile,
) -> Result<(Vec<Warning>, Check)> {
    let stated = file.directives.check.as_ref().map(|(text, _)| text);
    let given = request.arguments.get("BUILDKIT_DOCKERFILE_CHECK");
    let check = Check::parse(given.or(stated).map_or("", String::as_str))?;
    let base = |name: &str| {
        let config = store.resolve(name).ok()?.config.config;
        let mut env = config.env;
        env.push("PATH=".to_owned());
        Some((env, config.working_dir))
    };
    let around = Surroundings { ignore: context.origin.ignore(), base: &base };
    Ok((lint::lint(file, &check, &around), check))
}

fn tell(warnings: &[Warning], check: &Check, reporter: &Reporter) -> Result<()> {
    if let (Some(first), true) = (warnings.first(), check.is_error) {
        let message = format!("lint violation found: {}: {}", first.rule, first.message);
        return Err(At { lines: first.lines, message }.into());
    }
    for warning in warnings {
        let Warning { rule, message, lines } = warning;
        reporter.note(&format!("warning: {rule}: {message} (line {})", lines.first));
    }
    Ok(())
}

/// Checks the file alone: gives what was found, with the file's name and text.
pub(crate) fn check(
    store: &Store,
    request: &Request,
) -> Result<(Vec<Warning>, String, String), Failure> {
    let _lock = store.lock_shared()?;
    let context = Context::open(store, &request.context, request.file.as_deref())?;
    let fail = |error| Failure { error, file: Some((context.name.clone(), context.text.clone())) };
    let found =
        Dockerfile::parse(&context.text).and_then(|file| findings(store, request, &context, &file));
    let (warnings, _) = found.map_err(fail)?;
    Ok((warnings, context.name.clone(), context.text.clone()))
}

/// Writes the image and gives it its names.
fn export(
    store: &Store,
    request: &Request,
    mut state: State,
    reporter: &Reporter,
    kept: Kept,
) -> Result<Built> {
    state.parts.annotations.extend(request.annotations.clone());
    state.parts.config.config.labels.extend(request.labels.clone());
    let history = &mut state.parts.config.history;
    let created = match request.epoch {
        Some(epoch) => {
            let text = Some(epoch.to_string());
            history
                .iter_mut()
                .skip(state.base_steps)
                .for_each(|step| step.created.clone_from(&text));
            epoch
        }
        None => match date(history) {
            Some(time) => time,
            None => {
                let time = first_made(store, &state.key)?;
                let text = Some(time.to_string());
                let history = &mut state.parts.config.history;
                history.iter_mut().for_each(|step| step.created.clone_from(&text));
                time
            }
        },
    };
    let shown = reporter.begin(Some("exporting"), "to image")?;
    let diff_ids = state.parts.config.rootfs.diff_ids.clone();
    let (id, entry) = state.parts.write(store, created)?;
    shown.output(format!("writing image {id}\n").as_bytes());
    if kept == Kept::Named {
        for name in &request.names {
            store.tag(name, &entry)?;
            shown.output(format!("naming to {name}\n").as_bytes());
        }
        if request.names.is_empty() && request.keep {
            store.add_unnamed(&entry)?;
        }
    }
    shown.done(id.short())?;
    Ok(Built { id, entry, diff_ids })
}

/// Gives each step without a time that of the first new layer or the one before it; gives the last.
fn date(history: &mut [History]) -> Option<Timestamp> {
    let mut time: Option<String> = None;
    let mut gap = false;
    for step in history.iter() {
        match &step.created {
            Some(created) => {
                time = Some(created.clone());
                if gap {
                    break;
                }
            }
            None => gap = true,
        }
    }
    let mut gap = false;
    for step in history.iter_mut() {
        match &step.created {
            Some(created) if gap => time = Some(created.clone()),
            Some(_) => {}
            None => {
                gap = true;
                step.created.clone_from(&time);
            }
        }
    }
    history.last()?.created.as_ref()?.parse().ok()
}

/// When an image in which nothing has a time was built first, so that it stays the same one.
fn first_made(store: &Store, key: &Digest) -> Result<Timestamp> {
    let key = state::chain(key, &["made"]);
    if let Some(record) = cache::get(store, &key) {
        return record.created.parse().context("read the time in a record of the cache");
    }
    let now = Timestamp::now();
    cache::put(store, &key, &Record { created: now.to_string(), layer: None })?;
    Ok(now)
}

/// `NAME=VALUE`, or the name of a variable of ours.
pub(crate) fn parse_argument(word: &str) -> Result<Option<(String, String)>> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (word, std::env::var(word).ok()),
    };
    ensure!(!name.is_empty(), "{word:?} has no name");
    Ok(value.map(|value| (name.to_owned(), value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_take_their_time_from_layers() {
        let step = |created: Option<&str>| History {
            created: created.map(str::to_owned),
            ..History::default()
        };
        let (base, new) = ("2020-01-01T00:00:00Z", "2024-01-01T00:00:00Z");
        let mut history = [step(Some(base)), step(None), step(Some(new)), step(None)];
        assert_eq!(date(&mut history).unwrap().to_string(), new);
        assert_eq!(history[1].created.as_deref(), Some(new));
        let mut history = [step(Some(base)), step(None)];
        assert_eq!(date(&mut history).unwrap().to_string(), base);
        assert!(date(&mut [step(None)]).is_none());
    }
}
