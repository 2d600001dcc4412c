//! Templates as text into templates as trees.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

const MAX_DEPTH: usize = 64;

#[derive(Debug, PartialEq)]
pub(super) enum Node {
    Text(String),
    Print(Expression),
    Set(String, Expression),
    If(Expression, Vec<Node>, Vec<Node>),
    With(Expression, Vec<Node>, Vec<Node>),
    Range { names: Vec<String>, over: Expression, body: Vec<Node>, otherwise: Vec<Node> },
}

#[derive(Debug, PartialEq)]
pub(super) enum Expression {
    Dot,
    Literal(Value),
    Variable(String),
    Field(Box<Expression>, String),
    /// A function; what is piped into it is its last argument.
    Call(String, Vec<Expression>),
}

impl Expression {
    /// The field that is printed, whatever functions are put around it.
    pub(super) fn last_field(&self) -> Option<&str> {
        match self {
            Self::Field(_, name) => Some(name),
            Self::Call(_, arguments) => arguments.iter().rev().find_map(Self::last_field),
            Self::Dot | Self::Literal(_) | Self::Variable(_) => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    /// `.Name`, right behind something if `joined`.
    Field {
        name: String,
        joined: bool,
    },
    Dot,
    Variable(String),
    Literal(Value),
    Symbol(char),
    /// `:=` or `=`.
    Assign,
}

enum Piece {
    Text(String),
    Action(Vec<Token>),
}

pub(super) fn parse(text: &str) -> Result<Vec<Node>> {
    let pieces = split(text)?;
    let mut parser = Parser { pieces: pieces.into_iter(), depth: 0 };
    let (nodes, end) = parser.block()?;
    ensure!(end.is_none(), "an end or else without a beginning");
    Ok(nodes)
}

/// Text and actions; a `-` at an action's edge takes the white space there away.
fn split(text: &str) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some(start) = rest.find("{{") {
        let (before, inside) = (&rest[..start], &rest[start + 2..]);
        let end = end_of_action(inside).context("{{ without }}")?;
        let (mut action, after) = (&inside[..end], &inside[end + 2..]);
        let mut before = if trim { before.trim_start() } else { before };
        if let Some(trimmed) = action.strip_prefix("- ") {
            (action, before) = (trimmed, before.trim_end());
        }
        trim = action.ends_with(" -");
        action = action.strip_suffix(" -").unwrap_or(action);
        pieces.push(Piece::Text(before.to_owned()));
        let action = action.trim();
        if !(action.starts_with("/*") && action.ends_with("*/")) {
            pieces.push(Piece::Action(tokens(action)?));
        }
        rest = after;
    }
    pieces.push(Piece::Text(if trim { rest.trim_start() } else { rest }.to_owned()));
    Ok(pieces)
}

/// Where the `}}` is that no string has in it.
fn end_of_action(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut quote = None;
    let mut at = 0;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            (None, byte @ (b'"' | b'`')) => quote = Some(byte),
            (Some(b'"'), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            _ => {}
        }
        at += 1;
    }
    None
}

fn tokens(text: &str) -> Result<Vec<Token>> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut joined = false;
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            _ if first.is_whitespace() => {
                rest = &rest[first.len_utf8()..];
                joined = false;
                continue;
            }
            '.' => {
                let name = word(&rest[1..]);
                let token = match name {
                    "" => Token::Dot,
                    _ => Token::Field { name: name.to_owned(), joined },
                };
                (token, 1 + name.len())
            }
            '$' => {
                let name = word(&rest[1..]);
                (Token::Variable(name.to_owned()), 1 + name.len())
            }
            '"' => quoted(rest)?,
            '`' => {
                let end = rest[1..].find('`').context("a string has no end")?;
                (Token::Literal(rest[1..=end].into()), end + 2)
            }
            ':' if rest.starts_with(":=") => (Token::Assign, 2),
            '=' => (Token::Assign, 1),
            '(' | ')' | '|' | ',' => (Token::Symbol(first), 1),
            _ if first.is_ascii_digit() || first == '-' => number(rest)?,
            _ if first.is_alphabetic() || first == '_' => {
                let name = word(rest);
                (keyword(name), name.len())
            }
            _ => bail!("unexpected {first:?}"),
        };
        found.push(token);
        joined = true;
        rest = &rest[length..];
    }
    Ok(found)
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

fn keyword(name: &str) -> Token {
    match name {
        "true" => Token::Literal(true.into()),
        "false" => Token::Literal(false.into()),
        "nil" => Token::Literal(Value::Null),
        _ => Token::Word(name.to_owned()),
    }
}

/// A string in double quotes, whose escapes are JSON's.
fn quoted(text: &str) -> Result<(Token, usize)> {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            '"' if !escaped => {
                let literal =
                    serde_json::from_str(&text[..=at].replace('\n', "\\n").replace('\t', "\\t"));
                let literal: String = literal.context("a bad string")?;
                return Ok((Token::Literal(literal.into()), at + 1));
            }
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    bail!("a string has no end")
}

fn number(text: &str) -> Result<(Token, usize)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && !"-.".contains(c));
    let digits = &text[..end.unwrap_or(text.len())];
    let value: serde_json::Number =
        digits.parse().with_context(|| format!("a bad number {digits:?}"))?;
    Ok((Token::Literal(value.into()), digits.len()))
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    depth: usize,
}

impl Parser {
    /// Nodes up to the action that ends this block, which is given back.
    fn block(&mut self) -> Result<(Vec<Node>, Option<Vec<Token>>)> {
        self.depth += 1;
        ensure!(self.depth < MAX_DEPTH, "blocks are nested too deeply");
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let tokens = match piece {
                Piece::Text(text) if text.is_empty() => continue,
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(tokens) => tokens,
            };
            let first = match tokens.first() {
                Some(Token::Word(word)) => word.as_str(),
                _ => "",
            };
            match first {
                "end" | "else" => {
                    self.depth -= 1;
                    return Ok((nodes, Some(tokens)));
                }
                "if" | "with" | "range" => nodes.push(self.branch(&tokens)?),
                _ => nodes.push(match &tokens[..] {
                    [Token::Variable(name), Token::Assign, rest @ ..] => {
                        Node::Set(name.clone(), pipeline(rest)?)
                    }
                    tokens => Node::Print(pipeline(tokens)?),
                }),
            }
        }
        self.depth -= 1;
        Ok((nodes, None))
    }

    fn branch(&mut self, tokens: &[Token]) -> Result<Node> {
        let (body, end) = self.block()?;
        let end = end.context("a block has no end")?;
        let otherwise = match &end[..] {
            [Token::Word(word), rest @ ..] if word == "else" => match rest {
                [] => {
                    let (otherwise, end) = self.block()?;
                    ensure!(end.is_some_and(|end| end.len() == 1), "an else has no end");
                    otherwise
                }
                // The end of an "else if" is that of the whole.
                chained => vec![self.branch(chained)?],
            },
            _ => Vec::new(),
        };
        let words = tokens.get(1..).unwrap_or_default();
        match tokens.first() {
            Some(Token::Word(word)) if word == "range" => {
                let (names, over) = match words {
                    [
                        Token::Variable(a),
                        Token::Symbol(','),
                        Token::Variable(b),
                        Token::Assign,
                        rest @ ..,
                    ] => (vec![a.clone(), b.clone()], rest),
                    [Token::Variable(a), Token::Assign, rest @ ..] => (vec![a.clone()], rest),
                    rest => (Vec::new(), rest),
                };
                Ok(Node::Range { names, over: pipeline(over)?, body, otherwise })
            }
            Some(Token::Word(word)) if word == "with" => {
                Ok(Node::With(pipeline(words)?, body, otherwise))
            }
            _ => Ok(Node::If(pipeline(words)?, body, otherwise)),
        }
    }
}

/// `a b | c`: what is on the left is the last argument of what is on the right.
fn pipeline(tokens: &[Token]) -> Result<Expression> {
    let mut rest = tokens;
    let expression = piped(&mut rest, 0)?;
    ensure!(rest.is_empty(), "something unexpected at {:?}", rest.first());
    Ok(expression)
}

fn piped(rest: &mut &[Token], depth: usize) -> Result<Expression> {
    ensure!(depth < MAX_DEPTH, "parentheses are nested too deeply");
    let mut result = command(rest, depth)?;
    while let [Token::Symbol('|'), tail @ ..] = *rest {
        *rest = tail;
        match command(rest, depth)? {
            Expression::Call(name, mut arguments) => {
                arguments.push(result);
                result = Expression::Call(name, arguments);
            }
            _ => bail!("a pipe leads into something that is no function"),
        }
    }
    Ok(result)
}

fn command(rest: &mut &[Token], depth: usize) -> Result<Expression> {
    if let [Token::Word(name), tail @ ..] = *rest {
        *rest = tail;
        let mut arguments = Vec::new();
        while !matches!(rest, [] | [Token::Symbol('|' | ')'), ..]) {
            arguments.push(operand(rest, depth)?);
        }
        return Ok(Expression::Call(name.clone(), arguments));
    }
    operand(rest, depth)
}

fn operand(rest: &mut &[Token], depth: usize) -> Result<Expression> {
    let Some((first, tail)) = rest.split_first() else { bail!("a value is missing") };
    *rest = tail;
    let mut value = match first {
        Token::Dot => Expression::Dot,
        Token::Field { name, .. } => Expression::Field(Box::new(Expression::Dot), name.clone()),
        Token::Variable(name) => Expression::Variable(name.clone()),
        Token::Literal(value) => Expression::Literal(value.clone()),
        Token::Word(name) => Expression::Call(name.clone(), Vec::new()),
        Token::Symbol('(') => {
            let inner = piped(rest, depth + 1)?;
            let [Token::Symbol(')'), tail @ ..] = *rest else { bail!("a ( has no )") };
            *rest = tail;
            inner
        }
        Token::Symbol(symbol) => bail!("unexpected {symbol:?}"),
        Token::Assign => bail!("unexpected :="),
    };
    while let [Token::Field { name, joined: true }, tail @ ..] = *rest {
        value = Expression::Field(Box::new(value), name.clone());
        *rest = tail;
    }
    Ok(value)
}
