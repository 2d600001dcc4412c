//! Messages of D-Bus: method calls out; replies, errors and signals in.

use anyhow::{Context, Result, bail};

use super::value::{Decoder, Encoder, Value};

const CALL: u8 = 1;
const REPLY: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;
const NO_REPLY_EXPECTED: u8 = 1;
const VERSION: u8 = 1;
const BYTE_ORDER: u8 = if cfg!(target_endian = "little") { b'l' } else { b'B' };

/// What is always there: four bytes, length of the body, serial, length of the fields.
pub(super) const FIXED: usize = 16;
/// The specification's limit is 128 MiB; none that we wait for is anywhere near this.
const LARGEST: usize = 16 << 20;

const FIELD_PATH: u8 = 1;
const FIELD_INTERFACE: u8 = 2;
const FIELD_MEMBER: u8 = 3;
const FIELD_ERROR: u8 = 4;
const FIELD_REPLY_SERIAL: u8 = 5;
const FIELD_DESTINATION: u8 = 6;
const FIELD_SENDER: u8 = 7;
const FIELD_SIGNATURE: u8 = 8;

/// A method and its arguments.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) destination: &'a str,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) member: &'a str,
    pub(crate) arguments: Vec<Value>,
}

impl Call<'_> {
    /// The bytes to send.
    pub(super) fn encode(&self, serial: u32, answer: bool) -> Result<Vec<u8>> {
        let mut body = Encoder::default();
        self.arguments.iter().try_for_each(|value| body.value(value))?;
        let signature: String = self.arguments.iter().map(Value::signature).collect();
        let mut fields = vec![
            field(FIELD_PATH, Value::ObjectPath(self.path.to_owned())),
            field(FIELD_INTERFACE, Value::string(self.interface)),
            field(FIELD_MEMBER, Value::string(self.member)),
            field(FIELD_DESTINATION, Value::string(self.destination)),
        ];
        if !signature.is_empty() {
            fields.push(field(FIELD_SIGNATURE, Value::Signature(signature)));
        }
        let flags = if answer { 0 } else { NO_REPLY_EXPECTED };
        let mut message = Encoder::default();
        message.bytes.extend([BYTE_ORDER, CALL, flags, VERSION]);
        let length = u32::try_from(body.bytes.len()).context("a message for D-Bus")?;
        message.value(&Value::Uint32(length))?;
        message.value(&Value::Uint32(serial))?;
        message.value(&Value::Array("(yv)".to_owned(), fields))?;
        message.align(8);
        message.bytes.extend(body.bytes);
        Ok(message.bytes)
    }
}

fn field(code: u8, value: Value) -> Value {
    Value::Struct(vec![Value::Byte(code), Value::variant(value)])
}

/// What arrived. Texts that the message lacks are empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) path: String,
    pub(crate) interface: String,
    pub(crate) member: String,
    pub(crate) error: String,
    /// Whom the bus says that it is from; it can't be forged. Nobody where there is no bus between.
    pub(crate) sender: String,
    signature: String,
    /// Not read until it is asked for: most of what a bus sends is of no interest.
    bytes: Vec<u8>,
    body_at: usize,
}

/// Kinds of messages that arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To the call with this serial.
    Reply(u32),
    Error(u32),
    Signal,
    /// A call, or what a later version brings.
    #[default]
    Other,
}

/// How long the message is that begins with these bytes; `None` if they are too few to tell.
pub(super) fn length(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(fixed) = bytes.get(..FIXED) else { return Ok(None) };
    if fixed[0] != BYTE_ORDER || fixed[3] != VERSION {
        bail!("a message of an unknown version of D-Bus, or of another byte order");
    }
    let body = Decoder::new(fixed, 4).u32()? as usize;
    let fields = Decoder::new(fixed, 12).u32()? as usize;
    let length = (FIXED + fields).next_multiple_of(8) + body;
    if length > LARGEST {
        bail!("a message of {length} bytes");
    }
    Ok(Some(length))
}

impl Message {
    /// Reads a message that is there whole.
    pub(super) fn decode(bytes: Vec<u8>) -> Result<Self> {
        let mut message = Message::default();
        let mut serial = 0;
        let mut decoder = Decoder::new(&bytes, FIXED - 4);
        let fields = decoder.values("a(yv)")?;
        let Some(Value::Array(_, fields)) = fields.into_iter().next() else {
            bail!("a message without fields");
        };
        for field in fields {
            let Value::Struct(mut pair) = field else { continue };
            let (Some(Value::Variant(value)), Some(Value::Byte(code))) = (pair.pop(), pair.pop())
            else {
                continue;
            };
            match (code, *value) {
                (FIELD_PATH, Value::ObjectPath(text)) => message.path = text,
                (FIELD_INTERFACE, Value::String(text)) => message.interface = text,
                (FIELD_MEMBER, Value::String(text)) => message.member = text,
                (FIELD_ERROR, Value::String(text)) => message.error = text,
                (FIELD_SENDER, Value::String(text)) => message.sender = text,
                (FIELD_REPLY_SERIAL, Value::Uint32(number)) => serial = number,
                (FIELD_SIGNATURE, Value::Signature(text)) => message.signature = text,
                _ => {}
            }
        }
        message.kind = match bytes.get(1) {
            Some(&REPLY) => Kind::Reply(serial),
            Some(&ERROR) => Kind::Error(serial),
            Some(&SIGNAL) => Kind::Signal,
            _ => Kind::Other,
        };
        decoder.align(8);
        message.body_at = decoder.at;
        message.bytes = bytes;
        Ok(message)
    }

    /// What it carries.
    pub(crate) fn arguments(&self) -> Result<Vec<Value>> {
        Decoder::new(&self.bytes, self.body_at).values(&self.signature)
    }

    /// The first argument, if it is a text, also one in a variant.
    pub(crate) fn text(&self) -> Result<Option<String>> {
        let first = self.arguments()?.into_iter().next();
        let first = if let Some(Value::Variant(inner)) = first { Some(*inner) } else { first };
        Ok(match first {
            Some(Value::String(text) | Value::ObjectPath(text)) => Some(text),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Call<'static> {
        Call {
            destination: "org.x",
            path: "/o",
            interface: "org.x.I",
            member: "Do",
            arguments: vec![Value::string("a"), Value::Uint32(5)],
        }
    }

    #[test]
    fn a_call_has_the_length_it_says_and_reads_back() {
        let bytes = call().encode(7, true).unwrap();
        assert_eq!(length(&bytes).unwrap(), Some(bytes.len()));
        assert_eq!(length(&bytes[..15]).unwrap(), None);
        let message = Message::decode(bytes).unwrap();
        assert_eq!((message.path.as_str(), message.member.as_str()), ("/o", "Do"));
        assert_eq!(message.arguments().unwrap(), call().arguments);
        assert_eq!(message.text().unwrap().as_deref(), Some("a"));
        assert_eq!(message.kind, Kind::Other);
    }

    #[test]
    fn what_nobody_can_mean_is_refused() {
        let mut bytes = call().encode(7, false).unwrap();
        assert_eq!(bytes[2], NO_REPLY_EXPECTED);
        bytes[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(length(&bytes).is_err());
        bytes[0] = b'?';
        assert!(length(&bytes).is_err());
        // Whatever the bytes are, the answer is an error and never a panic.
        let good = call().encode(7, true).unwrap();
        for index in 0..good.len() {
            for value in [0, 1, 127, 255] {
                let mut bad = good.clone();
                bad[index] = value;
                let _ = length(&bad);
                let _ = Message::decode(bad.clone()).map(|message| message.arguments());
                bad.truncate(index);
                let _ = Message::decode(bad).map(|message| message.arguments());
            }
        }
    }
}
