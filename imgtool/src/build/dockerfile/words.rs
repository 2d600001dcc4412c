//! Words of an instruction, by the several rules there are for them.

use anyhow::{Result, bail};
use serde_json::Value;

/// The first word, and the rest without blanks around it.
pub(super) fn first(text: &str) -> (&str, &str) {
    let text = text.trim();
    match text.split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim()),
        None => (text, ""),
    }
}

/// The flags that stand before the arguments, without quotes, and the arguments.
pub(super) fn leading_flags(text: &str) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (word, length) = flag(rest);
        rest = rest[length..].trim_start();
        if word == "--" {
            break;
        }
        flags.push(word);
    }
    (flags, rest)
}

/// One flag without its quotes, and how many bytes it took.
fn flag(text: &str) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match (letter, quote) {
            ('\\', _) => word.extend(letters.next().map(|(_, letter)| letter)),
            (_, Some(open)) if letter == open => quote = None,
            ('"' | '\'', None) => quote = Some(letter),
            (_, None) if letter.is_whitespace() => return (word, at),
            _ => word.push(letter),
        }
    }
    (word, text.len())
}

/// Words with their quotes and escapes still in them.
pub(super) fn raw(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if quote.is_none() && letter.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        let current = word.get_or_insert_default();
        current.push(letter);
        match (letter, quote) {
            (_, Some('\'')) if letter != '\'' => {}
            (_, _) if letter == escape => current.extend(letters.next()),
            (_, Some(open)) if letter == open => quote = None,
            ('"' | '\'', None) => quote = Some(letter),
            _ => {}
        }
    }
    words.extend(word);
    words
}

/// The list that a whole argument is, if it is one. A list of anything but strings is an error.
pub(super) fn json_list(text: &str) -> Result<Option<Vec<String>>> {
    let text = text.trim();
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(Value::Array(values)) = serde_json::from_str(text) else { return Ok(None) };
    let mut words = Vec::new();
    for value in values {
        match value {
            Value::String(word) => words.push(word),
            _ => bail!("only string values are allowed in a JSON array, which {text} is not"),
        }
    }
    Ok(Some(words))
}

/// A JSON list, or words between blanks.
pub(super) fn list(text: &str) -> Result<Vec<String>> {
    Ok(match json_list(text)? {
        Some(words) => words,
        None => text.split_whitespace().map(str::to_owned).collect(),
    })
}
