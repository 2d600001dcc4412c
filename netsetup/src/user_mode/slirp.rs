//! `slirp4netns`, which stays our child until we leave, and takes ports over a socket.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::{Value, json};

use super::process::{self, Identity};
use super::{INTERFACE, Port};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connects the network namespace of `pid`.
pub(super) fn start(
    program: &Path,
    directory: &Path,
    pid: u32,
    ports: &[Port],
) -> Result<Identity> {
    let (mut ready, theirs) = std::io::pipe().context("make a pipe")?;
    let api = directory.join("api");
    fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty())).context("hand a pipe on")?;
    let mut command = process::command(program, directory)?;
    command.args(["--configure", "--mtu=65520", "--disable-host-loopback", "--enable-sandbox"]);
    command.args(["--ready-fd", &theirs.as_raw_fd().to_string()]).arg("--api-socket").arg(&api);
    // A ^C at our terminal is not meant for it.
    command.args([&pid.to_string(), INTERFACE]).process_group(0);
    let child = command.spawn().with_context(|| format!("execute {}", program.display()))?;
    drop(theirs);
    let child = i32::try_from(child.id()).context("its pid")?;
    std::fs::write(directory.join("pid"), child.to_string()).context("record its pid")?;
    if !matches!(ready.read(&mut [0]), Ok(1)) {
        bail!("{}", process::complaint(directory));
    }
    for port in ports {
        let Port { protocol, host_ip, host_port, container_port } = port;
        publish(&api, port).with_context(|| {
            format!("publish {host_ip}:{host_port} for {container_port}/{protocol}")
        })?;
    }
    Identity::of(child).context("it does not run any more")
}

fn publish(api: &Path, port: &Port) -> Result<()> {
    let request = json!({ "execute": "add_hostfwd", "arguments": {
        "proto": port.protocol.to_string(), "host_addr": port.host_ip,
        "host_port": port.host_port, "guest_port": port.container_port,
    }});
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut socket = UnixStream::connect(api)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.write_all(request.to_string().as_bytes())?;
        socket.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        socket.take(64 << 10).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().with_context(|| format!("ask at {}", api.display()))?;
    let answer: Value = serde_json::from_slice(&answer).context("read the answer")?;
    match answer.pointer("/error/desc").or(answer.get("error")) {
        Some(error) => bail!("{}", error.as_str().unwrap_or("it refuses")),
        None => Ok(()),
    }
}
