//! Files from web servers.

use std::io::Read;
use std::time::Duration;

use anyhow::{Result, bail};
use ureq::http::Method;

use super::http::{Call, Client, Failure, Trust, Url};

/// A server that sends nothing for this long is taken for dead.
const SILENCE: Duration = Duration::from_secs(60);

/// What a server has at `url`.
pub(crate) fn get(url: &str) -> Result<Box<dyn Read + Send>> {
    Ok(get_dated(url)?.0)
}

/// The same, with what the server says of when it was changed.
pub(crate) fn get_dated(url: &str) -> Result<(Box<dyn Read + Send>, Option<String>)> {
    let at = Url::parse(url)?;
    let trust = Trust::read(&at.authority, None, true)?;
    let answer = Client::new(&at, &trust, SILENCE)?
        .send(&Call::new(Method::GET, at.clone()), None)
        .map_err(Failure::into_error)?;
    let status = answer.response.status();
    if !status.is_success() {
        bail!("GET {}://{}: {status}", at.scheme(), at.authority);
    }
    let modified = answer.response.headers().get("last-modified");
    let modified = modified.and_then(|text| text.to_str().ok()).map(str::to_owned);
    let body = answer.response.into_body().into_with_config().limit(u64::MAX).reader();
    Ok((Box::new(body), modified))
}
