//! The text form of GVariant values, <https://docs.gtk.org/glib/gvariant-text-format.html>, for the
//! types that properties of systemd have: `true`, `5`, `uint64 5`, `@t 5`, `'text'`, `b'bytes'`,
//! `[1, 2]`, `('a', 5)`, `{'key': 5}`, `<5>`.

use anyhow::{Context, Result, bail};

use crate::dbus::value::{Value, split};

/// Deeper ones D-Bus could not carry.
const DEEPEST: usize = 32;

/// Reads one value, all of `text`.
pub(super) fn parse(text: &str) -> Result<Value> {
    let mut parser = Parser { rest: text, depth: 0 };
    let value = parser.value(None)?;
    parser.skip_spaces();
    if !parser.rest.is_empty() {
        bail!("unexpected {:?} after the value", parser.rest);
    }
    Ok(value)
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

/// Words for types, and their letters.
const TYPES: [(&str, &str); 12] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
    ("signature", "g"),
];

impl<'a> Parser<'a> {
    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Steps over `letter` if it is next.
    fn skip(&mut self, letter: char) -> bool {
        self.skip_spaces();
        let found = self.rest.strip_prefix(letter);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    fn expect(&mut self, letter: char) -> Result<()> {
        if !self.skip(letter) {
            bail!("expected {letter:?} at {:?}", self.rest);
        }
        Ok(())
    }

    /// Takes what is next as far as `part` holds.
    fn take(&mut self, part: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !part(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// A value, of type `wanted` where what is around it says so.
    fn value(&mut self, wanted: Option<&str>) -> Result<Value> {
        self.depth += 1;
        if self.depth > DEEPEST {
            bail!("nested too deeply");
        }
        self.skip_spaces();
        let mut letters = self.rest.chars();
        let (first, second) = (letters.next(), letters.next());
        let value = match (first, second) {
            (None, _) => bail!("the value is missing"),
            (Some('\'' | '"'), _) => self.string(wanted.unwrap_or("s"))?,
            (Some('b'), Some('\'' | '"')) => {
                self.rest = &self.rest[1..];
                // C strings: the zero at the end belongs to them.
                Value::bytes(self.quoted()?.into_bytes().into_iter().chain([0]))
            }
            (Some('['), _) => self.array(wanted)?,
            (Some('{'), _) => self.dictionary(wanted)?,
            (Some('('), _) => self.tuple(wanted)?,
            (Some('<'), _) => {
                self.expect('<')?;
                let inner = self.value(None)?;
                self.expect('>')?;
                Value::variant(inner)
            }
            (Some('@'), _) => {
                let signature = &self.take(|c| !c.is_whitespace())[1..];
                match split(signature) {
                    Ok((_, "")) => self.value(Some(signature))?,
                    _ => bail!("{signature:?} is no type"),
                }
            }
            (Some(letter), _) if letter.is_ascii_digit() || "+-.".contains(letter) => {
                let text = self.take(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
                number(text, wanted)?
            }
            _ => self.word()?,
        };
        if let Some(wanted) = wanted
            && value.signature() != wanted
        {
            bail!("a value of type {:?} where {wanted:?} is expected", value.signature());
        }
        self.depth -= 1;
        Ok(value)
    }

    /// `true`, `false`, or the name of the type of what follows.
    fn word(&mut self) -> Result<Value> {
        let word = self.take(|c| c.is_ascii_alphanumeric());
        match word {
            "true" => return Ok(Value::Bool(true)),
            "false" => return Ok(Value::Bool(false)),
            "inf" | "nan" => bail!("{word} is no value of a property"),
            _ => {}
        }
        let letter = TYPES.iter().find(|(name, _)| *name == word).map(|(_, letter)| *letter);
        match letter {
            Some(letter) => self.value(Some(letter)),
            None if word.is_empty() => bail!("unexpected {:?}", self.rest),
            None => bail!("unrecognized type {word:?}"),
        }
    }

    fn string(&mut self, wanted: &str) -> Result<Value> {
        let text = self.quoted()?;
        Ok(match wanted {
            "o" => Value::ObjectPath(text),
            "g" => Value::Signature(text),
            _ => Value::String(text),
        })
    }

    /// A text in either quotes, with the escapes of C and of Unicode.
    fn quoted(&mut self) -> Result<String> {
        let mut letters = self.rest.chars();
        let quote = letters.next();
        let mut text = String::new();
        loop {
            let letter = letters.next().context("the text has no closing quote")?;
            if Some(letter) == quote {
                break;
            }
            if letter != '\\' {
                text.push(letter);
                continue;
            }
            let escaped = letters.next().context("the text has no closing quote")?;
            text.push(match escaped {
                'a' => '\x07',
                'b' => '\x08',
                'f' => '\x0c',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\x0b',
                '\n' => continue,
                'u' | 'U' => {
                    let count = if escaped == 'u' { 4 } else { 8 };
                    let rest = letters.as_str();
                    let digits = rest.get(..count).unwrap_or("");
                    letters = rest[digits.len()..].chars();
                    let code = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
                    code.with_context(|| format!("\\{escaped}{digits} is no character"))?
                }
                other => other,
            });
        }
        self.rest = letters.as_str();
        Ok(text)
    }

    fn array(&mut self, wanted: Option<&str>) -> Result<Value> {
        self.expect('[')?;
        let element = match wanted {
            None => None,
            Some(wanted) => Some(
                wanted.strip_prefix('a').with_context(|| format!("an array is no {wanted:?}"))?,
            ),
        };
        let mut element = element.map(str::to_owned);
        let mut values = Vec::new();
        while !self.skip(']') {
            if !values.is_empty() {
                self.expect(',')?;
            }
            let value = self.value(element.as_deref())?;
            // The first says what the others are.
            element.get_or_insert_with(|| value.signature());
            values.push(value);
        }
        let element = element.context("the type of an empty array has to be written: @as []")?;
        Ok(Value::Array(element, values))
    }

    fn dictionary(&mut self, wanted: Option<&str>) -> Result<Value> {
        self.expect('{')?;
        let mut types = match wanted {
            None => None,
            Some(wanted) => {
                let inner = wanted.strip_prefix("a{").and_then(|rest| rest.strip_suffix('}'));
                let inner = inner.with_context(|| format!("a dictionary is no {wanted:?}"))?;
                let (key, value) = split(inner)?;
                Some((key.to_owned(), value.to_owned()))
            }
        };
        let mut entries = Vec::new();
        while !self.skip('}') {
            if !entries.is_empty() {
                self.expect(',')?;
            }
            let key = self.value(types.as_ref().map(|types| types.0.as_str()))?;
            self.expect(':')?;
            let value = self.value(types.as_ref().map(|types| types.1.as_str()))?;
            types.get_or_insert_with(|| (key.signature(), value.signature()));
            entries.push(Value::Entry(Box::new((key, value))));
        }
        let (key, value) =
            types.context("the type of an empty dictionary has to be written: @a{sv} {}")?;
        Ok(Value::Array(format!("{{{key}{value}}}"), entries))
    }

    fn tuple(&mut self, wanted: Option<&str>) -> Result<Value> {
        self.expect('(')?;
        let mut types = match wanted {
            None => None,
            Some(wanted) => {
                let inner = wanted.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
                Some(inner.with_context(|| format!("a tuple is no {wanted:?}"))?)
            }
        };
        let mut fields = Vec::new();
        while !self.skip(')') {
            if !fields.is_empty() {
                self.expect(',')?;
                // One value needs the comma to be a tuple.
                if self.skip(')') {
                    break;
                }
            }
            let wanted = match types {
                None => None,
                Some(rest) => {
                    let (first, rest) = split(rest)?;
                    types = Some(rest);
                    Some(first)
                }
            };
            fields.push(self.value(wanted)?);
        }
        if fields.is_empty() {
            bail!("a tuple of nothing");
        }
        Ok(Value::Struct(fields))
    }
}

/// Without a type it is a 32-bit number with a sign, or one with a fraction if it looks like that.
fn number(text: &str, wanted: Option<&str>) -> Result<Value> {
    let plain = text.trim_start_matches(['+', '-']);
    let hexadecimal = plain.strip_prefix("0x");
    let fraction = hexadecimal.is_none() && plain.contains(['.', 'e', 'E']);
    let wanted = wanted.unwrap_or(if fraction { "d" } else { "i" });
    let out = || format!("{text:?} is no number of type {wanted:?}");
    if wanted == "d" {
        return Ok(Value::Double(text.parse().with_context(out)?));
    }
    let octal = plain.strip_prefix('0').filter(|digits| !digits.is_empty());
    let (digits, radix) = match (hexadecimal, octal) {
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) => (digits, 8),
        (None, None) => (plain, 10),
    };
    if text.len() - plain.len() > 1 || !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        bail!(out());
    }
    let mut number = i128::from_str_radix(digits, radix).with_context(out)?;
    if text.starts_with('-') {
        number = -number;
    }
    Ok(match wanted {
        "y" => Value::Byte(number.try_into().with_context(out)?),
        "n" => Value::Int16(number.try_into().with_context(out)?),
        "q" => Value::Uint16(number.try_into().with_context(out)?),
        "i" => Value::Int32(number.try_into().with_context(out)?),
        "u" => Value::Uint32(number.try_into().with_context(out)?),
        "x" => Value::Int64(number.try_into().with_context(out)?),
        "t" => Value::Uint64(number.try_into().with_context(out)?),
        _ => bail!(out()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_values() {
        let strings = |texts: &[&str]| Value::strings(texts.iter().map(|it| (*it).to_owned()));
        let pair = Value::Struct(vec![Value::string("a"), Value::Uint64(1)]);
        let entry = Value::Entry(Box::new((Value::string("k"), Value::variant(Value::Int32(5)))));
        for (text, value) in [
            ("true", Value::Bool(true)),
            (" false ", Value::Bool(false)),
            ("5", Value::Int32(5)),
            ("-0x10", Value::Int32(-16)),
            ("010", Value::Int32(8)),
            ("0", Value::Int32(0)),
            ("2.5", Value::Double(2.5)),
            ("1e3", Value::Double(1000.0)),
            ("uint64 18446744073709551615", Value::Uint64(u64::MAX)),
            ("byte 0xff", Value::Byte(255)),
            ("@t 5", Value::Uint64(5)),
            ("double 5", Value::Double(5.0)),
            ("'a b'", Value::string("a b")),
            ("\"it's\\n\\\"\\u00e4\\U0001f600\"", Value::string("it's\n\"ä😀")),
            ("objectpath '/a'", Value::ObjectPath("/a".to_owned())),
            ("b'ab'", Value::bytes(*b"ab\0")),
            ("[1, 2]", Value::Array("i".to_owned(), vec![Value::Int32(1), Value::Int32(2)])),
            ("['a','b']", strings(&["a", "b"])),
            ("@as []", strings(&[])),
            (
                "[uint32 1, 2]",
                Value::Array("u".to_owned(), vec![Value::Uint32(1), Value::Uint32(2)]),
            ),
            ("('a', uint64 1)", pair.clone()),
            ("@(st) ('a', 1)", pair.clone()),
            ("@a(st) [('a', 1)]", Value::Array("(st)".to_owned(), vec![pair])),
            ("('a',)", Value::Struct(vec![Value::string("a")])),
            ("{'k': <5>}", Value::Array("{sv}".to_owned(), vec![entry])),
            ("@a{sv} {}", Value::Array("{sv}".to_owned(), Vec::new())),
            ("<'x'>", Value::variant(Value::string("x"))),
        ] {
            assert_eq!(parse(text).unwrap(), value, "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        let deep = "[".repeat(100);
        for bad in [
            "",
            " ",
            "word",
            "'a",
            "'a\\",
            "'\\ud800'",
            "'\\u12'",
            "5 6",
            "[1 2]",
            "[1, 'a']",
            "[]",
            "{}",
            "()",
            "[1,",
            "(1",
            "{1}",
            "{1:",
            "@ 5",
            "@z 5",
            "@tt 5",
            "uint64 -1",
            "byte 256",
            "2147483648",
            "--5",
            "5x",
            "0x",
            "1.2.3",
            "boolean 5",
            "string 5",
            "@(st) ('a')",
            "<5",
            "@s [1]",
            "inf",
            "+",
            "uint64",
            &deep,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
