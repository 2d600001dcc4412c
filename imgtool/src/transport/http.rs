//! HTTP as registries need it: redirects that carry no credentials to another
//! host, time limits per read, and errors sorted by whether to try again.

mod proxy;
mod resolve;
mod retry;
mod trust;
mod url;
mod warnings;

use std::io::Read;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, SendBody};

pub(crate) use retry::{Cancel, Failure, Patience, wait_asked};
pub(crate) use trust::Trust;
pub(crate) use url::{Url, encode, in_network, is_loopback, is_private};

const MAX_REDIRECTS: usize = 5;
const MAX_HEADER_BYTES: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Servers hash and move gigabytes before they answer that an upload is whole.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// What goes along with a request.
#[derive(Clone, Copy)]
pub(crate) enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    /// So many bytes of what the function opens, anew for each attempt.
    Stream(&'a dyn Fn() -> Result<Box<dyn Read>>, u64),
}

/// One request, but for the credentials.
#[derive(Clone)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) payload: Payload<'a>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: Vec::new(), payload: Payload::None }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn payload(mut self, payload: Payload<'a>) -> Self {
        self.payload = payload;
        self
    }
}

/// An answer, and who gave it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<Body>,
    /// Where the redirects led.
    pub(crate) url: Url,
    /// Whether that is another server than the one asked.
    pub(crate) foreign: bool,
}

/// Connections to one registry and to where it sends us.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    own: Agent,
    others: Agent,
    base: Url,
}

impl Client {
    /// A client of the registry at `base`.
    pub(crate) fn new(base: &Url, trust: &Trust, silence: Duration) -> Result<Self> {
        crate::sys::resolve_hosts_without_modules().context("set up name resolution")?;
        let agent = |tls| {
            Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .max_response_header_size(MAX_HEADER_BYTES)
                .timeout_connect(Some(CONNECT_TIMEOUT.min(silence)))
                .timeout_recv_response(Some(silence))
                .timeout_per_read(Some(silence))
                .timeout_per_write(Some(silence))
                .user_agent(concat!("imgtool/", env!("CARGO_PKG_VERSION")))
                .tls_config(tls)
                // Each request has its own.
                .proxy(None)
                .build()
        };
        let guard = resolve::Guard::new(base.clone());
        let others = Agent::with_parts(agent(trust.others()?), DefaultConnector::default(), guard);
        Ok(Self { own: agent(trust.own()?).into(), others, base: base.clone() })
    }

    /// Makes a request and follows redirects. `authorization` goes to the
    /// URL's own origin only.
    pub(crate) fn send(
        &self,
        call: &Call<'_>,
        authorization: Option<&str>,
    ) -> Result<Answer, Failure> {
        let method = &call.method;
        let mut at = call.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let foreign = !at.same_origin(&call.url);
            let shown = authorization.filter(|_| !foreign);
            let response = self.send_once(call, &at, shown)?;
            if !is_redirect(response.status()) {
                return Ok(Answer { response, url: at, foreign });
            }
            let location = response
                .headers()
                .get("location")
                .and_then(|value| value.to_str().ok())
                .with_context(|| format!("{method} {at}: redirect to nowhere"))?;
            let next = at.join(location)?;
            if at.https && !next.https {
                let error = anyhow!("{method} {at}: redirect from https to http refused");
                return Err(Failure::Final(error));
            }
            if !matches!(*method, Method::GET | Method::HEAD)
                && !matches!(response.status().as_u16(), 307 | 308)
            {
                let error =
                    anyhow!("{method} {at}: answered by a redirect ({})", response.status());
                return Err(Failure::Final(error));
            }
            at = next;
        }
        Err(Failure::Final(anyhow!("{method} {}: too many redirects", call.url)))
    }

    fn send_once(
        &self,
        call: &Call<'_>,
        at: &Url,
        authorization: Option<&str>,
    ) -> Result<Response<Body>, Failure> {
        let mut request = Request::builder().method(&call.method).uri(at.to_string());
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if let Some(value) = authorization {
            request = request.header("Authorization", value);
        }
        let own = (at.host(), at.port()) == (self.base.host(), self.base.port());
        let agent = if own { &self.own } else { &self.others };
        let failed = |error| sort_error(error, &call.method, at);
        let malformed = |error| Failure::Final(anyhow::Error::new(error).context("make a request"));
        let agent = Sender {
            agent,
            proxy: proxy::for_url(at)?,
            uploads: matches!(call.method, Method::PUT | Method::PATCH),
        };
        let result = match call.payload {
            Payload::None if matches!(call.method, Method::POST | Method::PUT | Method::PATCH) => {
                let request = request.header("Content-Length", "0").body(SendBody::none());
                agent.send(request.map_err(malformed)?)
            }
            Payload::None => agent.send(request.body(SendBody::none()).map_err(malformed)?),
            Payload::Bytes(mut bytes) => {
                let request = request.header("Content-Length", bytes.len());
                let request = request.body(SendBody::from_reader(&mut bytes));
                agent.send(request.map_err(malformed)?)
            }
            Payload::Stream(open, length) => {
                let mut reader = open()?;
                let request = request.header("Content-Length", length);
                let request = request.body(SendBody::from_reader(&mut reader));
                agent.send(request.map_err(malformed)?)
            }
        };
        let response = result.map_err(failed)?;
        // Where a registry only sends us has nothing to say of it.
        if own {
            warnings::show(&at.authority, &response);
        }
        Ok(response)
    }
}

/// How one request is sent.
struct Sender<'a> {
    agent: &'a Agent,
    proxy: Option<ureq::Proxy>,
    uploads: bool,
}

impl Sender<'_> {
    fn send(self, request: Request<SendBody<'_>>) -> Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.configure_request(request).proxy(self.proxy);
        if self.uploads {
            request = request.timeout_recv_response(Some(UPLOAD_TIMEOUT));
        }
        self.agent.run(request.build())
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn sort_error(error: ureq::Error, method: &Method, url: &Url) -> Failure {
    use std::io::ErrorKind;
    let again = match &error {
        // Nobody listens, or what listens is not what we look for: seconds don't change that.
        ureq::Error::Io(error) => !matches!(
            error.kind(),
            ErrorKind::ConnectionRefused | ErrorKind::InvalidData | ErrorKind::PermissionDenied
        ),
        ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => true,
        _ => false,
    };
    let hint = hint(&error.to_string(), url);
    let place = format!("{method} {}://{}", url.scheme(), url.authority);
    let error = anyhow::Error::new(error).context(place);
    let error = match hint {
        Some(hint) => anyhow!("{error:#} ({hint})"),
        None => error,
    };
    if again { Failure::Again(error, None) } else { Failure::Final(error) }
}

/// What to do about a connection that TLS refuses.
fn hint(error: &str, url: &Url) -> Option<String> {
    if error.contains("invalid peer certificate") {
        let host = &url.authority;
        return Some(format!(
            "put its authority's certificate into /etc/docker/certs.d/{host}/ca.crt or a --cert-dir, or don't check it: --tls-verify=false"
        ));
    }
    error
        .contains("InvalidContentType")
        .then(|| "it speaks plain HTTP: allow that by --tls-verify=false".to_owned())
}
