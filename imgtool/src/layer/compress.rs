//! Compression of layers: whatever form a blob has is recognised by its first bytes.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::GzDecoder;
use lzma_rust2::XzReader;

/// Bytes read from a blob at a time; inflating gains a fifth over the default of 8 KiB.
pub(crate) const BUFFER: usize = 256 << 10;

/// Bytes that anything may give, whatever its compressed size.
const FREE_BYTES: u64 = 256 << 20;
/// Above that, how many bytes one compressed byte may give.
static EXPANSION: AtomicU64 = AtomicU64::new(200);

/// Sets how many bytes one compressed byte may give, once more than 256 MiB came.
pub(crate) fn set_expansion(limit: u64) {
    EXPANSION.store(limit, Ordering::Relaxed);
}

/// `xz -9` needs a quarter of it. What a stream says that it needs is taken before a byte comes; zstd
/// has such a limit of its own.
const XZ_MEMORY_KIB: u32 = 256 << 10;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const XZ: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];
const BZIP2: [u8; 3] = *b"BZh";
/// The longest of these.
const MAGIC: usize = 6;
/// Frames that a zstd reader passes over; the lowest four bits of the first byte are free.
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];

/// The bytes of `input` without their compression: gzip of one or more members, zstd, xz,
/// bzip2, or none.
pub(crate) fn reader<'a>(input: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let read = Arc::new(AtomicU64::new(0));
    let input = Counted { input, count: Arc::clone(&read) };
    let mut input = BufReader::with_capacity(BUFFER, Prefixed::new(input)?);
    let start = input.fill_buf()?;
    let skippable = start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == ZSTD_SKIPPABLE;
    let bounded = |plain| Bounded { plain, read, given: 0 };
    Ok(if start.starts_with(&GZIP) {
        Box::new(bounded(Box::new(Gzip { member: Some(GzDecoder::new(input)) })))
    } else if start.starts_with(&ZSTD) || skippable {
        Box::new(bounded(Box::new(zstd::stream::read::Decoder::with_buffer(input)?)))
    } else if start.starts_with(&XZ) {
        Box::new(bounded(Box::new(XzReader::new_mem_limit(input, true, XZ_MEMORY_KIB))))
    } else if start.starts_with(&BZIP2) {
        Box::new(bounded(Box::new(MultiBzDecoder::new(input))))
    } else {
        Box::new(input)
    })
}

/// Whether layers may be in this form, or only whole archives.
pub(crate) fn is_for_archives(start: &[u8]) -> bool {
    start.starts_with(&XZ) || start.starts_with(&BZIP2)
}

/// Counts what is read through it.
struct Counted<R> {
    input: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.count.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// Ends what gives more than its compressed size can stand for: a few kilobytes must not fill a
/// disk.
struct Bounded<'a> {
    plain: Box<dyn Read + Send + 'a>,
    read: Arc<AtomicU64>,
    given: u64,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.plain.read(buffer)?;
        self.given += n as u64;
        if self.given > FREE_BYTES {
            let limit = EXPANSION.load(Ordering::Relaxed);
            let compressed = self.read.load(Ordering::Relaxed);
            if self.given - FREE_BYTES > compressed.saturating_mul(limit) {
                let text = format!(
                    "decompression gives more than {limit} bytes for each: it looks like a bomb (--max-expansion raises the limit)"
                );
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        Ok(n)
    }
}

/// Gives at least as many bytes as tell forms apart at the first read if the input has them, however small its pieces.
struct Prefixed<R> {
    start: io::Cursor<Vec<u8>>,
    input: R,
}

impl<R: Read> Prefixed<R> {
    fn new(mut input: R) -> io::Result<Self> {
        let mut start = Vec::with_capacity(MAGIC);
        (&mut input).take(MAGIC as u64).read_to_end(&mut start)?;
        Ok(Self { start: io::Cursor::new(start), input })
    }
}

impl<R: Read> Read for Prefixed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.start.read(buffer)? {
            0 => self.input.read(buffer),
            read => Ok(read),
        }
    }
}

/// gzip members one after the other. Zeros may follow the last one (padding of tapes and of some
/// registries' chunks); anything else is an error.
struct Gzip<R> {
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(member) = &mut self.member {
            let read = member.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            let Some(mut input) = self.member.take().map(GzDecoder::into_inner) else { break };
            if input.fill_buf()?.starts_with(&GZIP[..1]) {
                self.member = Some(GzDecoder::new(input));
            } else {
                only_zeros(input)?;
            }
        }
        Ok(0)
    }
}

fn only_zeros(mut input: impl BufRead) -> io::Result<()> {
    loop {
        let rest = input.fill_buf()?;
        if rest.is_empty() {
            return Ok(());
        }
        if rest.iter().any(|byte| *byte != 0) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "garbage after gzip data"));
        }
        let length = rest.len();
        input.consume(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn plain(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        reader(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn every_form_gives_the_same_bytes() {
        let two = [gzip(b"hello "), gzip(b"world")].concat();
        let frame = zstd::encode_all(&b"hello world"[..], 1).unwrap();
        let skippable = [&[0x52, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9][..], &frame].concat();
        let bzip2 = {
            use bzip2::write::BzEncoder;
            let mut encoder = BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            encoder.write_all(b"hello world").unwrap();
            encoder.finish().unwrap()
        };
        // What `printf 'hello world' | xz` gives.
        let xz = [
            0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x04, 0xe6, 0xd6, 0xb4, 0x46, 0x02, 0x00,
            0x21, 0x01, 0x16, 0x00, 0x00, 0x00, 0x74, 0x2f, 0xe5, 0xa3, 0x01, 0x00, 0x0a, 0x68,
            0x65, 0x6c, 0x6c, 0x6f, 0x20, 0x77, 0x6f, 0x72, 0x6c, 0x64, 0x00, 0x00, 0xda, 0x52,
            0x23, 0xef, 0xcd, 0x7e, 0x03, 0x53, 0x00, 0x01, 0x23, 0x0b, 0xc2, 0x1b, 0xfd, 0x09,
            0x1f, 0xb6, 0xf3, 0x7d, 0x01, 0x00, 0x00, 0x00, 0x00, 0x04, 0x59, 0x5a,
        ];
        for bytes in [&two[..], &frame, &skippable, b"hello world", &bzip2, &xz] {
            assert_eq!(plain(bytes).unwrap(), b"hello world");
        }
        assert_eq!(plain(b"").unwrap(), b"");
    }

    #[test]
    fn zeros_may_follow_gzip_and_nothing_else() {
        let padded = [gzip(b"x"), vec![0; 1000]].concat();
        assert_eq!(plain(&padded).unwrap(), b"x");
        let garbage = [gzip(b"x"), vec![0, 1]].concat();
        assert!(plain(&garbage).is_err());
        let whole = gzip(&[7; 5000]);
        assert!(plain(&whole[..whole.len() - 3]).is_err());
    }
}
