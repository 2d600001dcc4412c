//! The errors that a caller tells apart; all others are context chains.

use thiserror::Error;

/// The store has the image, but of other platforms.
#[derive(Debug, Error)]
#[error("no image for {wanted} in the store, only for: {present}")]
pub(crate) struct NoSuchPlatform {
    pub(crate) wanted: String,
    pub(crate) present: String,
}

/// Nothing in the store has this name or ID.
#[derive(Debug, Error)]
pub(crate) struct NoSuchImage {
    pub(crate) name: String,
    /// Whether it could be the name of an image in a registry.
    pub(crate) pullable: bool,
}

impl std::fmt::Display for NoSuchImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no such image: {}", printable(&self.name))?;
        if self.pullable {
            write!(f, " (try: imgtool pull {}, or imgtool images for those here)", self.name)
        } else {
            write!(f, " (imgtool images lists those here)")
        }
    }
}

/// Text from outside with control characters and direction marks escaped, so
/// that a name or a server's message can't drive the terminal.
pub(crate) fn printable(text: &str) -> String {
    let unsafe_mark = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .flat_map(|c| {
            let escaped = unsafe_mark(c).then(|| c.escape_unicode());
            let plain = (!unsafe_mark(c)).then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\u{1b}]0;x\nb\u{202e}"), "a\\u{1b}]0;x\\u{a}b\\u{202e}");
        assert_eq!(printable("grün"), "grün");
    }
}
