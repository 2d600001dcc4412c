//! URLs of HTTP, as registries give and take them.

use std::net::IpAddr;

use anyhow::{Result, anyhow, ensure};

/// `scheme://authority` and the path with its query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) https: bool,
    /// Host and port as written.
    pub(crate) authority: String,
    pub(crate) path: String,
}

impl Url {
    /// Reads an absolute URL of HTTP; one with a user in it is refused.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (https, rest) = if let Some(rest) = text.strip_prefix("https://") {
            (true, rest)
        } else if let Some(rest) = text.strip_prefix("http://") {
            (false, rest)
        } else {
            return Err(anyhow!("not an HTTP URL: {text:?}"));
        };
        ensure!(
            text.bytes().all(|byte| byte.is_ascii_graphic()),
            "URL {text:?} has spaces or control characters"
        );
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = path.split('#').next().unwrap_or_default();
        ensure!(
            !authority.is_empty() && !authority.contains(['@', '\\']),
            "URL {text:?} has no plain host"
        );
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { https, authority: authority.to_ascii_lowercase(), path })
    }

    /// Where a `Location` or `Link` header leads from here.
    pub(crate) fn join(&self, location: &str) -> Result<Self> {
        if location.contains("://") && !location.starts_with(['/', '?']) {
            return Self::parse(location);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{}://{rest}", self.scheme()));
        }
        let path = if location.starts_with('/') {
            location.to_owned()
        } else {
            let base = self.path.split('?').next().unwrap_or("/");
            let directory = base.rsplit_once('/').map_or("", |(directory, _)| directory);
            format!("{directory}/{location}")
        };
        Self::parse(&format!("{}://{}{path}", self.scheme(), self.authority))
    }

    pub(crate) fn with_path(&self, path: String) -> Self {
        Self { path, ..self.clone() }
    }

    /// The same with one more parameter in its query.
    pub(crate) fn with_query(mut self, name: &str, value: &str) -> Self {
        self.path.push(if self.path.contains('?') { '&' } else { '?' });
        self.path.push_str(name);
        self.path.push('=');
        self.path.push_str(&encode(value));
        self
    }

    /// The host without its port.
    pub(crate) fn host(&self) -> &str {
        if self.authority.starts_with('[') {
            return self.authority.split_inclusive(']').next().unwrap_or_default();
        }
        self.authority.split(':').next().unwrap_or_default()
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    pub(crate) fn port(&self) -> &str {
        let port = self.authority[self.host().len()..].trim_start_matches(':');
        match port {
            "" if self.https => "443",
            "" => "80",
            port => port,
        }
    }

    /// Whether credentials for one may be shown to the other.
    pub(crate) fn same_origin(&self, other: &Self) -> bool {
        (self.https, self.host(), self.port()) == (other.https, other.host(), other.port())
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", self.scheme(), self.authority, self.path)
    }
}

/// Whether a host is this one, by its name.
pub(crate) fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || address(host).is_some_and(|address| address.is_loopback())
}

/// Whether a host is this one or in a network that the world can't reach, by its name.
pub(crate) fn is_private(host: &str) -> bool {
    is_loopback(host) || address(host).is_some_and(is_private_address)
}

/// Whether the world can't reach an address.
pub(crate) fn is_private_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_private() || v4.is_link_local() || v4.is_unspecified() || v4.is_loopback()
        }
        IpAddr::V6(v6) => {
            v6.is_unspecified()
                || v6.is_loopback()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
                || v6.to_ipv4_mapped().is_some_and(|v4| is_private_address(v4.into()))
        }
    }
}

/// Whether an address is in the network of so many bits.
pub(crate) fn in_network(address: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else {
        return false;
    };
    let number = |address: IpAddr| match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    };
    let ((address, width), (network, other)) = (number(address), number(network));
    let mask = u128::MAX.checked_shl(128 - bits.min(width)).unwrap_or(0);
    width == other && address & mask == network & mask
}

fn address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Text as the value of a query.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/,".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_lead_where_they_say() {
        let base = Url::parse("https://Reg.example:443/v2/a/blobs/x?y").unwrap();
        for (location, wanted) in [
            ("/b?c", "https://reg.example:443/b?c"),
            ("/b?to=http://x", "https://reg.example:443/b?to=http://x"),
            ("z", "https://reg.example:443/v2/a/blobs/z"),
            ("//cdn/x", "https://cdn/x"),
            ("http://cdn/x", "http://cdn/x"),
        ] {
            assert_eq!(base.join(location).unwrap().to_string(), wanted);
        }
        for bad in ["ftp://cdn/x", "https://user:pass@cdn/x", "/a b", "/a\r\nHost: b"] {
            assert!(base.join(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn another_port_or_scheme_is_another_origin() {
        let url = |text| Url::parse(text).unwrap();
        assert!(url("https://a").same_origin(&url("https://a:443/x")));
        assert!(!url("https://a").same_origin(&url("http://a")));
        assert!(!url("http://a:5000").same_origin(&url("http://a:5001")));
        assert!(!url("https://a").same_origin(&url("https://a.evil")));
        assert_eq!(url("http://[::1]:5000/").host(), "[::1]");
    }

    #[test]
    fn addresses_of_our_own_are_known() {
        for private in
            ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fe80::1", "::ffff:10.0.0.1"]
        {
            assert!(is_private_address(private.parse().unwrap()), "{private}");
        }
        assert!(!is_private_address("93.184.216.34".parse().unwrap()));
    }
}
