//! A Dockerfile as BuildKit reads it: directives at the top, then instructions, each with the lines
//! it stands on. Reading only: no variable is replaced and nothing is looked up here.

mod flags;
mod heredoc;
mod instruction;
mod lines;
mod pairs;
mod words;

use std::fmt;

use anyhow::{Result, ensure};

pub(crate) use self::instruction::{
    Command, From, Health, Instruction, Run, Transfer, duration, parse_instruction,
};
pub(crate) use self::lines::Directives;
use self::lines::Logical;

/// The lines of the file that something stands on, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    pub(crate) first: usize,
    pub(crate) last: usize,
}

/// What is wrong on some lines; the words are all the user needs beside them.
#[derive(Debug)]
pub(crate) struct At {
    pub(crate) lines: Lines,
    pub(crate) message: String,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for At {}

/// One instruction of the file.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) lines: Lines,
    /// The instruction in one line, without comments, as written.
    pub(crate) text: String,
    /// Its first word, as written.
    pub(crate) keyword: String,
    pub(crate) instruction: Instruction,
    /// Whether an empty line stands between continued ones.
    pub(crate) gap: bool,
}

/// The file, read.
#[derive(Clone, Debug)]
pub(crate) struct Dockerfile {
    pub(crate) directives: Directives,
    pub(crate) steps: Vec<Step>,
}

impl Dockerfile {
    /// Reads the text of a file.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (directives, lines) = lines::split(text)?;
        let steps = lines
            .into_iter()
            .map(|line| {
                let at = line.lines;
                step(&line, directives.escape).map_err(|error| locate(at, &error))
            })
            .collect::<Result<Vec<_>>>()?;
        ensure!(!steps.is_empty(), "file with no instructions");
        Ok(Self { directives, steps })
    }

    /// Reads what an image's `ONBUILD` says: one instruction, with its heredocs.
    pub(crate) fn parse_trigger(text: &str, lines: Lines) -> Result<Step> {
        let (_, mut found) = lines::split(text)?;
        ensure!(found.len() == 1, "ONBUILD {text:?} is not one instruction");
        let mut line = found.remove(0);
        line.lines = lines;
        let step = step(&line, '\\').map_err(|error| locate(lines, &error))?;
        instruction::check_trigger(&step.keyword)?;
        Ok(step)
    }
}

/// Ties an error to its lines.
pub(crate) fn locate(lines: Lines, error: &anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<At>() {
        Some(at) => At { lines: at.lines, message: at.message.clone() }.into(),
        None => At { lines, message: format!("{error:#}") }.into(),
    }
}

fn step(line: &Logical, escape: char) -> Result<Step> {
    let (keyword, instruction) =
        parse_instruction(&line.text, &line.heredocs, escape).map_err(|error| {
            anyhow::anyhow!("dockerfile parse error on line {}: {error:#}", line.lines.first)
        })?;
    Ok(Step {
        lines: line.lines,
        text: line.text.trim().to_owned(),
        keyword,
        instruction,
        gap: line.gap,
    })
}

#[cfg(test)]
mod tests;
