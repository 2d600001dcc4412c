//! Writes an archive whose bytes depend on the entries alone: ustar headers, and a PAX header
//! only before an entry that needs one.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use tar::{EntryType, Header};

use super::{BLOCK, Entry, Kind, padding};

/// An archive being written. Each entry is followed by its contents, if it is a file, given to
/// `contents` in pieces.
pub(crate) struct Writer<W> {
    output: W,
    remaining: u64,
    padding: u64,
}

/// The largest number in an octal field of 8 and of 12 bytes.
const OCTAL_8: u64 = 0o777_7777;
const OCTAL_12: u64 = 0o777_7777_7777;

impl<W: Write> Writer<W> {
    /// Begins an archive.
    pub(crate) fn new(output: W) -> Self {
        Self { output, remaining: 0, padding: 0 }
    }

    /// Writes the headers of an entry; holes are written as zeros.
    pub(crate) fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.end_contents()?;
        let size = if entry.kind == Kind::File { entry.size } else { 0 };
        let records = records(entry, size);
        if !records.is_empty() {
            let mut header = Header::new_ustar();
            set_name(&mut header, b"PaxHeaders.0");
            header.set_entry_type(EntryType::XHeader);
            header.set_mode(0o644);
            header.set_size(records.len() as u64);
            self.header(header)?;
            self.write(&records)?;
            self.write(&[0; BLOCK][..usize::try_from(padding(records.len() as u64))?])?;
        }
        self.header(ustar(entry, size)?)?;
        self.remaining = size;
        self.padding = padding(size);
        Ok(())
    }

    /// Writes a piece of the contents of the last entry.
    pub(crate) fn contents(&mut self, bytes: &[u8]) -> Result<()> {
        ensure!(bytes.len() as u64 <= self.remaining, "file grew while it was read");
        self.remaining -= bytes.len() as u64;
        self.write(bytes)
    }

    /// Writes the end mark and gives the output back.
    pub(crate) fn finish(mut self) -> Result<W> {
        self.end_contents()?;
        self.write(&[0; 2 * BLOCK])?;
        Ok(self.output)
    }

    fn end_contents(&mut self) -> Result<()> {
        ensure!(self.remaining == 0, "file shrank while it was read");
        let padding = usize::try_from(std::mem::take(&mut self.padding))?;
        self.write(&[0; BLOCK][..padding])
    }

    fn header(&mut self, mut header: Header) -> Result<()> {
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.output.write_all(bytes).context("write archive")
    }
}

fn ustar(entry: &Entry, size: u64) -> Result<Header> {
    let mut header = Header::new_ustar();
    set_name(&mut header, &entry.path);
    let (kind, link) = match entry.kind {
        Kind::File => (EntryType::Regular, false),
        Kind::HardLink => (EntryType::Link, true),
        Kind::Symlink => (EntryType::Symlink, true),
        Kind::CharDevice => (EntryType::Char, false),
        Kind::BlockDevice => (EntryType::Block, false),
        Kind::Directory => (EntryType::Directory, false),
        Kind::Fifo => (EntryType::Fifo, false),
        Kind::Unknown(byte) => (EntryType::new(byte), false),
    };
    header.set_entry_type(kind);
    if link {
        let length = entry.link.len().min(100);
        header.as_old_mut().linkname[..length].copy_from_slice(&entry.link[..length]);
    }
    header.set_mode(entry.mode);
    header.set_uid(within(u64::from(entry.uid), OCTAL_8));
    header.set_gid(within(u64::from(entry.gid), OCTAL_8));
    header.set_size(within(size, OCTAL_12));
    header.set_mtime(u64::try_from(entry.mtime.seconds).map_or(0, |time| within(time, OCTAL_12)));
    if matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice) {
        ensure!(
            u64::from(entry.device.0.max(entry.device.1)) <= OCTAL_8,
            "device number too large"
        );
        header.set_device_major(entry.device.0)?;
        header.set_device_minor(entry.device.1)?;
    }
    Ok(header)
}

/// A number that does not fit stands in the PAX header; the field then says nothing.
fn within(number: u64, limit: u64) -> u64 {
    if number > limit { 0 } else { number }
}

fn set_name(header: &mut Header, name: &[u8]) {
    let length = name.len().min(100);
    header.as_old_mut().name[..length].copy_from_slice(&name[..length]);
}

fn records(entry: &Entry, size: u64) -> Vec<u8> {
    let mut out = Vec::new();
    if entry.path.len() > 100 || !entry.path.is_ascii() {
        record(&mut out, b"path", &entry.path);
    }
    let link = matches!(entry.kind, Kind::HardLink | Kind::Symlink);
    if link && (entry.link.len() > 100 || !entry.link.is_ascii()) {
        record(&mut out, b"linkpath", &entry.link);
    }
    if size > OCTAL_12 {
        record(&mut out, b"size", size.to_string().as_bytes());
    }
    if u64::from(entry.uid) > OCTAL_8 {
        record(&mut out, b"uid", entry.uid.to_string().as_bytes());
    }
    if u64::from(entry.gid) > OCTAL_8 {
        record(&mut out, b"gid", entry.gid.to_string().as_bytes());
    }
    let octal = u64::try_from(entry.mtime.seconds).is_ok_and(|seconds| seconds <= OCTAL_12);
    if entry.mtime.nanoseconds != 0 || !octal {
        record(&mut out, b"mtime", decimal(entry.mtime).as_bytes());
    }
    for (name, value) in &entry.xattrs {
        if name.contains(&b'=') {
            // A record's key ends at the first such sign; libarchive's spelling has a way round that.
            let value = STANDARD_NO_PAD.encode(value);
            record(&mut out, &libarchive_key(name), value.as_bytes());
        } else {
            record(&mut out, &[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
    }
    out
}

fn libarchive_key(name: &[u8]) -> Vec<u8> {
    let mut key = b"LIBARCHIVE.xattr.".to_vec();
    for byte in name {
        match byte {
            0x21..=0x7e if !b"%=".contains(byte) => key.push(*byte),
            _ => key.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    key
}

fn decimal(time: super::Time) -> String {
    let (sign, seconds, nanoseconds) = if time.seconds < 0 && time.nanoseconds > 0 {
        ("-", time.seconds.unsigned_abs() - 1, 1_000_000_000 - time.nanoseconds)
    } else {
        (if time.seconds < 0 { "-" } else { "" }, time.seconds.unsigned_abs(), time.nanoseconds)
    };
    let text = format!("{sign}{seconds}.{nanoseconds:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Appends `LENGTH KEY=VALUE\n`; the length counts its own digits.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    for part in [b" ", key, b"=", value, b"\n"] {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Reader, Time};
    use super::*;

    fn round_trip(entry: &Entry, contents: &[u8]) -> (Vec<u8>, Entry) {
        let mut writer = Writer::new(Vec::new());
        writer.entry(entry).unwrap();
        writer.contents(contents).unwrap();
        let bytes = writer.finish().unwrap();
        let read = Reader::new(&bytes[..]).next_entry().unwrap().unwrap();
        (bytes, read)
    }

    #[test]
    fn a_plain_entry_needs_no_extended_header() {
        let mut entry = Entry::new(b"etc/passwd".to_vec(), Kind::File, 0o644);
        entry.size = 3;
        entry.mtime.seconds = 1_700_000_000;
        let (bytes, read) = round_trip(&entry, b"abc");
        assert_eq!(read, entry);
        assert_eq!(bytes.len(), 4 * BLOCK);
    }

    #[test]
    fn whatever_ustar_lacks_survives() {
        let mut entry = Entry::new([b'n'; 300].to_vec(), Kind::Symlink, 0o777);
        entry.link = "é/".repeat(90).into_bytes();
        entry.uid = 3_000_000;
        entry.gid = 4_294_967_294;
        entry.mtime = Time { seconds: -3, nanoseconds: 250_000_000 };
        entry.xattrs = vec![
            (b"security.capability".to_vec(), vec![1, 0, 10, b'=', 255]),
            (b"user.%3D =\n\xff".to_vec(), vec![0, 255, b'=']),
            (b"user.a".to_vec(), b"x\n12 path=evil\n".to_vec()),
        ];
        assert_eq!(round_trip(&entry, b"").1, entry);
    }

    #[test]
    fn record_lengths_count_themselves() {
        for length in 80..120 {
            let mut out = Vec::new();
            record(&mut out, b"k", &vec![b'v'; length]);
            let digits = out.iter().position(|byte| *byte == b' ').unwrap();
            let stated: usize = std::str::from_utf8(&out[..digits]).unwrap().parse().unwrap();
            assert_eq!(stated, out.len());
        }
    }

    #[test]
    fn contents_must_match_the_size() {
        let mut entry = Entry::new(b"f".to_vec(), Kind::File, 0o644);
        entry.size = 2;
        let mut writer = Writer::new(Vec::new());
        writer.entry(&entry).unwrap();
        assert!(writer.contents(b"abc").is_err());
        assert!(writer.finish().is_err());
    }
}
