//! The values of D-Bus and how they are written: <https://dbus.freedesktop.org/doc/dbus-specification.html>,
//! "Type System" and "Marshaling". Pure; in the byte order of this machine, which is its peers' too.

use anyhow::{Context, Result, bail};

/// Deeper ones the specification forbids.
const DEEPEST: usize = 64;

/// One value, with its type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Byte(u8),
    Bool(bool),
    Int16(i16),
    Uint16(u16),
    Int32(i32),
    Uint32(u32),
    Int64(i64),
    Uint64(u64),
    Double(f64),
    String(String),
    ObjectPath(String),
    Signature(String),
    /// Signature of the elements, which an empty array has too, and the elements.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    /// Key and value; only as an element of an array.
    Entry(Box<(Value, Value)>),
    Variant(Box<Value>),
}

impl Value {
    pub(crate) fn string(text: impl Into<String>) -> Self {
        Value::String(text.into())
    }

    pub(crate) fn variant(value: Value) -> Self {
        Value::Variant(Box::new(value))
    }

    /// An array of strings, "as".
    pub(crate) fn strings(texts: impl IntoIterator<Item = String>) -> Self {
        Value::Array("s".to_owned(), texts.into_iter().map(Value::String).collect())
    }

    /// An array of bytes, "ay".
    pub(crate) fn bytes(bytes: impl IntoIterator<Item = u8>) -> Self {
        Value::Array("y".to_owned(), bytes.into_iter().map(Value::Byte).collect())
    }

    /// The type in the letters of the specification.
    pub(crate) fn signature(&self) -> String {
        let letter = match self {
            Value::Byte(_) => "y",
            Value::Bool(_) => "b",
            Value::Int16(_) => "n",
            Value::Uint16(_) => "q",
            Value::Int32(_) => "i",
            Value::Uint32(_) => "u",
            Value::Int64(_) => "x",
            Value::Uint64(_) => "t",
            Value::Double(_) => "d",
            Value::String(_) => "s",
            Value::ObjectPath(_) => "o",
            Value::Signature(_) => "g",
            Value::Variant(_) => "v",
            Value::Array(element, _) => return format!("a{element}"),
            Value::Struct(fields) => {
                return format!("({})", fields.iter().map(Value::signature).collect::<String>());
            }
            Value::Entry(entry) => {
                return format!("{{{}{}}}", entry.0.signature(), entry.1.signature());
            }
        };
        letter.to_owned()
    }
}

/// How values of the type that `signature` begins with are aligned.
fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 1,
    }
}

/// Bytes in the making; positions count from the start of the message.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    pub(super) bytes: Vec<u8>,
}

impl Encoder {
    pub(super) fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, bytes: &[u8]) {
        self.align(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) -> Result<()> {
        if text.contains('\0') {
            bail!("{text:?} has a zero byte, which D-Bus can't carry");
        }
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        Ok(())
    }

    /// Appends a value.
    pub(crate) fn value(&mut self, value: &Value) -> Result<()> {
        match value {
            Value::Byte(number) => self.bytes.push(*number),
            Value::Bool(truth) => self.number(&u32::from(*truth).to_ne_bytes()),
            Value::Int16(number) => self.number(&number.to_ne_bytes()),
            Value::Uint16(number) => self.number(&number.to_ne_bytes()),
            Value::Int32(number) => self.number(&number.to_ne_bytes()),
            Value::Uint32(number) => self.number(&number.to_ne_bytes()),
            Value::Int64(number) => self.number(&number.to_ne_bytes()),
            Value::Uint64(number) => self.number(&number.to_ne_bytes()),
            Value::Double(number) => self.number(&number.to_ne_bytes()),
            Value::String(text) | Value::ObjectPath(text) => {
                let length = u32::try_from(text.len()).context("a text for D-Bus")?;
                self.number(&length.to_ne_bytes());
                self.text(text)?;
            }
            Value::Signature(text) => {
                self.bytes.push(u8::try_from(text.len()).context("a signature for D-Bus")?);
                self.text(text)?;
            }
            Value::Array(element, values) => self.array(element, values)?,
            Value::Struct(fields) => {
                self.align(8);
                fields.iter().try_for_each(|field| self.value(field))?;
            }
            Value::Entry(entry) => {
                self.align(8);
                self.value(&entry.0)?;
                self.value(&entry.1)?;
            }
            Value::Variant(inner) => {
                self.value(&Value::Signature(inner.signature()))?;
                self.value(inner)?;
            }
        }
        Ok(())
    }

    /// The length counts neither itself nor the padding in front of the first element.
    fn array(&mut self, element: &str, values: &[Value]) -> Result<()> {
        self.number(&0u32.to_ne_bytes());
        let length_at = self.bytes.len() - 4;
        self.align(alignment(element));
        let start = self.bytes.len();
        for value in values {
            if value.signature() != element {
                bail!("an array of {element:?} with an element {:?}", value.signature());
            }
            self.value(value)?;
        }
        let length = u32::try_from(self.bytes.len() - start).context("an array for D-Bus")?;
        self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_ne_bytes());
        Ok(())
    }
}

/// Bytes being read; positions count from the start of the message.
#[derive(Debug)]
pub(crate) struct Decoder<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Decoder { bytes, at }
    }

    pub(super) fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let taken = self.at.checked_add(count).and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.context("a message of D-Bus ends too early")?;
        self.at += count;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.align(N);
        Ok(self.take(N)?.try_into()?)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_ne_bytes(self.number()?))
    }

    fn text(&mut self, length: usize) -> Result<String> {
        let text = self.take(length)?;
        self.take(1)?;
        Ok(std::str::from_utf8(text).context("a text of D-Bus")?.to_owned())
    }

    /// Reads one value for each type of `signature`.
    pub(crate) fn values(&mut self, signature: &str) -> Result<Vec<Value>> {
        self.sequence(signature, 0)
    }

    fn sequence(&mut self, mut signature: &str, depth: usize) -> Result<Vec<Value>> {
        let mut values = Vec::new();
        while !signature.is_empty() {
            let (first, rest) = split(signature)?;
            values.push(self.value(first, depth)?);
            signature = rest;
        }
        Ok(values)
    }

    fn value(&mut self, signature: &str, depth: usize) -> Result<Value> {
        if depth > DEEPEST {
            bail!("a message of D-Bus is nested too deeply");
        }
        Ok(match signature.as_bytes() {
            b"y" => Value::Byte(self.take(1)?[0]),
            b"b" => Value::Bool(self.u32()? != 0),
            b"n" => Value::Int16(i16::from_ne_bytes(self.number()?)),
            b"q" => Value::Uint16(u16::from_ne_bytes(self.number()?)),
            b"i" => Value::Int32(i32::from_ne_bytes(self.number()?)),
            b"u" => Value::Uint32(self.u32()?),
            b"x" => Value::Int64(i64::from_ne_bytes(self.number()?)),
            b"t" => Value::Uint64(u64::from_ne_bytes(self.number()?)),
            b"d" => Value::Double(f64::from_ne_bytes(self.number()?)),
            b"s" | b"o" => {
                let length = self.u32()? as usize;
                let text = self.text(length)?;
                if signature == "s" { Value::String(text) } else { Value::ObjectPath(text) }
            }
            b"g" => {
                let length = usize::from(self.take(1)?[0]);
                Value::Signature(self.text(length)?)
            }
            b"v" => {
                let length = usize::from(self.take(1)?[0]);
                let inner = self.text(length)?;
                let (first, rest) = split(&inner)?;
                if !rest.is_empty() {
                    bail!("a variant of D-Bus holds {inner:?}");
                }
                Value::variant(self.value(first, depth + 1)?)
            }
            [b'a', ..] => self.array(&signature[1..], depth)?,
            [b'(', .., b')'] => {
                self.align(8);
                Value::Struct(self.sequence(&signature[1..signature.len() - 1], depth + 1)?)
            }
            [b'{', .., b'}'] => {
                self.align(8);
                let mut fields = self.sequence(&signature[1..signature.len() - 1], depth + 1)?;
                match (fields.pop(), fields.pop(), fields.pop()) {
                    (Some(value), Some(key), None) => Value::Entry(Box::new((key, value))),
                    _ => bail!("a dictionary of D-Bus with the entry {signature:?}"),
                }
            }
            _ => bail!("a message of D-Bus has the unknown type {signature:?}"),
        })
    }

    fn array(&mut self, element: &str, depth: usize) -> Result<Value> {
        let length = self.u32()? as usize;
        self.align(alignment(element));
        let end = self.at.saturating_add(length);
        let mut values = Vec::new();
        while self.at < end {
            let before = self.at;
            values.push(self.value(element, depth + 1)?);
            if self.at == before {
                bail!("an array of D-Bus with elements of no size");
            }
        }
        Ok(Value::Array(element.to_owned(), values))
    }
}

/// The first complete type of a signature, and the rest.
pub(crate) fn split(signature: &str) -> Result<(&str, &str)> {
    let wrong = || format!("the signature {signature:?} is none of D-Bus");
    let bytes = signature.as_bytes();
    let start = bytes.iter().position(|byte| *byte != b'a').with_context(wrong)?;
    let mut open = Vec::new();
    for (index, byte) in bytes.iter().enumerate().skip(start) {
        match byte {
            b'(' => open.push(b')'),
            b'{' => open.push(b'}'),
            b')' | b'}' if open.pop() == Some(*byte) => {}
            b'y' | b'b' | b'n' | b'q' | b'i' | b'u' | b'x' | b't' | b'd' | b's' | b'o' | b'g'
            | b'v' | b'h' | b'a' => {}
            _ => bail!(wrong()),
        }
        if open.is_empty() {
            return Ok(signature.split_at(index + 1));
        }
    }
    bail!(wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(value: &Value) -> Value {
        let mut encoder = Encoder::default();
        encoder.value(value).unwrap();
        let mut decoder = Decoder::new(&encoder.bytes, 0);
        let mut values = decoder.values(&value.signature()).unwrap();
        assert_eq!(decoder.at, encoder.bytes.len());
        values.pop().unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let pair = |key: &str, value: Value| {
            Value::Struct(vec![Value::string(key), Value::variant(value)])
        };
        let properties = Value::Array(
            "(sv)".to_owned(),
            vec![
                pair("PIDs", Value::Array("u".to_owned(), vec![Value::Uint32(7)])),
                pair("Delegate", Value::Bool(true)),
                pair("MemoryMax", Value::Uint64(u64::MAX)),
                pair("Empty", Value::Array("(ss)".to_owned(), Vec::new())),
                pair("Nice", Value::Double(-1.5)),
                pair("Bytes", Value::bytes([1, 2, 255])),
                pair("Wants", Value::strings(["a".to_owned(), "ä".to_owned()])),
                pair("Path", Value::ObjectPath("/a/b".to_owned())),
            ],
        );
        assert_eq!(properties.signature(), "a(sv)");
        assert_eq!(back(&properties), properties);
        let entry = Value::Entry(Box::new((Value::Int16(-2), Value::Int64(i64::MIN))));
        let dictionary = Value::Array("{nx}".to_owned(), vec![entry]);
        assert_eq!(back(&dictionary), dictionary);
    }

    /// The example of the specification: an array of one 64-bit number.
    #[test]
    fn the_padding_in_front_of_the_first_element_is_not_counted() {
        let mut encoder = Encoder::default();
        encoder.value(&Value::Array("x".to_owned(), vec![Value::Int64(5)])).unwrap();
        let mut expected = Vec::from(8u32.to_ne_bytes());
        expected.extend([0; 4]);
        expected.extend(5i64.to_ne_bytes());
        assert_eq!(encoder.bytes, expected);
    }

    #[test]
    fn signatures_are_split_at_complete_types() {
        for (text, first, rest) in
            [("us", "u", "s"), ("a(sv)a(sa(sv))", "a(sv)", "a(sa(sv))"), ("aa{sv}u", "aa{sv}", "u")]
        {
            assert_eq!(split(text).unwrap(), (first, rest));
        }
        for bad in ["", "a", "(s", "z", "(s}", ")"] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_cut_off_or_malformed_is_an_error() {
        let length = 9u32.to_ne_bytes();
        assert!(Decoder::new(&length, 0).values("s").is_err());
        assert!(Decoder::new(&[255; 64], 0).values("as").is_err());
        assert!(Decoder::new(&[2, b'u', b'u', 0], 0).values("v").is_err());
        let mut empty = Vec::from(8u32.to_ne_bytes());
        empty.resize(16, 0);
        assert!(Decoder::new(&empty, 0).values("a()").is_err());
        let nested = [1, b'v', 0].repeat(200);
        assert!(Decoder::new(&nested, 0).values("v").is_err());
        assert!(Encoder::default().value(&Value::string("a\0b")).is_err());
    }
}
