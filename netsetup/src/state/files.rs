//! Small files that are old or new, never half written.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// `Ok(None)` in place of "not found".
fn found<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn make_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) => {
            fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))
        }
        None => Ok(()),
    }
}

pub(crate) fn read_text(path: &Path) -> Result<Option<String>> {
    found(fs::read_to_string(path)).with_context(|| format!("read {}", path.display()))
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).with_context(|| format!("read {}", path.display()))
}

/// Writes a file that need not outlive a reboot.
pub(crate) fn write(path: &Path, contents: &[u8]) -> Result<()> {
    replace(path, |staged| fs::write(staged, contents))
}

/// The same of JSON. One that is there already is overwritten where there is no room for another: what is
/// taken away must not need room.
fn write_or_overwrite(path: &Path, contents: &[u8]) -> Result<()> {
    write(path, contents).or_else(|error| {
        let cause = error.downcast_ref::<io::Error>().map(io::Error::kind);
        let full = matches!(cause, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded));
        if full && overwrite(path, contents).is_ok() { Ok(()) } else { Err(error) }
    })
}

/// Writes over a file without a moment in which it is half of each: the kernel takes a page at once.
fn overwrite(path: &Path, contents: &[u8]) -> io::Result<()> {
    const PAGE: u64 = 4096;
    let file = File::options().write(true).custom_flags(nix::libc::O_NOFOLLOW).open(path)?;
    let length = file.metadata()?.len();
    let mut contents = contents.to_vec();
    // JSON may end in spaces; a file cut shorter would be half of each for a moment.
    contents.resize(contents.len().max(usize::try_from(length).unwrap_or(0)), b'\n');
    if length == 0 || contents.len() as u64 > PAGE {
        return Err(ErrorKind::StorageFull.into());
    }
    file.write_all_at(&contents, 0)
}

/// Writes a file that outlives a power cut.
pub(crate) fn write_through(path: &Path, contents: &[u8]) -> Result<()> {
    replace(path, |staged| {
        let mut file = File::create(staged)?;
        file.write_all(contents)?;
        file.sync_all()
    })?;
    let sync = |directory: &Path| File::open(directory)?.sync_all();
    path.parent().map_or(Ok(()), sync).with_context(|| format!("write {}", path.display()))
}

fn replace(path: &Path, fill: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    make_parent(path)?;
    let staged = path.with_extension("new");
    let outcome = fill(&staged).and_then(|()| fs::rename(&staged, path));
    outcome.map_err(|error| {
        // The half-written file is nobody's; the error that counts is the first.
        drop(fs::remove_file(&staged));
        anyhow::Error::new(error).context(format!("write {}", path.display()))
    })
}

pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    write_or_overwrite(path, &json(path, value)?)
}

pub(crate) fn write_json_through<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    write_through(path, &json(path, value)?)
}

fn json<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>> {
    let mut text =
        serde_json::to_vec_pretty(value).with_context(|| format!("encode {}", path.display()))?;
    text.push(b'\n');
    Ok(text)
}

pub(crate) fn read_link(path: &Path) -> Result<Option<String>> {
    let target = found(fs::read_link(path)).with_context(|| format!("read {}", path.display()))?;
    Ok(target.map(|target| target.to_string_lossy().into_owned()))
}

/// Makes a link whose target is the text; replaces one that is there.
pub(crate) fn write_link(path: &Path, text: &str) -> Result<()> {
    make_parent(path)?;
    remove(path)?;
    symlink(text, path).with_context(|| format!("write {}", path.display()))
}

pub(crate) fn remove(path: &Path) -> Result<()> {
    found(fs::remove_file(path)).map(|_| ()).with_context(|| format!("remove {}", path.display()))
}

/// Removes a directory if nothing is in it.
pub(crate) fn remove_directory(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Err(error)
            if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) =>
        {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes a directory with what is in it.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    found(fs::remove_dir_all(path))
        .map(|_| ())
        .with_context(|| format!("remove {}", path.display()))
}

/// Names in a directory, sorted; none if there is no directory.
pub(crate) fn entries(path: &Path) -> Result<Vec<String>> {
    let list = || -> io::Result<Vec<String>> {
        let Some(directory) = found(fs::read_dir(path))? else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for entry in directory {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    };
    list().with_context(|| format!("list {}", path.display()))
}
