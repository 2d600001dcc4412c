//! The part of protobuf's wire format that CRIU's messages use: numbers, texts and messages within
//! messages. <https://protobuf.dev/programming-guides/encoding/>

use anyhow::{Context, Result, bail};

const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

/// A message being put together, field by field.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn number(&mut self, field: u32, value: u32) {
        self.key(field, VARINT);
        self.varint(value.into());
    }

    /// Negative ones take all of 64 bits, as the format has it for an `int32`.
    pub(super) fn signed(&mut self, field: u32, value: i32) {
        self.key(field, VARINT);
        self.varint(i64::from(value).cast_unsigned());
    }

    pub(super) fn boolean(&mut self, field: u32, value: bool) {
        self.number(field, value.into());
    }

    pub(super) fn bytes(&mut self, field: u32, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        self.key(field, BYTES);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// A message within the message.
    pub(super) fn message(&mut self, field: u32, fill: impl FnOnce(&mut Writer)) {
        let mut inner = Writer::default();
        fill(&mut inner);
        self.bytes(field, inner.0);
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }

    fn key(&mut self, field: u32, kind: u64) {
        self.varint(u64::from(field) << 3 | kind);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// An `int32`, whose upper half is nothing but its sign.
    pub(super) fn signed(self) -> Result<i32> {
        match self {
            Value::Number(number) => {
                i32::try_from(number.cast_signed()).context("a number is out of range")
            }
            Value::Bytes(_) => bail!("a number is expected"),
        }
    }

    pub(super) fn boolean(self) -> Result<bool> {
        Ok(self.signed()? != 0)
    }

    pub(super) fn bytes(self) -> Result<&'a [u8]> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Number(_) => bail!("bytes are expected"),
        }
    }

    pub(super) fn text(self) -> Result<String> {
        Ok(String::from_utf8_lossy(self.bytes()?).into_owned())
    }
}

/// All fields of a message in their order; of kinds that CRIU has no use for, none is returned.
pub(super) fn fields(message: &[u8]) -> Result<Vec<(u32, Value<'_>)>> {
    let mut rest = message;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let key = take_varint(&mut rest)?;
        let field = u32::try_from(key >> 3).context("a field's number is out of range")?;
        match key & 7 {
            VARINT => found.push((field, Value::Number(take_varint(&mut rest)?))),
            BYTES => {
                let length = usize::try_from(take_varint(&mut rest)?).context("a length")?;
                found.push((field, Value::Bytes(take(&mut rest, length)?)));
            }
            FIXED_64 => drop(take(&mut rest, 8)?),
            FIXED_32 => drop(take(&mut rest, 4)?),
            kind => bail!("unknown kind {kind} of field {field}"),
        }
    }
    Ok(found)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length).context("the message ends early")?;
    *rest = left;
    Ok(taken)
}

fn take_varint(rest: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a number does not end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_format_has_them() {
        let mut writer = Writer::default();
        // The example of the format's own description: field 1, value 150.
        writer.number(1, 150);
        assert_eq!(writer.finish(), [0x08, 0x96, 0x01]);
        let mut writer = Writer::default();
        writer.signed(2, -1);
        let mut expected = vec![0x10];
        expected.extend([0xff; 9]);
        expected.push(0x01);
        assert_eq!(writer.finish(), expected);
    }

    #[test]
    fn texts_and_messages_carry_their_length() {
        let mut writer = Writer::default();
        writer.bytes(2, "testing");
        assert_eq!(writer.finish(), b"\x12\x07testing");
        let mut writer = Writer::default();
        writer.message(3, |inner| inner.number(1, 150));
        assert_eq!(writer.finish(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut writer = Writer::default();
        writer.signed(1, i32::MIN);
        writer.boolean(51, true);
        writer.bytes(68, vec![7; 300]);
        let bytes = writer.finish();
        let fields = fields(&bytes).unwrap();
        assert_eq!(fields[0].1.signed().unwrap(), i32::MIN);
        assert_eq!((fields[1].0, fields[1].1.boolean().unwrap()), (51, true));
        assert_eq!((fields[2].0, fields[2].1.bytes().unwrap().len()), (68, 300));
    }

    #[test]
    fn fields_of_other_kinds_are_passed_over() {
        let bytes = [0x09, 1, 2, 3, 4, 5, 6, 7, 8, 0x15, 1, 2, 3, 4, 0x18, 5];
        assert_eq!(fields(&bytes).unwrap(), [(3, Value::Number(5))]);
    }

    #[test]
    fn broken_messages_are_refused() {
        for bytes in [&b"\x12\x07test"[..], &[0x80], &[0x09, 1], &[0x0b], &[0xff; 11]] {
            assert!(fields(bytes).is_err(), "{bytes:?}");
        }
        assert!(Value::Number(1 << 40).signed().is_err());
        assert!(Value::Bytes(b"").signed().is_err());
    }
}
