//! Devices of our network namespace that are to be the container's.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;

use crate::init::joining::Join;
use crate::log;
use crate::netlink::{Address, Connection};
use crate::plan::namespaces::Kind;
use crate::plan::netdevices::NetDevicePlan;

/// Moves them to the process `pid`. On failure the kernel takes back what can come back, at the
/// end of the namespace.
pub(super) fn attach(devices: &[NetDevicePlan], pid: i32) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    move_all(devices, pid).context("linux.netDevices").context("error creating network interfaces")
}

fn move_all(devices: &[NetDevicePlan], pid: i32) -> Result<()> {
    let path = format!("/proc/{pid}/ns/net");
    let theirs: OwnedFd = File::open(&path).with_context(|| format!("open {path}"))?.into();
    let mut here = Connection::open()?;
    let theirs = Join { kind: Kind::Network, namespace: theirs };
    let mut there = connect_in(&theirs)?;
    for device in devices {
        log::debug(format_args!("attaching network device {} as {}", device.name, device.new_name));
        move_one(device, &mut here, &mut there, &theirs)
            .with_context(|| format!("move netDevice {} to namespace {path}", device.name))?;
    }
    Ok(())
}

/// A socket stays where it was opened: so we need to be there only for that.
fn connect_in(theirs: &Join) -> Result<Connection> {
    let ours = File::open("/proc/self/ns/net").context("open our network namespace")?;
    let ours = Join { kind: Kind::Network, namespace: ours.into() };
    theirs.enter().context("enter the container's network namespace")?;
    let connection = Connection::open();
    ours.enter().context("return to our network namespace")?;
    connection
}

fn move_one(
    device: &NetDevicePlan,
    here: &mut Connection,
    there: &mut Connection,
    theirs: &Join,
) -> Result<()> {
    let NetDevicePlan { name, new_name } = device;
    let index = here
        .index_of(name)
        .with_context(|| format!("link not found for interface {name} on runtime namespace"))?;
    // Before the move, which takes the device down, by which IPv6 loses them at once.
    let addresses = here.addresses_of(index).context("fail to get ip addresses")?;
    // The kernel renames last: without this a refusal would come after the move.
    match there.index_of(new_name) {
        Err(error) if error.downcast_ref() == Some(&Errno::NODEV) => {}
        Err(error) => return Err(error).with_context(|| format!("look for {new_name}")),
        Ok(_) => bail!("fail to move network device {name}: there is a {new_name} already"),
    }
    here.move_link(index, new_name, theirs.namespace.as_fd())
        .with_context(|| format!("fail to move network device {name}"))?;
    let index = there
        .index_of(new_name)
        .with_context(|| format!("link not found for interface {new_name} on namespace"))?;
    for address in addresses.iter().filter(|address| Address::is_permanent_and_global(address)) {
        there.add_address(index, address).context("fail to set up an address")?;
    }
    there.set_up(index).with_context(|| format!("fail to set up interface {new_name}"))
}
