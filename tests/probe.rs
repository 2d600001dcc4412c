//! The program that runs inside containers under test: static, so that any rootfs will do.
//!
//! `probe` (or `probe report`) prints what it was given as JSON; the other verbs do one small thing
//! each and say how it ended. Nothing here depends on a shell being in the container.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::ExitCode;

#[path = "probe/alive.rs"]
mod alive;
#[path = "probe/hunt.rs"]
mod hunt;
#[path = "probe/mutate.rs"]
mod mutate;
#[path = "probe/tree.rs"]
mod tree;

use nix::sys::resource::{Resource, getrlimit};
use serde_json::{Map, Value, json};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    match run(&words) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("probe: {error}");
            ExitCode::from(125)
        }
    }
}

fn run(words: &[&str]) -> io::Result<u8> {
    match words {
        [] | ["report"] => print_json(&report()?),
        ["report-to", path] => fs::write(path, report()?.to_string())?,
        ["hunt", stop, path] => fs::write(path, hunt::until(stop)?.to_string())?,
        ["exit", code] => return code.parse().map_err(io::Error::other),
        ["echo", rest @ ..] => println!("{}", rest.join(" ")),
        ["cat", path] => io::copy(&mut fs::File::open(path)?, &mut io::stdout()).map(drop)?,
        ["stdin"] => io::copy(&mut io::stdin(), &mut io::stdout()).map(drop)?,
        ["stat", paths @ ..] => print_json(&stat_all(paths)),
        ["append", path, text] => {
            let mut file = fs::OpenOptions::new().append(true).create(true).open(path)?;
            writeln!(file, "{text}")?;
        }
        ["try", call, rest @ ..] => println!("{}", try_call(call, rest)),
        ["tree", skipped @ ..] => tree::print(Path::new("/"), skipped)?,
        ["tree-of", root, skipped @ ..] => tree::print(Path::new(root), skipped)?,
        ["mutate", root, seed, changes, rest @ ..] => {
            let number = |text: &str| text.parse::<u64>().map_err(io::Error::other);
            let changes = usize::try_from(number(changes)?).map_err(io::Error::other)?;
            let spared = rest.strip_prefix(&["--then-tree"]);
            mutate::mutate(Path::new(root), number(seed)?, changes, spared.unwrap_or(rest))?;
            if let Some(skipped) = spared {
                tree::print(Path::new(root), skipped)?;
            }
        }
        ["pause"] => nix::unistd::pause(),
        ["count"] => return alive::count(io::stdin(), io::stdout()),
        ["count-on", port] => return alive::count_on(port),
        ["count-locked", path] => return alive::count_locked(path),
        ["fork-bomb", limit] => print_json(&json!({ "forked": fork_until_refused(limit)? })),
        ["eat", bytes] => eat(bytes)?,
        ["map-huge", bytes] => println!("{}", map_huge(bytes)?),
        ["serve", port, text] => serve_tcp(port, text)?,
        ["serve-udp", port, text] => serve_udp(port, text)?,
        ["fetch", address] => {
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            io::copy(&mut stream, &mut io::stdout()).map(drop)?;
        }
        other => return Err(io::Error::other(format!("unknown words {other:?}"))),
    }
    Ok(0)
}

fn print_json(value: &Value) {
    println!("{value}");
}

/// Everything a runtime decides for a process, in one document.
fn report() -> io::Result<Value> {
    let status = read_status()?;
    let mut umask = nix::sys::stat::Mode::empty();
    umask = nix::sys::stat::umask(umask);
    let groups: Vec<u32> =
        nix::unistd::getgroups()?.into_iter().map(nix::unistd::Gid::as_raw).collect();
    let hostname = nix::unistd::gethostname()?;
    Ok(json!({
        "args": std::env::args().collect::<Vec<_>>(),
        "env": std::env::vars().collect::<BTreeMap<_, _>>(),
        "cwd": std::env::current_dir()?,
        "pid": std::process::id(),
        "uid": nix::unistd::getuid().as_raw(),
        "gid": nix::unistd::getgid().as_raw(),
        "groups": groups,
        "umask": format!("{:04o}", umask.bits()),
        "hostname": hostname.to_string_lossy(),
        "domainname": trimmed("/proc/sys/kernel/domainname"),
        "capabilities": {
            "inheritable": hex(&status, "CapInh"),
            "permitted": hex(&status, "CapPrm"),
            "effective": hex(&status, "CapEff"),
            "bounding": hex(&status, "CapBnd"),
            "ambient": hex(&status, "CapAmb"),
        },
        "noNewPrivileges": status.get("NoNewPrivs").map(|v| v == "1"),
        "seccomp": status.get("Seccomp"),
        "oomScoreAdj": trimmed("/proc/self/oom_score_adj"),
        "rlimits": rlimits(),
        "namespaces": namespaces(),
        "mounts": mounts(),
        "cgroup": cgroup_limits(),
        "fds": open_fds()?,
        "dev": list_dev(),
        "refused": try_call("read", &["/dev/refused"]),
        "uidMap": trimmed("/proc/self/uid_map"),
        "gidMap": trimmed("/proc/self/gid_map"),
        "timensOffsets": trimmed("/proc/self/timens_offsets"),
        "personality": trimmed("/proc/self/personality"),
        "scheduling": scheduling(),
        "apparmor": trimmed("/proc/self/attr/apparmor/current"),
        "selinux": trimmed("/proc/self/attr/current").map(|it| it.trim_end_matches('\0').to_owned()),
        "keyring": keyring_label(),
        "tty": nix::unistd::isatty(io::stdin()).unwrap_or(false),
        "loopback": TcpListener::bind("127.0.0.1:0").is_ok(),
    }))
}

/// The SELinux label of the session's keyring.
#[allow(unsafe_code)]
fn keyring_label() -> Option<String> {
    const GET_SECURITY: i64 = 17;
    const SESSION: i64 = -3;
    let mut label = [0_u8; 256];
    // SAFETY: the kernel writes no further than the length that goes with the buffer.
    let length = unsafe {
        libc::syscall(libc::SYS_keyctl, GET_SECURITY, SESSION, label.as_mut_ptr(), label.len())
    };
    let length = usize::try_from(length).ok()?.min(label.len());
    Some(String::from_utf8_lossy(&label[..length]).trim_end_matches('\0').to_owned())
}

/// Policy and nice value as numbers, class and level of I/O, and where memory comes from.
fn scheduling() -> Value {
    let stat = trimmed("/proc/self/stat").unwrap_or_default();
    // The name may hold anything; the numbers after it are counted from the state, the third.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let io = raw_syscall(libc::SYS_ioprio_get, [1, 0]).unwrap_or(-1);
    let maps = fs::read_to_string("/proc/self/numa_maps").unwrap_or_default();
    json!({
        "policy": fields.get(38), "nice": fields.get(16), "ioClass": io >> 13, "ioLevel": io & 7,
        "memory": maps.split_whitespace().nth(1),
    })
}

fn read_status() -> io::Result<BTreeMap<String, String>> {
    let text = fs::read_to_string("/proc/self/status")?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect())
}

fn hex(status: &BTreeMap<String, String>, key: &str) -> Option<String> {
    status
        .get(key)
        .map(|value| value.trim_start_matches('0').to_owned())
        .map(|digits| if digits.is_empty() { "0".to_owned() } else { digits })
}

fn trimmed(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn rlimits() -> Value {
    let kinds = [
        ("RLIMIT_CORE", Resource::RLIMIT_CORE),
        ("RLIMIT_CPU", Resource::RLIMIT_CPU),
        ("RLIMIT_FSIZE", Resource::RLIMIT_FSIZE),
        ("RLIMIT_NOFILE", Resource::RLIMIT_NOFILE),
        ("RLIMIT_NPROC", Resource::RLIMIT_NPROC),
        ("RLIMIT_STACK", Resource::RLIMIT_STACK),
    ];
    let mut all = Map::new();
    for (name, kind) in kinds {
        if let Ok((soft, hard)) = getrlimit(kind) {
            all.insert(name.to_owned(), json!({ "soft": soft, "hard": hard }));
        }
    }
    Value::Object(all)
}

fn namespaces() -> BTreeMap<String, String> {
    ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"]
        .into_iter()
        .filter_map(|name| {
            let link = fs::read_link(format!("/proc/self/ns/{name}")).ok()?;
            Some((name.to_owned(), link.to_string_lossy().into_owned()))
        })
        .collect()
}

/// Mount points with what `mountinfo` says of them; of several on one point, the topmost.
fn mounts() -> BTreeMap<String, Value> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let ([_, _, _, root, point, options, optional @ ..], [kind, source, superblock, ..]) =
            (left.as_slice(), right.as_slice())
        else {
            continue;
        };
        found.insert(
            (*point).to_owned(),
            json!({
                "type": kind, "source": source, "root": root,
                "options": options.split(',').collect::<Vec<_>>(),
                "super": superblock.split(',').collect::<Vec<_>>(),
                "propagation": optional.iter().map(|tag| tag.split(':').next()).collect::<Vec<_>>(),
            }),
        );
    }
    found
}

/// The process's own limits, under one name each and with the numbers of cgroup v1, whichever version
/// is mounted.
fn cgroup_limits() -> Value {
    let mut limits = Map::new();
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limits.insert("paths".to_owned(), json!(text.lines().collect::<Vec<_>>()));
    let own = text.lines().find(|line| line.contains(":pids:") || line.starts_with("0::"));
    let name = own.and_then(|line| line.rsplit('/').next());
    limits.insert("name".to_owned(), json!(name));
    let unified = text.strip_prefix("0::").filter(|rest| rest.lines().count() == 1);
    for (name, v1) in [
        ("memory.max", "memory/memory.limit_in_bytes"),
        ("memory.low", "memory/memory.soft_limit_in_bytes"),
        ("memory.swap.max", "memory/memory.memsw.limit_in_bytes"),
        ("memory.swappiness", "memory/memory.swappiness"),
        ("memory.oom", "memory/memory.oom_control"),
        ("pids.max", "pids/pids.max"),
        ("cpuset.cpus", "cpuset/cpuset.cpus"),
        ("cpuset.mems", "cpuset/cpuset.mems"),
        ("cpu.burst", "cpu/cpu.cfs_burst_us"),
        ("cpu.idle", "cpu/cpu.idle"),
        ("cpu.shares", "cpu/cpu.shares"),
        ("cpu.quota", "cpu/cpu.cfs_quota_us"),
        ("cpu.period", "cpu/cpu.cfs_period_us"),
    ] {
        let value = match unified {
            Some(path) => unified_limit(Path::new(&format!("/sys/fs/cgroup{}", path.trim())), name),
            None => trimmed(&format!("/sys/fs/cgroup/{v1}")),
        };
        limits.insert(name.to_owned(), json!(value));
    }
    Value::Object(limits)
}

/// A limit in a cgroup of v2, as v1 tells it: swap counts on top of memory, no limit is a number.
fn unified_limit(cgroup: &Path, name: &str) -> Option<String> {
    const NONE: &str = "9223372036854771712";
    let read = |name: &str| trimmed(&cgroup.join(name).display().to_string());
    let numbers = |text: String| if text == "max" { NONE.to_owned() } else { text };
    match name {
        "memory.max" | "memory.low" => read(name).map(numbers),
        "memory.swap.max" => {
            let both = [read(name)?.parse::<u64>(), read("memory.max")?.parse::<u64>()];
            let [Ok(swap), Ok(memory)] = both else { return Some(NONE.to_owned()) };
            Some((swap + memory).to_string())
        }
        "cpu.burst" => read("cpu.max.burst"),
        "cpu.quota" => read("cpu.max")?
            .split(' ')
            .next()
            .map(|it| if it == "max" { "-1" } else { it }.to_owned()),
        "cpu.period" => read("cpu.max")?.split(' ').nth(1).map(str::to_owned),
        _ => read(name),
    }
}

fn open_fds() -> io::Result<Vec<String>> {
    let mut fds = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // The directory's own descriptor is gone again by the time it is looked at.
        if fs::read_link(format!("/proc/self/fd/{name}")).is_ok_and(|to| !to.ends_with("fd")) {
            fds.push(name);
        }
    }
    fds.sort();
    Ok(fds)
}

fn list_dev() -> Value {
    let mut names = Vec::new();
    for entry in fs::read_dir("/dev").into_iter().flatten().flatten() {
        names.push(format!("/dev/{}", entry.file_name().to_string_lossy()));
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    stat_all(&names)
}

fn stat_all(paths: &[&str]) -> Value {
    let mut all = Map::new();
    for path in paths {
        all.insert((*path).to_owned(), stat_one(Path::new(path)));
    }
    Value::Object(all)
}

fn stat_one(path: &Path) -> Value {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) => return json!({ "error": errno_name(&error) }),
    };
    let kind = meta.file_type();
    let (major, minor) = (nix::sys::stat::major(meta.rdev()), nix::sys::stat::minor(meta.rdev()));
    json!({
        "type": if kind.is_symlink() { "link" }
            else if kind.is_dir() { "directory" }
            else if kind.is_char_device() { "char" }
            else if kind.is_block_device() { "block" }
            else if kind.is_fifo() { "fifo" }
            else { "file" },
        "mode": format!("{:04o}", meta.mode() & 0o7777),
        "uid": meta.uid(), "gid": meta.gid(), "size": meta.len(),
        "device": format!("{major}:{minor}"),
        "target": fs::read_link(path).ok(),
    })
}

/// Attempts one operation; prints `ok` or the name of the error.
fn try_call(call: &str, rest: &[&str]) -> String {
    let outcome = match (call, rest) {
        ("mkdir", [path]) => fs::create_dir(path),
        ("write", [path, text]) => fs::write(path, text),
        ("create", [path]) => fs::File::create_new(path).map(drop),
        ("read", [path]) => {
            fs::File::open(path).and_then(|mut file| file.read(&mut [0; 16])).map(drop)
        }
        ("read-empty", [path]) => fs::read(path).and_then(|bytes| {
            if bytes.is_empty() { Ok(()) } else { Err(io::Error::other("not empty")) }
        }),
        ("list", [path]) => fs::read_dir(path).map(drop),
        ("lock", [path]) => {
            fs::File::open(path).and_then(|file| file.try_lock().map_err(io::Error::from))
        }
        ("chmod", [path, mode]) => {
            let mode = u32::from_str_radix(mode, 8).unwrap_or(0o777);
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
        }
        ("chown", [path, uid]) => std::os::unix::fs::chown(path, uid.parse().ok(), None),
        ("mknod", [path]) => nix::sys::stat::mknod(
            *path,
            nix::sys::stat::SFlag::S_IFCHR,
            nix::sys::stat::Mode::S_IRUSR,
            nix::sys::stat::makedev(1, 3),
        )
        .map_err(io::Error::from),
        ("sethostname", [name]) => nix::unistd::sethostname(name).map_err(io::Error::from),
        ("setuid", [uid]) => {
            nix::unistd::setuid(nix::unistd::Uid::from_raw(uid.parse().unwrap_or(1)))
                .map_err(io::Error::from)
        }
        ("kill", [pid, signal]) => {
            let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap_or(1));
            let signal = signal.parse::<i32>().ok().and_then(|n| n.try_into().ok());
            nix::sys::signal::kill(pid, signal).map_err(io::Error::from)
        }
        ("personality", [word]) => {
            let word = u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap_or(0);
            raw_syscall(libc::SYS_personality, [word.cast_signed(), 0]).map(drop)
        }
        ("syscall", [number]) => raw_syscall(number.parse().unwrap_or(-1), [0, 0]).map(drop),
        _ => Err(io::Error::other(format!("unknown call {call} {rest:?}"))),
    };
    match outcome {
        Ok(()) => "ok".to_owned(),
        Err(error) => errno_name(&error),
    }
}

#[allow(unsafe_code)]
fn raw_syscall(number: i64, args: [i64; 2]) -> io::Result<i64> {
    // SAFETY: the arguments are plain numbers; the calls tried here take no pointers or treat 0 as
    // an invalid one, so that the kernel answers EFAULT rather than touching memory.
    let answer = unsafe { libc::syscall(number, args[0], args[1], 0, 0, 0, 0) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

fn errno_name(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{:?}", nix::errno::Errno::from_raw(number)),
        None => error.to_string(),
    }
}

/// Maps huge pages without touching them; `ok`, or the error.
#[allow(unsafe_code)]
fn map_huge(bytes: &str) -> io::Result<String> {
    let bytes = bytes.parse().map_err(io::Error::other)?;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
    // SAFETY: a new mapping, at an address that the kernel picks; nothing looks into it.
    let mapped = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0) };
    if mapped == libc::MAP_FAILED {
        return Ok(errno_name(&io::Error::last_os_error()));
    }
    Ok("ok".to_owned())
}

/// Takes memory and touches all of it.
fn eat(bytes: &str) -> io::Result<()> {
    let mut memory: Vec<u8> = Vec::new();
    memory.resize(bytes.parse().map_err(io::Error::other)?, 1);
    println!("{}", std::hint::black_box(&memory).len());
    Ok(())
}

/// Starts children that sleep until one is refused or `limit` live; how many lived.
fn fork_until_refused(limit: &str) -> io::Result<usize> {
    let limit: usize = limit.parse().map_err(io::Error::other)?;
    let mut children = Vec::new();
    while children.len() < limit {
        match std::process::Command::new("/probe").arg("pause").spawn() {
            Ok(child) => children.push(child),
            Err(_) => break,
        }
    }
    let lived = children.len();
    for child in &mut children {
        child.kill()?;
        child.wait()?;
    }
    Ok(lived)
}

/// Answers every connection with one small page that names the peer as it is seen from here.
fn serve_tcp(port: &str, text: &str) -> io::Result<()> {
    let port: u16 = port.parse().map_err(io::Error::other)?;
    let listener =
        TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))?;
    println!("listening on {port}");
    for stream in listener.incoming() {
        let mut stream = stream?;
        let peer = stream.peer_addr()?;
        // One read is enough for the requests of these tests; a peer that hangs up early is its own loss.
        let _ = stream.read(&mut [0; 1024]);
        let body = format!("{text} {}\n", peer.ip().to_canonical());
        let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let _ = stream.write_all((head + &body).as_bytes());
    }
    Ok(())
}

fn serve_udp(port: &str, text: &str) -> io::Result<()> {
    let port: u16 = port.parse().map_err(io::Error::other)?;
    let socket = UdpSocket::bind(("::", port)).or_else(|_| UdpSocket::bind(("0.0.0.0", port)))?;
    println!("listening on {port}");
    let mut buffer = [0; 1024];
    loop {
        let (_, peer) = socket.recv_from(&mut buffer)?;
        let answer = format!("{text} {}\n", peer.ip().to_canonical());
        socket.send_to(answer.as_bytes(), peer)?;
    }
}
