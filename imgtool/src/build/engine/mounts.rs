//! What the mounts of a command are made of.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};

use super::Engine;
use crate::build::context::Named;
use crate::build::ignore::Ignore;
use crate::build::mounts::{Kind, Mount, Sharing};
use crate::build::origin::{Item, Origin};
use crate::build::paths;
use crate::build::run::attach::{self, Mounted, Source};
use crate::build::state::State;
use crate::digest::Digest;
use crate::layer::lower;
use crate::layer::metadata::{Place, set_mode, set_owner};
use crate::layer::tar::Kind as FileKind;
use crate::store::make_dir;

/// What a secret is read from.
#[derive(Clone, Debug)]
pub(crate) enum Secret {
    File(PathBuf),
    Variable(String),
}

/// More than any secret has, as in BuildKit.
const MAX_SECRET: u64 = 500 << 10;

/// Mounts, and what must be held while they are used.
#[derive(Default)]
pub(super) struct Ready {
    pub(super) mounts: Vec<Mounted>,
    pub(super) env: Vec<String>,
    locks: Vec<Flock<fs::File>>,
    holders: Vec<tempfile::TempDir>,
}

impl Engine<'_> {
    /// What of a mount the result depends on: all that was said of it, and what is in it.
    pub(super) fn mount_key(&self, mount: &Mount, before: usize) -> Result<String> {
        let mut key = format!("{mount:?}");
        if mount.kind == Kind::Bind {
            let source = mount.source.as_deref().unwrap_or("/");
            let origin = mount.from.as_deref().map(|name| self.origin(name, before)).transpose()?;
            let origin = origin.as_deref().unwrap_or(self.context);
            let items = items(origin, source)?;
            key.push_str(&origin.digest(&items)?.to_string());
        }
        Ok(key)
    }

    pub(super) fn ready(&self, state: &State, mounts: &[Mount], before: usize) -> Result<Ready> {
        let mut ready = Ready::default();
        for mount in mounts {
            let directory = &state.parts.config.config.working_dir;
            let target = |word: &str| format!("/{}", paths::absolute(directory, word));
            match mount.kind {
                Kind::Tmpfs => {
                    let target = target(mount.target.as_deref().unwrap_or_default());
                    let source = Source::Tmpfs { size: mount.size };
                    ready.mounts.push(Mounted { target, source, writable: true });
                }
                Kind::Secret => self.secret(mount, &target, &mut ready)?,
                Kind::Ssh => self.agent(mount, &target, &mut ready)?,
                Kind::Bind => {
                    let source = self.bind(mount, before, &mut ready)?;
                    let target = target(mount.target.as_deref().unwrap_or_default());
                    ready.mounts.push(Mounted { target, source, writable: mount.writable });
                }
                Kind::Cache => {
                    let path = self.cache_directory(mount, before, &mut ready)?;
                    let source = Source::Host { path, is_directory: true };
                    let target = target(mount.target.as_deref().unwrap_or_default());
                    ready.mounts.push(Mounted { target, source, writable: mount.writable });
                }
            }
        }
        Ok(ready)
    }

    fn bind(&self, mount: &Mount, before: usize, ready: &mut Ready) -> Result<Source> {
        let word = mount.source.as_deref().unwrap_or("/");
        let named = mount
            .from
            .as_ref()
            .and_then(|name| self.settings.contexts.get(&name.to_ascii_lowercase()));
        let stacks = self.stacks()?;
        let has_files = matches!(named, Some(Named::Directory(_) | Named::Repository(_)));
        let files = match &mount.from {
            Some(name) if has_files || !stacks => Some(self.origin(name, before)?),
            _ => None,
        };
        if let (Some(name), None) = (&mount.from, &files) {
            let state = self.state_of(name, before)?;
            let layers = self.unpacked(&state)?;
            let view = self.view(&state)?;
            let path = view.resolve(word.as_bytes(), true)?;
            let found = view.get(&path)?;
            let kind = found.map(|entry| entry.kind);
            ensure!(
                path.is_empty() || kind.is_some(),
                "{:?}: not found in {name}",
                format!("/{}", String::from_utf8_lossy(&path))
            );
            let is_directory = path.is_empty() || kind == Some(FileKind::Directory);
            return Ok(Source::Layers { layers, path, is_directory });
        }
        let context = files.as_deref().unwrap_or(self.context);
        let found = context.find(word)?;
        let [found] = &found[..] else { bail!("source {word:?} is not one path") };
        if context.is_whole() && (stacks || !mount.writable) {
            let tree = attach::clone_tree(context.root())?;
            let (path, is_directory) = (found.path.clone(), found.is_directory);
            return Ok(Source::Tree { tree, path, is_directory, is_copy: false });
        }
        // What is ignored must not be seen, nor what is written stay: a copy without it.
        let holder = self.store.staging_subdirectory()?;
        let place = holder.path().join("copy");
        lower::make_root(&place)?;
        let items = items(context, word)?;
        context.write(&items, &place)?;
        let root = fs::File::open(&place).context("open the copy")?;
        let tree = attach::clone_tree(root.as_fd())?;
        ready.holders.push(holder);
        let path = if found.is_directory { Vec::new() } else { b"file".to_vec() };
        Ok(Source::Tree { tree, path, is_directory: found.is_directory, is_copy: true })
    }

    fn secret(
        &self,
        mount: &Mount,
        target: &dyn Fn(&str) -> String,
        ready: &mut Ready,
    ) -> Result<()> {
        let id = mount.name();
        let Some(secret) = self.settings.secrets.get(&id) else {
            ensure!(
                !mount.required,
                "secret {id}: not found (give it by --secret id={id},src=FILE)"
            );
            return Ok(());
        };
        let bytes = secret.read().with_context(|| format!("read secret {id}"))?;
        if let Some(name) = &mount.env {
            let text = String::from_utf8(bytes.clone())
                .with_context(|| format!("secret {id} is no text, as a variable has to be"))?;
            ready.env.push(format!("{name}={text}"));
            if mount.target.is_none() {
                return Ok(());
            }
        }
        let default = format!("/run/secrets/{id}");
        let target = target(mount.target.as_deref().unwrap_or(&default));
        let mode = mount.mode.unwrap_or(0o400);
        let source = Source::Secret { bytes, mode, uid: mount.uid, gid: mount.gid };
        ready.mounts.push(Mounted { target, source, writable: false });
        Ok(())
    }

    fn agent(
        &self,
        mount: &Mount,
        target: &dyn Fn(&str) -> String,
        ready: &mut Ready,
    ) -> Result<()> {
        let id = mount.name();
        let Some(socket) = self.settings.agents.get(&id) else {
            ensure!(!mount.required, "ssh agent {id}: not found (give it by --ssh {id}=SOCKET)");
            return Ok(());
        };
        let kind = fs::metadata(socket).with_context(|| format!("find {}", socket.display()))?;
        ensure!(
            kind.file_type().is_socket(),
            "{} is no socket: start an agent with the key, and give its socket",
            socket.display()
        );
        let number = ready.mounts.len();
        let default = format!("/run/buildkit/ssh_agent.{number}");
        let target = target(mount.target.as_deref().unwrap_or(&default));
        ready.env.push(format!("SSH_AUTH_SOCK={target}"));
        let source = Source::Host { path: socket.clone(), is_directory: false };
        ready.mounts.push(Mounted { target, source, writable: true });
        Ok(())
    }

    /// A directory that outlives the build, by the digest of its id: no id leads anywhere else
    /// (CVE-2024-9675).
    fn cache_directory(&self, mount: &Mount, before: usize, ready: &mut Ready) -> Result<PathBuf> {
        let namespace = self.settings.arguments.get("BUILDKIT_CACHE_MOUNT_NS");
        let id = format!("{} {}", namespace.map_or("", String::as_str), mount.name());
        let home = self.store.root().join("build/mounts");
        make_dir(&home)?;
        let mut number = 0;
        loop {
            let name = format!("{}-{number}", Digest::of(id.as_bytes()).hex());
            let path = home.join(&name);
            let lock = fs::File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(home.join(format!("{name}.lock")))
                .context("open the lock of a cache")?;
            let how = match mount.sharing {
                Sharing::Shared => FlockArg::LockShared,
                Sharing::Locked => FlockArg::LockExclusive,
                Sharing::Private => FlockArg::LockExclusiveNonblock,
            };
            match Flock::lock(lock, how) {
                Ok(lock) => ready.locks.push(lock),
                Err((_, nix::errno::Errno::EWOULDBLOCK)) if mount.sharing == Sharing::Private => {
                    number += 1;
                    continue;
                }
                Err((_, errno)) => return Err(errno).context("lock a cache"),
            }
            if !path.is_dir() {
                self.make_cache(mount, before, &path)?;
            }
            return Ok(path);
        }
    }

    fn make_cache(&self, mount: &Mount, before: usize, path: &std::path::Path) -> Result<()> {
        let staged = self.store.staging_subdirectory()?;
        let data = staged.path().join("data");
        fs::DirBuilder::new().mode(0o755).create(&data).context("make a cache")?;
        if let Some(name) = &mount.from {
            let origin: Arc<Origin> = self.origin(name, before)?;
            let items = items(&origin, mount.source.as_deref().unwrap_or("/"))?;
            origin.write(&items, &data)?;
        }
        let directory = lower::open_directory(&data)?;
        let place = Place::itself(directory.as_fd());
        set_owner(place, mount.uid, mount.gid)?;
        set_mode(place, mount.mode.unwrap_or(0o755))?;
        match fs::rename(&data, path) {
            // Another build made it meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => Ok(()),
            renamed => renamed.context("keep a cache"),
        }
    }
}

/// All that a source names; a single file is called `file`.
fn items(origin: &Origin, source: &str) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for found in origin.find(source)? {
        let to: &[u8] = if found.is_directory { b"" } else { b"file" };
        origin.take(&found.path, to, &Ignore::default(), &mut items)?;
    }
    Ok(items)
}

impl Secret {
    fn read(&self) -> Result<Vec<u8>> {
        use std::io::Read as _;
        match self {
            Self::Variable(name) => {
                let value = std::env::var_os(name);
                let value = value.with_context(|| format!("the variable {name} is not set"))?;
                Ok(value.into_encoded_bytes())
            }
            Self::File(path) => {
                let file = fs::File::open(path).with_context(|| path.display().to_string())?;
                let mut bytes = Vec::new();
                file.take(MAX_SECRET + 1).read_to_end(&mut bytes)?;
                ensure!(bytes.len() as u64 <= MAX_SECRET, "it is larger than {MAX_SECRET} bytes");
                Ok(bytes)
            }
        }
    }
}
