//! Credential helpers: programs `docker-credential-NAME` that keep secrets
//! elsewhere than in a file.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{Credentials, TOKEN_USER};

const MAX_ANSWER: u64 = 1 << 20;
/// What helpers say for a registry they don't know; it is no failure.
const NOT_FOUND: &str = "credentials not found";

/// The credentials that the helper has for a registry.
pub(super) fn get(helper: &str, key: &str) -> Result<Option<Credentials>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let Some(answer) = run(helper, "get", key)? else {
        return Ok(None);
    };
    // The answer is a secret: what serde would quote of it must not be shown.
    let Ok(answer) = serde_json::from_slice::<Answer>(&answer) else {
        bail!("docker-credential-{helper} gave no JSON with Username and Secret");
    };
    Ok(Some(if answer.username == TOKEN_USER {
        Credentials::IdentityToken(answer.secret)
    } else {
        Credentials::Password { user: answer.username, password: answer.secret }
    }))
}

/// Gives the helper credentials to keep.
pub(super) fn store(helper: &str, key: &str, credentials: &Credentials) -> Result<()> {
    let (user, secret) = match credentials {
        Credentials::Password { user, password } => (user.as_str(), password),
        Credentials::IdentityToken(token) | Credentials::RegistryToken(token) => {
            (TOKEN_USER, token)
        }
    };
    let input = serde_json::json!({ "ServerURL": key, "Username": user, "Secret": secret });
    run(helper, "store", &input.to_string()).map(drop)
}

/// Makes the helper forget; false if it knew nothing.
pub(super) fn erase(helper: &str, key: &str) -> Result<bool> {
    Ok(run(helper, "erase", key)?.is_some())
}

/// What the helper prints, or `None` if it does not know the registry. What is asked for goes
/// through its standard input only: others can see a command line.
fn run(helper: &str, verb: &str, input: &str) -> Result<Option<Vec<u8>>> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    ensure!(
        !helper.is_empty() && helper.bytes().all(plain),
        "bad name of a credential helper: {helper:?}"
    );
    let program = format!("docker-credential-{helper}");
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("run {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read has its reasons, and says them by its exit code.
        let _ = stdin.write_all(input.as_bytes());
    }
    let mut answer = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(MAX_ANSWER)
            .read_to_end(&mut answer)
            .with_context(|| format!("read from {program}"))?;
    }
    let status = child.wait().with_context(|| format!("wait for {program}"))?;
    if status.success() {
        return Ok(Some(answer));
    }
    let said = String::from_utf8_lossy(&answer);
    if said.contains(NOT_FOUND) {
        return Ok(None);
    }
    // A secret never stands in what a helper prints as it fails; still only a line of it is shown.
    bail!("{program} {verb} failed ({status}): {}", said.lines().next().unwrap_or_default())
}
