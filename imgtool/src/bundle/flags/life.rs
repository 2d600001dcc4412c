//! What `docker run` takes for the life of the container, which is a matter of the runtime here: wishes
//! that the bundle carries to `runtime run --supervise`, and flags that are to be given elsewhere.

use anyhow::{Context, Result, bail, ensure};

use super::quantity;
use crate::bundle::annotations;

/// As typed.
#[derive(Debug, Default, clap::Args)]
#[group(id = "life")]
pub(super) struct Words {
    /// Whether `runtime run --supervise` starts it again: no, on-failure[:N], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Seconds from the signal to stop to the kill, -1 for ever [default: 10]
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    stop_timeout: Option<i64>,
    /// Where its output goes: json-file or local, which mean the log of `runtime run --supervise`
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// How that log is turned over: max-size=SIZE, max-file=N
    #[arg(long, value_name = "KEY=VALUE")]
    log_opt: Vec<String>,

    // What follows is told what to use instead.
    #[arg(short = 'd', long, hide = true)]
    detach: bool,
    #[arg(short = 'a', long, hide = true)]
    attach: Vec<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sig_proxy: Option<bool>,
    #[arg(long, hide = true)]
    detach_keys: Option<String>,
    #[arg(long, hide = true)]
    cidfile: Option<String>,
    #[arg(long, hide = true)]
    link: Vec<String>,
    #[arg(long, hide = true)]
    link_local_ip: Vec<String>,
    #[arg(long, hide = true)]
    kernel_memory: Option<String>,
    #[arg(long, hide = true)]
    volume_driver: Option<String>,
    #[arg(long, hide = true)]
    isolation: Option<String>,
    #[arg(long, hide = true)]
    runtime: Option<String>,
    #[arg(long, hide = true)]
    storage_opt: Vec<String>,
    #[arg(long, hide = true)]
    use_api_socket: bool,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    disable_content_trust: Option<bool>,
}

impl Words {
    /// The annotations that say it.
    pub(super) fn resolve(self) -> Result<Vec<(&'static str, String)>> {
        self.refuse_elsewhere()?;
        let mut wishes = Vec::new();
        if let Some(policy) = self.restart {
            check_policy(&policy)?;
            wishes.push((annotations::RESTART, policy));
        }
        if let Some(seconds) = self.stop_timeout {
            ensure!(seconds >= -1, "--stop-timeout {seconds}: seconds, or -1 to wait for ever");
            wishes.push((annotations::STOP_TIMEOUT, seconds.to_string()));
        }
        match self.log_driver.as_deref() {
            None | Some("json-file" | "local") => {}
            Some("none") => {
                bail!("--log-driver none: `runtime run` without --supervise writes no log")
            }
            Some(other) => bail!(
                "--log-driver {other}: the log is a file, in the form of the CRI, that any shipper reads \
                 (runtime run --supervise --log-path FILE): use json-file"
            ),
        }
        for word in &self.log_opt {
            let invalid = || format!("invalid --log-opt {word:?}");
            wishes.push(log_option(word).with_context(invalid)?);
        }
        Ok(wishes)
    }

    /// One line each, with what does it.
    fn refuse_elsewhere(&self) -> Result<()> {
        let given = [
            (
                self.detach,
                "-d: it is `runtime run` that detaches: runtime run --supervise --detach -b BUNDLE",
            ),
            (
                !self.attach.is_empty(),
                "-a: `runtime run` is attached to all three streams, `runtime run --detach` to none, and \
                 `runtime attach` joins later",
            ),
            (
                self.sig_proxy == Some(false),
                "--sig-proxy=false: run it detached, then runtime attach --sig-proxy false ID",
            ),
            (
                self.detach_keys.is_some(),
                "--detach-keys is a flag of `runtime run --supervise` and `runtime attach`",
            ),
            (self.cidfile.is_some(), "--cidfile is a flag of `runtime run` and `runtime create`"),
            (
                !self.link.is_empty(),
                "--link: containers on one bridge know each other by name: --network NAME, and \
                 --network-alias for a further one",
            ),
            (
                !self.link_local_ip.is_empty(),
                "--link-local-ip: the kernel gives each interface one of its own; for others use --ip",
            ),
            (
                self.kernel_memory.is_some(),
                "--kernel-memory: kernels have no such limit any more: --memory counts theirs too",
            ),
            (
                self.volume_driver.is_some(),
                "--volume-driver: there are no plugins: imgtool volume create --opt type=nfs (or another) \
                 --opt device=… NAME",
            ),
            (
                self.isolation.as_deref().is_some_and(|word| !matches!(word, "" | "default")),
                "--isolation is for Windows: leave it out",
            ),
            (
                self.runtime.is_some(),
                "--runtime: any OCI runtime runs the bundle: runc run -b BUNDLE ID",
            ),
            (
                !self.storage_opt.is_empty(),
                "--storage-opt: a bundle has the space of the store's file system: put --root on one of the \
                 size, or with a quota",
            ),
            (
                self.use_api_socket,
                "--use-api-socket: there is no daemon, so no socket: -v what the container needs",
            ),
            (
                self.disable_content_trust == Some(false),
                "--disable-content-trust=false: signatures are asked for by policy.json, or by \
                 imgtool pull --signature-policy FILE",
            ),
        ];
        match given.iter().find(|(given, _)| *given) {
            Some((_, instead)) => bail!("{instead}"),
            None => Ok(()),
        }
    }
}

fn check_policy(policy: &str) -> Result<()> {
    let good = match policy.split_once(':') {
        Some(("on-failure", times)) => times.parse::<u32>().is_ok_and(|times| times > 0),
        Some(_) => false,
        None => matches!(policy, "no" | "on-failure" | "always" | "unless-stopped"),
    };
    ensure!(good, "invalid --restart {policy:?}: use no, on-failure[:N], always or unless-stopped");
    Ok(())
}

fn log_option(word: &str) -> Result<(&'static str, String)> {
    match word.split_once('=') {
        Some(("max-size", size)) => {
            let bytes = quantity::size(size)?;
            ensure!(bytes > 0, "a size above 0, such as 10m");
            Ok((annotations::LOG_MAX_SIZE, bytes.to_string()))
        }
        Some(("max-file", number)) => {
            let files: u32 = number.parse().context("a number of files")?;
            ensure!(files > 0, "at least the file that is written to is kept");
            Ok((annotations::LOG_MAX_FILES, files.to_string()))
        }
        _ => bail!("there are max-size=SIZE and max-file=N"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_become_annotations() {
        let words = Words {
            restart: Some("on-failure:3".into()),
            stop_timeout: Some(-1),
            log_driver: Some("json-file".into()),
            log_opt: vec!["max-size=10m".into(), "max-file=3".into()],
            sig_proxy: Some(true),
            ..Words::default()
        };
        let wishes = words.resolve().unwrap();
        assert_eq!(
            wishes.iter().map(|(key, value)| (*key, value.as_str())).collect::<Vec<_>>(),
            [
                (annotations::RESTART, "on-failure:3"),
                (annotations::STOP_TIMEOUT, "-1"),
                (annotations::LOG_MAX_SIZE, "10485760"),
                (annotations::LOG_MAX_FILES, "3"),
            ]
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "never", "on-failure:x", "always:3"] {
            assert!(check_policy(bad).is_err(), "{bad}");
        }
        for bad in ["", "max-size", "max-size=0", "max-size=x", "max-file=0", "compress=true"] {
            assert!(log_option(bad).is_err(), "{bad}");
        }
        for driver in ["none", "journald"] {
            let words = Words { log_driver: Some(driver.into()), ..Words::default() };
            assert!(words.resolve().is_err(), "{driver}");
        }
    }
}
