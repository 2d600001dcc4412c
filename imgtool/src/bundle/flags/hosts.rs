//! Names that the container knows: of other hosts, and of the servers that know more of them.

use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};

/// As typed.
#[derive(Debug, Default, clap::Args)]
#[group(id = "hosts")]
pub(crate) struct Words {
    /// A line of /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
    /// A name server, in the place of the host's
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// A domain that short names are looked for in
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// An option of resolv.conf
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
}

/// Checked.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Hosts {
    pub(crate) added: Vec<(String, IpAddr)>,
    pub(crate) servers: Vec<IpAddr>,
    pub(crate) search: Vec<String>,
    pub(crate) options: Vec<String>,
}

impl Words {
    pub(super) fn resolve(self) -> Result<Hosts> {
        let parse = |word: &String| added(word).with_context(|| format!("--add-host {word:?}"));
        for word in self.dns_search.iter().chain(&self.dns_option) {
            ensure!(is_word(word), "{word:?} can't stand in resolv.conf");
        }
        Ok(Hosts {
            added: self.add_host.iter().map(parse).collect::<Result<_>>()?,
            servers: self.dns,
            search: self.dns_search,
            options: self.dns_option,
        })
    }
}

/// `name:address` or `name=address`; an IPv6 address may stand in brackets.
fn added(word: &str) -> Result<(String, IpAddr)> {
    let (name, address) =
        word.split_once('=').or_else(|| word.split_once(':')).context("want NAME:ADDRESS")?;
    ensure!(is_word(name), "bad name {name:?}");
    if address == "host-gateway" {
        bail!("the gateway's address is not known before the container starts: give an address");
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = bare.unwrap_or(address).parse();
    Ok((name.to_owned(), address.context("bad address")?))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_hosts_have_a_name_and_an_address() {
        let address = |word: &str| added(word).map(|(name, address)| (name, address.to_string()));
        assert_eq!(address("db:10.0.0.2").unwrap(), ("db".into(), "10.0.0.2".into()));
        assert_eq!(address("db:::1").unwrap(), ("db".into(), "::1".into()));
        assert_eq!(address("db=[fe80::1]").unwrap(), ("db".into(), "fe80::1".into()));
        for bad in ["db", "db:", ":1.1.1.1", "a b:1.1.1.1", "a\n:1.1.1.1", "db:host-gateway"] {
            assert!(added(bad).is_err(), "{bad}");
        }
    }
}
