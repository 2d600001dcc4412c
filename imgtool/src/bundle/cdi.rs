//! Devices by the Container Device Interface: `vendor.com/class=name` stands for what a vendor's
//! file says of it, be it nodes, mounts, hooks or variables.
//!
//! The files of a later directory go before those of an earlier one; what two of the same
//! directory say of one device is not guessed at.

mod edits;
mod spec;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

pub(crate) use spec::Device;
use spec::Spec;

use crate::store::names_in;

/// Where vendors leave them, unless `--cdi-spec-dir` says another place.
pub(crate) const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// The kind that `--gpus` means where it is there.
const GPU_VENDOR: &str = "nvidia.com/gpu";
const GPU_CLASS: &str = "/gpu";

/// The devices asked for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) devices: Vec<Device>,
    pub(crate) gpus: Option<Gpus>,
    /// None for the usual ones.
    pub(crate) directories: Vec<PathBuf>,
}

/// What `--gpus` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gpus {
    All,
    /// The first so many.
    Count(u32),
    Names(Vec<String>),
}

/// One file, and whether it stands before others.
struct Found {
    path: PathBuf,
    /// The number of its directory.
    rank: usize,
    spec: Spec,
}

/// All files, and those that could not be read.
struct Registry {
    found: Vec<Found>,
    broken: Vec<String>,
    places: String,
}

/// Carries out on config.json what the files say of the devices wanted.
pub(crate) fn apply(wanted: &Wanted, config: &mut Value) -> Result<()> {
    if wanted.devices.is_empty() && wanted.gpus.is_none() {
        return Ok(());
    }
    let registry = Registry::read(&wanted.directories)?;
    let mut devices = wanted.devices.clone();
    if let Some(gpus) = &wanted.gpus {
        devices.extend(registry.gpus(gpus)?);
    }
    let mut begun: Vec<&Path> = Vec::new();
    for device in &devices {
        let found = registry.find(device)?;
        let context = || format!("device {device} of {}", found.path.display());
        // What holds for all devices of a file holds once.
        if !begun.contains(&found.path.as_path()) {
            begun.push(&found.path);
            edits::apply(&found.spec.edits, config).with_context(context)?;
        }
        let own = found.spec.device(&device.name).context("it is there no more")?;
        edits::apply(&own.edits, config).with_context(context)?;
    }
    Ok(())
}

impl Registry {
    fn read(directories: &[PathBuf]) -> Result<Self> {
        let usual = DIRECTORIES.map(PathBuf::from);
        let directories = if directories.is_empty() { &usual[..] } else { directories };
        let (mut found, mut broken) = (Vec::new(), Vec::new());
        for (rank, directory) in directories.iter().enumerate() {
            for path in files(directory)? {
                match Spec::read(&path) {
                    Ok(spec) => found.push(Found { path, rank, spec }),
                    // A vendor's broken file is in nobody's way who wants another's device.
                    Err(error) => broken.push(format!("{}: {error:#}", path.display())),
                }
            }
        }
        let shown: Vec<_> = directories.iter().map(|path| path.display().to_string()).collect();
        Ok(Self { found, broken, places: shown.join(" and ") })
    }

    fn find(&self, device: &Device) -> Result<&Found> {
        let named = |found: &&Found| {
            found.spec.kind == device.kind && found.spec.device(&device.name).is_some()
        };
        let mut all: Vec<&Found> = self.found.iter().filter(named).collect();
        let best = all.iter().map(|found| found.rank).max();
        all.retain(|found| Some(found.rank) == best);
        match all[..] {
            [one] => Ok(one),
            [] => Err(self.absent(device)),
            [one, other, ..] => bail!(
                "device {device} is said to be two things by {} and {}: remove one of them",
                one.path.display(),
                other.path.display()
            ),
        }
    }

    fn absent(&self, device: &Device) -> anyhow::Error {
        let known: Vec<String> = self
            .found
            .iter()
            .flat_map(|found| found.spec.names().map(|name| format!("{}={name}", found.spec.kind)))
            .collect();
        let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
        let broken = match &self.broken[..] {
            [] => String::new(),
            list => format!("; not understood: {}", list.join("; ")),
        };
        anyhow::anyhow!(
            "no CDI specification of device {device} in {}: there is {known}{broken}",
            self.places
        )
    }

    /// The devices that `--gpus` means: NVIDIA's, or those of the only other vendor.
    fn gpus(&self, gpus: &Gpus) -> Result<Vec<Device>> {
        let kinds = self.found.iter().map(|found| found.spec.kind.as_str());
        let mut kinds: Vec<&str> = kinds.filter(|kind| kind.ends_with(GPU_CLASS)).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let kind = match kinds[..] {
            _ if kinds.contains(&GPU_VENDOR) => GPU_VENDOR,
            [only] => only,
            [] => GPU_VENDOR,
            _ => bail!("--gpus may mean {}: use --device KIND=NAME", kinds.join(" or ")),
        };
        let device = |name: &str| Device { kind: kind.to_owned(), name: name.to_owned() };
        match gpus {
            // Usually a device of that name stands for all of them.
            Gpus::All if self.find(&device("all")).is_ok() => Ok(vec![device("all")]),
            Gpus::All => {
                let same = self.found.iter().filter(|found| found.spec.kind == kind);
                let mut names: Vec<&str> = same.flat_map(|found| found.spec.names()).collect();
                names.sort_unstable();
                names.dedup();
                if names.is_empty() {
                    return Err(self.absent(&device("all")));
                }
                Ok(names.into_iter().map(device).collect())
            }
            Gpus::Count(count) => Ok((0..*count).map(|n| device(&n.to_string())).collect()),
            Gpus::Names(names) => Ok(names.iter().map(|name| device(name)).collect()),
        }
    }
}

/// The specifications of a directory, which need not be there, in order.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> =
        names_in(directory)?.into_iter().map(|name| directory.join(name)).collect();
    files.retain(|path| {
        let kind = path.extension().and_then(|extension| extension.to_str());
        matches!(kind, Some("json" | "yaml" | "yml"))
    });
    files.sort();
    Ok(files)
}

impl Gpus {
    /// Docker's words: `all`, a number, or `device=0,1` with quotes around or not.
    pub(crate) fn parse(word: &str) -> Result<Self> {
        let word = word.trim_matches(['"', '\'']);
        if word == "all" || word == "-1" || word == "count=all" {
            return Ok(Self::All);
        }
        if let Ok(count) = word.strip_prefix("count=").unwrap_or(word).parse::<u32>() {
            anyhow::ensure!(count > 0, "a container with no GPU needs no --gpus");
            // Each is a device, and there are not that many.
            anyhow::ensure!(count <= 1024, "there are no {count} GPUs");
            return Ok(Self::Count(count));
        }
        let Some(names) = word.strip_prefix("device=") else {
            bail!("want all, a number, or device=NAME[,NAME...]");
        };
        let names: Vec<String> = names.split(',').map(str::to_owned).collect();
        anyhow::ensure!(names.iter().all(|name| spec::is_name(name)), "bad name of a device");
        Ok(Self::Names(names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_all_some_or_those_named() {
        for (word, gpus) in [
            ("all", Gpus::All),
            ("2", Gpus::Count(2)),
            ("device=0,GPU-1f", Gpus::Names(vec!["0".into(), "GPU-1f".into()])),
            ("\"device=1\"", Gpus::Names(vec!["1".into()])),
        ] {
            assert_eq!(Gpus::parse(word).unwrap(), gpus, "{word}");
        }
        for bad in ["", "0", "some", "device=", "device=a b", "99999", "capabilities=utility"] {
            assert!(Gpus::parse(bad).is_err(), "{bad}");
        }
    }
}
