//! What registries want their users to know: `Warning: 299 - "text"`, by the distribution
//! specification. Each is shown once, however many answers carry it.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use ureq::Body;
use ureq::http::Response;

use crate::output;

/// As many different ones as are shown; a registry must not fill the terminal.
const MOST: usize = 10;
/// As much of one as is shown.
const LONGEST: usize = 500;

static SHOWN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Shows the warnings of an answer of `host`.
pub(super) fn show(host: &str, response: &Response<Body>) {
    for value in response.headers().get_all("warning") {
        let Some(text) = value.to_str().ok().and_then(parse) else { continue };
        let text = format!("warning of {host}: {text}");
        let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.len() < MOST && shown.insert(text.clone()) {
            output::say(&text);
        }
    }
}

/// The text of a warning that is meant for people; other codes are for caches.
fn parse(value: &str) -> Option<String> {
    let quoted = value.trim().strip_prefix("299 - \"")?;
    let mut text = String::new();
    let mut characters = quoted.chars();
    while text.len() < LONGEST {
        match characters.next()? {
            '"' => break,
            '\\' => text.push(characters.next()?),
            other => text.push(other),
        }
    }
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_texts_for_people_are_shown() {
        assert_eq!(parse("299 - \"moved \\\"soon\\\"\"").as_deref(), Some("moved \"soon\""));
        for other in ["", "299 - \"\"", "110 - \"stale\"", "299 host \"x\"", "299 - \"open"] {
            assert_eq!(parse(other), None, "{other}");
        }
        let long = format!("299 - \"{}\"", "x".repeat(4000));
        assert_eq!(parse(&long).map(|text| text.len()), Some(LONGEST));
    }
}
