//! Files of git repositories, brought by the `git` program. What the user or a Dockerfile says is never
//! an option to it, and of its transports only those over a network are allowed.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::error::printable;

/// What git may speak. `ext::` would run a command, `file` read this host's files.
const PROTOCOLS: &str = "http:https:ssh:git";

/// A repository, and what of it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repository {
    pub(crate) remote: String,
    /// A branch, a tag or a commit.
    pub(crate) reference: Option<String>,
    pub(crate) subdirectory: String,
    pub(crate) commit: Option<String>,
    pub(crate) submodules: bool,
    pub(crate) keep_git_dir: bool,
}

impl Repository {
    /// Reads `URL[?key=value&…][#reference[:directory]]`; `None` if it is no repository's.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>> {
        let (url, fragment) = match text.split_once('#') {
            Some((url, fragment)) => (url, fragment),
            None => (text, ""),
        };
        let (remote, query) = url.split_once('?').unwrap_or((url, ""));
        let over_http = ["http://", "https://"].iter().any(|scheme| remote.starts_with(scheme));
        let is_git = (over_http && remote.ends_with(".git"))
            || ["git://", "ssh://", "git@"].iter().any(|scheme| remote.starts_with(scheme));
        if !is_git {
            return Ok(None);
        }
        let (reference, subdirectory) = fragment.split_once(':').unwrap_or((fragment, ""));
        let mut found = Self {
            remote: remote.to_owned(),
            reference: Some(reference.to_owned()).filter(|reference| !reference.is_empty()),
            subdirectory: subdirectory.to_owned(),
            commit: None,
            submodules: true,
            keep_git_dir: false,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = value.to_owned();
            match key {
                "ref" | "tag" | "branch" => found.reference = Some(value),
                "subdir" => found.subdirectory = value,
                "checksum" | "commit" => found.commit = Some(value),
                "submodules" => found.submodules = value != "false",
                "keep-git-dir" => found.keep_git_dir = value != "false",
                other => bail!("unexpected query {other:?} in git URL"),
            }
        }
        let plain = |word: &str| {
            !word.starts_with('-')
                && !word.contains("..")
                && !word.contains(|c: char| {
                    c.is_whitespace() || c.is_control() || "~^:?*[\\".contains(c)
                })
        };
        if let Some(reference) = &found.reference {
            ensure!(plain(reference), "{reference:?} is no name of a branch, tag or commit");
        }
        let host = found.remote.rsplit_once("://").map_or(&*found.remote, |(_, rest)| rest);
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        ensure!(!host.starts_with('-'), "{:?} names no host", found.remote);
        Ok(Some(found))
    }

    /// Checks it out into an empty directory; gives the commit.
    pub(crate) fn check_out(&self, into: &Path) -> Result<String> {
        self.bring(into)
            .with_context(|| format!("check out {}", printable(&without_user(&self.remote))))
    }

    fn bring(&self, into: &Path) -> Result<String> {
        git(into, &["init", "--quiet"])?;
        let reference = self.reference.as_deref().unwrap_or("HEAD");
        let shallow =
            ["fetch", "--quiet", "--no-tags", "--depth", "1", "--", &self.remote, reference];
        if git(into, &shallow).is_err() {
            // Not every server gives a part of the history, or a commit by its id.
            let all = ["fetch", "--quiet", "--tags", "--", &self.remote, "+refs/*:refs/remotes/*"];
            match git(into, &["fetch", "--quiet", "--", &self.remote, reference]) {
                Ok(_) => {}
                Err(error) if is_commit(reference) => {
                    git(into, &all).map_err(|_| error)?;
                    git(into, &["update-ref", "FETCH_HEAD", reference])?;
                }
                Err(error) => return Err(error),
            }
        }
        git(into, &["checkout", "--quiet", "--detach", "FETCH_HEAD"])?;
        let commit = git(into, &["rev-parse", "HEAD"])?.trim().to_owned();
        if let Some(wanted) = &self.commit {
            ensure!(
                wanted.len() >= 7 && commit.starts_with(wanted.as_str()),
                "expected checksum to match {wanted}, got {commit}"
            );
        }
        if self.submodules && into.join(".gitmodules").exists() {
            git(into, &["submodule", "--quiet", "update", "--init", "--recursive"])?;
        }
        if !self.keep_git_dir {
            fs::remove_dir_all(into.join(".git")).context("remove .git")?;
        }
        Ok(commit)
    }
}

fn is_commit(word: &str) -> bool {
    word.len() == 40 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A password is nobody's business.
fn without_user(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            format!("{scheme}://{host}/{path}")
        }
        None => url.to_owned(),
    }
}

fn git(directory: &Path, words: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .args(["-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never"])
        .arg("-C")
        .arg(directory)
        .args(words)
        .env("GIT_ALLOW_PROTOCOL", PROTOCOLS)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .stdin(Stdio::null())
        .output()
        .context("start git")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next_back().unwrap_or_default();
        bail!("git {}: {}", words.first().copied().unwrap_or_default(), printable(said));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_repositories_are_told_from_others() {
        let parse = |text: &str| Repository::parse(text).unwrap();
        let found = parse("https://h/r.git#v1:docs").unwrap();
        assert_eq!(found.remote, "https://h/r.git");
        assert_eq!((found.reference.as_deref(), &*found.subdirectory), (Some("v1"), "docs"));
        let found =
            parse("https://h/r.git?branch=main&subdir=a/b&commit=0123456&keep-git-dir=true");
        let found = found.unwrap();
        assert_eq!((found.reference.as_deref(), found.keep_git_dir), (Some("main"), true));
        assert!(parse("git@github.com:a/b.git").is_some());
        assert!(parse("https://h/file.tar").is_none());
        assert!(parse("/a/b.git").is_none() && parse("file:///a.git").is_none());
        for bad in [
            "https://h/r.git#--upload-pack=x",
            "https://h/r.git?ref=-x",
            "https://h/r.git#a..b",
            "https://h/r.git?evil=1",
            "ssh://-oProxyCommand=x/r.git",
            "ssh://u@-oProxyCommand=x/r.git",
        ] {
            assert!(Repository::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(without_user("https://me:pw@h/r.git"), "https://h/r.git");
    }
}
