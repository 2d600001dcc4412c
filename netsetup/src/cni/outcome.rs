//! Results: what an attachment came to, in the words of each version.

use std::net::IpAddr;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::config::RouteMore;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Outcome {
    #[serde(default)]
    pub(super) interfaces: Vec<Interface>,
    #[serde(default)]
    pub(super) ips: Vec<Ip>,
    #[serde(default)]
    pub(super) routes: Vec<Route>,
    #[serde(default)]
    pub(super) dns: Value,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Interface {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mac: Option<String>,
    /// The namespace of a container's link; empty or missing for one of the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sandbox: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Ip {
    /// With the length of its prefix.
    pub(super) address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) interface: Option<usize>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Route {
    pub(super) dst: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) gw: Option<IpAddr>,
    #[serde(flatten)]
    pub(super) more: RouteMore,
}

impl Interface {
    fn is_of_host(&self) -> bool {
        self.sandbox.as_deref().is_none_or(str::is_empty)
    }
}

impl Ip {
    pub(super) fn ip(&self) -> Result<IpAddr> {
        let text = self.address.split('/').next().unwrap_or_default();
        text.parse().with_context(|| format!("read address {:?} of prevResult", self.address))
    }
}

impl Outcome {
    /// The result as version `version` has it.
    pub(super) fn shaped(&self, version: &str) -> Result<Value> {
        let mut value = json!(self);
        let fields = value.as_object_mut().context("encode the result")?;
        fields.insert("cniVersion".to_owned(), json!(version));
        if self.dns.is_null() {
            fields.insert("dns".to_owned(), json!({}));
        }
        let is_old = version.starts_with("0.");
        if let Some(ips) = fields.get_mut("ips").and_then(Value::as_array_mut).filter(|_| is_old) {
            for ip in ips {
                let is_v6 = ip["address"].as_str().is_some_and(|text| text.contains(':'));
                ip["version"] = json!(if is_v6 { "6" } else { "4" });
            }
        }
        if version != "1.1.0"
            && let Some(routes) = fields.get_mut("routes").and_then(Value::as_array_mut)
        {
            for route in routes.iter_mut().filter_map(Value::as_object_mut) {
                route.retain(|key, _| ["dst", "gw"].contains(&key.as_str()));
            }
        }
        Ok(value)
    }

    /// The addresses of the container's interface `name`: those that say so, or say nothing.
    pub(super) fn addresses_of(&self, name: &str) -> Vec<&Ip> {
        let is_it = |index: usize| {
            let interface = self.interfaces.get(index);
            interface.is_some_and(|it| !it.is_of_host() && it.name == name)
        };
        self.ips.iter().filter(|ip| ip.interface.is_none_or(is_it)).collect()
    }

    /// The first link of the host's: a bridge comes before its ports.
    pub(super) fn host_link(&self) -> Option<&str> {
        self.interfaces.iter().find(|it| it.is_of_host()).map(|it| it.name.as_str())
    }

    /// The last link of the host's: the container's other end.
    pub(super) fn host_end(&self) -> Option<&str> {
        self.interfaces.iter().rfind(|it| it.is_of_host()).map(|it| it.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        let text = r#"{"cniVersion":"1.0.0","interfaces":[{"name":"cni0","mac":"m"},{"name":"veth1"},
            {"name":"eth0","sandbox":"/run/netns/a"}],
            "ips":[{"address":"10.1.0.2/24","gateway":"10.1.0.1","interface":2},
            {"address":"fd00::2/64","interface":0}],
            "routes":[{"dst":"0.0.0.0/0","priority":7}]}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn versions_differ() {
        let old = outcome().shaped("0.4.0").unwrap();
        assert_eq!(old["ips"][0]["version"], "4");
        assert_eq!(old["ips"][1]["version"], "6");
        assert_eq!(old["routes"][0].get("priority"), None);
        let new = outcome().shaped("1.1.0").unwrap();
        assert_eq!(new["ips"][0].get("version"), None);
        assert_eq!(new["routes"][0]["priority"], 7);
        assert_eq!(new["dns"], json!({}));
    }

    #[test]
    fn links_are_told_apart() {
        let outcome = outcome();
        assert_eq!(outcome.addresses_of("eth0").len(), 1);
        assert_eq!(outcome.addresses_of("eth1").len(), 0);
        assert_eq!(outcome.host_link(), Some("cni0"));
        assert_eq!(outcome.host_end(), Some("veth1"));
    }
}
