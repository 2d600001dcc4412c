//! Builds the stages that the target needs, each one step after the other.

mod layers;
pub(crate) mod mounts;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde_json::Value;

use self::mounts::Secret;
use super::context::Named;
use super::dockerfile::{Directives, Dockerfile, Instruction, Lines, Step, locate};
use super::origin::Origin;
use super::report::{Reporter, Style};
use super::run::Network;
use super::stages::{Base, Plan, Stage};
use super::state::{State, chain};
use crate::digest::Digest;
use crate::layer::tar::Time;
use crate::manifest::{Descriptor, Platform};
use crate::rewrite::Parts;
use crate::store::cache::Record;
use crate::store::{Image, Store};

/// Arguments that need no `ARG`, and that neither the history nor the cache hears of.
const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// What the name of an image in a layout begins with.
pub(crate) const LAYOUT: &str = "oci-layout://";

/// What holds for the whole build.
pub(crate) struct Settings {
    pub(crate) arguments: BTreeMap<String, String>,
    pub(crate) platform: Platform,
    pub(crate) runtime: PathBuf,
    pub(crate) no_cache: bool,
    pub(crate) no_cache_stages: Vec<String>,
    pub(crate) pull: bool,
    pub(crate) network: Network,
    /// Whether commands may ask for the host's network where that is another.
    pub(crate) host_network: bool,
    /// Whether commands may ask for all that we may do ourselves.
    pub(crate) insecure: bool,
    pub(crate) hosts: Vec<(String, IpAddr)>,
    /// The time that all is to have that is made.
    pub(crate) epoch: Option<Timestamp>,
    pub(crate) directives: Directives,
    pub(crate) secrets: BTreeMap<String, Secret>,
    /// Sockets of ssh agents.
    pub(crate) agents: BTreeMap<String, PathBuf>,
    /// What names stand for, in lower case.
    pub(crate) contexts: BTreeMap<String, Named>,
}

/// Brings an image into the store; gives it if no name there leads to it.
pub(crate) type Pull<'a> =
    &'a (dyn Fn(&str, Option<&Platform>) -> Result<Option<Descriptor>> + Sync);

/// What a step with this key made elsewhere, above these layers.
pub(crate) type Known<'a> = &'a (dyn Fn(&Digest, &[Digest]) -> Option<Record> + Sync);

/// As much as a main thread has: trees are as deep there.
const STACK_BYTES: usize = 8 << 20;

pub(crate) struct Engine<'a> {
    pub(crate) store: &'a Store,
    pub(crate) plan: &'a Plan,
    pub(crate) settings: &'a Settings,
    pub(crate) reporter: &'a Reporter,
    pub(crate) context: &'a Origin,
    pub(crate) pull: Pull<'a>,
    known: Known<'a>,
    /// By stage; whoever builds it holds it meanwhile.
    built: Vec<Mutex<Option<State>>>,
    origins: Mutex<BTreeMap<String, Arc<Origin>>>,
    known_layers: Mutex<BTreeMap<Digest, Arc<super::view::Layer>>>,
    /// The user's arguments that were asked for.
    used: Mutex<BTreeSet<String>>,
    /// What steps made, now or before.
    steps: Mutex<BTreeMap<Digest, Record>>,
    /// Whether layers can be stacked by mounts here, found out when it is first asked.
    stacks: OnceLock<bool>,
    /// Set when a command could be run in a user namespace, which we are not in.
    lacks_namespace: AtomicBool,
    /// What failed first, after which no step begins.
    failure: Mutex<Option<anyhow::Error>>,
    failed: AtomicBool,
}

/// Nothing that is kept behind these locks is left half changed by a panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a step stands.
struct Place<'p> {
    stage: usize,
    label: String,
    /// How many steps of work the stage has, and how many came before.
    total: usize,
    done: &'p mut usize,
}

impl<'a> Engine<'a> {
    pub(crate) fn new(
        store: &'a Store,
        plan: &'a Plan,
        settings: &'a Settings,
        reporter: &'a Reporter,
        context: &'a Origin,
        pull: Pull<'a>,
        known: Known<'a>,
    ) -> Self {
        Self {
            store,
            plan,
            settings,
            reporter,
            context,
            pull,
            known,
            built: plan.stages.iter().map(|_| Mutex::default()).collect(),
            origins: Mutex::default(),
            known_layers: Mutex::default(),
            used: Mutex::default(),
            steps: Mutex::default(),
            stacks: OnceLock::new(),
            lacks_namespace: AtomicBool::new(false),
            failure: Mutex::default(),
            failed: AtomicBool::new(false),
        }
    }

    /// What steps made, by their keys.
    pub(crate) fn steps(&self) -> BTreeMap<Digest, Record> {
        std::mem::take(&mut lock(&self.steps))
    }

    /// The arguments that the user gave and nothing asked for.
    pub(crate) fn unused_arguments(&self) -> Vec<String> {
        let used = lock(&self.used);
        let known = |name: &str| {
            used.contains(name)
                || PROXIES.contains(&name)
                || name.starts_with("BUILDKIT_")
                || name == "SOURCE_DATE_EPOCH"
                || self.plan.globals.contains_key(name)
        };
        self.settings.arguments.keys().filter(|name| !known(name)).cloned().collect()
    }

    /// Whether it failed for want of a user namespace.
    pub(crate) fn lacks_namespace(&self) -> bool {
        self.lacks_namespace.load(Ordering::Relaxed)
    }

    /// What the target comes to; the stages that it needs are built side by side.
    pub(crate) fn target(&self) -> Result<State> {
        // What is not needed after all, since a context stands in its place, is not begun; and the
        // classic builder's lines come one after the other.
        let ahead = self.settings.contexts.is_empty() && self.reporter.style != Style::Legacy;
        let others = (0..self.plan.stages.len())
            .filter(|index| ahead && self.plan.needed[*index] && *index != self.plan.target);
        let made = self.reporter.while_shown(|| {
            thread::scope(|scope| {
                for index in others {
                    let thread = thread::Builder::new().stack_size(STACK_BYTES);
                    // Where no more threads may be started, the target does it itself.
                    let _ = thread.spawn_scoped(scope, move || self.stage(index).map(drop));
                }
                self.stage(self.plan.target)
            })
        });
        match lock(&self.failure).take() {
            Some(first) => Err(first),
            None => made,
        }
    }

    /// What a stage comes to.
    fn stage(&self, index: usize) -> Result<State> {
        let mut built = lock(&self.built[index]);
        if let Some(state) = &*built {
            return Ok(state.clone());
        }
        self.go_on()?;
        match self.build(index) {
            Ok(state) => Ok(built.insert(state).clone()),
            Err(error) => {
                let text = anyhow::anyhow!("{error:#}");
                if !self.failed.swap(true, Ordering::Relaxed) {
                    *lock(&self.failure) = Some(error);
                }
                Err(text)
            }
        }
    }

    /// Fails if something else did.
    fn go_on(&self) -> Result<()> {
        match self.failed.load(Ordering::Relaxed) {
            true => bail!("another stage failed"),
            false => Ok(()),
        }
    }

    fn build(&self, index: usize) -> Result<State> {
        let stage = &self.plan.stages[index];
        let based = match &stage.base {
            Base::Stage(base) => Some(self.stage(*base)?),
            _ => None,
        };
        let mut done = 0;
        let total = 1 + stage.steps.iter().filter(|step| is_work(&step.instruction)).count();
        let label = stage.name.clone().unwrap_or_else(|| format!("stage-{index}"));
        let mut place = Place { stage: index, label, total, done: &mut done };
        let mut state =
            self.begin(stage, based, &mut place).map_err(|e| locate(stage.lines, &e))?;
        let names = &self.settings.no_cache_stages;
        state.anew = names.contains(&place.label) || names.contains(&index.to_string());
        for step in self.triggers(&mut state, stage.lines)? {
            place.total += usize::from(is_work(&step.instruction));
            self.step(&mut state, &step, &mut place).map_err(|e| locate(stage.lines, &e))?;
        }
        for step in &stage.steps {
            self.go_on()?;
            self.step(&mut state, step, &mut place).map_err(|error| locate(step.lines, &error))?;
        }
        Ok(state)
    }

    /// The state before the first step.
    fn begin(&self, stage: &Stage, based: Option<State>, place: &mut Place<'_>) -> Result<State> {
        let shown = self.reporter.begin(Some(&place.next()), &stage.text)?;
        let made = self.base(stage, based, place);
        match &made {
            Ok(state) => shown.done(state.key.short())?,
            Err(error) => shown.failed(error),
        }
        made
    }

    fn base(&self, stage: &Stage, based: Option<State>, place: &Place<'_>) -> Result<State> {
        let platform = stage.platform.as_ref().unwrap_or(&self.settings.platform);
        let epoch = self.settings.epoch.map_or(String::new(), |time| time.to_string());
        Ok(match (&stage.base, based) {
            (Base::Stage(_), Some(mut state)) => {
                state.own_command = false;
                state
            }
            (Base::Stage(_), None) => bail!("the stage it is based on is missing"),
            (Base::Scratch, _) => {
                let variant = platform.variant.as_deref();
                let parts = Parts::empty(&platform.os, &platform.architecture, variant);
                let key = Digest::of(format!("scratch {platform} {epoch}").as_bytes());
                State::new(parts, key)
            }
            (Base::Image(name), _) => {
                let name = match self.settings.contexts.get(&name.to_ascii_lowercase()) {
                    Some(Named::Image(image)) => image,
                    Some(Named::Stage(stage)) => {
                        let target = self.plan.find(stage, place.stage);
                        let target =
                            target.with_context(|| format!("no stage {stage:?} before"))?;
                        return self.stage(target);
                    }
                    Some(_) => bail!("the build context {name} has files and is no image"),
                    None => name,
                };
                let image = self.image(name, stage.platform.as_ref())?;
                let mut parts = Parts::of(self.store, &image)?;
                // Those of the base are about the base.
                parts.annotations.clear();
                let key = Digest::of(image.id().to_string().as_bytes());
                State::new(parts, chain(&key, &[&image.manifest.digest.to_string(), &epoch]))
            }
        })
    }

    /// An image of the store, or of a registry if the store has it not.
    fn image(&self, name: &str, platform: Option<&Platform>) -> Result<Image> {
        let wanted = platform.or(Some(&self.settings.platform));
        if name.starts_with(LAYOUT) {
            let entry = (self.pull)(name, wanted)?;
            return self.store.image_for(&entry.context("the layout has no image")?, wanted);
        }
        if self.settings.pull {
            (self.pull)(name, wanted)?;
        }
        match self.store.resolve_for(name, wanted) {
            Err(error) if error.downcast_ref::<crate::error::NoSuchImage>().is_some() => {
                (self.pull)(name, wanted)?;
                self.store.resolve_for(name, wanted)
            }
            found => found,
        }
    }

    /// What the base asks to be done right after `FROM`. It holds for this stage alone.
    fn triggers(&self, state: &mut State, lines: Lines) -> Result<Vec<Step>> {
        let Some(Value::Array(list)) = state.parts.config.config.other.remove("OnBuild") else {
            return Ok(Vec::new());
        };
        list.iter()
            .filter_map(Value::as_str)
            .map(|text| Dockerfile::parse_trigger(text, lines).context("ONBUILD of the base"))
            .collect()
    }

    /// The tree of a stage or an image, for `--from`.
    fn origin(&self, name: &str, before: usize) -> Result<Arc<Origin>> {
        let stage = self.plan.find(name, before);
        let key = stage.map_or_else(|| name.to_owned(), |index| format!("#{index}"));
        if let Some(origin) = lock(&self.origins).get(&key) {
            return Ok(Arc::clone(origin));
        }
        if let Some(named) = self.settings.contexts.get(&name.to_ascii_lowercase())
            && let Some(origin) = named.origin(self.store, name)?
        {
            let origin = Arc::new(origin);
            lock(&self.origins).insert(key, Arc::clone(&origin));
            return Ok(origin);
        }
        let state = self.state_of(name, before)?;
        let origin = Arc::new(self.tree(&state, name)?);
        lock(&self.origins).insert(key, Arc::clone(&origin));
        Ok(origin)
    }

    /// What a stage or an image is, for `--from`.
    fn state_of(&self, name: &str, before: usize) -> Result<State> {
        let name = match self.settings.contexts.get(&name.to_ascii_lowercase()) {
            Some(Named::Image(name) | Named::Stage(name)) => name,
            _ => name,
        };
        match self.plan.find(name, before) {
            Some(index) => self.stage(index),
            None => {
                let image = self.image(name, None)?;
                Ok(State::new(Parts::of(self.store, &image)?, image.id().clone()))
            }
        }
    }

    /// The time of what is made and not copied.
    fn now(&self) -> Time {
        let now = self.settings.epoch.unwrap_or_else(Timestamp::now);
        Time { seconds: now.as_second(), nanoseconds: 0 }
    }

    /// The latest time that a file of a layer may have.
    fn newest(&self) -> Option<Time> {
        let seconds = self.settings.epoch?.as_second();
        Some(Time { seconds, nanoseconds: 0 })
    }

    fn created(&self) -> String {
        self.settings.epoch.unwrap_or_else(Timestamp::now).to_string()
    }
}

impl Place<'_> {
    /// The name of the next step of work.
    fn next(&mut self) -> String {
        *self.done += 1;
        format!("{} {}/{}", self.label, self.done, self.total)
    }
}

/// Whether a step does something, and not only sets it.
pub(crate) fn is_work(instruction: &Instruction) -> bool {
    matches!(instruction, Instruction::Run(_) | Instruction::Transfer(_) | Instruction::Workdir(_))
}
