//! Makes a bundle by its plan.

use std::fs;
use std::io::{BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::fs::{Mode as FileMode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde_json::Value;

use super::config::{Inputs, Mount};
use super::flags::{Network, Options, Seccomp, Source, Volume};
use super::plan::Plan;
use super::record::{Mode, TREE, write_json};
use super::registry::{self, Entry, Held, State};
use super::{
    ROOTFS, annotations, cdi, config, files, host, init, overlay, profile, remove, seccomp, shared,
    shm, user, volumes,
};
use crate::layer;
use crate::layer::metadata::Place;
use crate::manifest::Platform;
use crate::store::{Image, Store};
use crate::userns::shift;
use crate::volumes::options;

/// What the user asked for.
pub(crate) struct Request {
    pub(crate) image: String,
    /// `None` for this host's.
    pub(crate) platform: Option<Platform>,
    /// `None` keeps the bundle in the store.
    pub(crate) directory: Option<PathBuf>,
    pub(crate) copy: bool,
    pub(crate) options: Options,
}

/// A bundle that is ready to run.
pub(crate) struct Created {
    pub(crate) directory: PathBuf,
    /// What the user should know, a line each.
    pub(crate) notes: Vec<String>,
}

/// Makes the bundle, wholly or not at all.
pub(crate) fn create(store: &Store, request: &Request) -> Result<Created> {
    // Nobody deletes the image or its layers until the bundle is registered.
    let _lock = store.lock_shared()?;
    let left = remove::clear(store);
    let mut notes: Vec<String> = left.iter().map(|error| format!("{error:#}")).collect();
    let image = store.resolve_for(&request.image, request.platform.as_ref())?;
    if let Some(wanted) = &request.platform {
        let actual = image.config.platform();
        ensure!(wanted.runs(&actual), "image {} is for {actual}, not for {wanted}", request.image);
    }
    let plan = Plan::make(store, &image, request, &mut notes)?;
    let mut held = registry::begin(
        store,
        Entry {
            state: State::Making,
            directory: plan.directory.clone(),
            made_directory: plan.made_directory,
            record: plan.record.clone(),
        },
    )?;
    let made = make(store, &image, request, &plan, &mut held, &mut notes)
        .and_then(|()| held.set_state(State::Ready));
    match made {
        Ok(()) => Ok(Created { directory: plan.directory, notes }),
        Err(error) => Err(match remove::purge(&held) {
            Ok(()) => error,
            Err(second) => anyhow!("{error:#}; then the clean-up failed: {second:#}"),
        }),
    }
}

/// The order: mark the directory as ours, root file system, what is looked up in it, config.json.
fn make(
    store: &Store,
    image: &Image,
    request: &Request,
    plan: &Plan,
    held: &mut Held,
    notes: &mut Vec<String>,
) -> Result<()> {
    let (directory, options) = (&plan.directory, &request.options);
    if plan.made_directory {
        // The tree may hold setuid programs: nobody else gets in (CVE-2021-41091).
        fs::DirBuilder::new()
            .mode(0o700)
            .create(directory)
            .with_context(|| format!("create {}", directory.display()))?;
    }
    held.entry.record.write(directory)?;
    let rootfs_path = directory.join(ROOTFS);
    fs::create_dir(&rootfs_path)
        .and_then(|()| fs::set_permissions(&rootfs_path, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("create {}", rootfs_path.display()))?;
    root_file_system(store, image, directory, held, notes)?;

    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let rootfs = rustix::fs::open(&rootfs_path, flags, FileMode::empty())
        .with_context(|| format!("open {}", rootfs_path.display()))?;
    let own = plan.user.as_deref().unwrap_or(&image.config.config.user);
    let wanted_user = options.user.as_deref().unwrap_or(own);
    let mut identity = user::resolve(wanted_user, rootfs.as_fd())?;
    if let Some(maps) = &plan.maps {
        maps.check(wanted_user, identity.uid, identity.gid)?;
    }
    add_groups(&mut identity, plan, &options.process.groups, rootfs.as_fd())?;
    let mut volumes = volume_mounts(store, image, request, plan, rootfs.as_fd(), notes)?;
    held.entry.record.volumes = volumes.iter().map(|volume| volume.target.clone()).collect();
    if let Some(program) = &plan.init {
        volumes.push(init::copy(program, directory)?);
    }
    let host_network = options.network == Network::Host;
    notes.extend(files::write(directory, &plan.hostname, host_network, &options.hosts)?);
    if let Some(size) = plan.record.shared_memory_bytes {
        shm::mount(directory, size)?;
    }
    if let Some(ids) = &held.entry.record.ids {
        files::give(directory, ids)?;
    }
    let (given, mut device_rules) = host::given_devices(&options.devices.nodes)?;
    device_rules.extend(host::device_rules(&options.devices.rules));
    let mut devices = if options.privileged { host::devices()? } else { Vec::new() };
    devices.retain(|node| !given.iter().any(|other| other["path"] == node["path"]));
    devices.extend(given);

    let mut words = plan.annotations.clone();
    if held.entry.record.mode == Mode::Overlay {
        words.insert(annotations::BUNDLE.to_owned(), "overlay".to_owned());
    }
    let mut named: Vec<String> = options
        .volumes
        .iter()
        .filter_map(|volume| match &volume.source {
            Source::Named(name) => Some(name.clone()),
            Source::Host(_) | Source::Bundle => None,
        })
        .collect();
    for word in &options.volumes_from {
        let more = shared::names(store, &word.container)?;
        named.extend(more.into_iter().filter(|name| {
            !options
                .volumes
                .iter()
                .any(|volume| matches!(&volume.source, Source::Named(other) if other == name))
        }));
    }
    if !named.is_empty() {
        words.insert(annotations::VOLUMES.to_owned(), named.join(","));
    }
    let mut document = config::generate(&Inputs {
        image: &image.config,
        options,
        arguments: &plan.arguments,
        identity: &identity,
        host: &plan.host,
        maps: plan.maps.as_ref(),
        hostname: &plan.hostname,
        own_network: plan.own_network,
        joined: &plan.joined,
        bundle_id: &plan.record.id,
        volumes: &volumes,
        hooks: &plan.hooks,
        annotations: words,
        capabilities: &plan.capabilities,
        seccomp: seccomp_profile(options, &plan.capabilities)?,
        devices,
        device_rules,
        block: host::block(&options.block)?,
    })?;
    cdi::apply(&options.devices.cdi, &mut document)?;
    held.entry.record.mount_points = missing_mount_points(&document, rootfs.as_fd())?;
    write_json(&directory.join("config.json"), &document)?;
    held.entry.record.write(directory)
}

/// The groups of `--group-add`, which the container must have.
fn add_groups(
    identity: &mut user::Identity,
    plan: &Plan,
    wanted: &[String],
    rootfs: std::os::fd::BorrowedFd<'_>,
) -> Result<()> {
    for (word, gid) in wanted.iter().zip(user::groups(wanted, rootfs)?) {
        if let Some(maps) = &plan.maps {
            ensure!(
                maps.allows_groups() && maps.has_group(gid),
                "--group-add {word}: group {gid} is not among the container's ids (--gidmap)"
            );
        }
        if !identity.additional_gids.contains(&gid) {
            identity.additional_gids.push(gid);
        }
    }
    Ok(())
}

/// The overlay, or where there can be none, a tree.
fn root_file_system(
    store: &Store,
    image: &Image,
    directory: &Path,
    held: &mut Held,
    notes: &mut Vec<String>,
) -> Result<()> {
    if held.entry.record.mode == Mode::Overlay {
        let layer::Unpacked { layers, warnings } = layer::unpack(store, image)?;
        notes.extend(warnings);
        let top = layers.last().context("the image has no layers")?;
        overlay::prepare(directory, top)?;
        match overlay::mount(directory, &layers, held.entry.record.ids.as_ref()) {
            Ok(()) => {
                if let Some(ids) = &held.entry.record.ids {
                    // What volumes are filled with keeps the ids that the image names.
                    shift::read_as(ids);
                }
                return Ok(());
            }
            Err(error) if overlay::is_unsupported(&error) => {
                notes.push(format!("no overlay can be mounted here, copying instead: {error:#}"));
            }
            Err(error) => return Err(error),
        }
        overlay::discard(directory)?;
        held.entry.record.mode = Mode::Copy;
        held.write()?;
    }
    let rootfs = fs::File::open(directory.join(ROOTFS))
        .with_context(|| format!("open {}", directory.join(ROOTFS).display()))?;
    let unpacked = layer::unpack_flat(store, image, rootfs.as_fd());
    notes.extend(unpacked.with_context(|| format!("unpack into {}", directory.display()))?);
    if let Some(ids) = &held.entry.record.ids {
        shift::give(Place::itself(rootfs.as_fd()), ids)?;
        shift::read_as(ids);
    }
    let path = directory.join(TREE);
    let mut list = fs::File::create_new(&path)
        .map(BufWriter::new)
        .with_context(|| format!("create {}", path.display()))?;
    layer::record::write(rootfs.as_fd(), &mut list).context("record the tree")?;
    list.flush().with_context(|| format!("write {}", path.display()))
}

fn seccomp_profile(options: &Options, capabilities: &[&str]) -> Result<Option<Value>> {
    match &options.security.seccomp {
        Seccomp::Unconfined => Ok(None),
        Seccomp::Profile(path) => {
            let architecture = Platform::host().architecture;
            profile::of_file(path, capabilities, &architecture)
                .with_context(|| format!("read the seccomp profile {}", path.display()))
                .map(Some)
        }
        Seccomp::Default if options.privileged => Ok(None),
        Seccomp::Default => {
            let architecture = Platform::host().architecture;
            Ok(Some(seccomp::default_profile(capabilities, &architecture)))
        }
    }
}

/// The caller's volumes, and those the image declares, each of these a directory of the bundle
/// filled with what the image has in its place.
fn volume_mounts(
    store: &Store,
    image: &Image,
    request: &Request,
    plan: &Plan,
    rootfs: std::os::fd::BorrowedFd<'_>,
    notes: &mut Vec<String>,
) -> Result<Vec<Mount>> {
    let (directory, options) = (&plan.directory, &request.options);
    let mut mounts = Vec::new();
    let mut own = Vec::new();
    for volume in &options.volumes {
        match &volume.source {
            Source::Bundle => own.push(volume.target.clone()),
            Source::Host(path) => {
                make_source(path)?;
                mounts.push(bind(volume, path)?);
            }
            Source::Named(name) => {
                if let Some(mount) = mounted(store, name, volume, plan, notes)? {
                    mounts.push(mount);
                    continue;
                }
                let path = store.use_volume(name)?;
                let filled = volumes::fill(&path, &volume.target, rootfs)
                    .with_context(|| format!("fill volume {name}"))?;
                if filled {
                    give_volume(&path, plan)?;
                }
                mounts.push(Mount { mapped: maps_volumes(plan), ..bind(volume, &path)? });
            }
        }
    }
    for word in &options.volumes_from {
        let theirs = shared::volumes(store, word)
            .with_context(|| format!("--volumes-from {}", word.container))?;
        for mut mount in theirs {
            let taken = |target: &String| *target == mount.target;
            let is_tmpfs = options.tmpfs.iter().any(|tmpfs| taken(&tmpfs.target));
            // What the user says of the place himself comes first.
            if !is_tmpfs
                && !own.iter().any(taken)
                && !mounts.iter().any(|other| taken(&other.target))
            {
                let in_store = Path::new(&mount.source).starts_with(store.root());
                mount.mapped = maps_volumes(plan) && (mount.mapped || in_store);
                mounts.push(mount);
            }
        }
    }
    for word in image.config.config.volumes.keys() {
        let target = super::flags::clean_target(word)
            .with_context(|| format!("volume {word:?} of the image"))?;
        if !own.contains(&target) && !mounts.iter().any(|mount| mount.target == target) {
            own.push(target);
        }
    }
    for (number, target) in own.into_iter().enumerate() {
        let source = volumes::make(directory, number, &target, rootfs)
            .with_context(|| format!("make volume {target}"))?;
        give_volume(&directory.join(&source), plan)?;
        let mapped = maps_volumes(plan);
        mounts.push(Mount { source, target, propagation: "rprivate", mapped, ..Mount::default() });
    }
    Ok(mounts)
}

/// A volume that is a mount of something else, if this is one. It is nobody's to be filled.
fn mounted(
    store: &Store,
    name: &str,
    volume: &Volume,
    plan: &Plan,
    notes: &mut Vec<String>,
) -> Result<Option<Mount>> {
    let known = store.volumes()?.into_iter().find(|known| known.name == name);
    let Some(known) = known.filter(|known| !known.options.is_empty()) else { return Ok(None) };
    let filesystem =
        options::filesystem(&known.options).with_context(|| format!("volume {name}"))?;
    let kind = &filesystem.kind;
    let unprivileged = matches!(kind.as_str(), "bind" | "tmpfs");
    ensure!(
        plan.host.rootless.is_none() || unprivileged,
        "volume {name} is of type {kind}, which only root can mount"
    );
    if !options::is_known(kind) {
        notes.push(format!(
            "volume {name}: the kernel does not know {kind} yet; unless a module brings it, the \
             container won't start"
        ));
    }
    Ok(Some(Mount {
        source: filesystem.source,
        target: volume.target.clone(),
        read_only: volume.read_only,
        propagation: volume.propagation,
        mapped: volume.mapped,
        filesystem: Some((filesystem.kind, filesystem.options)),
    }))
}

fn bind(volume: &Volume, path: &Path) -> Result<Mount> {
    Ok(Mount {
        source: path.to_str().context("the source is not UTF-8")?.to_owned(),
        target: volume.target.clone(),
        read_only: volume.read_only,
        propagation: volume.propagation,
        mapped: volume.mapped,
        ..Mount::default()
    })
}

/// As root the kernel maps the owners of a volume's files, which several containers may share.
fn maps_volumes(plan: &Plan) -> bool {
    plan.record.ids.is_some() && plan.host.rootless.is_none()
}

/// Else they are the first container's.
fn give_volume(path: &Path, plan: &Plan) -> Result<()> {
    let Some(ids) = plan.record.ids.as_ref().filter(|_| !maps_volumes(plan)) else { return Ok(()) };
    let volume = fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    shift::give(Place::itself(volume.as_fd()), ids)
        .with_context(|| format!("give away {}", path.display()))
}

/// As with Docker, a source that is not there becomes an empty directory.
fn make_source(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_err() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(path)
            .with_context(|| format!("create {}", path.display()))?;
    }
    Ok(())
}

/// The paths beneath the root file system that a runtime will have to make for the mounts.
fn missing_mount_points(
    document: &Value,
    rootfs: std::os::fd::BorrowedFd<'_>,
) -> Result<Vec<String>> {
    let mut mounted: Vec<&str> = Vec::new();
    let mut missing: Vec<String> = Vec::new();
    for mount in document["mounts"].as_array().into_iter().flatten() {
        let Some(target) = mount["destination"].as_str() else { continue };
        let inside =
            |parent: &&str| target.strip_prefix(parent).is_some_and(|rest| rest.starts_with('/'));
        // What lies in another mount is made there.
        if !mounted.iter().any(inside) {
            let ends = target.match_indices('/').skip(1).map(|(end, _)| end).chain([target.len()]);
            for end in ends {
                let path = &target[..end];
                if !exists(rootfs, path)? && !missing.iter().any(|known| known == path) {
                    missing.push(path.to_owned());
                }
            }
        }
        mounted.push(target);
    }
    Ok(missing)
}

fn exists(rootfs: std::os::fd::BorrowedFd<'_>, path: &str) -> Result<bool> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match rustix::fs::openat2(rootfs, path, flags, FileMode::empty(), resolve) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("look for {path} in the image")),
    }
}
