//! Flags on how to talk to registries, which many verbs share.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::transport::credentials::{Credentials, Lookup};
use crate::transport::registry::Access;

/// How to talk to registries.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Flags {
    /// Credentials; the files of docker and podman have them otherwise
    #[arg(long, value_name = "USER:PASSWORD", conflicts_with = "no_creds")]
    creds: Option<String>,
    /// A token to show to the registry as it is
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["creds", "no_creds"])]
    registry_token: Option<String>,
    /// Show no credentials
    #[arg(long)]
    no_creds: bool,
    /// The only file to look for credentials in
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

/// How servers are spoken to, whoever we are.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(id = "connection")]
pub(crate) struct Connection {
    /// Whether registries must speak TLS and prove who they are
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tls_verify: Option<bool>,
    /// Certificates of authorities (*.crt) and of our own (*.cert and *.key)
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// Mirrors, insecure registries and short names, as podman has them
    #[arg(long, value_name = "FILE")]
    registries_conf: Option<PathBuf>,
    /// Mirrors as containerd has them: HOST/hosts.toml [default: /etc/containerd/certs.d]
    #[arg(long, value_name = "DIR")]
    hosts_dir: Option<PathBuf>,
    /// How often to try again what failed for a passing reason [default: 4]
    #[arg(long, alias = "retry-times", value_name = "N")]
    retry: Option<u32>,
    /// Seconds before the first new attempt; they double with each [default: 0.2]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    retry_delay: Option<Duration>,
    /// Seconds that a server may send nothing, or next to nothing [default: 60]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
}

impl Connection {
    /// With credentials from there.
    pub(crate) fn access(&self, lookup: Lookup) -> Access {
        let mut access = Access {
            verify: self.tls_verify,
            certificates: self.cert_dir.clone(),
            registries: self.registries_conf.clone(),
            hosts: self.hosts_dir.clone(),
            lookup,
            ..Access::default()
        };
        if let Some(retry) = self.retry {
            access.patience.attempts = retry.saturating_add(1);
        }
        if let Some(silence) = self.timeout {
            access.patience.silence = silence;
        }
        if let Some(delay) = self.retry_delay {
            access.patience.delay = delay;
        }
        access
    }
}

impl Flags {
    /// These with those of one side put over them.
    fn with(&self, own: Self) -> Self {
        let mut merged = self.clone();
        if own.creds.is_some() || own.no_creds || own.authfile.is_some() {
            merged.creds = own.creds;
            merged.no_creds = own.no_creds;
            merged.registry_token = None;
            merged.authfile = own.authfile.or(merged.authfile);
        }
        let (own, both) = (own.connection, &mut merged.connection);
        both.tls_verify = own.tls_verify.or(both.tls_verify);
        both.cert_dir = own.cert_dir.or(both.cert_dir.take());
        merged
    }

    pub(crate) fn access(&self) -> Result<Access> {
        Ok(self.connection.access(self.lookup()?))
    }

    fn lookup(&self) -> Result<Lookup> {
        Ok(match (&self.creds, &self.registry_token, &self.authfile) {
            _ if self.no_creds => Lookup::Anonymous,
            (Some(text), _, _) => Lookup::Given(Credentials::parse(text)?),
            (_, Some(token), _) => {
                let plain = token.bytes().all(|byte| byte.is_ascii_graphic());
                ensure!(plain && !token.is_empty(), "--registry-token is no token");
                Lookup::Given(Credentials::RegistryToken(token.clone()))
            }
            (_, _, Some(path)) => Lookup::File(path.clone()),
            _ => Lookup::Default,
        })
    }
}

/// Flags that hold for one side of a copy, over those for both.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Sides {
    /// Credentials at the source
    #[arg(long, value_name = "USER:PASSWORD")]
    src_creds: Option<String>,
    /// Credentials at the destination
    #[arg(long, value_name = "USER:PASSWORD")]
    dest_creds: Option<String>,
    /// Show no credentials to the source
    #[arg(long)]
    src_no_creds: bool,
    /// Show no credentials to the destination
    #[arg(long)]
    dest_no_creds: bool,
    #[arg(long, value_name = "FILE")]
    src_authfile: Option<PathBuf>,
    #[arg(long, value_name = "FILE")]
    dest_authfile: Option<PathBuf>,
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    src_tls_verify: Option<bool>,
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    dest_tls_verify: Option<bool>,
    #[arg(long, value_name = "DIR")]
    src_cert_dir: Option<PathBuf>,
    #[arg(long, value_name = "DIR")]
    dest_cert_dir: Option<PathBuf>,
}

impl Sides {
    pub(crate) fn source(&self, both: &Flags) -> Result<Access> {
        let own = Flags {
            creds: self.src_creds.clone(),
            no_creds: self.src_no_creds,
            authfile: self.src_authfile.clone(),
            connection: Connection {
                tls_verify: self.src_tls_verify,
                cert_dir: self.src_cert_dir.clone(),
                ..Connection::default()
            },
            ..Flags::default()
        };
        both.with(own).access()
    }

    pub(crate) fn destination(&self, both: &Flags) -> Result<Access> {
        let own = Flags {
            creds: self.dest_creds.clone(),
            no_creds: self.dest_no_creds,
            authfile: self.dest_authfile.clone(),
            connection: Connection {
                tls_verify: self.dest_tls_verify,
                cert_dir: self.dest_cert_dir.clone(),
                ..Connection::default()
            },
            ..Flags::default()
        };
        both.with(own).access()
    }
}

/// A number of seconds, with a unit as podman has it or without.
fn seconds(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text {
        _ if text.ends_with("ms") => (&text[..text.len() - 2], 0.001),
        _ if text.ends_with('s') => (&text[..text.len() - 1], 1.0),
        _ if text.ends_with('m') => (&text[..text.len() - 1], 60.0),
        _ => (text, 1.0),
    };
    let value = number.parse::<f64>().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(value * unit).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_or_not() {
        assert_eq!(seconds("2").unwrap(), Duration::from_secs(2));
        assert_eq!(seconds("1.5s").unwrap(), Duration::from_millis(1500));
        assert_eq!(seconds("20ms").unwrap(), Duration::from_millis(20));
        for bad in ["", "s", "-1", "nan", "1h"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
