//! Who uses a bundle: containers, by the records that runtimes keep, and processes, by what the
//! kernel says of their root, whatever runtime started them.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use serde_json::Value;

use super::annotations;
use super::overlay::{self, ROOTFS, UPPER};
use crate::rooted;

/// Where runtimes keep their containers; without root, beneath `$XDG_RUNTIME_DIR`.
const RUNTIMES: [&str; 3] = ["runtime", "runc", "crun"];
/// The largest record that is read.
const MAX_RECORD_BYTES: u64 = 16 << 20;

/// A container in the records of a runtime.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) id: String,
    /// The name that its record has for people.
    name: Option<String>,
    pub(crate) running: bool,
    /// Its first process, and when that was started, in the kernel's ticks; 0 where not known.
    init: (i64, u64),
    /// Where the runtime that has it keeps its containers.
    pub(crate) root: PathBuf,
    /// Where its bundle is, and which directory that is.
    pub(crate) directory: PathBuf,
    bundle: FileId,
}

/// A file, whatever it is called.
type FileId = (u64, u64);

/// The containers that any runtime knows.
pub(crate) fn containers() -> Vec<Container> {
    let mut roots: Vec<PathBuf> = vec!["/run".into()];
    roots.extend(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from));
    let mut containers = Vec::new();
    for root in roots {
        for runtime in RUNTIMES {
            // A runtime that was never used, or whose records are another user's, has none for us.
            let Ok(entries) = fs::read_dir(root.join(runtime)) else { continue };
            containers.extend(entries.flatten().filter_map(|entry| container(&entry.path())));
        }
    }
    for directory in records() {
        let Some(kept) = kept(&directory) else { continue };
        match containers.iter_mut().find(|live| live.id == kept.id && live.root == kept.root) {
            Some(live) => live.name = kept.name,
            None => containers.push(kept),
        }
    }
    containers.sort_by(|a, b| a.id.cmp(&b.id));
    containers
}

/// Where `runtime` keeps what outlives a container's end, and a reboot.
fn records() -> Vec<PathBuf> {
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share"));
    let places = std::iter::once(PathBuf::from("/var/lib")).chain(data.or(home));
    let entries = places.filter_map(|place| fs::read_dir(place.join("runtime")).ok());
    entries.flat_map(|entries| entries.flatten().map(|entry| entry.path())).collect()
}

/// One that has ended, or is told of by its live state as well.
fn kept(directory: &Path) -> Option<Container> {
    let record = read_json(&directory.join("record.json"))?;
    Some(Container {
        id: record["id"].as_str()?.to_owned(),
        name: record["name"].as_str().map(str::to_owned),
        running: false,
        init: (0, 0),
        root: record["root"].as_str()?.into(),
        directory: record["bundle"].as_str()?.into(),
        bundle: file_id(Path::new(record["bundle"].as_str()?))?,
    })
}

/// runc and ours write state.json, crun writes status.
fn container(directory: &Path) -> Option<Container> {
    let state = read_json(&directory.join("state.json"))
        .or_else(|| read_json(&directory.join("status")))?;
    let label = |key: &str| {
        let labels = state["config"]["labels"].as_array()?;
        let mut labels = labels.iter().rev().filter_map(Value::as_str);
        labels.find_map(|label| label.strip_prefix(key)?.strip_prefix('='))
    };
    let bundle = label("bundle").or_else(|| state["bundle"].as_str())?;
    let pid = state["init_process_pid"].as_i64().or_else(|| state["pid"].as_i64()).unwrap_or(0);
    let start = state["init_process_start"]
        .as_u64()
        .or_else(|| state["process-start-time"].as_u64())
        .unwrap_or(0);
    Some(Container {
        id: directory.file_name()?.to_str()?.to_owned(),
        name: label(annotations::NAME).map(str::to_owned),
        running: pid > 0 && is_alive(pid, start),
        init: (pid, start),
        root: directory.parent()?.to_owned(),
        directory: bundle.into(),
        bundle: file_id(Path::new(bundle))?,
    })
}

fn read_json(path: &Path) -> Option<Value> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(MAX_RECORD_BYTES).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Whether that very process is there; a start time of 0 is not compared.
fn is_alive(pid: i64, start: u64) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The name may hold anything, so fields count from behind its parenthesis.
    let Some((_, fields)) = stat.rsplit_once(')') else { return false };
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let state = fields.first().copied().unwrap_or("Z");
    let started = fields.get(19).and_then(|field| field.parse::<u64>().ok());
    !matches!(state, "Z" | "X") && (start == 0 || started == Some(start))
}

impl Container {
    /// Whether the user's word is its id or its name.
    pub(crate) fn is_called(&self, word: &str) -> bool {
        self.id == word || self.name.as_deref() == Some(word)
    }

    /// Whether the user's word is the beginning of an id that was generated.
    pub(crate) fn begins_with(&self, word: &str) -> bool {
        let generated = self.id.len() == 64 && self.id.bytes().all(|byte| byte.is_ascii_hexdigit());
        generated && self.id.starts_with(word)
    }

    /// Its first process, as we see it.
    pub(crate) fn init_pid(&self) -> i64 {
        self.init.0
    }

    pub(crate) fn uses(&self, bundle: &Path) -> bool {
        file_id(bundle) == Some(self.bundle)
    }

    /// The root directory as the running container sees it, mounts and all; `None` if it ended.
    pub(crate) fn root_directory(&self) -> Result<Option<OwnedFd>> {
        let (pid, start) = self.init;
        let path = format!("/proc/{pid}/root");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&path, flags, Mode::empty());
        // What was opened is its root if it is still the same process.
        if !self.running || !is_alive(pid, start) {
            return Ok(None);
        }
        opened.map(Some).with_context(|| format!("open the root of container {}", self.id))
    }
}

/// A process that has the bundle's root file system as its root, in any mount namespace.
pub(crate) fn process_inside(bundle: &Path) -> Result<Option<i32>> {
    let root = file_id(&bundle.join(ROOTFS));
    let upper = escape(&bundle.join(UPPER));
    let mut seen = HashSet::new();
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let name = entry.context("read /proc")?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let process = Path::new("/proc").join(&name);
        let Some(its_root) = file_id(&process.join("root")) else { continue };
        if root == Some(its_root) {
            return Ok(Some(pid));
        }
        // The mount on our side may be gone while a container's lives on.
        if seen.insert(its_root)
            && overlay::is_overlay(&process.join("root")).unwrap_or(false)
            && fs::File::open(process.join("mountinfo"))
                .is_ok_and(|table| has_root(BufReader::new(table), its_root.0, &upper))
        {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

/// Whether the overlay of this device is mounted on `/` and has this upper directory. No more of the
/// table is read, which the kernel makes as it is read, than that takes.
fn has_root(mountinfo: impl BufRead, device: u64, upper: &str) -> bool {
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let lines = mountinfo.split(b'\n').map_while(Result::ok);
    let root = lines.map(|line| String::from_utf8_lossy(&line).into_owned()).find(|line| {
        let mut fields = line.split(' ').skip(2);
        fields.next() == Some(&device) && fields.nth(1) == Some("/")
    });
    root.is_some_and(|line| {
        let options = line.split_once(" - ").map_or("", |(_, file_system)| file_system);
        options.split([' ', ',']).any(|option| option.strip_prefix("upperdir=") == Some(upper))
    })
}

/// What is mounted beneath a directory, by the table of our own namespace.
pub(crate) fn mounted_beneath(directory: &Path) -> Result<Vec<String>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let prefix = format!("{}/", escape(directory));
    Ok(table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|target| target.starts_with(&prefix))
        .map(str::to_owned)
        .collect())
}

/// A path as the kernel writes it in mount tables.
fn escape(path: &Path) -> String {
    let mut escaped = Vec::new();
    for &byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b' ' | b',' | b'\t' | b'\n' | b'\\' => {
                escaped.extend_from_slice(format!("\\{byte:03o}").as_bytes());
            }
            _ => escaped.push(byte),
        }
    }
    String::from_utf8_lossy(&escaped).into_owned()
}

fn file_id(path: &Path) -> Option<FileId> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Levels of directories that are looked at; a container may have nested them without end.
const MAX_LEVELS: usize = 512;

/// The bytes of the regular files beneath `directory`, each file once. A live container takes files
/// away, and puts links in their place, while we look: every name is looked up in the directory
/// that had it.
pub(crate) fn bytes_beneath(directory: &Path) -> Result<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(directory, flags, Mode::empty()) {
        Ok(opened) => Ok(bytes_in(opened.as_fd(), &mut HashSet::new(), 0)),
        Err(Errno::NOENT) => Ok(0),
        Err(errno) => Err(errno).with_context(|| format!("read {}", directory.display())),
    }
}

/// What can't be looked at, or not any more, counts nothing.
fn bytes_in(directory: BorrowedFd<'_>, linked: &mut HashSet<FileId>, level: usize) -> u64 {
    let mut total = 0;
    for name in rooted::names(directory).unwrap_or_default() {
        let Ok(stat) = rooted::stat(directory, name.to_bytes()) else { continue };
        match rooted::file_type(&stat) {
            FileType::Directory if level < MAX_LEVELS => {
                if let Ok(child) = rooted::open_child(directory, name.to_bytes()) {
                    total += bytes_in(child.as_fd(), linked, level + 1);
                }
            }
            FileType::RegularFile
                if stat.st_nlink == 1 || linked.insert((stat.st_dev, stat.st_ino)) =>
            {
                total += u64::try_from(stat.st_size).unwrap_or_default();
            }
            _ => {}
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_counts_where_it_is_the_root() {
        let upper = escape(Path::new("/a b/upper"));
        assert_eq!(upper, "/a\\040b/upper");
        let line = |target: &str, upper: &str| {
            format!(
                "1 2 0:3 / {target} rw shared:1 - overlay overlay rw,lowerdir+=/x,upperdir={upper},workdir=/w\n"
            )
        };
        let has = |table: &str, device| has_root(table.as_bytes(), device, &upper);
        let device = rustix::fs::makedev(0, 3);
        assert!(has(&line("/", &upper), device));
        assert!(has(&(line("/mnt", "/b") + &line("/", &upper)), device));
        assert!(!has(&line("/", &upper), rustix::fs::makedev(0, 4)));
        assert!(!has(&line("/mnt", &upper), device));
        assert!(!has(&line("/", "/a\\040b/upper2"), device));
        assert!(!has("nonsense\n", device));
    }

    #[test]
    fn hard_links_are_counted_once() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("d")).unwrap();
        fs::write(directory.path().join("d/a"), [0; 10]).unwrap();
        fs::hard_link(directory.path().join("d/a"), directory.path().join("b")).unwrap();
        fs::write(directory.path().join("c"), [0; 5]).unwrap();
        assert_eq!(bytes_beneath(directory.path()).unwrap(), 15);
    }

    #[test]
    fn this_process_is_alive_and_a_later_one_is_not() {
        let pid = i64::from(std::process::id());
        assert!(is_alive(pid, 0));
        assert!(!is_alive(pid, 1));
    }
}
