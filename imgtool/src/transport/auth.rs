//! The token flow of registries: what a 401 asks for, and where it may be
//! asked of whom.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::http::{Url, is_private};

/// The shortest time that a token is taken to be good for, as the specification has it.
const MIN_TOKEN_TIME: Duration = Duration::from_secs(60);
/// A token is renewed this long before its end, so that it doesn't end on its way.
const TOKEN_MARGIN: Duration = Duration::from_secs(10);

/// One challenge of a `WWW-Authenticate` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// Lower case.
    pub(crate) scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Reads a header that may hold several challenges, each with several
/// parameters, all separated by commas.
pub(crate) fn parse_challenges(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        let end = rest.find(['=', ' ', ',']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if let Some(value) = after.strip_prefix('=') {
            let (value, after) = take_value(value);
            if let Some(challenge) = challenges.last_mut() {
                challenge.parameters.push((word.to_ascii_lowercase(), value));
            }
            rest = after;
        } else {
            if !word.is_empty() {
                challenges
                    .push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
            }
            rest = after;
        }
    }
    challenges
}

/// A quoted string with its escapes, or a bare word.
fn take_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

/// The server that gives out tokens for this challenge.
pub(crate) fn realm(challenge: &Challenge, registry: &Url) -> Result<Url> {
    let realm =
        challenge.parameter("realm").context("registry asks for a token but names no realm")?;
    let url = Url::parse(realm).context("registry names a bad realm")?;
    check_realm(registry, &url)?;
    Ok(url)
}

/// A registry must not make us talk to our own host or its neighbours, nor in
/// the clear, unless it is there itself.
fn check_realm(registry: &Url, realm: &Url) -> Result<()> {
    ensure!(
        realm.https || !registry.https,
        "registry {} names a token server without https: {realm}",
        registry.authority
    );
    if is_private(realm.host()) && !is_private(registry.host()) {
        bail!("registry {} names a token server on a private address: {realm}", registry.authority);
    }
    Ok(())
}

/// What a token server gave.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    /// The value of an `Authorization` header.
    pub(crate) header: String,
    /// What stands for the password from now on, if the server gives such a thing.
    pub(crate) identity: Option<String>,
    ends: Instant,
}

impl Token {
    /// Reads a token server's answer.
    pub(crate) fn parse(body: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
            refresh_token: Option<String>,
            expires_in: Option<f64>,
        }
        let answer: Answer = serde_json::from_slice(body).context("parse token")?;
        let token = answer
            .token
            .filter(|token| !token.is_empty())
            .or(answer.access_token)
            .filter(|token| !token.is_empty())
            .context("token server gave no token")?;
        ensure!(is_plain(&token), "token server gave a malformed token");
        let seconds = answer.expires_in.unwrap_or(0.0).clamp(0.0, 86_400.0);
        let time = Duration::from_secs_f64(seconds).max(MIN_TOKEN_TIME);
        Ok(Self {
            header: format!("Bearer {token}"),
            identity: answer.refresh_token.filter(|token| !token.is_empty() && is_plain(token)),
            ends: Instant::now() + time - TOKEN_MARGIN,
        })
    }

    pub(crate) fn is_fresh(&self) -> bool {
        Instant::now() < self.ends
    }
}

/// Whether a secret can stand in a header and in a form as it is.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What a server says from anywhere: it leads nowhere else; each tells whether it could be used.
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz {
    use super::*;

    pub(crate) fn challenge(text: &[u8]) -> bool {
        let Ok(registry) = Url::parse("https://reg.example") else { return false };
        let text = String::from_utf8_lossy(text);
        let mut any = false;
        for challenge in parse_challenges(&text) {
            if let Ok(url) = super::realm(&challenge, &registry) {
                assert!(url.https && !is_private(url.host()), "{text:?} leads to {url}");
                any = true;
            }
        }
        any
    }

    pub(crate) fn token(text: &[u8]) -> bool {
        let Ok(token) = Token::parse(text) else { return false };
        assert!(token.header.strip_prefix("Bearer ").is_some_and(is_plain));
        assert!(token.identity.as_deref().is_none_or(is_plain));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_told_apart() {
        let header = r#"Basic realm="a, b", Bearer realm="https://auth.example/token",service=reg,scope="repository:a:pull,push",error="x\"y""#;
        let challenges = parse_challenges(header);
        assert_eq!(challenges.len(), 2);
        assert_eq!(challenges[0].scheme, "basic");
        assert_eq!(challenges[0].parameter("realm"), Some("a, b"));
        assert_eq!(challenges[1].parameter("service"), Some("reg"));
        assert_eq!(challenges[1].parameter("scope"), Some("repository:a:pull,push"));
        assert_eq!(challenges[1].parameter("error"), Some("x\"y"));
        for odd in ["", ",", "=", "Bearer", "a=b", "Bearer realm=\"unterminated", "\"", "Bearer ="]
        {
            parse_challenges(odd);
        }
    }

    #[test]
    fn tokens_are_asked_of_allowed_servers_only() {
        let ask = |registry: &str, realm: &str| {
            let challenge =
                &parse_challenges(&format!("Bearer realm=\"{realm}\",service=\"s t\""))[0];
            super::realm(challenge, &Url::parse(registry).unwrap())
        };
        assert_eq!(
            ask("https://reg.example", "https://auth.example/t").unwrap().to_string(),
            "https://auth.example/t"
        );
        assert!(ask("http://127.0.0.1:5000", "http://127.0.0.1:5001/t").is_ok());
        for realm in [
            "http://auth.example/t",
            "https://127.0.0.1/t",
            "https://169.254.169.254/t",
            "https://[::1]/t",
            "https://[::ffff:10.0.0.1]/t",
            "https://localhost/t",
            "file:///etc/passwd",
        ] {
            assert!(ask("https://reg.example", realm).is_err(), "{realm}");
        }
    }

    #[test]
    fn tokens_of_both_spellings_are_read() {
        for body in [r#"{"token":"a","expires_in":300}"#, r#"{"access_token":"a","token":""}"#] {
            let token = Token::parse(body.as_bytes()).unwrap();
            assert_eq!(token.header, "Bearer a");
            assert!(token.is_fresh());
        }
        for body in ["{}", "[]", r#"{"token":"a\nb"}"#, r#"{"token":7}"#] {
            assert!(Token::parse(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn challenges_changed_at_random_lead_nowhere_else() {
        let seeds = [
            r#"Bearer realm="https://auth.example/token",service="reg",scope="repository:a:pull""#,
            r#"Basic realm="a, b", Bearer realm="https://[2001:db8::1]:1/t",error="x\"y""#,
            r#"Bearer realm="http://127.0.0.1/t""#,
            "Negotiate, NTLM, Basic realm=x",
        ];
        crate::mutated::each(&seeds, super::fuzz::challenge);
    }

    #[test]
    fn tokens_changed_at_random_stay_in_their_header() {
        let seeds = [
            r#"{"token":"abc.def","expires_in":300,"issued_at":"2024-01-01T00:00:00Z"}"#,
            r#"{"access_token":"abc","refresh_token":"r","token":""}"#,
        ];
        crate::mutated::each(&seeds, super::fuzz::token);
    }
}
