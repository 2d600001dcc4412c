//! `--format` as docker has it: columns, JSON, or a template of Go's
//! text/template, of which this is the part that people use.

mod evaluate;
mod parse;

use std::io::Write;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::table;

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Template(Vec<parse::Node>);

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        parse::parse(&unescape(text)).map(Self).with_context(|| format!("bad template {text:?}"))
    }

    /// The text for one value.
    pub(crate) fn render(&self, value: &Value) -> Result<String> {
        evaluate::render(&self.0, value).context("template")
    }

    /// The names of the columns that the template prints.
    fn header(&self) -> Vec<String> {
        let columns = self.0.iter().filter_map(|node| match node {
            parse::Node::Print(expression) => expression.last_field(),
            _ => None,
        });
        columns.map(heading).collect()
    }
}

/// How a list is printed.
#[derive(Debug)]
pub(crate) enum Format {
    /// The command's own columns.
    Table,
    /// A table of what the template prints between tabs.
    Columns(Template),
    /// One object a line.
    Json,
    Each(Template),
}

impl Format {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "table" => Self::Table,
            "json" => Self::Json,
            _ => match text.strip_prefix("table ") {
                Some(columns) => Self::Columns(Template::parse(columns.trim_start())?),
                None => Self::Each(Template::parse(text)?),
            },
        })
    }

    /// Prints a list; for [`Format::Table`] the caller knows better.
    pub(crate) fn write(
        &self,
        out: &mut impl Write,
        values: impl Iterator<Item = Value>,
    ) -> Result<()> {
        match self {
            Self::Table => {}
            Self::Json => {
                for value in values {
                    serde_json::to_writer(&mut *out, &value).map_err(std::io::Error::from)?;
                    writeln!(out)?;
                }
            }
            Self::Each(template) => {
                for value in values {
                    writeln!(out, "{}", template.render(&value)?)?;
                }
            }
            Self::Columns(template) => {
                let rows = values
                    .map(|value| {
                        let line = template.render(&value)?;
                        Ok(line.split('\t').map(str::to_owned).collect())
                    })
                    .collect::<Result<Vec<Vec<String>>>>()?;
                let header = template.header();
                let header: Vec<&str> = header.iter().map(String::as_str).collect();
                table::write(out, &header, &rows)?;
            }
        }
        Ok(())
    }
}

/// `\t` and `\n` are what shells leave of them.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

/// The words of a field's name in capitals: `CreatedSince` is a column of its own.
fn heading(field: &str) -> String {
    match field {
        "ID" => return "IMAGE ID".to_owned(),
        "CreatedSince" | "CreatedAt" => return "CREATED".to_owned(),
        "StarCount" => return "STARS".to_owned(),
        "IsOfficial" => return "OFFICIAL".to_owned(),
        _ => {}
    }
    let mut words = String::new();
    let mut lower = false;
    for character in field.chars() {
        if character.is_uppercase() && lower {
            words.push(' ');
        }
        lower = character.is_lowercase();
        words.extend(character.to_uppercase());
    }
    words
}

#[cfg(test)]
mod tests;
