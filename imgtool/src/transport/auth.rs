//! The token flow of registries: what a 401 asks for, and where it may be
//! asked of whom.

use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::http::Url;

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

/// The URL that gives out a token for this challenge.
pub(crate) fn token_url(challenge: &Challenge, registry: &Url, scope: &str) -> Result<Url> {
    let realm =
        challenge.parameter("realm").context("registry asks for a token but names no realm")?;
    let mut url = Url::parse(realm).context("registry names a bad realm")?;
    check_realm(registry, &url)?;
    let mut separator = if url.path.contains('?') { '&' } else { '?' };
    let service = challenge.parameter("service");
    for (name, value) in [("service", service), ("scope", Some(scope))] {
        if let Some(value) = value {
            url.path.push(separator);
            url.path.push_str(name);
            url.path.push('=');
            url.path.push_str(&encode(value));
            separator = '&';
        }
    }
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

/// Whether a host is this one.
pub(crate) fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || address(host).is_some_and(|address| address.is_loopback())
}

fn is_private(host: &str) -> bool {
    is_loopback(host)
        || address(host).is_some_and(|address| match address {
            IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || v4.is_unspecified(),
            IpAddr::V6(v6) => {
                v6.is_unspecified()
                    || v6.is_unique_local()
                    || v6.is_unicast_link_local()
                    || v6
                        .to_ipv4_mapped()
                        .is_some_and(|v4| v4.is_private() || v4.is_link_local() || v4.is_loopback())
            }
        })
}

fn address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/,".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// The token in a token server's answer.
pub(crate) fn parse_token(body: &[u8]) -> Result<String> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(body).context("parse token")?;
    let token = answer
        .token
        .or(answer.access_token)
        .filter(|token| !token.is_empty())
        .context("token server gave no token")?;
    ensure!(token.bytes().all(|b| b.is_ascii_graphic()), "token server gave a malformed token");
    Ok(token)
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
            token_url(challenge, &Url::parse(registry).unwrap(), "repository:a/b:pull")
        };
        assert_eq!(
            ask("https://reg.example", "https://auth.example/t").unwrap().to_string(),
            "https://auth.example/t?service=s%20t&scope=repository:a/b:pull"
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
}
