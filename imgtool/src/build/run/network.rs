//! What network a command has.

use anyhow::{Context, Result, ensure};
use nix::unistd::geteuid;
use serde_json::{Value, json};

use crate::bundle::flags::Place;
use crate::bundle::flags::{self, is_plain_name};
use crate::bundle::hooks::{Hooks, NetworkHook};

/// What network a command has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    None,
    Host,
    /// A bridge that netsetup attaches it to; its default one if there is no name.
    Bridge(Option<String>),
}

impl Network {
    /// What the user chooses for all commands. The default is the host's.
    pub(crate) fn parse(word: &str) -> Result<Self> {
        Ok(match word {
            "default" | "host" => Self::Host,
            "none" => Self::None,
            "bridge" => Self::Bridge(None),
            name => {
                ensure!(
                    is_plain_name(name),
                    "it is default, host, none, bridge or the name of a bridge"
                );
                Self::Bridge(Some(name.to_owned()))
            }
        })
    }

    /// What a command asks for itself, where `chosen` is what the others have.
    pub(crate) fn of_step(word: Option<&str>, chosen: &Self, allowed: bool) -> Result<Self> {
        let network = match word {
            None | Some("default") => return Ok(chosen.clone()),
            Some("none") => Self::None,
            Some("host") => Self::Host,
            Some(word) => {
                anyhow::bail!("invalid network mode {word:?}: want default, none or host")
            }
        };
        ensure!(
            network == Self::None || *chosen == Self::Host || allowed,
            "network.host is not allowed where --network keeps steps from it: \
             give --allow network.host"
        );
        Ok(network)
    }

    /// The namespaces and hooks that config.json is to have for it.
    pub(super) fn sections(&self) -> Result<(Option<Value>, Option<Value>)> {
        let own = Some(json!({"type": "network"}));
        let name = match self {
            Self::Host => return Ok((None, None)),
            Self::None => return Ok((own, None)),
            Self::Bridge(name) => name,
        };
        ensure!(
            geteuid().is_root() && !crate::userns::is_inner(),
            "without root there are no bridges: use --network host or none"
        );
        let wanted = name.clone().map_or(flags::Network::Default, flags::Network::Named);
        let hook = NetworkHook::find(&wanted, &[], &Place::default(), false)?;
        let hook = hook.context(
            "netsetup is neither beside imgtool nor in PATH, but --network asks for a bridge",
        )?;
        Ok((own, Hooks { network: Some(hook), remove: None }.json()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_users_and_of_steps() {
        for (word, network) in [
            ("default", Network::Host),
            ("host", Network::Host),
            ("none", Network::None),
            ("bridge", Network::Bridge(None)),
            ("blue", Network::Bridge(Some("blue".to_owned()))),
        ] {
            assert_eq!(Network::parse(word).unwrap(), network, "{word}");
        }
        for word in ["", "a b", "../x", "container:c1"] {
            assert!(Network::parse(word).is_err(), "{word}");
        }
        let blue = Network::parse("blue").unwrap();
        assert_eq!(Network::of_step(None, &blue, false).unwrap(), blue);
        assert_eq!(Network::of_step(Some("default"), &blue, false).unwrap(), blue);
        assert_eq!(Network::of_step(Some("none"), &blue, false).unwrap(), Network::None);
        assert!(Network::of_step(Some("blue"), &blue, true).is_err());
        assert!(Network::of_step(Some("host"), &blue, false).is_err());
        assert_eq!(Network::of_step(Some("host"), &blue, true).unwrap(), Network::Host);
        assert_eq!(Network::of_step(Some("host"), &Network::Host, false).unwrap(), Network::Host);
    }
}
