//! Addresses of buses: `unix:path=/run/x,guid=…;unix:abstract=y`, with `%XX` for odd bytes.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// A socket that a bus listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Path(PathBuf),
    Abstract(Vec<u8>),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Path(path) => write!(f, "{}", path.display()),
            Address::Abstract(name) => write!(f, "@{}", String::from_utf8_lossy(name)),
        }
    }
}

/// The addresses of a list that are sockets of this machine, in their order.
pub(crate) fn parse(list: &str) -> Result<Vec<Address>> {
    let mut addresses = Vec::new();
    for address in list.split(';').filter(|address| !address.is_empty()) {
        let Some(keys) = address.strip_prefix("unix:") else { continue };
        for key in keys.split(',') {
            match key.split_once('=') {
                Some(("path", value)) => {
                    let path = String::from_utf8(unescape(value)?).context("not UTF-8")?;
                    addresses.push(Address::Path(path.into()));
                }
                Some(("abstract", value)) => addresses.push(Address::Abstract(unescape(value)?)),
                _ => {}
            }
        }
    }
    if addresses.is_empty() {
        bail!("the address {list:?} of a bus names no unix socket");
    }
    Ok(addresses)
}

fn unescape(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first != b'%' {
            bytes.push(*first);
            rest = tail;
            continue;
        }
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.with_context(|| format!("the address of a bus has {text:?}"))?);
        rest = &tail[2..];
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_found_among_other_addresses() {
        let found =
            parse("tcp:host=x;unix:path=/run/user/1/b%75s,guid=12;unix:abstract=a").unwrap();
        assert_eq!(
            found,
            [Address::Path("/run/user/1/bus".into()), Address::Abstract(b"a".into())]
        );
        for bad in ["", "tcp:host=x", "unix:path=/a%4", "unix:path=/a%zz", "unix:path=%ff"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
