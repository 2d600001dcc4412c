//! `<<EOF`: files and scripts that stand in the Dockerfile itself.

use super::words;

/// One heredoc.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heredoc {
    pub(crate) name: String,
    /// The word that opens it, as written.
    pub(crate) opening: String,
    /// Whether variables in it are replaced: its name is not quoted.
    pub(crate) expands: bool,
    /// Whether tabs at the start of its lines are dropped.
    pub(crate) chomp: bool,
    pub(crate) body: String,
}

/// The heredocs that an instruction opens, in order, still without bodies.
pub(super) fn openings(text: &str, escape: char) -> Vec<Heredoc> {
    if !text.contains("<<") {
        return Vec::new();
    }
    let mut rest = text.trim_start();
    loop {
        let (keyword, arguments) = words::first(rest);
        match keyword.to_ascii_uppercase().as_str() {
            "ONBUILD" => rest = arguments,
            "RUN" | "COPY" | "ADD" => {
                let (_, arguments) = words::leading_flags(arguments);
                if words::json_list(arguments).is_ok_and(|list| list.is_some()) {
                    return Vec::new();
                }
                return words::raw(arguments, escape)
                    .iter()
                    .filter_map(|word| opening(word))
                    .collect();
            }
            _ => return Vec::new(),
        }
    }
}

/// `[fd]<<[-]NAME`, the name perhaps in quotes.
fn opening(word: &str) -> Option<Heredoc> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (rest, chomp) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
    if rest.contains('<') {
        return None;
    }
    let name: String = rest.chars().filter(|c| !matches!(c, '"' | '\'')).collect();
    let plain = !name.is_empty() && !name.contains(char::is_whitespace);
    plain.then(|| Heredoc {
        expands: name.len() == rest.len(),
        opening: word.to_owned(),
        name,
        chomp,
        body: String::new(),
    })
}
