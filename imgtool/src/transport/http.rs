//! HTTP as registries need it: redirects that carry no credentials to another
//! host, time limits per read, and errors sorted by whether to try again.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use ureq::http::{Response, StatusCode};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

const MAX_REDIRECTS: usize = 5;
const MAX_HEADER_BYTES: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// A server that sends nothing for this long is taken for dead.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Where distributions keep the certificates they trust.
const CERTIFICATE_FILES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

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

    /// Where a `Location` header leads from here.
    fn join(&self, location: &str) -> Result<Self> {
        if location.contains("://") {
            return Self::parse(location);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{}://{rest}", self.scheme()));
        }
        let mut url = self.clone();
        url.path = if location.starts_with('/') {
            location.to_owned()
        } else {
            let base = self.path.split('?').next().unwrap_or("/");
            let directory = base.rsplit_once('/').map_or("", |(directory, _)| directory);
            format!("{directory}/{location}")
        };
        Ok(url)
    }

    pub(crate) fn with_path(&self, path: String) -> Self {
        Self { path, ..self.clone() }
    }

    /// The host without its port.
    pub(crate) fn host(&self) -> &str {
        if self.authority.starts_with('[') {
            return self.authority.split_inclusive(']').next().unwrap_or_default();
        }
        self.authority.split(':').next().unwrap_or_default()
    }

    fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    fn port(&self) -> &str {
        let port = self.authority[self.host().len()..].trim_start_matches(':');
        match port {
            "" if self.https => "443",
            "" => "80",
            port => port,
        }
    }

    /// Whether credentials for one may be shown to the other.
    fn same_origin(&self, other: &Self) -> bool {
        (self.https, self.host(), self.port()) == (other.https, other.host(), other.port())
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", self.scheme(), self.authority, self.path)
    }
}

/// Why a request gave nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It may work later; not before the time that the server asked for.
    Again(anyhow::Error, Option<Duration>),
    /// It will not.
    Final(anyhow::Error),
}

impl Failure {
    pub(crate) fn into_error(self) -> anyhow::Error {
        match self {
            Self::Again(error, _) | Self::Final(error) => error,
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Final(error)
    }
}

/// Connections to registries.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    agent: Agent,
}

impl Client {
    /// A client that trusts the host's certificates; `proxy` says whether the
    /// proxies of the environment are used.
    pub(crate) fn new(proxy: bool) -> Result<Self> {
        crate::sys::resolve_hosts_without_modules().context("set up name resolution")?;
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_response_header_size(MAX_HEADER_BYTES)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(READ_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT))
            .timeout_per_write(Some(READ_TIMEOUT))
            .user_agent(concat!("imgtool/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(root_certificates()?).build());
        if !proxy {
            config = config.proxy(None);
        }
        Ok(Self { agent: config.build().into() })
    }

    /// GETs a URL through redirects. `authorization` goes to the URL's own
    /// origin only.
    pub(crate) fn get(
        &self,
        url: &Url,
        headers: &[(&str, &str)],
        authorization: Option<&str>,
    ) -> Result<Response<Body>, Failure> {
        let mut at = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.agent.get(at.to_string());
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            if let Some(value) = authorization.filter(|_| at.same_origin(url)) {
                request = request.header("Authorization", value);
            }
            let response = request.call().map_err(|error| sort_error(error, &at))?;
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            let location = response
                .headers()
                .get("location")
                .and_then(|value| value.to_str().ok())
                .with_context(|| format!("GET {at}: redirect to nowhere"))?;
            let next = at.join(location)?;
            if at.https && !next.https {
                return Err(Failure::Final(anyhow!(
                    "GET {at}: redirect from https to http refused"
                )));
            }
            at = next;
        }
        Err(Failure::Final(anyhow!("GET {url}: too many redirects")))
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn sort_error(error: ureq::Error, url: &Url) -> Failure {
    let again = matches!(
        error,
        ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed
    );
    // Nobody listens: that does not change within seconds.
    let refused = matches!(&error, ureq::Error::Io(e)
        if e.kind() == std::io::ErrorKind::ConnectionRefused);
    let error =
        anyhow::Error::new(error).context(format!("GET {}://{}", url.scheme(), url.authority));
    if again && !refused { Failure::Again(error, None) } else { Failure::Final(error) }
}

/// Whether an answer means "not now", and for how long.
pub(crate) fn wait_asked(response: &Response<Body>) -> Option<Option<Duration>> {
    let status = response.status().as_u16();
    if !matches!(status, 408 | 429 | 499 | 500 | 502 | 503 | 504 | 522) {
        return None;
    }
    let seconds = response
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.trim().parse::<u64>().ok());
    Some(seconds.map(|seconds| Duration::from_secs(seconds).min(LONGEST_WAIT)))
}

/// The host's certificates, or those built in where it has none.
fn root_certificates() -> Result<RootCerts> {
    let chosen = std::env::var_os("SSL_CERT_FILE").filter(|value| !value.is_empty());
    let files = match &chosen {
        Some(file) => vec![file.as_os_str()],
        None => CERTIFICATE_FILES.iter().map(AsRef::as_ref).collect(),
    };
    for file in files {
        let path = std::path::Path::new(file);
        match std::fs::read(path) {
            Ok(pem) => {
                let certificates: Vec<_> = parse_pem(&pem)
                    .filter_map(|item| match item {
                        Ok(PemItem::Certificate(certificate)) => Some(certificate),
                        _ => None,
                    })
                    .collect();
                ensure!(!certificates.is_empty(), "{} has no certificate", path.display());
                return Ok(RootCerts::from(certificates));
            }
            Err(error) if chosen.is_none() && error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
    Ok(RootCerts::WebPki)
}

/// Ends the waits of all threads of a transfer once one has failed.
#[derive(Debug, Default)]
pub(crate) struct Cancel {
    cancelled: Mutex<bool>,
    changed: Condvar,
}

impl Cancel {
    pub(crate) fn cancel(&self) {
        *self.cancelled.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        *self.cancelled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits before another attempt; true if there is to be none.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let guard = self.cancelled.lock().unwrap_or_else(PoisonError::into_inner);
        let (guard, _) = self
            .changed
            .wait_timeout_while(guard, time, |cancelled| !*cancelled)
            .unwrap_or_else(PoisonError::into_inner);
        *guard
    }
}

/// How long to wait after the n-th failure in a row: doubling, with a part
/// that differs between processes so that they don't come back all at once.
pub(crate) fn backoff(failures: u32, asked: Option<Duration>) -> Duration {
    let base = Duration::from_millis(200) * 2_u32.pow(failures.min(7));
    let jitter = Duration::from_millis(u64::from(std::process::id() % 100) * 2);
    asked.unwrap_or(base) + jitter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_lead_where_they_say() {
        let base = Url::parse("https://Reg.example:443/v2/a/blobs/x?y").unwrap();
        for (location, wanted) in [
            ("/b?c", "https://reg.example:443/b?c"),
            ("z", "https://reg.example:443/v2/a/blobs/z"),
            ("//cdn/x", "https://cdn/x"),
            ("http://cdn/x", "http://cdn/x"),
        ] {
            assert_eq!(base.join(location).unwrap().to_string(), wanted);
        }
        assert!(base.join("ftp://cdn/x").is_err());
        assert!(base.join("https://user:pass@cdn/x").is_err());
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
}
