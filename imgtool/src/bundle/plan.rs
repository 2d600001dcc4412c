//! Everything about a bundle that can be decided, and refused, before anything is made.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;

use super::create::Request;
use super::flags::{Ids, Memory, Network, Options, Publish};
use super::hooks::{Hooks, NetworkHook, RemoveHook, own_program, text};
use super::host::Host;
use super::join::Joined;
use super::record::{Mode, Record};
use super::{annotations, config, hooks, init, overlay, real_path};
use crate::store::{Image, Store, chain_ids, make_dir};
use crate::userns::{self, Maps, Owners};

/// What netsetup connects containers by where there is no root.
const USER_MODE: [&str; 2] = ["pasta", "slirp4netns"];
/// The digits of a container's id that Docker uses as host name.
const SHORT_ID: usize = 12;

/// What is to be made.
pub(crate) struct Plan {
    /// Absolute, as the kernel names it.
    pub(crate) directory: PathBuf,
    pub(crate) made_directory: bool,
    pub(crate) record: Record,
    pub(crate) host: Host,
    /// The host's ids of those that the container has; `None` if they are the same.
    pub(crate) maps: Option<Maps>,
    /// What the container runs as unless the caller says otherwise.
    pub(crate) user: Option<String>,
    pub(crate) hostname: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) capabilities: Vec<&'static str>,
    pub(crate) own_network: bool,
    pub(crate) joined: Joined,
    pub(crate) hooks: Hooks,
    /// The program to copy for `--init`.
    pub(crate) init: Option<PathBuf>,
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Plan {
    /// Decides; `notes` gets what the user should know.
    pub(crate) fn make(
        store: &Store,
        image: &Image,
        request: &Request,
        notes: &mut Vec<String>,
    ) -> Result<Self> {
        let options = &request.options;
        let owners = userns::enter()?;
        if let Owners::Ourselves { because, .. } = owners {
            notes.push(format!("all files and processes get one owner, you: {because}"));
        }
        let host = Host::probe(owners)?;
        host.check(&options.limits)?;
        let Ids { maps: ids, user } =
            options.identity.ids(userns::outside()?, host.rootless.as_ref())?;
        let maps = match (&ids, &host.rootless) {
            (Some(ids), Some(seen)) => Some(ids.within(seen)?),
            (ids, seen) => ids.as_ref().or(seen.as_ref()).cloned(),
        };
        ensure!(
            options.devices.rules.is_empty() || host.rootless.is_none(),
            "--device-cgroup-rule needs root: without it a container has the devices of a usual one alone"
        );
        refuse_mapped_volumes(options, ids.is_some(), host.rootless.is_some())?;
        let arguments = config::arguments(&image.config, options)?;
        let id = random_id()?;
        let name = options.name.as_deref().unwrap_or(&id[..SHORT_ID]);
        let (directory, made_directory) = place(store, request.directory.as_deref(), name)?;
        let (own_network, network) = network(options, &publish(options, image)?, &host, notes)?;
        let remove = if options.remove {
            Some(RemoveHook {
                program: text(&own_program()?)?,
                store: text(store.root())?,
                bundle: text(&directory)?,
            })
        } else {
            None
        };
        let image_name =
            image.name.as_ref().map_or_else(|| image.id().to_string(), ToString::to_string);
        let (_, dropped) = annotations::of_image(&image.config);
        if !dropped.is_empty() {
            notes.push(format!(
                "labels of the image left out, since their names have a meaning to runtimes: {}",
                dropped.join(", ")
            ));
        }
        let mode = mode(store, request, image, &host, notes)?;
        let joined = Joined::find(options)?;
        ensure!(
            joined.namespaces.is_empty() || host.rootless.is_none(),
            "container:ID needs root: without it each container has a user namespace of its own, from which \
             those of others can't be joined"
        );
        let hostname = match (&options.hostname, &joined.hostname) {
            (Some(hostname), _) | (None, Some(hostname)) => hostname.clone(),
            (None, None) if options.network == Network::Host || options.namespaces.host_uts => {
                host.hostname.clone()
            }
            (None, None) => id[..SHORT_ID].to_owned(),
        };
        let shareable = options.namespaces.memory == Memory::Shareable;
        ensure!(!shareable || host.rootless.is_none(), "--ipc shareable needs root, for its mount");
        let mut annotations = BTreeMap::from([
            (annotations::IMAGE.to_owned(), image_name.clone()),
            (annotations::MANIFEST.to_owned(), image.manifest.digest.to_string()),
        ]);
        annotations.extend(joined.annotation().map(|text| (annotations::JOIN.to_owned(), text)));
        Ok(Self {
            annotations,
            record: Record {
                id,
                image: image_name,
                manifest: image.manifest.clone(),
                config: image.id().clone(),
                chain_ids: chain_ids(&image.diff_ids),
                created: Timestamp::now().to_string(),
                mode,
                mount_points: Vec::new(),
                ids,
                volumes: Vec::new(),
                shared_memory_bytes: shareable
                    .then(|| options.limits.shm_bytes.unwrap_or(config::SHM_BYTES)),
            },
            capabilities: if options.privileged {
                host.capabilities.clone()
            } else {
                options.capabilities.apply(&host.capabilities)
            },
            hooks: Hooks { network, remove },
            init: options.init.then(init::find).transpose()?,
            directory,
            made_directory,
            host,
            maps,
            user: user.map(|(uid, gid)| format!("{uid}:{gid}")),
            hostname,
            arguments,
            own_network,
            joined,
        })
    }
}

/// The kernel lets only root map owners, to ids that there are.
fn refuse_mapped_volumes(options: &Options, has_ids: bool, rootless: bool) -> Result<()> {
    if let Some(volume) = options.volumes.iter().find(|volume| volume.mapped) {
        ensure!(!rootless, "volume {}: idmap needs root", volume.target);
        ensure!(has_ids, "volume {}: idmap needs --uidmap", volume.target);
    }
    Ok(())
}

/// An overlay needs root, something to lie over, and a file system beneath that is none itself.
fn mode(
    store: &Store,
    request: &Request,
    image: &Image,
    host: &Host,
    notes: &mut Vec<String>,
) -> Result<Mode> {
    if request.copy || host.rootless.is_some() || image.layers.is_empty() {
        return Ok(Mode::Copy);
    }
    if overlay::is_overlay(store.root())? {
        notes.push("the store lies on an overlay, which can't hold layers: copying".to_owned());
        return Ok(Mode::Copy);
    }
    Ok(Mode::Overlay)
}

/// Where the bundle will be, and whether that directory is still to be made.
fn place(store: &Store, wanted: Option<&Path>, name: &str) -> Result<(PathBuf, bool)> {
    let Some(wanted) = wanted else {
        let bundles = store.root().join("bundles");
        make_dir(&bundles)?;
        let directory = real_path(&bundles)?.join(name);
        if directory.exists() {
            bail!(
                "a bundle named {name} is in the store already: remove it with imgtool rm {name}"
            );
        }
        return checked(directory, true);
    };
    match fs::read_dir(wanted) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                bail!("{} exists already and is not empty", wanted.display());
            }
            checked(real_path(wanted)?, false)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let name = wanted
                .file_name()
                .with_context(|| format!("{} does not exist", wanted.display()))?;
            let parent = match wanted.parent() {
                Some(parent) if parent != Path::new("") => parent,
                _ => Path::new("."),
            };
            checked(real_path(parent)?.join(name), true)
        }
        Err(error) => Err(error).with_context(|| format!("read {}", wanted.display())),
    }
}

/// config.json can hold no other paths than these.
fn checked(directory: PathBuf, made: bool) -> Result<(PathBuf, bool)> {
    text(&directory)?;
    Ok((directory, made))
}

/// The ports that the user names, and with -P those that the image exposes and nobody named.
fn publish(options: &Options, image: &Image) -> Result<Vec<Publish>> {
    let mut all = options.publish.clone();
    if options.publish_all {
        let of_image = image.config.config.exposed_ports.keys().map(|word| {
            Publish::parse(word).with_context(|| format!("port {word:?} of the image"))
        });
        for port in of_image.chain(options.exposed.iter().cloned().map(Ok)) {
            let port = port?;
            let named = |other: &Publish| {
                (other.container, other.protocol) == (port.container, port.protocol)
            };
            if !all.iter().any(named) {
                all.push(port);
            }
        }
    }
    Ok(all)
}

/// Whether the container gets a network of its own, and the hook that connects it.
fn network(
    options: &Options,
    publish: &[Publish],
    host: &Host,
    notes: &mut Vec<String>,
) -> Result<(bool, Option<NetworkHook>)> {
    match options.network {
        Network::Host | Network::Container(_) => return Ok((false, None)),
        Network::None => return Ok((true, None)),
        Network::Default | Network::Named(_) => {}
    }
    let asked_for = !publish.is_empty()
        || matches!(options.network, Network::Named(_))
        || !options.place.is_any();
    let rootless = host.rootless.is_some();
    ensure!(
        !rootless || options.place.is_any(),
        "--ip, --ip6, --mac-address and --network-alias need root: without it there are no bridges"
    );
    let missing = if rootless && matches!(options.network, Network::Named(_)) {
        "without root there are no bridges to name"
    } else if rootless && !USER_MODE.iter().any(|name| hooks::is_in_path(name)) {
        "without root the container is connected by pasta or slirp4netns, and neither is in PATH \
         (packages passt and slirp4netns)"
    } else if let Some(hook) =
        NetworkHook::find(&options.network, publish, &options.place, rootless)?
    {
        return Ok((true, Some(hook)));
    } else {
        "netsetup is neither beside imgtool nor in PATH"
    };
    if asked_for {
        bail!("{missing}, but -p, --network or --ip asks for it");
    }
    notes.push(format!("{missing}: the container gets a loopback device only"));
    Ok((true, None))
}

/// 32 hex digits that nobody else has.
fn random_id() -> Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
