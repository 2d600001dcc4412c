//! Names that a registry gives us, of token servers and of storage, must not
//! lead into networks that the registry itself is not in: whoever can answer
//! for a name could make us talk to our own host and its neighbours.

use std::io;
use std::sync::OnceLock;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::url::{Url, is_private, is_private_address};

/// Resolves names for everything but the registry itself.
#[derive(Debug)]
pub(super) struct Guard {
    registry: Url,
    /// Whether the registry is in such a network, once it was looked up.
    registry_is_private: OnceLock<bool>,
}

impl Guard {
    pub(super) fn new(registry: Url) -> Self {
        Self { registry, registry_is_private: OnceLock::new() }
    }

    fn registry_is_private(&self, config: &Config, timeout: NextTimeout) -> bool {
        *self.registry_is_private.get_or_init(|| {
            is_private(self.registry.host())
                || self.registry.to_string().parse::<Uri>().is_ok_and(|uri| {
                    DefaultResolver::default()
                        .resolve(&uri, config, timeout)
                        .is_ok_and(|found| found.iter().any(|a| is_private_address(a.ip())))
                })
        })
    }
}

impl Resolver for Guard {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let found = DefaultResolver::default().resolve(uri, config, timeout)?;
        let host = uri.host().unwrap_or_default();
        // A proxy is the user's own choice, and resolves what it is asked for itself.
        let proxy = config.proxy().is_some_and(|proxy| proxy.host() == host);
        if proxy
            || !found.iter().any(|address| is_private_address(address.ip()))
            || self.registry_is_private(config, timeout)
        {
            return Ok(found);
        }
        let text = format!(
            "{host} is a private address, where registry {} must not send us",
            self.registry.authority
        );
        Err(Error::Io(io::Error::new(io::ErrorKind::PermissionDenied, text)))
    }
}
