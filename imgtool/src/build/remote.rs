//! `ADD URL`: files from web servers and git repositories.

use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::git::Repository;
use super::origin::Origin;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::layer::lower;
use crate::layer::tar::Time;
use crate::store::Store;
use crate::transport::web;

/// A file that was fetched.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) name: String,
    pub(crate) file: Arc<tempfile::NamedTempFile>,
    /// When the server says it was changed, else 1970.
    pub(crate) mtime: Time,
}

pub(crate) fn is_url(word: &str) -> bool {
    word.starts_with("http://") || word.starts_with("https://")
}

/// Fetches a file, which must have the digest if one is given.
pub(crate) fn fetch(store: &Store, url: &str, checksum: Option<&str>) -> Result<Fetched> {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let name =
        path.splitn(4, '/').nth(3).unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let expected = checksum.map(|text| text.parse::<Digest>().context("read --checksum"));
    let expected = expected.transpose()?;
    let (mut body, modified) = web::get_dated(url)?;
    let mut file = tempfile::Builder::new()
        .prefix("file-")
        .tempfile_in(store.staging_dir())
        .context("create a file")?;
    let algorithm = expected.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read =
            io::Read::read(&mut body, &mut buffer).with_context(|| format!("fetch {url}"))?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        file.write_all(&buffer[..read]).context("write the file that is fetched")?;
    }
    let actual = hasher.finish();
    if let Some(expected) = expected {
        ensure!(actual == expected, "digest mismatch of {url}: {actual}, expected {expected}");
    }
    let parsed = modified.and_then(|text| jiff::fmt::rfc2822::parse(&text).ok());
    let seconds = parsed.map_or(0, |time| time.timestamp().as_second());
    let mtime = Time { seconds, nanoseconds: 0 };
    Ok(Fetched { name: name.to_owned(), file: Arc::new(file), mtime })
}

/// Checks a repository out; gives its tree and its commit.
pub(crate) fn clone(store: &Store, repository: &Repository) -> Result<(Origin, String)> {
    let (root, holder, commit) = check_out(store, repository)?;
    Ok((Origin::held(root, holder, "the repository"), commit))
}

/// The same as a directory, with what it lies in.
pub(crate) fn check_out(
    store: &Store,
    repository: &Repository,
) -> Result<(OwnedFd, tempfile::TempDir, String)> {
    let holder = store.staging_subdirectory()?;
    let path = holder.path().join("git");
    std::fs::create_dir(&path).context("create a directory")?;
    let commit = repository.check_out(&path)?;
    let whole = lower::open_directory(&path)?;
    let root = match crate::rooted::as_text(&repository.subdirectory) {
        empty if empty.is_empty() => whole,
        inside => {
            let symlinks = crate::rooted::Symlinks::Refuse;
            crate::rooted::open_directory(whole.as_fd(), inside.as_bytes(), symlinks)
                .with_context(|| format!("open the directory {inside} of the repository"))?
        }
    };
    Ok((root, holder, commit))
}
