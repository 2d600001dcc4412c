//! Templates with values put in.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::parse::{Expression, Node};

/// No listing comes near this; a template that multiplies itself does.
const MAX_OUTPUT: usize = 64 << 20;

pub(super) fn render(nodes: &[Node], value: &Value) -> Result<String> {
    let mut scope = Scope { out: String::new(), variables: HashMap::new() };
    scope.variables.insert(String::new(), value.clone());
    scope.nodes(nodes, value)?;
    Ok(scope.out)
}

struct Scope {
    out: String,
    /// `$` alone is the whole value.
    variables: HashMap<String, Value>,
}

impl Scope {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<()> {
        for node in nodes {
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Print(expression) => match (self.value(expression, dot)?, expression) {
                    (Value::Null, Expression::Field(_, name)) => self.out.push_str(nothing(name)),
                    (value, _) => self.out.push_str(&print(&value)),
                },
                Node::Set(name, expression) => {
                    let value = self.value(expression, dot)?;
                    self.variables.insert(name.clone(), value);
                }
                Node::If(condition, body, otherwise) => {
                    let holds = is_true(&self.value(condition, dot)?);
                    self.nodes(if holds { body } else { otherwise }, dot)?;
                }
                Node::With(expression, body, otherwise) => {
                    let value = self.value(expression, dot)?;
                    match is_true(&value) {
                        true => self.nodes(body, &value)?,
                        false => self.nodes(otherwise, dot)?,
                    }
                }
                Node::Range { names, over, body, otherwise } => {
                    let entries = entries(self.value(over, dot)?)?;
                    if entries.is_empty() {
                        self.nodes(otherwise, dot)?;
                    }
                    for (key, value) in entries {
                        if let [key_name, value_name] = &names[..] {
                            self.variables.insert(key_name.clone(), key);
                            self.variables.insert(value_name.clone(), value.clone());
                        } else if let [value_name] = &names[..] {
                            self.variables.insert(value_name.clone(), value.clone());
                        }
                        self.nodes(body, &value)?;
                    }
                }
            }
            ensure!(self.out.len() <= MAX_OUTPUT, "the output has no end");
        }
        Ok(())
    }

    fn value(&self, expression: &Expression, dot: &Value) -> Result<Value> {
        Ok(match expression {
            Expression::Dot => dot.clone(),
            Expression::Literal(value) => value.clone(),
            Expression::Variable(name) => match self.variables.get(name) {
                Some(value) => value.clone(),
                None => bail!("there is no ${name}"),
            },
            Expression::Field(base, name) => match self.value(base, dot)? {
                Value::Object(mut fields) => {
                    match fields.remove(name).or_else(|| absent(base, name)) {
                        Some(value) => value,
                        None => bail!("there is no .{name}"),
                    }
                }
                Value::Null if is_map(base) => Value::Null,
                other => bail!("there is no .{name} in {}", print(&other)),
            },
            Expression::Call(name, arguments) => {
                let arguments: Vec<Value> = arguments
                    .iter()
                    .map(|argument| self.value(argument, dot))
                    .collect::<Result<_>>()?;
                call(name, &arguments).with_context(|| format!("function {name}"))?
            }
        })
    }
}

/// What a field is that a document may leave out, and docker's own types have all the same: scripts
/// ask for them without asking first whether they are there.
fn absent(base: &Expression, name: &str) -> Option<Value> {
    if is_map(base) {
        return Some(Value::Null);
    }
    Some(match name {
        "User" | "WorkingDir" | "StopSignal" | "Hostname" | "Domainname" | "Image" | "Variant"
        | "OsVersion" => "".into(),
        "Env" | "Cmd" | "Entrypoint" | "OnBuild" | "Shell" | "ExposedPorts" | "Volumes"
        | "Labels" | "Healthcheck" => Value::Null,
        "ArgsEscaped" => false.into(),
        _ => return None,
    })
}

/// Whether the keys of this field are anybody's, so that none is a mistake.
fn is_map(field: &Expression) -> bool {
    let maps = ["Labels", "Annotations", "ExposedPorts", "Volumes"];
    matches!(field, Expression::Field(_, name) if maps.contains(&name.as_str()))
}

/// How Go prints a field of this name that has no value, by the type it has in docker.
fn nothing(name: &str) -> &'static str {
    match name {
        "Env" | "Cmd" | "Entrypoint" | "OnBuild" | "Shell" => "[]",
        "ExposedPorts" | "Volumes" | "Labels" => "map[]",
        "Healthcheck" => "<nil>",
        _ => "<no value>",
    }
}

fn entries(value: Value) -> Result<Vec<(Value, Value)>> {
    Ok(match value {
        Value::Array(values) => {
            values.into_iter().enumerate().map(|(index, value)| (index.into(), value)).collect()
        }
        Value::Object(fields) => {
            let mut entries: Vec<(String, Value)> = fields.into_iter().collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            entries.into_iter().map(|(key, value)| (key.into(), value)).collect()
        }
        Value::Null => Vec::new(),
        other => bail!("range can't go over {}", print(&other)),
    })
}

fn call(name: &str, arguments: &[Value]) -> Result<Value> {
    Ok(match (name, arguments) {
        ("json", [value]) => serde_json::to_string(value)?.into(),
        ("split", [text, separator]) => {
            let parts = self::text(text)?.split(self::text(separator)?);
            parts.map(Value::from).collect::<Vec<_>>().into()
        }
        ("join", [Value::Array(values), separator]) => {
            let parts: Vec<String> = values.iter().map(print).collect();
            parts.join(text(separator)?).into()
        }
        ("join", [Value::Null, _]) => "".into(),
        ("lower", [value]) => text(value)?.to_lowercase().into(),
        ("upper", [value]) => text(value)?.to_uppercase().into(),
        ("title", [value]) => {
            let mut characters = text(value)?.chars();
            let first: String =
                characters.next().into_iter().flat_map(char::to_uppercase).collect();
            (first + characters.as_str()).into()
        }
        ("truncate", [value, length]) => {
            text(value)?.chars().take(index(length)?).collect::<String>().into()
        }
        ("pad", [value, before, after]) => {
            let space = |count: &Value| Ok::<_, anyhow::Error>(" ".repeat(index(count)?.min(1000)));
            match text(value)? {
                "" => "".into(),
                text => format!("{}{text}{}", space(before)?, space(after)?).into(),
            }
        }
        ("println", values) => format!("{}\n", spaced(values)).into(),
        ("print", values) => values.iter().map(print).collect::<String>().into(),
        ("printf", [format, values @ ..]) => printf(text(format)?, values)?.into(),
        ("index", [value, keys @ ..]) => {
            let mut at = value.clone();
            for key in keys {
                at = element(&at, key)?;
            }
            at
        }
        ("len", [value]) => match value {
            Value::String(text) => text.len().into(),
            Value::Array(values) => values.len().into(),
            Value::Object(fields) => fields.len().into(),
            Value::Null => 0.into(),
            other => bail!("{} has no length", print(other)),
        },
        ("eq", [first, others @ ..]) if !others.is_empty() => {
            others.iter().any(|other| same(first, other)).into()
        }
        ("ne", [a, b]) => (!same(a, b)).into(),
        ("lt", [a, b]) => (number(a)? < number(b)?).into(),
        ("le", [a, b]) => (number(a)? <= number(b)?).into(),
        ("gt", [a, b]) => (number(a)? > number(b)?).into(),
        ("ge", [a, b]) => (number(a)? >= number(b)?).into(),
        ("not", [value]) => (!is_true(value)).into(),
        ("and", [.., last]) => arguments.iter().find(|v| !is_true(v)).unwrap_or(last).clone(),
        ("or", [.., last]) => arguments.iter().find(|v| is_true(v)).unwrap_or(last).clone(),
        (
            "json" | "split" | "join" | "lower" | "upper" | "title" | "truncate" | "pad" | "printf"
            | "index" | "len" | "eq" | "ne" | "lt" | "le" | "gt" | "ge" | "not" | "and" | "or",
            _,
        ) => bail!("wrong arguments"),
        _ => bail!("there is no such function"),
    })
}

fn element(value: &Value, key: &Value) -> Result<Value> {
    match (value, key) {
        (Value::Array(values), key) => match values.get(index(key)?) {
            Some(value) => Ok(value.clone()),
            None => bail!("there are only {} elements", values.len()),
        },
        (Value::Object(fields), Value::String(key)) => {
            Ok(fields.get(key).cloned().unwrap_or_else(|| "".into()))
        }
        (Value::Null, _) => Ok("".into()),
        (other, _) => bail!("{} has no elements", print(other)),
    }
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("{} is no text", print(value)))
}

fn index(value: &Value) -> Result<usize> {
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
    number.with_context(|| format!("{} is no index", print(value)))
}

fn number(value: &Value) -> Result<f64> {
    value.as_f64().with_context(|| format!("{} is no number", print(value)))
}

fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// A value as Go prints it.
fn print(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(values) => format!("[{}]", spaced(values)),
        Value::Object(fields) => {
            let mut parts: Vec<String> =
                fields.iter().map(|(key, value)| format!("{key}:{}", print(value))).collect();
            parts.sort();
            format!("map[{}]", parts.join(" "))
        }
    }
}

fn spaced(values: &[Value]) -> String {
    values.iter().map(print).collect::<Vec<_>>().join(" ")
}

/// `%s`, `%v`, `%d`, `%q` and `%%`, with a width and `-`.
fn printf(format: &str, values: &[Value]) -> Result<String> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '-').context("% at the end")?;
        let (flags, verb) = rest.split_at(end);
        let verb = verb.chars().next().context("% at the end")?;
        rest = &rest[end + verb.len_utf8()..];
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = values.next().context("values are missing")?;
        let text = match verb {
            's' | 'v' | 'd' => print(value),
            'q' => serde_json::to_string(&print(value))?,
            other => bail!("%{other} is not known"),
        };
        let left = flags.starts_with('-');
        let width = flags.trim_start_matches('-').parse::<usize>().unwrap_or(0).min(1000);
        let space = " ".repeat(width.saturating_sub(text.chars().count()));
        out += &if left { text + &space } else { space + &text };
    }
    out.push_str(rest);
    Ok(out)
}
