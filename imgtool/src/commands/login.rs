//! `imgtool login`: tries credentials on a registry and keeps them.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::access;
use crate::error::printable;
use crate::output;
use crate::reference::{DEFAULT_HOST, Reference};
use crate::store::Store;
use crate::transport::credentials::{self, AuthFile, Credentials, Lookup, Saved};
use crate::transport::registry::{Action, Repository, Session};

const MAX_PASSWORD: u64 = 64 << 10;

/// Log in to a registry
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The registry [default: Docker Hub]
    #[arg(value_name = "SERVER")]
    server: Option<String>,
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Better not: others see it in the list of processes
    #[arg(short, long)]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long, conflicts_with = "password")]
    password_stdin: bool,
    /// Print the user name of the login that there is
    #[arg(long)]
    get_login: bool,
    /// The file to keep it in [default: docker's config.json]
    #[arg(long, alias = "compat-auth-file", value_name = "FILE")]
    authfile: Option<PathBuf>,
    #[command(flatten)]
    connection: access::Connection,
}

pub(crate) fn run(_store: &Store, args: &Args) -> Result<()> {
    let host = host(args.server.as_deref())?;
    let path = credentials::file_to_write(args.authfile.as_deref())?;
    let known = known(&host, args.authfile.as_deref(), &path)?;
    if args.get_login {
        let user = known.as_ref().and_then(Credentials::user);
        let user = user.with_context(|| format!("not logged in to {host}"))?;
        writeln!(output::stdout(), "{}", printable(user))?;
        return Ok(());
    }
    let session = session(&host, args)?;
    if args.username.is_none()
        && args.password.is_none()
        && !args.password_stdin
        && let Some(known) = known
    {
        let session = session.with_credentials(known);
        writeln!(output::stdout(), "Authenticating with existing credentials...")?;
        match session.log_in() {
            Ok(_) => return succeeded(),
            Err(error) if std::io::stdin().is_terminal() => output::say(&format!("{error:#}")),
            Err(error) => return Err(error),
        }
    }
    let credentials = ask(args)?;
    let session = self::session(&host, args)?.with_credentials(credentials.clone());
    let identity = session.log_in().with_context(|| format!("log in to {host}"))?;
    let keep = identity.map_or(credentials, Credentials::IdentityToken);
    let saved = AuthFile::read_or_new(&path)?.save(&host, &keep)?;
    if saved == Saved::InFile {
        output::say(&format!(
            "warning: the password lies unencrypted in {}; a credential helper would keep it elsewhere",
            path.display()
        ));
    }
    succeeded()
}

fn succeeded() -> Result<()> {
    writeln!(output::stdout(), "Login Succeeded")?;
    Ok(())
}

/// The host in what the user typed, which may be a URL.
pub(super) fn host(server: Option<&str>) -> Result<String> {
    let Some(server) = server else {
        return Ok(DEFAULT_HOST.to_owned());
    };
    let rest = server.trim_start_matches("https://").trim_start_matches("http://");
    let host = rest.split('/').next().unwrap_or_default();
    if matches!(host, "index.docker.io" | "registry-1.docker.io" | DEFAULT_HOST) {
        return Ok(DEFAULT_HOST.to_owned());
    }
    // A name without dots is a host here, unlike in the name of an image.
    let known = Reference::parse(&format!("{host}/x"));
    let plain = Reference::parse(&format!("{host}.local/x"));
    let valid = known.is_ok() && (plain.is_ok() || host.contains([':', '.']));
    ensure!(valid && !host.is_empty(), "invalid name of a registry: {server:?}");
    Ok(host.to_ascii_lowercase())
}

fn known(host: &str, authfile: Option<&Path>, path: &Path) -> Result<Option<Credentials>> {
    let lookup = match authfile {
        Some(_) if !path.exists() => return Ok(None),
        Some(_) => Lookup::File(path.to_owned()),
        None if std::env::var_os("REGISTRY_AUTH_FILE").is_some() && !path.exists() => {
            return Ok(None);
        }
        None => Lookup::Default,
    };
    lookup.find(host, "")
}

fn session(host: &str, args: &Args) -> Result<Session> {
    let access = args.connection.access(Lookup::Anonymous);
    let name = Reference::on_host(host)?;
    Ok(Repository::open(&name, &access, Action::Pull)?.session)
}

fn ask(args: &Args) -> Result<Credentials> {
    let terminal = std::io::stdin().is_terminal();
    if args.password_stdin {
        ensure!(args.username.is_some(), "--password-stdin needs --username");
    }
    let secret_is_given = args.password_stdin || args.password.is_some();
    if !(terminal || args.username.is_some() && secret_is_given) {
        bail!("standard input is no terminal to ask on: use --username and --password-stdin");
    }
    let user = match &args.username {
        Some(user) => user.clone(),
        None => prompt("Username: ", true)?,
    };
    ensure!(!user.is_empty() && !user.contains(':'), "invalid user name {user:?}");
    let password = match &args.password {
        Some(password) => {
            output::say("warning: others see a password on the command line: use --password-stdin");
            password.clone()
        }
        None if args.password_stdin => read_password()?,
        None => prompt("Password: ", false)?,
    };
    ensure!(!password.is_empty(), "the password is empty");
    Ok(Credentials::Password { user, password })
}

/// All of standard input but one end of line.
fn read_password() -> Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin().take(MAX_PASSWORD).read_to_end(&mut bytes).context("read the password")?;
    let mut password = String::from_utf8(bytes).ok().context("the password is not UTF-8")?;
    if password.ends_with('\n') {
        password.pop();
        if password.ends_with('\r') {
            password.pop();
        }
    }
    Ok(password)
}

/// Asks on the terminal.
fn prompt(question: &str, echo: bool) -> Result<String> {
    let stdin = std::io::stdin();
    let mut out = output::stdout();
    write!(out, "{question}")?;
    out.flush()?;
    let before = tcgetattr(&stdin).context("ask for the password")?;
    if !echo {
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Now, &silent).context("ask for the password")?;
    }
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    if !echo {
        tcsetattr(&stdin, OptionalActions::Now, &before).context("ask for the password")?;
        writeln!(out)?;
    }
    read.context("read from the terminal")?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_typed_in_many_ways() {
        for (typed, wanted) in [
            ("https://reg.example/v2/", "reg.example"),
            ("Reg.example:5000", "reg.example:5000"),
            ("localhost:5000", "localhost:5000"),
            ("https://index.docker.io/v1/", "docker.io"),
        ] {
            assert_eq!(host(Some(typed)).unwrap(), wanted);
        }
        assert_eq!(host(None).unwrap(), "docker.io");
        for bad in ["", "http://", "a b", "-x", "a@b"] {
            assert!(host(Some(bad)).is_err(), "{bad}");
        }
    }
}
