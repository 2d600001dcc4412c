//! A network's configuration, as far as all plugins share it.

use std::net::IpAddr;

use anyhow::Result;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::VERSIONS;
use super::failure::{Code, Failure};
use super::outcome::Outcome;
use crate::state::RouteDetails;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Config {
    #[serde(default)]
    pub(super) cni_version: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default, rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) prev_result: Option<Value>,
    #[serde(default)]
    pub(super) runtime_config: RuntimeConfig,
    #[serde(default)]
    args: Args,
    #[serde(default)]
    pub(super) ipam: Option<Ipam>,
    #[serde(default)]
    pub(super) dns: Option<Value>,
    #[serde(default, rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<ValidAttachment>>,
    /// The whole of it, for what each plugin reads for itself.
    #[serde(skip)]
    whole: Value,
}

/// What the runtime adds for one container, by the capabilities that a plugin declares.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RuntimeConfig {
    #[serde(default)]
    pub(super) port_mappings: Vec<PortMapping>,
    #[serde(default)]
    pub(super) bandwidth: Option<Bandwidth>,
    #[serde(default)]
    pub(super) ips: Vec<String>,
    #[serde(default)]
    pub(super) mac: Option<String>,
    #[serde(default)]
    pub(super) ip_ranges: Vec<Vec<Range>>,
    #[serde(default)]
    pub(super) aliases: Value,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PortMapping {
    #[serde(default)]
    pub(super) host_port: i64,
    pub(super) container_port: i64,
    #[serde(default)]
    pub(super) protocol: String,
    #[serde(default, rename = "hostIP")]
    pub(super) host_ip: String,
}

/// Bits per second, and bits.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Bandwidth {
    #[serde(default)]
    pub(super) ingress_rate: u64,
    #[serde(default)]
    pub(super) ingress_burst: u64,
    #[serde(default)]
    pub(super) egress_rate: u64,
    #[serde(default)]
    pub(super) egress_burst: u64,
}

#[derive(Debug, Default, Deserialize)]
struct Args {
    #[serde(default)]
    cni: CniArgs,
}

#[derive(Debug, Default, Deserialize)]
struct CniArgs {
    #[serde(default)]
    ips: Vec<String>,
    #[serde(default)]
    mac: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ipam {
    #[serde(default, rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) ranges: Vec<Vec<Range>>,
    /// The only range, spelled without a list.
    #[serde(flatten)]
    pub(super) range: Range,
    #[serde(default)]
    pub(super) routes: Vec<RouteConfig>,
    #[serde(default)]
    pub(super) addresses: Vec<StaticAddress>,
    #[serde(default)]
    pub(super) dns: Option<Value>,
    #[serde(default)]
    pub(super) data_dir: Option<String>,
    #[serde(default)]
    pub(super) resolv_conf: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Range {
    #[serde(default)]
    pub(super) subnet: Option<String>,
    #[serde(default)]
    pub(super) range_start: Option<IpAddr>,
    #[serde(default)]
    pub(super) range_end: Option<IpAddr>,
    #[serde(default)]
    pub(super) gateway: Option<IpAddr>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct StaticAddress {
    pub(super) address: String,
    #[serde(default)]
    pub(super) gateway: Option<IpAddr>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct RouteConfig {
    pub(super) dst: String,
    #[serde(default)]
    pub(super) gw: Option<IpAddr>,
    #[serde(flatten)]
    pub(super) more: RouteMore,
}

/// What version 1.1.0 says of a route.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(super) struct RouteMore {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    advmss: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    table: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<u8>,
}

impl RouteMore {
    /// The same in our words.
    pub(super) fn details(self) -> RouteDetails {
        let RouteMore { priority, mtu, advmss, table, scope } = self;
        RouteDetails { metric: priority, mtu, advmss, table, scope }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct ValidAttachment {
    #[serde(rename = "containerID")]
    pub(super) container_id: String,
    pub(super) ifname: String,
}

impl Config {
    pub(super) fn parse(text: &str) -> Result<Config> {
        let undecodable = |error: serde_json::Error| {
            Failure::new(Code::Decoding, format!("read the network configuration: {error}"))
        };
        let whole: Value = serde_json::from_str(text).map_err(undecodable)?;
        let mut config = Config::deserialize(&whole).map_err(undecodable)?;
        config.whole = whole;
        if config.cni_version.is_empty() {
            // What the first version left out.
            config.cni_version = "0.1.0".to_owned();
        }
        if !VERSIONS.contains(&config.cni_version.as_str()) {
            let text = format!(
                "cniVersion {:?} is not one of {}",
                config.cni_version,
                VERSIONS.join(", ")
            );
            return Err(Failure::new(Code::Version, text).into());
        }
        let first = config.name.bytes().next();
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        if !first.is_some_and(|byte| byte.is_ascii_alphanumeric())
            || !config.name.bytes().all(is_name)
        {
            let text = format!(
                "{:?} is no name of a network: letters, digits, '_', '.', '-'",
                config.name
            );
            return Err(Failure::new(Code::Config, text).into());
        }
        Ok(config)
    }

    /// The settings of one plugin.
    pub(super) fn options<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.whole).map_err(|error| {
            Failure::new(Code::Decoding, format!("read the network configuration: {error}")).into()
        })
    }

    pub(super) fn needs_version(&self, least: &str, verb: &str) -> Result<()> {
        let position = |version: &str| VERSIONS.iter().position(|other| *other == version);
        if position(&self.cni_version) < position(least) {
            let text = format!("{verb} came with version {least}, not with {}", self.cni_version);
            return Err(Failure::new(Code::Version, text).into());
        }
        Ok(())
    }

    /// What an attachment of this network is recorded as.
    pub(super) fn origin(&self) -> String {
        format!("cni/{}", self.name)
    }

    /// The result of the plugins before this one.
    pub(super) fn previous(&self) -> Result<Outcome> {
        let Some(previous) = &self.prev_result else {
            let text = "prevResult is missing: the plugin works on what another one made";
            return Err(Failure::new(Code::Config, text).into());
        };
        Outcome::deserialize(previous).map_err(|error| {
            Failure::new(Code::Decoding, format!("read prevResult: {error}")).into()
        })
    }

    /// The result of the plugins before this one, as it came.
    pub(super) fn passed_on(&self) -> Result<Value> {
        self.previous()?;
        let mut value = self.prev_result.clone().unwrap_or_default();
        if let Some(fields) = value.as_object_mut() {
            fields.insert("cniVersion".to_owned(), Value::String(self.cni_version.clone()));
        }
        Ok(value)
    }

    pub(super) fn valid_attachments(&self) -> Result<&[ValidAttachment]> {
        self.valid_attachments
            .as_deref()
            .ok_or_else(|| Failure::new(Code::Config, "GC needs cni.dev/valid-attachments").into())
    }

    /// Addresses that were asked for: by the runtime, else by arguments in the configuration.
    pub(super) fn wished_ips(&self, argument: Option<&str>) -> Result<Vec<IpAddr>> {
        let from_argument: Vec<String> =
            argument.into_iter().flat_map(|text| text.split(',')).map(str::to_owned).collect();
        let lists = [&self.runtime_config.ips, &self.args.cni.ips, &from_argument];
        let words = lists.into_iter().find(|list| !list.is_empty()).into_iter().flatten();
        words
            .map(|word| {
                // With or without the length of a prefix.
                let address = word.split('/').next().unwrap_or(word);
                address.parse().map_err(|_| {
                    Failure::new(Code::Config, format!("{word:?} is no IP address")).into()
                })
            })
            .collect()
    }

    /// The hardware address that was asked for.
    pub(super) fn wished_mac<'a>(&'a self, argument: Option<&'a str>) -> Option<&'a str> {
        self.runtime_config.mac.as_deref().or(self.args.cni.mac.as_deref()).or(argument)
    }

    /// Other names of the container on this network: a list, or a list by network.
    pub(super) fn aliases(&self) -> Vec<String> {
        let aliases = &self.runtime_config.aliases;
        let list = aliases.as_array().or_else(|| aliases.get(&self.name).and_then(Value::as_array));
        let words = list.into_iter().flatten().filter_map(Value::as_str);
        words.map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config> {
        Config::parse(text)
    }

    #[test]
    fn versions_and_names_are_checked() {
        let code = |text: &str| parse(text).unwrap_err().downcast::<Failure>().unwrap().code;
        assert_eq!(code("{"), Code::Decoding);
        assert_eq!(code(r#"{"name":"a"}"#), Code::Version);
        assert_eq!(code(r#"{"cniVersion":"2.0.0","name":"a"}"#), Code::Version);
        assert_eq!(code(r#"{"cniVersion":"1.0.0","name":"../a"}"#), Code::Config);
        assert_eq!(code(r#"{"cniVersion":"1.0.0"}"#), Code::Config);
        let config = parse(r#"{"cniVersion":"1.0.0","name":"a"}"#).unwrap();
        assert!(config.needs_version("0.4.0", "CHECK").is_ok());
        assert!(config.needs_version("1.1.0", "GC").is_err());
    }

    #[test]
    fn what_the_runtime_asks_for_comes_first() {
        let config = parse(
            r#"{"cniVersion":"1.0.0","name":"a","args":{"cni":{"ips":["10.0.0.3"],"mac":"m"}},
            "runtimeConfig":{"ips":["10.0.0.2/24"],"aliases":{"a":["web"]}}}"#,
        )
        .unwrap();
        assert_eq!(config.wished_ips(Some("10.0.0.4")).unwrap()[0].to_string(), "10.0.0.2");
        assert_eq!(config.wished_mac(Some("n")), Some("m"));
        assert_eq!(config.aliases(), ["web"]);
    }
}
