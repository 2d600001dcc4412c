//! Docker Hub's search, which is no part of the distribution specification.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use ureq::http::Method;

use super::super::http::{Call, Client, Failure, Trust, Url};
use super::access::Access;
use super::body::read_limited;
use crate::manifest::null_as_default;

const MAX_ANSWER: u64 = 4 << 20;

/// A repository that was found.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Found {
    pub(crate) name: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub(crate) description: String,
    #[serde(default)]
    pub(crate) star_count: u64,
    #[serde(default)]
    pub(crate) is_official: bool,
}

/// Asks Docker Hub, whose interface is at `url`. No credentials are shown.
pub(crate) fn search_hub(
    url: &str,
    term: &str,
    limit: usize,
    access: &Access,
) -> Result<Vec<Found>> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default, deserialize_with = "null_as_default")]
        results: Vec<Found>,
    }
    let base = Url::parse(url.trim_end_matches('/'))?;
    let trust = Trust::read(
        &base.authority,
        access.certificates.as_deref(),
        access.verify.unwrap_or(true),
    )?;
    let path = format!("{}/v1/search", base.path.trim_end_matches('/'));
    let at = base.with_path(path).with_query("q", term).with_query("n", &limit.to_string());
    let call = Call::new(Method::GET, at.clone()).header("Accept", "application/json");
    let mut answer = Client::new(&base, &trust, access.patience.silence)?
        .send(&call, None)
        .map_err(Failure::into_error)?;
    let status = answer.response.status();
    if !status.is_success() {
        bail!("{} answered {status}", base.authority);
    }
    let bytes =
        read_limited(answer.response.body_mut(), MAX_ANSWER).map_err(Failure::into_error)?;
    let answer: Answer =
        serde_json::from_slice(&bytes).with_context(|| format!("GET {at}: parse the answer"))?;
    Ok(answer.results)
}
