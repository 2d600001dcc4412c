//! One step of a stage.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail, ensure};

use super::{Engine, PROXIES, Place, lock};
use crate::build::chmod::Chmod;
use crate::build::dockerfile::{self, Command, Instruction, Run, Step};
use crate::build::expand::Expander;
use crate::build::git::Repository;
use crate::build::ignore::Ignore;
use crate::build::mounts::Mount;
use crate::build::origin::Origin;
use crate::build::run::{self, Job, Network, Possible};
use crate::build::state::State;
use crate::build::transfer::{self, Layer, Manner, Source, Transfer};
use crate::build::view::View;
use crate::build::{paths, remote, settings};
use crate::bundle::user;

impl Engine<'_> {
    pub(super) fn step(&self, state: &mut State, step: &Step, place: &mut Place<'_>) -> Result<()> {
        match &step.instruction {
            Instruction::Run(run) => self.run(state, step, run, place),
            Instruction::Transfer(copy) => self.transfer(state, step, copy, place),
            Instruction::Workdir(word) => self.workdir(state, step, word, place),
            Instruction::Arg(arguments) => {
                let shown = self.reporter.begin(None, &step.text)?;
                for (name, default) in arguments {
                    self.argument(state, name, default.as_deref())?;
                }
                shown.done(state.key.short())
            }
            other => {
                let shown = self.reporter.begin(None, &step.text)?;
                let before = state.clone();
                let lookup = |name: &str| before.variable(name);
                let expander = self.expander(&lookup);
                let text = settings::apply(state, other, &expander)?
                    .with_context(|| format!("{} can't stand here", step.keyword))?;
                self.heed(&expander);
                let config = serde_json::to_string(&state.parts.config.config)?;
                state.fold(&[&text, &config]);
                state.note(text, None);
                shown.done(state.key.short())
            }
        }
    }

    fn expander<'e>(&self, lookup: &'e dyn Fn(&str) -> Option<String>) -> Expander<'e> {
        Expander::new(self.settings.directives.escape, lookup)
    }

    /// Notes which of the user's arguments were asked for.
    fn heed(&self, expander: &Expander<'_>) {
        lock(&self.used).extend(expander.used());
    }

    fn argument(&self, state: &mut State, name: &str, default: Option<&str>) -> Result<()> {
        let before = state.clone();
        let lookup = |name: &str| before.variable(name);
        let expander = self.expander(&lookup);
        let given = |name: &str| self.settings.arguments.get(name).cloned();
        let global = |name: &str| self.plan.globals.get(name).cloned();
        let (name, value, text) = settings::argument(name, default, &expander, &given, &global)?;
        self.heed(&expander);
        lock(&self.used).insert(name.clone());
        state.arguments.push((name, value));
        state.note(text, None);
        Ok(())
    }

    fn workdir(
        &self,
        state: &mut State,
        step: &Step,
        word: &str,
        place: &mut Place<'_>,
    ) -> Result<()> {
        let shown = self.reporter.begin(Some(&place.next()), &step.text)?;
        let before = state.clone();
        let lookup = |name: &str| before.variable(name);
        let expander = self.expander(&lookup);
        let path = settings::workdir(state, word, &expander)?;
        self.heed(&expander);
        let user = state.parts.config.config.user.clone();
        state.fold(&["WORKDIR", &path, &user]);
        self.layer_step(state, format!("WORKDIR {path}"), &shown, |state| {
            let view = self.view(state)?;
            let owner = owner_of(&view, &user)?;
            let manner = self.manner(owner, None);
            let mut layer = Layer::new(self.store, &view, manner)?;
            layer.make_directory(&path)?;
            layer.finish()
        })
    }

    fn manner(&self, owner: (u32, u32), chmod: Option<Chmod>) -> Manner {
        let (now, newest) = (self.now(), self.newest());
        Manner { owner, keeps_owners: false, chmod, now, newest }
    }

    fn transfer(
        &self,
        state: &mut State,
        step: &Step,
        copy: &dockerfile::Transfer,
        place: &mut Place<'_>,
    ) -> Result<()> {
        let shown = self.reporter.begin(Some(&place.next()), &step.text)?;
        let stage = place.stage;
        let prepared = self.prepare(state, copy, stage).inspect_err(|error| shown.failed(error));
        let Prepared { transfer, chown, origin, text } = prepared?;
        let origin = origin.as_deref().unwrap_or(self.context);
        let picked = transfer::pick(&transfer, origin, self.now());
        let picked = picked.inspect_err(|error| shown.failed(error))?;
        let mut key = vec![text.clone(), format!("{:?} {:?}", copy.link, transfer.chmod)];
        for source in &transfer.sources {
            if let Source::Repository(_, commit) = source {
                key.push(commit.clone());
            }
        }
        let is_repository = |source: &Source| matches!(source, Source::Repository(..));
        if !transfer.sources.iter().any(is_repository) {
            for one in &picked {
                key.push(origin.digest(one.items())?.to_string());
            }
        }
        if copy.link {
            // What is beneath it does not matter, unless names are looked up there.
            key.push("link".to_owned());
        }
        state.fold(&key.iter().map(String::as_str).collect::<Vec<_>>());
        self.layer_step(state, text, &shown, |state| {
            let view = self.view(state)?;
            let owner = match &chown {
                Some(word) => chowned(&view, word)?,
                None => (0, 0),
            };
            let mut manner = self.manner(owner, transfer.chmod.clone());
            manner.keeps_owners = chown.is_none() && origin.has_owners();
            let nothing = View { layers: Vec::new() };
            let seen = if copy.link { &nothing } else { &view };
            let mut layer = Layer::new(self.store, seen, manner)?;
            layer.copy(&transfer, picked, origin)?;
            layer.finish()
        })
    }

    /// Replaces the variables and finds where files come from.
    fn prepare(
        &self,
        state: &State,
        copy: &dockerfile::Transfer,
        stage: usize,
    ) -> Result<Prepared> {
        let lookup = |name: &str| state.variable(name);
        let expander = self.expander(&lookup);
        let word = |text: &Option<String>| text.as_deref().map(|t| expander.word(t)).transpose();
        let mut sources = Vec::new();
        for source in &copy.sources {
            match copy.heredocs.iter().find(|heredoc| heredoc.opening == *source) {
                Some(heredoc) => sources.push(Source::Text {
                    name: heredoc.name.clone(),
                    body: match heredoc.expands {
                        true => expander.body(&heredoc.body)?,
                        false => heredoc.body.clone(),
                    },
                }),
                None => sources.push(self.source(copy, expander.word(source)?)?),
            }
        }
        let trees = sources.iter().filter(|source| matches!(source, Source::Repository(..)));
        ensure!(
            trees.count() == 0 || sources.len() == 1,
            "a git repository has to be the only source"
        );
        ensure!(
            copy.checksum.is_none()
                || matches!(sources[..], [Source::Fetched(_) | Source::Repository(..)]),
            "--checksum needs one source that is a URL"
        );
        let target = expander.word(&copy.target)?;
        let mut exclude = Vec::new();
        for pattern in &copy.exclude {
            exclude.push(expander.word(pattern)?);
        }
        if let Some(from) = &copy.from {
            ensure!(
                !from.contains('$'),
                "variables are not replaced in --from: give the image a name with \
                 FROM {from} AS name, and take it from there"
            );
        }
        let chown = word(&copy.chown)?;
        let chmod = word(&copy.chmod)?;
        let keyword = if copy.add { "ADD" } else { "COPY" };
        let shown: Vec<&str> = sources
            .iter()
            .map(|source| match source {
                Source::Path(path) => path.as_str(),
                Source::Text { name, .. } => name.as_str(),
                Source::Fetched(_) | Source::Repository(..) => "",
            })
            .collect();
        let urls: Vec<&str> = copy.sources.iter().map(String::as_str).collect();
        let shown = if shown.contains(&"") { urls } else { shown };
        let mut flags = String::new();
        for (name, value) in [("from", &copy.from), ("chown", &chown), ("chmod", &chmod)] {
            if let Some(value) = value {
                flags.push_str(&format!(" --{name}={value}"));
            }
        }
        for (name, on) in [("link", copy.link), ("parents", copy.parents)] {
            if on {
                flags.push_str(&format!(" --{name}"));
            }
        }
        for pattern in &exclude {
            flags.push_str(&format!(" --exclude={pattern}"));
        }
        let text = format!("{keyword}{flags} {} {target} # buildkit", shown.join(" "));
        let into = target.ends_with('/') || target.ends_with("/.") || target == ".";
        let directory = &state.parts.config.config.working_dir;
        let transfer = Transfer {
            add: copy.add,
            sources,
            into,
            target: paths::absolute(directory, &target),
            chmod: chmod.as_deref().map(Chmod::parse).transpose()?,
            parents: copy.parents,
            exclude: Ignore::of(exclude.iter().map(String::as_str))?,
            unpack: copy.unpack,
        };
        self.heed(&expander);
        transfer::check_target(&transfer)?;
        let origin = copy.from.as_deref().map(|name| self.origin(name, stage)).transpose()?;
        Ok(Prepared { transfer, chown, origin, text })
    }

    /// A path, or what `ADD` fetches.
    fn source(&self, copy: &dockerfile::Transfer, word: String) -> Result<Source> {
        if !copy.add || copy.from.is_some() {
            return Ok(Source::Path(word));
        }
        if let Some(mut repository) = Repository::parse(&word)? {
            repository.keep_git_dir |= copy.keep_git_dir;
            if copy.checksum.is_some() {
                repository.commit.clone_from(&copy.checksum);
            }
            let (tree, commit) = remote::clone(self.store, &repository)?;
            return Ok(Source::Repository(tree, commit));
        }
        if remote::is_url(&word) {
            let fetched = remote::fetch(self.store, &word, copy.checksum.as_deref())?;
            return Ok(Source::Fetched(fetched));
        }
        Ok(Source::Path(word))
    }

    fn run(&self, state: &mut State, step: &Step, run: &Run, place: &mut Place<'_>) -> Result<()> {
        let shown = self.reporter.begin(Some(&place.next()), &step.text)?;
        let before = state.clone();
        let lookup = |name: &str| before.variable(name);
        let expander = self.expander(&lookup);
        let mounts = run.mounts.iter().map(|text| Mount::parse(text, &expander));
        let mounts = mounts.collect::<Result<Vec<_>>>()?;
        self.heed(&expander);
        let (chosen, allowed) = (&self.settings.network, self.settings.host_network);
        let network = Network::of_step(run.network.as_deref(), chosen, allowed)?;
        let insecure = match run.security.as_deref() {
            None | Some("sandbox") => false,
            Some("insecure") => true,
            Some(other) => bail!("invalid security mode {other:?}: want sandbox or insecure"),
        };
        ensure!(
            !insecure || self.settings.insecure,
            "security.insecure is not allowed: give --allow security.insecure"
        );
        let (words, script) = command(state, run);
        let env = self.environment(state);
        let exec = matches!(run.command, Command::Exec(_));
        let text = run::history(&state.visible_arguments(), &words, exec);
        let config = &state.parts.config.config;
        let (user, directory) = (config.user.clone(), config.working_dir.clone());
        let script_body = script.as_ref().map_or(String::new(), |(_, body)| body.clone());
        state.fold(&["RUN", &text, &user, &directory, &format!("{network:?}"), &script_body]);
        for (name, address) in &self.settings.hosts {
            state.fold(&["host", name, &address.to_string()]);
        }
        if insecure {
            state.fold(&["security", "insecure"]);
        }
        for mount in &mounts {
            let key = self.mount_key(mount, place.stage)?;
            state.fold(&["mount", &key]);
        }
        self.layer_step(state, text, &shown, |state| {
            if run::possible()? == Possible::InNamespace {
                self.lacks_namespace.store(true, Ordering::Relaxed);
                bail!("RUN needs a user namespace");
            }
            let platform = state.parts.config.platform();
            ensure!(
                run::executes(&platform),
                "this host can't execute programs for {platform}: register an emulator with \
                 binfmt_misc (package qemu-user-static), or build without RUN"
            );
            let ground = self.ground(state)?;
            let view = self.view(state)?;
            let ready = self.ready(state, &mounts, place.stage)?;
            let env: Vec<String> = env.iter().chain(&ready.env).cloned().collect();
            let job = Job {
                mounts: &ready.mounts,
                words: &words,
                env: &env,
                directory: &directory,
                user: &user,
                network: &network,
                insecure,
                hosts: &self.settings.hosts,
                script: script.as_ref().map(|(name, body)| (name.as_str(), body.as_str())),
            };
            let runtime: &Path = &self.settings.runtime;
            let ran = run::run(self.store, runtime, &ground, &view, &job, &shown)?;
            self.pack(state, &ran)
        })
    }

    /// The variables that a command sees.
    fn environment(&self, state: &State) -> Vec<String> {
        let mut env = state.parts.config.config.env.clone();
        env.extend(state.visible_arguments().iter().map(|(key, value)| format!("{key}={value}")));
        for name in PROXIES {
            if let Some(value) = self.settings.arguments.get(name)
                && state.variable(name).is_none()
            {
                env.push(format!("{name}={value}"));
            }
        }
        env
    }
}

struct Prepared {
    transfer: Transfer,
    chown: Option<String>,
    origin: Option<Arc<Origin>>,
    /// What the history says.
    text: String,
}

/// The words to run, and the script that is to be there if a heredoc names its interpreter.
fn command(state: &State, run: &Run) -> (Vec<String>, Option<(String, String)>) {
    let Command::Shell(line) = &run.command else { return (state.words(&run.command), None) };
    let [first, ..] = &run.heredocs[..] else { return (state.words(&run.command), None) };
    let mut words = state.shell();
    if run.heredocs.len() == 1 && line.trim() == first.opening {
        if first.body.starts_with("#!") {
            let path = format!("/dev/pipes/{}", first.name);
            return (vec![path], Some((first.name.clone(), first.body.clone())));
        }
        words.push(first.body.clone());
        return (words, None);
    }
    // The shell reads them itself.
    let mut text = line.clone();
    for heredoc in &run.heredocs {
        text.push_str(&format!("\n{}{}", heredoc.body, heredoc.name));
    }
    words.push(text);
    (words, None)
}

/// `--chown`: a number without a group is that of the group too.
fn chowned(view: &View, word: &str) -> Result<(u32, u32)> {
    let alone = !word.contains(':') && !word.is_empty();
    let numeric = word.bytes().all(|byte| byte.is_ascii_digit());
    let whole = if alone && numeric { format!("{word}:{word}") } else { word.to_owned() };
    owner_of(view, &whole).with_context(|| format!("--chown={word}"))
}

fn owner_of(view: &View, word: &str) -> Result<(u32, u32)> {
    if word.is_empty() {
        return Ok((0, 0));
    }
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (passwd, group) = match word.split_once(':') {
        // Numbers alone need nothing of the image.
        Some((user, group)) if number(user) && number(group) => (String::new(), String::new()),
        _ => (view.read(b"etc/passwd")?, view.read(b"etc/group")?),
    };
    let identity = user::resolve_in(word, &passwd, &group)?;
    Ok((identity.uid, identity.gid))
}
