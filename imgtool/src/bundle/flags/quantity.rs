//! Sizes and CPU counts, as Docker writes them.

use anyhow::{Context, Result, bail};

/// Below this a container can't even start.
const MIN_MEMORY: i64 = 6 << 20;
/// The scheduler's period that `--cpus` is turned into a quota of, in µs.
pub(crate) const CPU_PERIOD_US: u64 = 100_000;

/// A size of memory that a container can live in.
pub(super) fn memory(word: &str) -> Result<i64> {
    let bytes = size(word)?;
    if bytes < MIN_MEMORY {
        bail!("minimum memory limit allowed is 6MB, not {word:?}");
    }
    Ok(bytes)
}

/// `256m`, `1.5g`, `1073741824`: powers of 1024.
pub(super) fn size(word: &str) -> Result<i64> {
    let lower = word.trim().to_ascii_lowercase();
    let number_length = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len();
    let (number, suffix) = lower.split_at(number_length);
    let shift = match suffix {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        other => bail!("invalid memory size {word:?}: unknown suffix {other:?}"),
    };
    decimal(number.trim_end(), 1 << shift).with_context(|| format!("invalid memory size {word:?}"))
}

/// `1.5` CPUs as a quota in µs of each period.
pub(super) fn cpus(word: &str) -> Result<i64> {
    let quota = decimal(word, CPU_PERIOD_US.cast_signed())
        .with_context(|| format!("invalid number of CPUs {word:?}"))?;
    // The kernel refuses a quota below 1 ms.
    if quota < 1_000 {
        bail!("invalid number of CPUs {word:?}: the least is 0.01");
    }
    Ok(quota)
}

/// The decimal fraction `word` times `unit`, rounded down, without floating point.
fn decimal(word: &str, unit: i64) -> Result<i64> {
    let (whole, fraction) = word.split_once('.').unwrap_or((word, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        bail!("expected a decimal number");
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().context("too large")? };
    let mut total = whole.checked_mul(unit).context("too large")?;
    // More than 9 digits after the point can't change a value that is worth having.
    let digits = &fraction[..fraction.len().min(9)];
    if !digits.is_empty() {
        let scale = 10_i128.pow(u32::try_from(digits.len()).context("too long")?);
        let part = i128::from(digits.parse::<i64>()?) * i128::from(unit) / scale;
        total = total.checked_add(i64::try_from(part)?).context("too large")?;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_takes_dockers_suffixes() {
        for (word, bytes) in [
            ("256m", 256 << 20),
            ("1.5g", 3 << 29),
            ("1G", 1 << 30),
            ("8192k", 8 << 20),
            ("8192KiB", 8 << 20),
            ("1073741824", 1 << 30),
            ("1073741824b", 1 << 30),
            ("2T", 2 << 40),
        ] {
            assert_eq!(memory(word).unwrap(), bytes, "{word}");
        }
        for word in [
            "",
            "m",
            "1x",
            "-1",
            "1m2",
            "1.2.3g",
            "5m",
            "99999999999999999999g",
            "9999999999t",
            "é",
        ] {
            assert!(memory(word).is_err(), "{word}");
        }
    }

    #[test]
    fn cpus_become_a_quota() {
        for (word, quota) in
            [("1", 100_000), ("1.5", 150_000), (".5", 50_000), ("0.01", 1_000), ("64", 6_400_000)]
        {
            assert_eq!(cpus(word).unwrap(), quota, "{word}");
        }
        for word in ["", ".", "0", "0.001", "-1", "1e3", "x"] {
            assert!(cpus(word).is_err(), "{word}");
        }
    }
}
