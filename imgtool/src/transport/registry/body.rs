//! Answers read into memory: never more than a limit, and errors told in one line.

use std::io::Read;

use anyhow::anyhow;
use ureq::Body;
use ureq::http::Response;

use super::super::http::{Answer, Failure, wait_asked};

const MAX_ERROR_BODY: u64 = 64 << 10;
/// As much of a server's reason as is shown.
const MAX_REASON: usize = 300;

pub(super) fn read_limited(body: &mut Body, limit: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    body.as_reader()
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::Again(error.into(), None))?;
    if bytes.len() as u64 > limit {
        return Err(Failure::Final(anyhow!("answer is larger than the limit of {limit} bytes")));
    }
    Ok(bytes)
}

pub(super) fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

/// Why a request was refused. `name` is what was asked for.
pub(super) fn refusal(answer: Answer, name: &str, has_credentials: bool) -> Failure {
    let Answer { mut response, url, .. } = answer;
    let asked = wait_asked(&response);
    let status = response.status();
    let limit = header(&response, "ratelimit-limit").map(str::to_owned);
    let reason = reason(&mut response).unwrap_or_else(|| status.to_string());
    let host = &url.authority;
    let error = match status.as_u16() {
        401 | 403 => {
            let remedy = if has_credentials {
                "the credentials do not allow it, or it does not exist"
            } else {
                "it does not exist or needs a login (imgtool login)"
            };
            anyhow!("access to {name} denied: {remedy}: {reason}")
        }
        404 => anyhow!("{name} not found at {host}: {reason}"),
        429 => {
            let limit = limit.map(|limit| format!(" (limit {limit})")).unwrap_or_default();
            anyhow!("registry {host} refuses more requests for now{limit}: {reason}")
        }
        _ => anyhow!("registry {host} answered {status} for {name}: {reason}"),
    };
    match asked {
        Some(time) => Failure::Again(error, time),
        None => Failure::Final(error),
    }
}

/// What the server said went wrong, in one line.
fn reason(response: &mut Response<Body>) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Answer {
        errors: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    // The reason is a courtesy; a registry that sends none still answered.
    let body = read_limited(response.body_mut(), MAX_ERROR_BODY).unwrap_or_default();
    let entry = serde_json::from_slice::<Answer>(&body).ok()?.errors.into_iter().next()?;
    let text = match entry.message.as_str() {
        "" => entry.code,
        _ => entry.message,
    };
    let text: String = text.chars().take(MAX_REASON).collect();
    Some(text).filter(|text| !text.is_empty())
}
