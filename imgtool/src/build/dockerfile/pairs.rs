//! `KEY=VALUE …`, and the older `KEY REST OF THE LINE`.

use anyhow::{Result, bail, ensure};

use super::words;

/// Keys and values, both still with quotes and variables, and whether the older form was used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pairs {
    pub(crate) pairs: Vec<(String, String)>,
    pub(crate) legacy: bool,
}

pub(super) fn pairs(keyword: &str, text: &str, escape: char) -> Result<Pairs> {
    let words = words::raw(text, escape);
    let Some(first) = words.first() else { bail!("{keyword} requires at least one argument") };
    if !first.contains('=') {
        let (key, value) = words::first(text);
        ensure!(!value.is_empty(), "{keyword} must have two arguments");
        return Ok(Pairs { pairs: vec![(key.to_owned(), value.to_owned())], legacy: true });
    }
    let mut pairs = Vec::new();
    for word in &words {
        let Some((key, value)) = word.split_once('=') else {
            bail!("Syntax error - can't find = in {word:?}. Must be of the form: name=value")
        };
        ensure!(!key.is_empty(), "{keyword} names can not be blank");
        pairs.push((key.to_owned(), value.to_owned()));
    }
    Ok(Pairs { pairs, legacy: false })
}

/// `ARG NAME[=DEFAULT] …`
pub(super) fn arguments(text: &str, escape: char) -> Result<Vec<(String, Option<String>)>> {
    let words = words::raw(text, escape);
    ensure!(!words.is_empty(), "ARG requires at least one argument");
    words
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => bail!("ARG names can not be blank"),
            Some((name, default)) => Ok((name.to_owned(), Some(default.to_owned()))),
            None => Ok((word, None)),
        })
        .collect()
}
