//! Health checks: what docker's flags say over what the image says, as the supervisor of the
//! container reads it in an annotation.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::build::dockerfile::duration;
use crate::manifest::Config;

/// Docker's, in nanoseconds.
const INTERVAL_NS: u64 = 30_000_000_000;
const TIMEOUT_NS: u64 = 30_000_000_000;
const START_INTERVAL_NS: u64 = 5_000_000_000;
const RETRIES: u32 = 3;

/// As typed.
#[derive(Debug, Default, clap::Args)]
#[group(id = "health")]
pub(crate) struct Words {
    /// Command that tells, in the container, whether it is healthy
    #[arg(long, value_name = "COMMAND", conflicts_with = "no_healthcheck")]
    health_cmd: Option<String>,
    /// Time between two checks [default: 30s]
    #[arg(long, value_name = "TIME", conflicts_with = "no_healthcheck")]
    health_interval: Option<String>,
    /// A check that takes longer has failed [default: 30s]
    #[arg(long, value_name = "TIME", conflicts_with = "no_healthcheck")]
    health_timeout: Option<String>,
    /// Failures in a row that make a container unhealthy [default: 3]
    #[arg(long, value_name = "N", conflicts_with = "no_healthcheck")]
    health_retries: Option<u32>,
    /// Time in which failures do not count, after the start [default: 0s]
    #[arg(long, value_name = "TIME", conflicts_with = "no_healthcheck")]
    health_start_period: Option<String>,
    /// Time between two checks in that time [default: 5s, or the interval]
    #[arg(long, value_name = "TIME", conflicts_with = "no_healthcheck")]
    health_start_interval: Option<String>,
    /// Do without the check that the image has
    #[arg(long)]
    no_healthcheck: bool,
}

/// Checked. What is absent, or zero, is the image's, else the default.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Health {
    none: bool,
    command: Option<String>,
    interval_ns: u64,
    timeout_ns: u64,
    start_period_ns: u64,
    start_interval_ns: u64,
    retries: u32,
}

impl Words {
    pub(super) fn resolve(&self) -> Result<Health> {
        let time = |flag: &str, word: &Option<String>| match word {
            Some(word) => duration(word).with_context(|| format!("invalid {flag} {word:?}")),
            None => Ok(0),
        };
        Ok(Health {
            none: self.no_healthcheck,
            command: self.health_cmd.clone().filter(|command| !command.is_empty()),
            interval_ns: time("--health-interval", &self.health_interval)?,
            timeout_ns: time("--health-timeout", &self.health_timeout)?,
            start_period_ns: time("--health-start-period", &self.health_start_period)?,
            start_interval_ns: time("--health-start-interval", &self.health_start_interval)?,
            retries: self.health_retries.unwrap_or_default(),
        })
    }
}

/// The image's own; the times in nanoseconds.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct OfImage {
    test: Option<Vec<String>>,
    interval: u64,
    timeout: u64,
    start_period: u64,
    start_interval: u64,
    retries: u32,
}

/// The value of the annotation; the times in nanoseconds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Check {
    args: Vec<String>,
    interval: u64,
    timeout: u64,
    start_period: u64,
    /// Said where there is such a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    start_interval: Option<u64>,
    retries: u32,
}

impl Health {
    /// The annotation's value, if there is a check.
    pub(crate) fn over(&self, image: &Config) -> Result<Option<String>> {
        if self.none {
            return Ok(None);
        }
        let found = image.other.get("Healthcheck").filter(|value| !value.is_null());
        let of_image: OfImage = match found {
            Some(value) => serde_json::from_value(value.clone())
                .context("the image's Healthcheck makes no sense: say --no-healthcheck")?,
            None => OfImage::default(),
        };
        let test = match &self.command {
            Some(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
            None => of_image.test.unwrap_or_default(),
        };
        let Some(args) = arguments(test, image)? else {
            let start = self.start_period_ns | self.start_interval_ns;
            let said = self.interval_ns | self.timeout_ns | start;
            ensure!(
                said == 0 && self.retries == 0,
                "--health-… without a check: neither the image nor --health-cmd has one"
            );
            return Ok(None);
        };
        let first = |ours: u64, image: u64, default: u64| {
            [ours, image].into_iter().find(|value| *value > 0).unwrap_or(default)
        };
        let retries = [self.retries, of_image.retries].into_iter().find(|count| *count > 0);
        let interval = first(self.interval_ns, of_image.interval, INTERVAL_NS);
        let start_period = first(self.start_period_ns, of_image.start_period, 0);
        let usual = interval.min(START_INTERVAL_NS);
        let start_interval = first(self.start_interval_ns, of_image.start_interval, usual);
        let check = Check {
            args,
            interval,
            timeout: first(self.timeout_ns, of_image.timeout, TIMEOUT_NS),
            start_period,
            start_interval: (start_period > 0).then_some(start_interval),
            retries: retries.unwrap_or(RETRIES),
        };
        serde_json::to_string(&check).context("write the health check").map(Some)
    }
}

/// The words to execute. An image's own shell takes a line where it names one.
fn arguments(test: Vec<String>, image: &Config) -> Result<Option<Vec<String>>> {
    let mut words = test.into_iter();
    let kind = words.next().unwrap_or_default();
    let words: Vec<String> = words.collect();
    Ok(match kind.as_str() {
        "" | "NONE" => None,
        "CMD" if !words.is_empty() => Some(words),
        "CMD-SHELL" if !words.is_empty() => {
            let shell = image.other.get("Shell").and_then(|shell| shell.as_array());
            let own = shell.into_iter().flatten().filter_map(|word| word.as_str());
            let mut args: Vec<String> = own.map(str::to_owned).collect();
            if args.is_empty() {
                args = vec!["/bin/sh".to_owned(), "-c".to_owned()];
            }
            args.extend(words);
            Some(args)
        }
        _ => bail!("the image's Healthcheck makes no sense ({kind:?}): say --no-healthcheck"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn image(other: Value) -> Config {
        serde_json::from_value(other).unwrap()
    }

    fn check(health: &Health, image: &Config) -> Value {
        serde_json::from_str(&health.over(image).unwrap().unwrap()).unwrap()
    }

    #[test]
    fn what_is_said_replaces_what_the_image_says() {
        let own = image(json!({
            "Healthcheck": { "Test": ["CMD", "/check"], "Interval": 5_000_000_000_u64, "Retries": 7 }
        }));
        let found = check(&Health::default(), &own);
        let wanted = json!({ "args": ["/check"], "interval": 5_000_000_000_u64,
            "timeout": TIMEOUT_NS, "startPeriod": 0, "retries": 7 });
        assert_eq!(found, wanted);
        let health = Health { command: Some("true".into()), retries: 1, ..Health::default() };
        let found = check(&health, &own);
        assert_eq!(found["args"], json!(["/bin/sh", "-c", "true"]));
        assert_eq!(
            (found["retries"].as_u64(), found["interval"].as_u64()),
            (Some(1), Some(5_000_000_000))
        );
        let none = Health { none: true, ..Health::default() };
        assert_eq!(none.over(&own).unwrap(), None);
    }

    #[test]
    fn a_line_goes_to_the_image_s_shell() {
        let own = image(json!({
            "Shell": ["/bin/bash", "-ec"], "Healthcheck": { "Test": ["CMD-SHELL", "exit 0"] }
        }));
        assert_eq!(check(&Health::default(), &own)["args"], json!(["/bin/bash", "-ec", "exit 0"]));
    }

    #[test]
    fn an_image_without_a_check_has_none() {
        for other in
            [json!({}), json!({ "Healthcheck": null }), json!({"Healthcheck": {"Test": ["NONE"]}})]
        {
            assert_eq!(Health::default().over(&image(other)).unwrap(), None);
        }
        let late = Health { retries: 2, ..Health::default() };
        assert!(late.over(&image(json!({}))).is_err());
        assert!(Health::default().over(&image(json!({"Healthcheck": {"Test": ["CMD"]}}))).is_err());
    }
}
