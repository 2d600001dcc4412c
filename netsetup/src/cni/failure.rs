//! Failures with the codes of the CNI specification.

use thiserror::Error;

/// What went wrong, as runtimes tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    Version = 1,
    UnsupportedField = 2,
    Environment = 4,
    Io = 5,
    Decoding = 6,
    Config = 7,
    Netns = 8,
    Unavailable = 50,
    Internal = 999,
}

/// A failure with a code.
#[derive(Debug, Error)]
#[error("{text}")]
pub(super) struct Failure {
    pub(super) code: Code,
    text: String,
}

impl Failure {
    pub(super) fn new(code: Code, text: impl Into<String>) -> Failure {
        Failure { code, text: text.into() }
    }

    /// A setting that we do not carry out is an error: silently left out it would surprise.
    pub(super) fn unsupported(key: &str) -> Failure {
        Failure::new(Code::UnsupportedField, format!("{key} is not supported"))
    }
}
