//! Requests to one registry with whatever it wants to see first: nothing, a
//! password, or a token for exactly what is asked.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, anyhow, bail};
use ureq::http::Method;

use super::super::auth::{self, Challenge, Token};
use super::super::credentials::Credentials;
use super::super::endpoints::Endpoint;
use super::super::http::{
    Answer, Call, Client, Failure, Patience, Payload, Trust, Url, encode, is_loopback, wait_asked,
};
use super::access::Access;
use super::body::read_limited;

const MAX_TOKEN_BODY: u64 = 1 << 20;
/// How we call ourselves to token servers.
const CLIENT: &str = "imgtool";

/// A registry that we talk to.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    pub(crate) base: Url,
    /// As the user calls it.
    pub(crate) host: String,
    /// Where its API begins, and what it is told that it stands for.
    api: String,
    stands_for: Option<String>,
    credentials: Option<Credentials>,
    pub(crate) patience: Patience,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    scheme: Option<Scheme>,
    /// By the scopes they are for.
    tokens: HashMap<String, Token>,
}

#[derive(Clone, Debug)]
enum Scheme {
    Basic,
    Bearer(Challenge),
}

impl Session {
    /// Finds out how the registry at `endpoint` is spoken to. Nothing is asked of one that is
    /// neither on this host nor insecure.
    pub(crate) fn open(endpoint: &Endpoint, access: &Access) -> Result<Self> {
        let mut base = endpoint.base()?;
        let loopback = is_loopback(base.host());
        let insecure = access.verify.map_or(endpoint.insecure, |verify| !verify);
        let mut trust = Trust::read(&endpoint.host, access.certificates.as_deref(), !insecure)?;
        trust.add(&endpoint.authorities, endpoint.pair.as_ref())?;
        let mut client = Client::new(&base, &trust, access.patience.silence)?;
        if (insecure || loopback) && !endpoint.plain {
            base = find_scheme(&client, &base, &endpoint.api, insecure)?;
            client = Client::new(&base, &trust, access.patience.silence)?;
        }
        let credentials = access.lookup.find(&endpoint.host, &endpoint.path)?;
        Ok(Self {
            client,
            base,
            host: endpoint.host.clone(),
            api: endpoint.api.clone(),
            stands_for: endpoint.stands_for.clone(),
            credentials,
            patience: access.patience,
            state: Mutex::default(),
        })
    }

    /// An address of its API.
    pub(crate) fn url(&self, path: &str) -> Url {
        let url = self.base.with_path(format!("{}/{path}", self.api));
        match &self.stands_for {
            Some(registry) => url.with_query("ns", registry),
            None => url,
        }
    }

    /// The same registry with other credentials, as a login tries them.
    pub(crate) fn with_credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self.state = Mutex::default();
        self
    }

    pub(crate) fn has_credentials(&self) -> bool {
        self.credentials.is_some()
    }

    /// Makes a request, with a token for `scopes` if the registry wants tokens. What the registry
    /// refuses still is an answer.
    pub(crate) fn send(&self, call: &Call<'_>, scopes: &[String]) -> Result<Answer, Failure> {
        // An upload may go on at another server: like one that a redirect leads to, it is not shown
        // what is the registry's, and has no say in where our credentials go.
        if !call.url.same_origin(&self.base) {
            return self.send_anonymously(call);
        }
        let authorization = self.authorization(scopes)?;
        let answer = self.client.send(call, authorization.as_deref())?;
        if answer.response.status() != 401 || answer.foreign {
            return Ok(answer);
        }
        let challenges = challenges(&answer);
        match self.answer_challenges(&challenges, scopes, authorization.as_deref())? {
            Some(authorization) => self.client.send(call, Some(&authorization)),
            None => Ok(answer),
        }
    }

    /// Makes a request that shows nothing, wherever it goes. Not from https to http.
    pub(crate) fn send_anonymously(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        if self.base.https && !call.url.https {
            let error = anyhow!("{} leads from https to {}", self.host, call.url);
            return Err(Failure::Final(error));
        }
        self.client.send(call, None)
    }

    /// What to show at once, knowing what the registry wanted before.
    fn authorization(&self, scopes: &[String]) -> Result<Option<String>, Failure> {
        if let Some(Credentials::RegistryToken(token)) = &self.credentials {
            return Ok(Some(format!("Bearer {token}")));
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.scheme.clone() {
            None => Ok(None),
            Some(Scheme::Basic) => Ok(self.credentials.as_ref().and_then(Credentials::basic)),
            Some(Scheme::Bearer(challenge)) => {
                let key = scopes.join(" ");
                if let Some(token) = state.tokens.get(&key).filter(|token| token.is_fresh()) {
                    return Ok(Some(token.header.clone()));
                }
                let token = self.fetch_token(&challenge, scopes, false)?;
                let header = token.header.clone();
                state.tokens.insert(key, token);
                Ok(Some(header))
            }
        }
    }

    /// What to show after a refusal, or `None` if there is nothing else to show. Another thread
    /// may have got a token since `used` was read.
    fn answer_challenges(
        &self,
        challenges: &[Challenge],
        scopes: &[String],
        used: Option<&str>,
    ) -> Result<Option<String>, Failure> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let key = scopes.join(" ");
        if let Some(bearer) = challenges.iter().find(|c| c.scheme == "bearer") {
            if let Some(token) = state.tokens.get(&key)
                && Some(token.header.as_str()) != used
            {
                return Ok(Some(token.header.clone()));
            }
            // The registry knows best what it wants for what was asked.
            let mut wanted = scopes.to_vec();
            let named = bearer.parameter("scope").filter(|scope| !scope.is_empty());
            wanted.extend(
                named.filter(|scope| !scopes.iter().any(|s| s == scope)).map(str::to_owned),
            );
            let token = self.fetch_token(bearer, &wanted, false)?;
            let header = token.header.clone();
            state.scheme = Some(Scheme::Bearer(bearer.clone()));
            state.tokens.insert(key, token);
            return Ok(Some(header));
        }
        if challenges.iter().any(|challenge| challenge.scheme == "basic") {
            state.scheme = Some(Scheme::Basic);
            let basic = self.credentials.as_ref().and_then(Credentials::basic);
            return Ok(basic.filter(|basic| Some(basic.as_str()) != used));
        }
        Ok(None)
    }

    /// Asks the token server. `offline` asks for something that stands for the password, too.
    fn fetch_token(
        &self,
        challenge: &Challenge,
        scopes: &[String],
        offline: bool,
    ) -> Result<Token, Failure> {
        let realm = auth::realm(challenge, &self.base)?;
        let service = challenge.parameter("service");
        let mut answer = match &self.credentials {
            Some(Credentials::IdentityToken(token)) => {
                self.exchange(&realm, service, scopes, token)?
            }
            credentials => {
                let mut url = realm.clone();
                for (name, value) in [("service", service)]
                    .into_iter()
                    .chain(scopes.iter().map(|scope| ("scope", Some(scope.as_str()))))
                    .chain([("account", credentials.as_ref().and_then(Credentials::user))])
                {
                    if let Some(value) = value {
                        url = url.with_query(name, value);
                    }
                }
                if offline {
                    url = url.with_query("offline_token", "true").with_query("client_id", CLIENT);
                }
                let call = Call::new(Method::GET, url).header("Accept", "application/json");
                let basic = credentials.as_ref().and_then(Credentials::basic);
                self.client.send(&call, basic.as_deref())?
            }
        };
        let status = answer.response.status();
        if !status.is_success() {
            let why = match status.as_u16() {
                401 | 403 if self.credentials.is_some() => "the credentials are wrong",
                401 | 403 => "access denied: it does not exist or needs a login",
                _ => "no token",
            };
            let error = anyhow!("token server {} answered {status}: {why}", realm.authority);
            return Err(match wait_asked(&answer.response) {
                Some(time) => Failure::Again(error, time),
                None => Failure::Final(error),
            });
        }
        let body = read_limited(answer.response.body_mut(), MAX_TOKEN_BODY)?;
        Ok(Token::parse(&body)?)
    }

    /// A token for an identity token, by OAuth's form; some servers take only Basic.
    fn exchange(
        &self,
        realm: &Url,
        service: Option<&str>,
        scopes: &[String],
        token: &str,
    ) -> Result<Answer, Failure> {
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", CLIENT),
            ("service", service.unwrap_or_default()),
            ("scope", &scopes.join(" ")),
            ("refresh_token", token),
        ]
        .map(|(name, value)| format!("{name}={}", encode(value)))
        .join("&");
        let call = Call::new(Method::POST, realm.clone())
            .header("Accept", "application/json")
            .header("Content-Type", "application/x-www-form-urlencoded")
            .payload(Payload::Bytes(form.as_bytes()));
        self.client.send(&call, None)
    }

    /// Tries the credentials; gives what stands for the password from now on, if the registry
    /// has such a thing.
    pub(crate) fn log_in(&self) -> Result<Option<String>> {
        let ping = Call::new(Method::GET, self.url(""));
        let answer = self.client.send(&ping, None).map_err(Failure::into_error)?;
        let status = answer.response.status();
        if answer.foreign {
            bail!("registry {} sends its /v2/ elsewhere: {}", self.host, answer.url);
        }
        if status.is_success() {
            // An open registry takes anybody; docker keeps the login all the same.
            return Ok(None);
        }
        if status != 401 {
            bail!("{} is no registry: it answered {status} to /v2/", self.host);
        }
        let challenges = challenges(&answer);
        let bearer = challenges.iter().find(|challenge| challenge.scheme == "bearer");
        let (authorization, identity) = match bearer {
            Some(bearer) => {
                let token = self.fetch_token(bearer, &[], true).map_err(Failure::into_error)?;
                (Some(token.header), token.identity)
            }
            None => (self.credentials.as_ref().and_then(Credentials::basic), None),
        };
        let answer =
            self.client.send(&ping, authorization.as_deref()).map_err(Failure::into_error)?;
        match answer.response.status().as_u16() {
            200 => Ok(identity),
            401 | 403 => bail!("registry {} does not accept these credentials", self.host),
            status => bail!("registry {} answered {status} to the login", self.host),
        }
    }
}

/// How a registry that need not speak TLS is spoken to: on this host usually by plain HTTP, one
/// that is insecure by TLS if it can.
fn find_scheme(client: &Client, https: &Url, api: &str, insecure: bool) -> Result<Url> {
    let http = Url { https: false, ..https.clone() };
    let ping =
        |base: &Url| client.send(&Call::new(Method::GET, base.with_path(format!("{api}/"))), None);
    if insecure && !is_loopback(https.host()) {
        return match ping(https) {
            Ok(_) => Ok(https.clone()),
            Err(first) => match ping(&http) {
                Ok(_) => Ok(http),
                Err(_) => Err(first.into_error()),
            },
        };
    }
    match ping(&http) {
        // This is how a server of TLS answers plain HTTP.
        Ok(answer) if answer.response.status() == 400 => Ok(https.clone()),
        Ok(_) => Ok(http),
        Err(error) => match ping(https) {
            Ok(_) => Ok(https.clone()),
            Err(_) => Err(error.into_error()),
        },
    }
}

/// How the registry wants to be shown who asks.
fn challenges(answer: &Answer) -> Vec<Challenge> {
    let headers = answer.response.headers().get_all("www-authenticate");
    let readable = headers.iter().filter_map(|value| value.to_str().ok());
    readable.flat_map(auth::parse_challenges).collect()
}
