//! PAX extended headers: records of `LENGTH KEY=VALUE\n`, cut by their length alone, since values
//! such as extended attributes hold any byte.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use super::sparse::{self, Segment};
use super::{Kind, Time};

/// What the records seen so far say; a key that was given empty is unset again.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Time>,
    pub(super) device: (Option<u32>, Option<u32>),
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) sparse: Sparse,
}

/// The records about holes, in their three versions.
#[derive(Clone, Debug, Default)]
pub(super) struct Sparse {
    pub(super) version: (u64, u64),
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) segments: Option<Vec<Segment>>,
    offset: Option<u64>,
}

impl Records {
    /// Adds the records of one header; later ones win.
    pub(super) fn parse(&mut self, mut body: &[u8]) -> Result<()> {
        while !body.is_empty() {
            let (key, value, rest) = split(body).context("malformed PAX header")?;
            self.set(key, value)
                .with_context(|| format!("malformed PAX record {:?}", lossy(key)))?;
            body = rest;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            ensure!(!name.is_empty(), "attribute without a name");
            self.xattrs.insert(name.to_vec(), value.to_vec());
            return Ok(());
        }
        if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
            let name = percent_decode(name)?;
            ensure!(!name.is_empty() && !name.contains(&0), "attribute without a name");
            // The other spelling, where an archive has both, is the exact one.
            self.xattrs.entry(name).or_insert(base64_decode(value)?);
            return Ok(());
        }
        match key {
            b"path" => self.path = text(value)?,
            b"linkpath" => self.link = text(value)?,
            b"size" => self.size = unless_empty(value, sparse::decimal)?,
            b"uid" => self.uid = unless_empty(value, id)?,
            b"gid" => self.gid = unless_empty(value, id)?,
            b"mtime" => self.mtime = unless_empty(value, time)?,
            b"SCHILY.devmajor" => self.device.0 = unless_empty(value, id)?,
            b"SCHILY.devminor" => self.device.1 = unless_empty(value, id)?,
            _ => {
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.set(key, value)?;
                }
            }
        }
        Ok(())
    }
}

impl Sparse {
    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match key {
            b"major" => self.version.0 = sparse::decimal(value)?,
            b"minor" => self.version.1 = sparse::decimal(value)?,
            b"name" => self.name = text(value)?,
            b"size" | b"realsize" => self.size = unless_empty(value, sparse::decimal)?,
            b"map" => self.segments = Some(sparse::from_list(value)?),
            b"numblocks" => {
                self.segments.get_or_insert_default();
            }
            b"offset" => {
                ensure!(self.offset.is_none(), "offset without a length");
                self.offset = Some(sparse::decimal(value)?);
            }
            b"numbytes" => {
                let Some(offset) = self.offset.take() else { bail!("length without an offset") };
                let length = sparse::decimal(value)?;
                self.segments.get_or_insert_default().push(Segment { offset, length });
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the map stands before the contents (1.0) instead of in the records (0.0, 0.1).
    pub(super) fn map_in_contents(&self, kind: Kind) -> bool {
        kind == Kind::File && self.version == (1, 0)
    }
}

/// Cuts the first record off: key, value, what follows.
fn split(body: &[u8]) -> Result<(&[u8], &[u8], &[u8])> {
    let space = body.iter().take(21).position(|byte| *byte == b' ').context("no length")?;
    let length = sparse::decimal(&body[..space])?;
    let length = usize::try_from(length)?;
    ensure!(length > space + 1 && length <= body.len(), "wrong length");
    let (record, rest) = body.split_at(length);
    let Some((b'\n', record)) = record[space + 1..].split_last() else {
        bail!("record does not end with a newline");
    };
    let equals = record.iter().position(|byte| *byte == b'=').context("no value")?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    ensure!(!key.is_empty() && !key.contains(&0), "malformed key");
    Ok((key, value, rest))
}

fn unless_empty<T>(value: &[u8], parse: impl Fn(&[u8]) -> Result<T>) -> Result<Option<T>> {
    if value.is_empty() { Ok(None) } else { parse(value).map(Some) }
}

fn text(value: &[u8]) -> Result<Option<Vec<u8>>> {
    ensure!(!value.contains(&0), "name with a zero byte");
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

fn id(value: &[u8]) -> Result<u32> {
    Ok(u32::try_from(sparse::decimal(value)?)?)
}

/// `[-]SECONDS[.FRACTION]`; digits beyond nanoseconds are cut, seconds beyond our range clamped.
fn time(value: &[u8]) -> Result<Time> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let point = value.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = match point {
        Some(point) => (&value[..point], &value[point + 1..]),
        None => (value, &[][..]),
    };
    ensure!(!whole.is_empty() && whole.iter().all(u8::is_ascii_digit), "malformed time");
    ensure!(fraction.iter().all(u8::is_ascii_digit), "malformed time");
    let clamp =
        |seconds: i64, byte: &u8| seconds.saturating_mul(10).saturating_add(i64::from(byte - b'0'));
    let seconds = whole.iter().fold(0, clamp);
    let nanoseconds = fraction
        .iter()
        .chain(std::iter::repeat(&b'0'))
        .take(9)
        .fold(0, |value, byte| value * 10 + u32::from(byte - b'0'));
    Ok(match (negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds: 0 },
        (true, _) => Time { seconds: (-seconds) - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

fn percent_decode(text: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let mut digit = || {
            let digit = bytes.next().and_then(|byte| char::from(*byte).to_digit(16));
            digit.and_then(|digit| u8::try_from(digit).ok()).context("malformed % escape")
        };
        out.push(digit()? << 4 | digit()?);
    }
    Ok(out)
}

/// Base64 with or without padding, as libarchive writes it.
fn base64_decode(text: &[u8]) -> Result<Vec<u8>> {
    let end = text.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    let mut out = Vec::with_capacity(end * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for byte in &text[..end] {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => bail!("malformed base64"),
        };
        bits = (bits << 6 | u32::from(value)) & 0xff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from((bits >> count) & 0xff)?);
        }
    }
    Ok(out)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &[u8]) -> Result<Records> {
        let mut records = Records::default();
        records.parse(body)?;
        Ok(records)
    }

    #[test]
    fn a_value_may_hold_newlines_and_zeros() {
        let records = parse(b"30 SCHILY.xattr.user.k=a\n\0=b\n\n12 path=a/b\n").unwrap();
        assert_eq!(records.xattrs[&b"user.k"[..]], b"a\n\0=b\n");
        assert_eq!(records.path.unwrap(), b"a/b");
    }

    #[test]
    fn malformed_records_are_errors() {
        let bad: [&[u8]; 9] = [
            b"path=x\n",
            b"99 path=x\n",
            b"9 path=x\n\n",
            b"8 path=x\n",
            b"8 pathx\n",
            b"6 =xy\n",
            b"12 size=abc\n",
            b"12 path=a\0b\n",
            b"+9 path=x\n",
        ];
        for body in bad {
            assert!(parse(body).is_err(), "{}", lossy(body));
        }
    }

    #[test]
    fn times_keep_their_fraction_truncated() {
        let of = |text: &str| time(text.as_bytes()).unwrap();
        assert_eq!(of("1.5"), Time { seconds: 1, nanoseconds: 500_000_000 });
        assert_eq!(of("7.1234567899"), Time { seconds: 7, nanoseconds: 123_456_789 });
        assert_eq!(of("-1.25"), Time { seconds: -2, nanoseconds: 750_000_000 });
        assert_eq!(of("99999999999999999999").seconds, i64::MAX);
        assert!(time(b"1.2.3").is_err() && time(b"").is_err() && time(b"--1").is_err());
    }

    #[test]
    fn libarchive_attributes_are_decoded() {
        let records = parse(b"36 LIBARCHIVE.xattr.user.a%20b=AAEK\n").unwrap();
        assert_eq!(records.xattrs[&b"user.a b"[..]], [0, 1, 10]);
    }
}
