//! Where the Dockerfile and the files for it come from.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::OFlags;

use super::engine::LAYOUT;
use super::git::Repository;
use super::ignore::Ignore;
use super::origin::Origin;
use super::remote;
use super::transfer::is_archive;
use crate::layer::compress::{self, BUFFER};
use crate::layer::extract::{Target, extract};
use crate::layer::lower;
use crate::rooted::{self, Symlinks};
use crate::store::Store;

/// More than any Dockerfile has.
const MAX_FILE: u64 = 64 << 20;
/// The names a Dockerfile may have if none is given.
const NAMES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];

/// A Dockerfile and the files it may copy.
pub(crate) struct Context {
    /// The file's name, for messages.
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) origin: Origin,
}

impl Context {
    pub(crate) fn open(store: &Store, word: &str, file: Option<&Path>) -> Result<Self> {
        let from_stdin = file == Some(Path::new("-"));
        if word == "-" {
            ensure!(!from_stdin, "context and Dockerfile can't both be read from standard input");
            return Self::from_stdin(store, file);
        }
        if let Some(repository) = Repository::parse(word)? {
            let (root, holder, _) = remote::check_out(store, &repository)?;
            return Ok(Self::in_directory(root, file, "the repository")?.holding(holder));
        }
        if remote::is_url(word) {
            let fetched = remote::fetch(store, word, None).context("fetch the build context")?;
            return Self::from_file(store, &fetched.file.reopen()?, file, word);
        }
        let directory = Path::new(word);
        let root = open_directory(directory)?;
        if from_stdin {
            let text = read(&mut io::stdin(), "standard input")?;
            return Self::whole("Dockerfile", text, root, None, "the build context");
        }
        match file {
            Some(file) => {
                let text = read(&mut open_file(file)?, &file.display().to_string())?;
                let ignore = beside(file)?;
                let name = file.file_name().map_or("Dockerfile".into(), |n| n.to_string_lossy());
                Self::whole(&name, text, root, ignore, "the build context")
            }
            None => Self::in_directory(root, None, word),
        }
    }

    /// An archive with a Dockerfile in it, or the Dockerfile alone.
    fn from_stdin(store: &Store, file: Option<&Path>) -> Result<Self> {
        let mut stdin = io::stdin();
        ensure!(
            !stdin.is_terminal(),
            "standard input is a terminal: pipe a Dockerfile or an archive in"
        );
        let mut copy = tempfile::tempfile_in(store.staging_dir()).context("create a file")?;
        io::copy(&mut stdin, &mut copy).context("read standard input")?;
        Self::from_file(store, &copy, file, "standard input")
    }

    fn from_file(store: &Store, copy: &File, file: Option<&Path>, shown: &str) -> Result<Self> {
        let again = || -> Result<File> {
            let mut file = copy.try_clone()?;
            io::Seek::rewind(&mut file)?;
            Ok(file)
        };
        let holder = store.staging_subdirectory()?;
        let root = lower::make_root(&holder.path().join("context"))?;
        if !is_archive(again()?)? {
            ensure!(file.is_none(), "{shown} is no archive, so there is no file to name in it");
            let text = read(&mut again()?, shown)?;
            let origin = Origin::held(root, holder, "the build context, which is empty");
            return Ok(Self { name: "Dockerfile".to_owned(), text, origin });
        }
        let plain = compress::reader(BufReader::new(again()?))?;
        let mut plain = BufReader::with_capacity(BUFFER, plain);
        extract(&mut plain, root.as_fd(), Target::Copy).context("unpack the build context")?;
        Ok(Self::in_directory(root, file, shown)?.holding(holder))
    }

    /// With the Dockerfile of a tree.
    fn in_directory(root: OwnedFd, file: Option<&Path>, shown: &str) -> Result<Self> {
        let names = match file {
            Some(file) => vec![file.to_str().context("the file's name is no text")?],
            None => NAMES.to_vec(),
        };
        for name in &names {
            if let Some(mut file) = beneath(&root, name)? {
                let text = read(&mut file, name)?;
                let ignore = match beneath(&root, &format!("{name}.dockerignore"))? {
                    Some(mut file) => Some(read(&mut file, ".dockerignore")?),
                    None => None,
                };
                return Self::whole(name, text, root, ignore, "the build context");
            }
        }
        bail!("no Dockerfile in {shown}: looked for {} (-f names another)", names.join(", "))
    }

    fn whole(
        name: &str,
        text: String,
        root: OwnedFd,
        ignore: Option<String>,
        label: &str,
    ) -> Result<Self> {
        let ignore = match ignore {
            Some(text) => Some(text),
            None => match beneath(&root, ".dockerignore")? {
                Some(mut file) => Some(read(&mut file, ".dockerignore")?),
                None => None,
            },
        };
        let ignore = Ignore::parse(&ignore.unwrap_or_default()).context("read .dockerignore")?;
        let origin = Origin::new(root, ignore, label);
        Ok(Self { name: name.to_owned(), text, origin })
    }

    fn holding(self, holder: tempfile::TempDir) -> Self {
        Self { origin: self.origin.holding(holder), ..self }
    }
}

/// What a name of `--build-context` stands for.
#[derive(Clone, Debug)]
pub(crate) enum Named {
    Directory(PathBuf),
    Repository(Repository),
    Image(String),
    Stage(String),
}

impl Named {
    pub(crate) fn parse(word: &str) -> Result<Self> {
        if word.starts_with(LAYOUT) {
            return Ok(Self::Image(word.to_owned()));
        }
        if let Some(image) = word.strip_prefix("docker-image://") {
            return Ok(Self::Image(image.to_owned()));
        }
        if let Some(stage) = word.strip_prefix("target:") {
            return Ok(Self::Stage(stage.to_owned()));
        }
        if let Some(repository) = Repository::parse(word)? {
            return Ok(Self::Repository(repository));
        }
        ensure!(!word.contains("://"), "{word}: no build context can be of this kind");
        Ok(Self::Directory(word.into()))
    }

    /// Its files; `None` if it is an image or a stage.
    pub(crate) fn origin(&self, store: &Store, name: &str) -> Result<Option<Origin>> {
        let label = format!("the build context {name}");
        match self {
            Self::Image(_) | Self::Stage(_) => Ok(None),
            Self::Repository(repository) => {
                let (root, holder, _) = remote::check_out(store, repository)?;
                Ok(Some(Origin::held(root, holder, &label)))
            }
            Self::Directory(path) => {
                let root = open_directory(path)?;
                let ignore = match beneath(&root, ".dockerignore")? {
                    Some(mut file) => Ignore::parse(&read(&mut file, ".dockerignore")?)?,
                    None => Ignore::default(),
                };
                Ok(Some(Origin::new(root, ignore, &label)))
            }
        }
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, rustix::fs::Mode::empty())
        .with_context(|| format!("open the build context {}", path.display()))
}

/// A file of the context, opened beneath it; `None` if there is none.
fn beneath(root: &OwnedFd, name: &str) -> Result<Option<File>> {
    use rustix::io::Errno;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    match rooted::open(root.as_fd(), name.as_bytes(), flags, Symlinks::InRoot) {
        Ok(file) => Ok(Some(file.into())),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("open {name} of the build context")),
    }
}

/// The ignore file of this Dockerfile alone.
fn beside(file: &Path) -> Result<Option<String>> {
    let mut name = file.as_os_str().to_owned();
    name.push(".dockerignore");
    let path = PathBuf::from(name);
    match path.symlink_metadata() {
        Ok(_) => Ok(Some(read(&mut open_file(&path)?, &path.display().to_string())?)),
        Err(_) => Ok(None),
    }
}

fn open_file(path: &Path) -> Result<File> {
    File::options()
        .read(true)
        // What is no file must not keep us waiting.
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .with_context(|| format!("open {}", path.display()))
}

fn read(file: &mut dyn Read, name: &str) -> Result<String> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).with_context(|| format!("read {name}"))?;
    ensure!(bytes.len() as u64 <= MAX_FILE, "{name} is larger than {MAX_FILE} bytes");
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
