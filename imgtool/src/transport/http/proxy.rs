//! Which proxy a request goes through, by the environment: `HTTPS_PROXY` for https, `HTTP_PROXY`
//! for http, `ALL_PROXY` for what neither names, `NO_PROXY` for what goes straight.

use std::net::IpAddr;

use anyhow::{Result, anyhow};

use super::url::{Url, is_loopback};

/// The proxy for a URL; none for this host itself.
pub(super) fn for_url(url: &Url) -> Result<Option<ureq::Proxy>> {
    let variable = |name: &str| {
        [name.to_owned(), name.to_ascii_lowercase()]
            .iter()
            .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
            .map(|value| (name.to_owned(), value))
    };
    let own = if url.https { "HTTPS_PROXY" } else { "HTTP_PROXY" };
    let Some((name, value)) = variable(own).or_else(|| variable("ALL_PROXY")) else {
        return Ok(None);
    };
    let straight = variable("NO_PROXY").map(|(_, list)| list).unwrap_or_default();
    if is_loopback(url.host()) || goes_straight(url, &straight) {
        return Ok(None);
    }
    // It may hold a password.
    let proxy = ureq::Proxy::new(&value).map_err(|_| anyhow!("{name} is no address of a proxy"))?;
    Ok(Some(proxy))
}

/// Whether a list has the host of a URL: `*`, names (with all beneath them, or only those beneath
/// where they begin by a dot), addresses, networks; each perhaps with a port.
fn goes_straight(url: &Url, list: &str) -> bool {
    let host = url.host().trim_matches(['[', ']']);
    let address = host.parse::<IpAddr>().ok();
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        if entry == "*" {
            return true;
        }
        let entry = entry.to_ascii_lowercase();
        if let Some(address) = address {
            return match entry.split_once('/') {
                Some((network, bits)) => super::url::in_network(address, network, bits),
                None => match entry.parse::<IpAddr>() {
                    Ok(other) => other == address,
                    Err(_) => entry == format!("{}:{}", url.host(), url.port()),
                },
            };
        }
        let (name, port) = match entry.rsplit_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (entry.as_str(), None),
        };
        let name = name.strip_prefix('*').unwrap_or(name);
        let beneath = |parent: &str| {
            host.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let fits = match name.strip_prefix('.') {
            Some(parent) => beneath(parent) && host != parent,
            None => beneath(name),
        };
        fits && port.is_none_or(|port| port == url.port())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_name_what_goes_straight() {
        let url = |text| Url::parse(text).unwrap();
        let list = "reg.example, .inner.example,10.0.0.0/8,port.example:5000,fd00::1";
        for (at, straight) in [
            ("https://reg.example/v2/", true),
            ("https://a.reg.example", true),
            ("https://areg.example", false),
            ("https://inner.example", false),
            ("https://a.inner.example", true),
            ("http://10.1.2.3:80", true),
            ("http://11.1.2.3", false),
            ("https://port.example:5000", true),
            ("https://port.example", false),
            ("https://[fd00::1]:5000", true),
            ("https://other.example", false),
        ] {
            assert_eq!(goes_straight(&url(at), list), straight, "{at}");
        }
        assert!(goes_straight(&url("https://any.example"), "*"));
        assert!(!goes_straight(&url("https://any.example"), ""));
    }
}
