//! Reads an archive block by block. The `tar` crate's own entries split PAX records at newlines
//! and take PAX sparse files for their map, so only its header layout is used here.

use std::io::BufRead;

use anyhow::{Context, Result, bail, ensure};
use tar::Header;

use super::pax::Records;
use super::sparse::{self, Segment};
use super::{BLOCK, Entry, Kind, MAX_HEADER, Time, padding};

/// An archive being read: the next entry, then the contents of that entry, and so on.
pub(crate) struct Reader<R> {
    input: R,
    /// Bytes of the current entry's contents that were not read yet.
    remaining: u64,
    /// Zero bytes that follow them.
    padding: u64,
    globals: Records,
}

/// What the headers before an entry said about it.
#[derive(Default)]
struct Pending {
    records: Option<Records>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<R: BufRead> Reader<R> {
    /// Begins to read `input`, which is an archive without compression.
    pub(crate) fn new(input: R) -> Self {
        Self { input, remaining: 0, padding: 0, globals: Records::default() }
    }

    /// The next entry, or `None` after the last one: then the input was read to its end, whatever
    /// follows the archive, so that a digest of it covers all.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut pending = Pending::default();
        loop {
            self.skip_contents()?;
            let Some(block) = self.header_block()? else {
                ensure!(pending.is_empty(), "archive ends after an extended header");
                return Ok(None);
            };
            let kind = block[TYPE];
            match kind {
                b'x' | b'X' => {
                    let body = self.special(&block)?;
                    let mut records =
                        pending.records.take().unwrap_or_else(|| self.globals.clone());
                    records.parse(&body)?;
                    pending.records = Some(records);
                }
                b'g' => {
                    let body = self.special(&block)?;
                    self.globals.parse(&body)?;
                }
                b'L' => pending.long_name = Some(until_zero(&self.special(&block)?).to_vec()),
                b'K' => pending.long_link = Some(until_zero(&self.special(&block)?).to_vec()),
                b'M' => bail!("archive continues another volume"),
                // A volume label describes the archive, not a file.
                b'V' => self.start(size(&block)?),
                _ => return self.entry(&block, pending).map(Some),
            }
        }
    }

    /// Gives the contents of the current entry, piece by piece, to `write`.
    pub(crate) fn contents(&mut self, mut write: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.read_contents(self.remaining, &mut write)
    }

    /// Gives the next `length` bytes of the contents to `write`.
    pub(crate) fn read_contents(
        &mut self,
        mut length: u64,
        write: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        ensure!(length <= self.remaining, "entry is shorter than its map");
        while length > 0 {
            let buffer = self.input.fill_buf().context("read archive")?;
            ensure!(!buffer.is_empty(), "archive is truncated");
            let take = usize::try_from(length).unwrap_or(usize::MAX).min(buffer.len());
            write(&buffer[..take])?;
            self.input.consume(take);
            length -= take as u64;
            self.remaining -= take as u64;
        }
        Ok(())
    }

    fn skip_contents(&mut self) -> Result<()> {
        self.remaining = self.remaining.checked_add(self.padding).context("entry too large")?;
        self.padding = 0;
        self.read_contents(self.remaining, &mut |_| Ok(()))
    }

    fn start(&mut self, size: u64) {
        self.remaining = size;
        self.padding = padding(size);
    }

    /// A whole block, or `None` at the end of the input.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let buffer = self.input.fill_buf().context("read archive")?;
            if buffer.is_empty() {
                ensure!(filled == 0, "archive is truncated");
                return Ok(None);
            }
            let take = (BLOCK - filled).min(buffer.len());
            block[filled..filled + take].copy_from_slice(&buffer[..take]);
            self.input.consume(take);
            filled += take;
        }
        Ok(Some(block))
    }

    /// The next header with a right checksum, or `None` at the end mark (two zero blocks) or the
    /// end of the input.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block == [0; BLOCK] {
            if let Some(second) = self.block()? {
                ensure!(second == [0; BLOCK], "archive goes on after a zero block");
            }
            self.drain()?;
            return Ok(None);
        }
        verify_checksum(&block)?;
        Ok(Some(block))
    }

    fn drain(&mut self) -> Result<()> {
        loop {
            let length = self.input.fill_buf().context("read archive")?.len();
            if length == 0 {
                return Ok(());
            }
            self.input.consume(length);
        }
    }

    /// The body of a header that describes the entry after it.
    fn special(&mut self, block: &[u8; BLOCK]) -> Result<Vec<u8>> {
        let size = size(block)?;
        ensure!(size <= MAX_HEADER, "extended header of {size} bytes is too large");
        self.start(size);
        let mut body = Vec::new();
        self.contents(|bytes| {
            body.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(body)
    }

    fn entry(&mut self, block: &[u8; BLOCK], pending: Pending) -> Result<Entry> {
        let records = pending.records.unwrap_or_else(|| self.globals.clone());
        let path =
            pending.long_name.or_else(|| records.path.clone()).unwrap_or_else(|| name(block));
        let named = || format!("entry {:?}", String::from_utf8_lossy(&path));
        let mut entry =
            plain_entry(block, &path, records.clone(), pending.long_link).with_context(named)?;
        let stored = match records.size {
            Some(size) => size,
            None => size(block).with_context(named)?,
        };
        if !matches!(entry.kind, Kind::File | Kind::Unknown(_)) {
            // Links, directories and devices have no contents, whatever the size field says.
            let by_slash =
                entry.kind == Kind::Directory && block[TYPE] != b'5' && block[TYPE] != b'D';
            ensure!(!by_slash || stored == 0, "{}: a directory with contents", named());
            self.start(if block[TYPE] == b'D' { stored } else { 0 });
            return Ok(entry);
        }
        self.start(stored);
        entry.size = stored;
        self.holes(block, &mut entry, &records).with_context(named)?;
        Ok(entry)
    }

    /// Finds the map of a file with holes, in whichever of the four places it is.
    fn holes(&mut self, block: &[u8; BLOCK], entry: &mut Entry, records: &Records) -> Result<()> {
        let segments = if block[TYPE] == b'S' {
            entry.size = unsigned(&block[GNU_REAL_SIZE])?;
            self.old_gnu_map(block)?
        } else if records.sparse.map_in_contents(entry.kind) {
            entry.size = records.sparse.size.context("sparse file without a size")?;
            self.pax_map()?
        } else if let Some(segments) = &records.sparse.segments {
            entry.size = records.sparse.size.context("sparse file without a size")?;
            segments.clone()
        } else {
            return Ok(());
        };
        if let Some(name) = &records.sparse.name {
            entry.path.clone_from(name);
        }
        sparse::check(&segments, entry.size, self.remaining)?;
        entry.segments = Some(segments);
        Ok(())
    }

    fn old_gnu_map(&mut self, block: &[u8; BLOCK]) -> Result<Vec<Segment>> {
        let mut segments = Vec::new();
        gnu_segments(&block[386..482], &mut segments)?;
        let mut more = block[482] != 0;
        while more {
            // The blocks of the map stand between header and contents and don't count as either.
            let block = self.block()?.context("archive is truncated")?;
            gnu_segments(&block[..504], &mut segments)?;
            ensure!(segments.len() as u64 * 16 <= MAX_HEADER, "sparse file of too many parts");
            more = block[504] != 0;
        }
        Ok(segments)
    }

    fn pax_map(&mut self) -> Result<Vec<Segment>> {
        sparse::from_blocks(|| {
            ensure!(self.remaining >= BLOCK as u64, "sparse map is truncated");
            self.remaining -= BLOCK as u64;
            self.block()?.context("archive is truncated")
        })
    }
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.records.is_none() && self.long_name.is_none() && self.long_link.is_none()
    }
}

/// Where the type stands in a header.
const TYPE: usize = 156;
const GNU_REAL_SIZE: std::ops::Range<usize> = 483..495;

fn old(block: &[u8; BLOCK]) -> &tar::OldHeader {
    Header::from_byte_slice(block).as_old()
}

/// The entry without its size.
fn plain_entry(
    block: &[u8; BLOCK],
    path: &[u8],
    records: Records,
    long_link: Option<Vec<u8>>,
) -> Result<Entry> {
    let header = old(block);
    let kind = kind(block[TYPE], path);
    let mut entry = Entry::new(path.to_vec(), kind, 0);
    entry.mode = u32::try_from(number(&header.mode)? & 0o7777)?;
    entry.uid = match records.uid {
        Some(uid) => uid,
        None => id(&header.uid).context("user id")?,
    };
    entry.gid = match records.gid {
        Some(gid) => gid,
        None => id(&header.gid).context("group id")?,
    };
    ensure!(entry.uid != u32::MAX && entry.gid != u32::MAX, "user or group id out of range");
    entry.mtime = match records.mtime {
        Some(time) => time,
        None => Time { seconds: number(&header.mtime)?, nanoseconds: 0 },
    };
    if matches!(kind, Kind::HardLink | Kind::Symlink) {
        entry.link =
            long_link.or(records.link).unwrap_or_else(|| until_zero(&header.linkname).to_vec());
        ensure!(!entry.link.is_empty(), "link without a target");
    }
    if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
        let field = |record: Option<u32>, field: &[u8]| match record {
            Some(number) => Ok(number),
            None => anyhow::Ok(u32::try_from(unsigned(field)?)?),
        };
        entry.device = (
            field(records.device.0, &block[329..337])?,
            field(records.device.1, &block[337..345])?,
        );
    }
    entry.xattrs = records.xattrs.into_iter().collect();
    Ok(entry)
}

fn kind(byte: u8, path: &[u8]) -> Kind {
    match byte {
        // Before ustar a trailing slash was all that told a directory.
        b'\0' | b'0' | b'7' if path.ends_with(b"/") => Kind::Directory,
        b'\0' | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' | b'D' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => Kind::Unknown(other),
    }
}

/// The name in the header itself. The prefix belongs to ustar; GNU keeps other fields there.
fn name(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_zero(&old(block).name);
    let prefix = match &block[257..263] {
        // star ends the prefix earlier, for two more times.
        b"ustar\0" if block.ends_with(b"tar\0") => until_zero(&block[345..476]),
        b"ustar\0" => until_zero(&block[345..500]),
        _ => b"",
    };
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

fn size(block: &[u8; BLOCK]) -> Result<u64> {
    unsigned(&old(block).size).context("size")
}

fn id(field: &[u8]) -> Result<u32> {
    Ok(u32::try_from(unsigned(field)?)?)
}

fn unsigned(field: &[u8]) -> Result<u64> {
    Ok(u64::try_from(number(field)?)?)
}

/// A numeric field: octal digits, or (GNU) base 256 in two's complement under a set first bit.
fn number(field: &[u8]) -> Result<i64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let first = i128::from(field[0] & 0x7f) - if negative { 0x80 } else { 0 };
        let mut value = first;
        for byte in &field[1..] {
            value = value * 256 + i128::from(*byte);
            ensure!(i64::try_from(value).is_ok(), "number out of range");
        }
        return Ok(i64::try_from(value)?);
    }
    let is_padding = |byte: &u8| *byte == b' ' || *byte == 0;
    let Some(first) = field.iter().position(|byte| !is_padding(byte)) else { return Ok(0) };
    let digits = field[first..].split(is_padding).next().unwrap_or_default();
    let text = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with(['+', '-']));
    match text.and_then(|text| i64::from_str_radix(text, 8).ok()) {
        Some(number) => Ok(number),
        None => bail!("malformed number {:?}", String::from_utf8_lossy(field)),
    }
}

fn gnu_segments(map: &[u8], segments: &mut Vec<Segment>) -> Result<()> {
    for pair in map.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        segments.push(Segment { offset: unsigned(&pair[..12])?, length: unsigned(&pair[12..])? });
    }
    Ok(())
}

/// Old archivers summed signed bytes, so both sums are right.
fn verify_checksum(block: &[u8; BLOCK]) -> Result<()> {
    let field = 148..156;
    let expected = number(&block[field.clone()]).context("header checksum")?;
    let bytes = block.iter().enumerate().map(
        |(index, byte)| {
            if field.contains(&index) { b' ' } else { *byte }
        },
    );
    let (unsigned, signed) = bytes.fold((0, 0), |(unsigned, signed), byte| {
        (unsigned + i64::from(byte), signed + i64::from(byte.cast_signed()))
    });
    ensure!(expected == unsigned || expected == signed, "not a tar header: wrong checksum");
    Ok(())
}

fn until_zero(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests;
