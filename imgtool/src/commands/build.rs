//! `imgtool build`: an image from a Dockerfile.

mod cache;
mod outputs;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail, ensure};

use self::outputs::Output;
use super::{access, pull, push};
use crate::build::dockerfile::{At, Lines};
use crate::build::engine::LAYOUT;
use crate::build::engine::mounts::Secret;
use crate::build::lint::Warning;
use crate::build::report::Style;
use crate::build::run::Network;
use crate::build::{Built, Failure, Named, Request, build, check, parse_argument};
use crate::error::printable;
use crate::manifest::Platform;
use crate::output;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::rewrite;
use crate::store::Store;
use crate::transport::place::Place;

/// Lines that an excerpt shows before and after.
const AROUND: usize = 2;

/// Build an image from a Dockerfile and print its ID
///
/// RUN steps are executed by the runtime, in the host's network unless --network says otherwise.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory with the files to copy, the URL of a git repository or of an archive, or "-" for
    /// an archive or a Dockerfile on standard input
    #[arg(value_name = "DIR|URL|-")]
    context: String,
    /// The Dockerfile, or "-" for standard input [default: DIR/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Name of the image; may be given several times
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    tags: Vec<String>,
    /// A value for an ARG; without "=", that of the variable of this name
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    build_args: Vec<String>,
    /// The stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// A label for the image
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<String>,
    /// What to build for; several make an index of images [default: this host]
    #[arg(long, value_name = "OS/ARCH", value_parser = Platform::parse, value_delimiter = ',')]
    platform: Vec<Platform>,
    /// A secret for RUN --mount=type=secret: id=NAME[,src=FILE|,env=VARIABLE]
    #[arg(long = "secret", value_name = "SECRET", value_parser = secret)]
    secrets: Vec<(String, Secret)>,
    /// A socket of an ssh agent for RUN --mount=type=ssh: NAME[=SOCKET]
    #[arg(long = "ssh", value_name = "AGENT", value_parser = agent)]
    agents: Vec<(String, PathBuf)>,
    /// Look for what is probably not meant, and build nothing
    #[arg(long)]
    check: bool,
    /// Do all steps anew
    #[arg(long)]
    no_cache: bool,
    /// Where it goes: a directory, "-", or
    /// type=local|tar|oci|docker|image|registry|cacheonly[,dest=FILE][,name=NAME][,push=true]
    /// [default: the store]
    #[arg(short, long = "output", value_name = "OUTPUT", value_parser = outputs::parse)]
    outputs: Vec<Output>,
    /// Push the image under its names
    #[arg(long)]
    push: bool,
    /// What steps made elsewhere: type=registry,ref=NAME, type=local,src=DIR, or NAME
    #[arg(long, value_name = "CACHE", value_parser = cache::from)]
    cache_from: Vec<Place>,
    /// Leave what steps made for others: type=registry,ref=NAME or type=local,dest=DIR, and
    /// mode=max for the steps of all stages
    #[arg(long, value_name = "CACHE", value_parser = cache::to)]
    cache_to: Vec<cache::To>,
    /// What RUN may ask for: security.insecure is all that we may do ourselves, network.host the
    /// host's network though --network gives another
    #[arg(long, value_name = "WHAT", value_parser = allowed)]
    allow: Vec<Allowed>,
    /// Make one layer of all, the base's too
    #[arg(long)]
    squash: bool,
    /// An annotation of the manifest
    #[arg(long = "annotation", value_name = "NAME=VALUE")]
    annotations: Vec<String>,
    /// Files or an image that --from and FROM know by a name: NAME=DIR, a git URL,
    /// docker-image://IMAGE, oci-layout://DIR[:TAG] or target:STAGE
    #[arg(long = "build-context", value_name = "NAME=WHERE")]
    contexts: Vec<String>,
    /// Write digests and names into a file, as buildx does
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Do all steps of a stage anew
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Ask registries for newer images to begin with, though there are some here
    #[arg(long)]
    pull: bool,
    /// The network of RUN steps that ask for none: host (the default), none, bridge, or the name
    /// of a bridge of netsetup's
    #[arg(long, value_name = "NETWORK", value_parser = Network::parse)]
    network: Option<Network>,
    /// A line for /etc/hosts of RUN steps
    #[arg(long = "add-host", value_name = "NAME:ADDRESS", value_parser = host)]
    hosts: Vec<HostLine>,
    /// Nothing is left to be removed after a build: for scripts that say it to docker
    #[arg(long, hide = true, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    rm: Option<Option<bool>>,
    #[arg(long, hide = true)]
    force_rm: bool,
    /// Write the ID of the image into a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// How to show it: auto (tty on a terminal, else plain), tty, plain, quiet, rawjson, or legacy,
    /// the "Step 1/5" of docker's classic builder
    #[arg(long, value_name = "STYLE", value_parser = Style::parse)]
    progress: Option<Style>,
    /// Print the ID only
    #[arg(short, long)]
    quiet: bool,
    /// The OCI runtime that executes RUN steps [default: the one beside this program]
    #[arg(long, value_name = "PROGRAM")]
    runtime: Option<PathBuf>,
    #[command(flatten)]
    access: access::Flags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allowed {
    Insecure,
    /// The host's network, where `--network` gives another.
    Network,
}

fn allowed(word: &str) -> Result<Allowed> {
    match word {
        "security.insecure" => Ok(Allowed::Insecure),
        "network.host" => Ok(Allowed::Network),
        _ => Err(anyhow!("it is security.insecure or network.host")),
    }
}

/// How it is shown: as the flags say, else as the variable that BuildKit reads does.
fn style(args: &Args) -> Result<Style> {
    match (args.quiet, args.progress) {
        (true, _) => Ok(Style::Quiet),
        (false, Some(style)) => Ok(style),
        (false, None) => {
            let word = std::env::var("BUILDKIT_PROGRESS").unwrap_or_default();
            Style::parse(&word).context("BUILDKIT_PROGRESS")
        }
    }
}

/// A name and its address; none is that of the host, as a step sees it.
type HostLine = (String, Option<IpAddr>);

fn host(word: &str) -> Result<HostLine> {
    let parts = word.split_once([':', '=']).filter(|(name, _)| !name.is_empty());
    let (name, address) = parts.context("want NAME:ADDRESS")?;
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    ensure!(plain, "{name:?} is no name of a host");
    if address == "host-gateway" {
        return Ok((name.to_owned(), None));
    }
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let address = address.parse().with_context(|| format!("{address:?} is no address"))?;
    Ok((name.to_owned(), Some(address)))
}

/// The lines with the host's address where it is meant.
fn host_lines(lines: &[HostLine], network: &Network) -> Result<Vec<(String, IpAddr)>> {
    let line = |(name, address): &HostLine| {
        let own = || match network {
            Network::Host | Network::None => Ok(IpAddr::from([127, 0, 0, 1])),
            Network::Bridge(_) => bail!(
                "--add-host {name}:host-gateway: what address the host has on a bridge is not \
                 known before the step starts: give it ('netsetup bridge inspect' shows it)"
            ),
        };
        Ok((name.clone(), address.map_or_else(own, Ok)?))
    };
    lines.iter().map(line).collect()
}

fn secret(word: &str) -> Result<(String, Secret)> {
    let (mut id, mut source) = (None, None);
    for field in word.split(',') {
        match field.split_once('=') {
            Some(("id", value)) => id = Some(value.to_owned()),
            Some(("src" | "source", value)) => source = Some(Secret::File(value.into())),
            Some(("env", value)) => source = Some(Secret::Variable(value.to_owned())),
            Some(("type", "file" | "env")) => {}
            _ => anyhow::bail!("{field:?} is none of id=, src= and env="),
        }
    }
    let id = id.filter(|id| !id.is_empty()).context("it has no id")?;
    // As with BuildKit: the variable of this name, or else the file.
    let default = || match std::env::var_os(&id) {
        Some(_) => Secret::Variable(id.clone()),
        None => Secret::File(id.clone().into()),
    };
    Ok((id.clone(), source.unwrap_or_else(default)))
}

fn agent(word: &str) -> Result<(String, PathBuf)> {
    if let Some((name, path)) = word.split_once('=') {
        return Ok((name.to_owned(), path.into()));
    }
    let socket = std::env::var_os("SSH_AUTH_SOCK").context("SSH_AUTH_SOCK is not set")?;
    Ok((word.to_owned(), socket.into()))
}

pub(crate) fn run(store: &Store, args: &Args) -> Result<()> {
    let style = style(args)?;
    let request = request(args, style)?;
    if args.check {
        return check_only(store, &request);
    }
    let access = args.access.access()?;
    let bring = |name: &str, platform: Option<&Platform>| match name.strip_prefix(LAYOUT) {
        Some(place) => cache::bring_layout(store, place, platform, &access).map(Some),
        None => pull::bring(store, name, platform, &access, &Progress::Silent).map(|()| None),
    };
    let caches = cache::open(store, &args.cache_from, &access);
    let deliver = |store: &Store, built: &Built| {
        let mut outputs = args.outputs.iter();
        outputs.try_for_each(|output| output.deliver(store, built, request.names.first()))?;
        if pushes(args) {
            for name in &request.names {
                push::quietly(store, name, &built.entry, &access)?;
            }
        }
        args.cache_to.iter().try_for_each(|to| to.deliver(store, &caches, built, &access))
    };
    let built = build(store, &request, &bring, &caches, &deliver).map_err(explain)?;
    let id = &built.id;
    if let Some(path) = &args.metadata_file {
        std::fs::write(path, outputs::metadata(&built, &request.names))
            .with_context(|| format!("write {}", path.display()))?;
    }
    if let Some(path) = &args.iidfile {
        std::fs::write(path, id.to_string())
            .with_context(|| format!("write {}", path.display()))?;
    }
    if args.outputs.iter().any(Output::is_stdout) {
        return Ok(());
    }
    let mut stdout = output::stdout();
    match style {
        Style::Legacy => {
            writeln!(stdout, "Successfully built {}", id.short())?;
            for name in &request.names {
                writeln!(stdout, "Successfully tagged {}", name.familiar())?;
            }
        }
        Style::Plain | Style::Screen | Style::Quiet | Style::Json => writeln!(stdout, "{id}")?,
    }
    Ok(())
}

fn pushes(args: &Args) -> bool {
    args.push || args.outputs.iter().any(|output| matches!(output, Output::Registry(_)))
}

fn request(args: &Args, style: Style) -> Result<Request> {
    let mut names = Vec::new();
    let further = args.outputs.iter().filter_map(|output| match output {
        Output::Registry(name) => name.as_ref(),
        _ => None,
    });
    for tag in args.tags.iter().chain(further) {
        let name = Reference::parse(tag)?.with_default_tag();
        ensure!(name.digest().is_none(), "{tag}: a digest can't be given");
        names.push(name);
    }
    ensure!(
        !pushes(args) || !names.is_empty(),
        "an image that is pushed needs a name: give it by --tag, or name= of the output"
    );
    let mut arguments = BTreeMap::new();
    for word in &args.build_args {
        let argument = parse_argument(word).with_context(|| format!("--build-arg {word}"))?;
        arguments.extend(argument);
    }
    let mut contexts = BTreeMap::new();
    for word in &args.contexts {
        let parsed =
            word.split_once('=').filter(|(name, place)| !name.is_empty() && !place.is_empty());
        let (name, place) =
            parsed.with_context(|| format!("--build-context {word}: want NAME=WHERE"))?;
        contexts.insert(name.to_ascii_lowercase(), Named::parse(place)?);
    }
    ensure!(
        args.outputs.iter().filter(|output| output.is_stdout()).count() < 2,
        "only one output can go to standard output"
    );
    let epoch = match arguments.get("SOURCE_DATE_EPOCH") {
        Some(text) => rewrite::parse_epoch(Some(text))?,
        None => rewrite::epoch()?,
    };
    if let Some(epoch) = epoch {
        arguments.insert("SOURCE_DATE_EPOCH".to_owned(), epoch.as_second().to_string());
    }
    let network = args.network.clone().unwrap_or(Network::Host);
    let hosts = host_lines(&args.hosts, &network)?;
    let keep =
        args.outputs.is_empty() || args.outputs.iter().any(Output::is_store) || !names.is_empty();
    Ok(Request {
        context: args.context.clone(),
        file: args.file.clone(),
        arguments,
        target: args.target.clone(),
        platforms: args.platform.clone(),
        names,
        labels: pairs("--label", &args.labels)?,
        annotations: pairs("--annotation", &args.annotations)?,
        contexts,
        squash: args.squash,
        keep,
        no_cache: args.no_cache,
        style,
        runtime: args.runtime.clone(),
        epoch,
        no_cache_stages: args
            .no_cache_filter
            .iter()
            .map(|name| name.to_ascii_lowercase())
            .collect(),
        pull: args.pull,
        network,
        host_network: args.allow.contains(&Allowed::Network),
        insecure: args.allow.contains(&Allowed::Insecure),
        hosts,
        secrets: args.secrets.iter().cloned().collect(),
        agents: args.agents.iter().cloned().collect(),
    })
}

fn pairs(flag: &str, words: &[String]) -> Result<BTreeMap<String, String>> {
    let mut pairs = BTreeMap::new();
    for word in words {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        ensure!(!name.is_empty(), "{flag} {word}: it has no name");
        pairs.insert(name.to_owned(), value.to_owned());
    }
    Ok(pairs)
}

/// Shows the lines that an error is about; the error itself is one line.
fn explain(failure: Failure) -> anyhow::Error {
    let Failure { error, file } = failure;
    let (Some(at), Some((name, text))) = (error.downcast_ref::<At>(), file) else {
        return error.context("failed to build");
    };
    // Nobody is left to tell if this fails.
    let _ = writeln!(std::io::stderr(), "{}", excerpt(&name, &text, at.lines));
    error.context("failed to build: failed to solve")
}

fn check_only(store: &Store, request: &Request) -> Result<()> {
    let (warnings, name, text) = check(store, request).map_err(explain)?;
    let mut out = output::stdout();
    for warning in &warnings {
        let Warning { rule, message, lines } = warning;
        writeln!(out, "WARNING: {rule}\n{}", printable(message))?;
        writeln!(out, "{}\n", excerpt(&name, &text, *lines))?;
    }
    match warnings.len() {
        0 => Ok(writeln!(out, "Check complete, no warnings found.")?),
        1 => Err(anyhow!("Check complete, 1 warning has been found!")),
        many => Err(anyhow!("Check complete, {many} warnings have been found!")),
    }
}

/// Some lines of the file, with those marked that it is about.
fn excerpt(name: &str, text: &str, lines: Lines) -> String {
    let rule = "-".repeat(20);
    let mut shown = format!("{}:{}\n{rule}\n", printable(name), lines.first);
    let first = lines.first.saturating_sub(AROUND).max(1);
    let last = lines.last + AROUND;
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        if (first..=last).contains(&number) {
            let mark = if (lines.first..=lines.last).contains(&number) { ">>>" } else { "   " };
            shown.push_str(&format!("{number:4} | {mark} {}\n", printable(line)));
        }
    }
    shown + &rule
}
