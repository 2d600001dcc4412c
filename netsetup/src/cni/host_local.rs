//! Leases as host-local keeps them: a file per address with container and interface, so that a
//! host can change over to us and back.
//!
//! ```text
//! <dataDir>/<network>/<address>            id CR LF interface
//! <dataDir>/<network>/last_reserved_ip.N   the address of the N-th set of ranges given out last
//! <dataDir>/<network>/lock                 held meanwhile
//! ```

use std::fs::{self, File, OpenOptions};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Call;
use super::config::{Config, Ipam, Range, ValidAttachment};
use super::failure::{Code, Failure};
use super::ipam::{self, Leased};
use super::outcome::{Ip, Outcome, Route};
use crate::ipam::{AddressError, Pool};
use crate::state::Address;
use crate::state::files::{entries, read_text, remove, write};
use crate::subnet::Subnet;

const DATA: &str = "/var/lib/cni/networks";

/// The plugin on its own: its result has addresses and routes, and no interfaces.
pub(super) fn add_alone(call: &Call, config: &Config) -> Result<Value> {
    let leased = ipam::lease(call, config)?;
    let ip = |it: &Address| Ip {
        address: format!("{}/{}", it.address, it.subnet.length()),
        gateway: it.gateway,
        interface: None,
    };
    let routes = leased.routes.iter();
    let outcome = Outcome {
        interfaces: Vec::new(),
        ips: leased.addresses.iter().map(ip).collect(),
        routes: routes.map(|it| Route { dst: it.dst.clone(), gw: it.gw, more: it.more }).collect(),
        dns: leased.dns.unwrap_or_default(),
    };
    outcome.shaped(&config.cni_version)
}

/// One address from each set of ranges.
pub(super) fn lease(call: &Call, config: &Config) -> Result<Leased> {
    let ipam = config.ipam.clone().unwrap_or_default();
    let sets = range_sets(config, &ipam)?;
    let directory = Directory::open(config, &ipam)?;
    let mut wishes = config.wished_ips(call.argument("IP"))?;
    let mut addresses = Vec::new();
    let taken = sets.iter().enumerate().try_for_each(|(index, set)| -> Result<()> {
        let wish = wishes.iter().position(|wish| set.iter().any(|it| it.subnet.contains(*wish)));
        let wish = wish.map(|index| wishes.swap_remove(index));
        let address = directory.choose(index, set, wish)?;
        directory.take(index, address.address, call)?;
        addresses.push(address);
        Ok(())
    });
    let outcome = taken.and_then(|()| match wishes.first() {
        Some(wish) => {
            Err(Failure::new(Code::Config, format!("{wish} is in none of the ranges")).into())
        }
        None => Ok(()),
    });
    if let Err(error) = outcome {
        for address in &addresses {
            directory.free(address.address, call)?;
        }
        return Err(error);
    }
    let dns = match &ipam.resolv_conf {
        Some(path) => Some(resolver(path)?),
        None => ipam.dns,
    };
    Ok(Leased { addresses, routes: ipam.routes, dns })
}

/// Frees the addresses of a container's interface.
pub(super) fn release(call: &Call, config: &Config) -> Result<()> {
    let ipam = config.ipam.clone().unwrap_or_default();
    if !directory_path(config, &ipam).is_dir() {
        return Ok(());
    }
    let directory = Directory::open(config, &ipam)?;
    // The result names them; to read every lease takes time by their number.
    let known = config.previous().map(|previous| previous.ips).unwrap_or_default();
    let known: Vec<IpAddr> = known.iter().filter_map(|ip| ip.ip().ok()).collect();
    let mut freed = 0;
    for address in &known {
        freed += usize::from(directory.free(*address, call)?);
    }
    if freed > 0 && freed == known.len() {
        return Ok(());
    }
    for address in directory.addresses()? {
        directory.free(address, call)?;
    }
    Ok(())
}

pub(super) fn check(call: &Call, config: &Config) -> Result<()> {
    let ipam = config.ipam.clone().unwrap_or_default();
    let directory = Directory::open(config, &ipam)?;
    for address in directory.addresses()? {
        if directory.is_of(address, call)? {
            return Ok(());
        }
    }
    let text = format!("container {} has no lease for {}", call.container, call.interface);
    Err(Failure::new(Code::Internal, text).into())
}

/// Frees what belongs to nobody who is valid.
pub(super) fn collect(config: &Config, valid: &[ValidAttachment]) -> Result<()> {
    let ipam = config.ipam.clone().unwrap_or_default();
    if !directory_path(config, &ipam).is_dir() {
        return Ok(());
    }
    let directory = Directory::open(config, &ipam)?;
    for address in directory.addresses()? {
        let owner = directory.owner(address)?.unwrap_or_default();
        let (id, interface) = owner.split_once("\r\n").unwrap_or((&owner, ""));
        let is_it = |it: &ValidAttachment| {
            it.container_id == id && (interface.is_empty() || it.ifname == interface)
        };
        if !valid.iter().any(is_it) {
            remove(&directory.path.join(address.to_string()))?;
        }
    }
    Ok(())
}

/// Whether every set of ranges has an address left.
pub(super) fn status(config: &Config) -> Result<()> {
    let ipam = config.ipam.clone().unwrap_or_default();
    let sets = range_sets(config, &ipam)?;
    if !directory_path(config, &ipam).is_dir() {
        return Ok(());
    }
    let directory = Directory::open(config, &ipam)?;
    let look = |(index, set): (usize, &Vec<Pool>)| directory.choose(index, set, None).map(drop);
    sets.iter().enumerate().try_for_each(look).map_err(|error: anyhow::Error| {
        Failure::new(Code::Unavailable, format!("{error:#}")).into()
    })
}

fn directory_path(config: &Config, ipam: &Ipam) -> PathBuf {
    Path::new(ipam.data_dir.as_deref().unwrap_or(DATA)).join(&config.name)
}

/// The runtime's ranges come first, then the one without a list, then the lists.
fn range_sets(config: &Config, ipam: &Ipam) -> Result<Vec<Vec<Pool<'static>>>> {
    let single = ipam.range.subnet.is_some().then(|| vec![ipam.range.clone()]);
    let lists = config.runtime_config.ip_ranges.iter().cloned().chain(single);
    let sets = lists.chain(ipam.ranges.iter().cloned());
    let sets: Vec<Vec<Pool>> =
        sets.map(|set| set.iter().map(pool).collect()).collect::<Result<_>>()?;
    if sets.is_empty() || sets.iter().any(Vec::is_empty) {
        return Err(Failure::new(Code::Config, "ipam of type host-local has no ranges").into());
    }
    let all: Vec<&Pool> = sets.iter().flatten().collect();
    for (index, pool) in all.iter().enumerate() {
        let before = all.iter().take(index);
        // Parts of one subnet are for who said where they begin and end.
        let overlap = before.filter(|other| other.range.is_none() || pool.range.is_none());
        if let Some(other) = overlap.into_iter().find(|it| it.subnet.overlaps(pool.subnet)) {
            let text = format!("ranges of {} and {} overlap", other.subnet, pool.subnet);
            return Err(Failure::new(Code::Config, text).into());
        }
    }
    Ok(sets)
}

/// What may be given out of a range.
pub(super) fn pool(range: &Range) -> Result<Pool<'static>> {
    let bad = |text: String| Failure::new(Code::Config, text);
    let subnet = range.subnet.as_deref().unwrap_or_default();
    let subnet: Subnet = subnet.parse().map_err(|error| bad(format!("{error}")))?;
    let hosts = subnet.hosts();
    let first = range.range_start.unwrap_or_else(|| subnet.host(*hosts.start()));
    let last = range.range_end.unwrap_or_else(|| subnet.host(*hosts.end()));
    for end in [first, last] {
        if !subnet.is_host(end) {
            return Err(bad(format!("{end} is no host of subnet {subnet}")).into());
        }
    }
    if first > last {
        return Err(bad(format!("the range from {first} to {last} is empty")).into());
    }
    let is_part = range.range_start.is_some() || range.range_end.is_some();
    let gateway = range.gateway.unwrap_or_else(|| subnet.first_host());
    Ok(Pool {
        subnet,
        gateway: Some(gateway),
        range: is_part.then_some((first, last)),
        reserved: &[],
    })
}

/// A network's directory, locked.
struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    fn open(config: &Config, ipam: &Ipam) -> Result<Directory> {
        let path = directory_path(config, ipam);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        let name = path.join("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(&name);
        let lock = lock.with_context(|| format!("open {}", name.display()))?;
        lock.lock().with_context(|| format!("lock {}", name.display()))?;
        Ok(Directory { path, _lock: lock })
    }

    /// The address that was asked for, or the next free one of a set of ranges.
    fn choose(&self, index: usize, set: &[Pool], wish: Option<IpAddr>) -> Result<Address> {
        let address =
            |pool: &Pool, address| Address { address, subnet: pool.subnet, gateway: pool.gateway };
        if let Some(wish) = wish {
            let pool = set.iter().find(|pool| pool.subnet.contains(wish));
            let pool = pool.with_context(|| format!("{wish} is in none of the ranges"))?;
            pool.check(wish)?;
            if let Some(owner) = self.owner(wish)? {
                let owner = owner.lines().next().unwrap_or_default().to_owned();
                return Err(AddressError::Taken(wish, owner).into());
            }
            return Ok(address(pool, wish));
        }
        let last = read_text(&self.last(index))?.and_then(|text| text.trim().parse().ok());
        let is_current = |pool: &Pool| last.is_some_and(|last| pool.subnet.contains(last));
        let start = set.iter().position(is_current).unwrap_or(0);
        let in_turn = set.iter().cycle().skip(start).take(set.len());
        for pool in in_turn {
            let is_taken = |address| self.owner(address).map(|owner| owner.is_some());
            if let Some(free) = pool.next(last, is_taken)? {
                return Ok(address(pool, free));
            }
        }
        let subnet = set.first().map(|pool| pool.subnet).context("a set of ranges is empty")?;
        Err(AddressError::Exhausted(subnet).into())
    }

    fn last(&self, index: usize) -> PathBuf {
        self.path.join(format!("last_reserved_ip.{index}"))
    }

    fn take(&self, index: usize, address: IpAddr, call: &Call) -> Result<()> {
        let text = format!("{}\r\n{}", call.container, call.interface);
        write(&self.path.join(address.to_string()), text.as_bytes())?;
        write(&self.last(index), address.to_string().as_bytes())
    }

    /// The text of a lease.
    fn owner(&self, address: IpAddr) -> Result<Option<String>> {
        Ok(read_text(&self.path.join(address.to_string()))?.map(|text| text.trim().to_owned()))
    }

    fn is_of(&self, address: IpAddr, call: &Call) -> Result<bool> {
        let own = format!("{}\r\n{}", call.container, call.interface);
        // The first versions wrote no interface.
        Ok(self.owner(address)?.is_some_and(|owner| owner == own || owner == call.container))
    }

    /// Frees an address if it is this container's, and says whether it was.
    fn free(&self, address: IpAddr, call: &Call) -> Result<bool> {
        let is_own = self.is_of(address, call)?;
        if is_own {
            remove(&self.path.join(address.to_string()))?;
        }
        Ok(is_own)
    }

    /// All that are leased.
    fn addresses(&self) -> Result<Vec<IpAddr>> {
        let names = entries(&self.path)?;
        for name in names.iter().filter(|name| name.ends_with(".new")) {
            // Nobody else writes while we hold the lock: it was left by one that was killed.
            remove(&self.path.join(name))?;
        }
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }
}

/// What a resolv.conf says, as a result says it.
fn resolver(path: &str) -> Result<Value> {
    let text = read_text(Path::new(path))?
        .ok_or_else(|| Failure::new(Code::Config, format!("resolvConf {path} does not exist")))?;
    let words = |key: &str| -> Vec<String> {
        let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let found = lines.filter(|line| line.first() == Some(&key));
        found
            .flat_map(|line| line.into_iter().skip(1).map(str::to_owned).collect::<Vec<_>>())
            .collect()
    };
    let domain = words("domain").pop().unwrap_or_default();
    Ok(json!({"nameservers": words("nameserver"), "domain": domain, "search": words("search"),
        "options": words("options")}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(ipam: &str) -> Result<Vec<Vec<Pool<'static>>>> {
        let text = format!(r#"{{"cniVersion":"1.0.0","name":"a","ipam":{ipam}}}"#);
        let config = Config::parse(&text).unwrap();
        let ipam = config.ipam.clone().unwrap();
        range_sets(&config, &ipam)
    }

    #[test]
    fn ranges_stand_with_and_without_lists() {
        let read = sets(r#"{"subnet":"10.1.0.0/24","ranges":[[{"subnet":"fd00::/64"}]]}"#).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0][0].gateway.unwrap().to_string(), "10.1.0.1");
        let part = r#"{"subnet":"10.1.0.0/24","rangeStart":"10.1.0.9"}"#;
        assert_eq!(sets(part).unwrap()[0][0].range.unwrap().1.to_string(), "10.1.0.254");
    }

    #[test]
    fn ranges_that_make_no_sense_are_refused() {
        for bad in [
            "{}",
            r#"{"subnet":"10.1.0.1/24"}"#,
            r#"{"subnet":"10.1.0.0/24","rangeStart":"10.2.0.1"}"#,
            r#"{"subnet":"10.1.0.0/24","rangeStart":"10.1.0.9","rangeEnd":"10.1.0.2"}"#,
            r#"{"ranges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":"10.1.0.0/16"}]]}"#,
        ] {
            assert!(sets(bad).is_err(), "{bad}");
        }
    }
}
