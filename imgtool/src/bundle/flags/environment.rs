//! Variables of the container: from files, then from the command line.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// No file of variables is larger.
const MAX_BYTES: u64 = 1 << 20;

/// `lookup` gives the value of a variable of our own environment.
pub(super) fn resolve(
    files: &[PathBuf],
    words: &[String],
    lookup: &impl Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for path in files {
        let text = read(path).with_context(|| format!("read {}", path.display()))?;
        for (number, line) in text.lines().enumerate() {
            let place = || format!("{}, line {}", path.display(), number + 1);
            all.extend(from_line(line, lookup).with_context(place)?);
        }
    }
    for word in words {
        all.extend(variable(word, lookup)?);
    }
    Ok(all)
}

/// The labels of files, which are written as variables are.
pub(super) fn labels(files: &[PathBuf]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for path in files {
        let text = read(path).with_context(|| format!("read {}", path.display()))?;
        let lines = text.lines().map(str::trim_start);
        all.extend(
            lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned),
        );
    }
    Ok(all)
}

fn read(path: &Path) -> Result<String> {
    let length = std::fs::metadata(path)?.len();
    ensure!(length <= MAX_BYTES, "it is larger than the limit of {MAX_BYTES} bytes");
    String::from_utf8(std::fs::read(path)?).context("it is not UTF-8")
}

/// As docker has it: a comment is a line of its own, and quotes are part of the value.
fn from_line(
    line: &str,
    lookup: &impl Fn(&str) -> Option<String>,
) -> Result<Option<(String, String)>> {
    let line = line.trim_start_matches('\u{feff}').trim_start();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let key = line.split('=').next().unwrap_or_default();
    ensure!(!key.contains(char::is_whitespace), "variable {key:?} contains whitespace");
    variable(line, lookup)
}

/// `KEY=VALUE`, or `KEY` taken from `lookup`; a bare key that is unset there is left out.
fn variable(
    word: &str,
    lookup: &impl Fn(&str) -> Option<String>,
) -> Result<Option<(String, String)>> {
    let (key, value) = match word.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (word, lookup(word)),
    };
    if key.is_empty() || word.contains('\0') {
        bail!("invalid environment variable: {word:?}");
    }
    Ok(value.map(|value| (key.to_owned(), value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(key: &str) -> Option<String> {
        (key == "SET").then(|| "from host".to_owned())
    }

    fn pairs(all: &[(String, String)]) -> Vec<(&str, &str)> {
        all.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }

    #[test]
    fn words_set_and_take_over() {
        let words = ["A=b=c", "SET", "UNSET", "EMPTY="].map(String::from);
        let env = resolve(&[], &words, &lookup).unwrap();
        assert_eq!(pairs(&env), [("A", "b=c"), ("SET", "from host"), ("EMPTY", "")]);
    }

    #[test]
    fn files_come_first_and_have_comments() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "# x\n\n A=\"b\" # c\nSET\nUNSET\r\nB=1\n").unwrap();
        let env = resolve(&[file.path().to_owned()], &["B=2".to_owned()], &lookup).unwrap();
        assert_eq!(pairs(&env), [("A", "\"b\" # c"), ("SET", "from host"), ("B", "1"), ("B", "2")]);
        for bad in ["a b=c", "=x"] {
            std::fs::write(&file, bad).unwrap();
            let error = resolve(&[file.path().to_owned()], &[], &lookup).unwrap_err();
            assert!(error.to_string().contains("line 1"), "{error}");
        }
    }
}
