//! From the text to lines as the parser sees them: directives read, comments dropped, continued
//! lines joined, the bodies of heredocs taken out.

use anyhow::{Result, bail, ensure};

use super::heredoc::{self, Heredoc};
use super::{Lines, locate};

/// What the first lines say of how to read the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directives {
    /// The frontend that is asked for; ours is the one there is.
    pub(crate) syntax: Option<String>,
    pub(crate) escape: char,
    /// The value of `check`, and where it stands.
    pub(crate) check: Option<(String, usize)>,
}

/// One instruction's text.
#[derive(Debug)]
pub(super) struct Logical {
    pub(super) lines: Lines,
    pub(super) text: String,
    pub(super) heredocs: Vec<Heredoc>,
    pub(super) gap: bool,
}

/// Splits the text of a file.
pub(super) fn split(text: &str) -> Result<(Directives, Vec<Logical>)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = text.lines().map(|line| line.trim_end_matches('\r')).collect();
    let directives = directives(&lines)?;
    let mut found = Vec::new();
    let mut next = 0;
    while next < lines.len() {
        let start = lines[next].trim_start();
        if start.is_empty() || start.starts_with('#') {
            next += 1;
            continue;
        }
        found.push(instruction(&lines, &mut next, directives.escape)?);
    }
    Ok((directives, found))
}

fn directives(lines: &[&str]) -> Result<Directives> {
    let mut read = Directives { syntax: None, escape: '\\', check: None };
    let mut escape_set = false;
    for (index, line) in lines.iter().enumerate() {
        if index == 0 && line.starts_with("#!") {
            continue;
        }
        let Some((key, value)) = directive(line) else { break };
        let at = Lines { first: index + 1, last: index + 1 };
        let fail = |text: String| locate(at, &anyhow::anyhow!(text));
        let twice = || {
            fail(format!(
                "dockerfile parse error on line {}: only one {key} parser directive can be used",
                at.first
            ))
        };
        match key.as_str() {
            "syntax" if read.syntax.is_some() => return Err(twice()),
            "syntax" => read.syntax = Some(value.to_owned()),
            "check" if read.check.is_some() => return Err(twice()),
            "check" => read.check = Some((value.to_owned(), at.first)),
            "escape" if escape_set => return Err(twice()),
            "escape" => match value {
                "\\" | "`" => {
                    read.escape = if value == "`" { '`' } else { '\\' };
                    escape_set = true;
                }
                other => {
                    return Err(fail(format!(
                        "dockerfile parse error on line {}: invalid escape token {other:?} does \
                         not match ` or \\",
                        at.first
                    )));
                }
            },
            // An unknown one is a comment, and directives end at the first comment.
            _ => break,
        }
    }
    Ok(read)
}

/// `# KEY = VALUE`, with the key in lower case.
fn directive(line: &str) -> Option<(String, &str)> {
    let (key, value) = line.trim_start().strip_prefix('#')?.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let word = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.chars().all(|c| c.is_ascii_alphanumeric());
    (word && !value.is_empty()).then(|| (key.to_ascii_lowercase(), value))
}

/// One instruction from line `next` on, which is moved behind it.
fn instruction(lines: &[&str], next: &mut usize, escape: char) -> Result<Logical> {
    let first = *next + 1;
    let mut text = String::new();
    let mut gap = false;
    let (mut rest, mut goes_on) = continued(lines[*next].trim_start(), escape);
    loop {
        text.push_str(rest);
        *next += 1;
        if !goes_on {
            break;
        }
        // Comments and empty lines between continued ones are as good as not there.
        while let Some(line) = lines.get(*next) {
            let trimmed = line.trim();
            if !trimmed.is_empty() && !trimmed.starts_with('#') {
                break;
            }
            gap |= trimmed.is_empty() && lines[*next..].iter().any(|line| !line.trim().is_empty());
            *next += 1;
        }
        match lines.get(*next) {
            Some(line) => (rest, goes_on) = continued(line, escape),
            None => break,
        }
    }
    let mut logical =
        Logical { lines: Lines { first, last: *next }, text, heredocs: Vec::new(), gap };
    for mut heredoc in heredoc::openings(&logical.text, escape) {
        if let Err(error) = body(lines, next, &mut heredoc) {
            return Err(locate(logical.lines, &error));
        }
        logical.heredocs.push(heredoc);
    }
    logical.lines.last = *next;
    Ok(logical)
}

/// The line without the escape character that continues it, and whether there was one. Blanks may
/// follow it; two of them are no continuation.
fn continued(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(before) if !before.ends_with(escape) => (before, true),
        _ => (line, false),
    }
}

fn body(lines: &[&str], next: &mut usize, heredoc: &mut Heredoc) -> Result<()> {
    loop {
        let Some(line) = lines.get(*next) else {
            bail!(
                "dockerfile parse error on line {}: unterminated heredoc {}",
                lines.len(),
                heredoc.name
            )
        };
        *next += 1;
        let line = if heredoc.chomp { line.trim_start_matches('\t') } else { line };
        if line == heredoc.name {
            return Ok(());
        }
        ensure!(heredoc.body.len() < 64 << 20, "heredoc {} is too long", heredoc.name);
        heredoc.body.push_str(line);
        heredoc.body.push('\n');
    }
}
