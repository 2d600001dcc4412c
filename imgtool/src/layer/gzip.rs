//! gzip on all cores: blocks of a fixed size are deflated side by side and joined to one stream,
//! so the output depends on the input alone, not on the number of cores.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// Bytes deflated as one; each block costs the window that is not shared with the one before.
const BLOCK: usize = 1 << 20;
/// Bytes of which it is decided as one whether they can be made smaller.
const PIECE: usize = 16 << 10;
/// The one that gzip's own program takes.
const LEVEL: u32 = 6;
/// No name, no time, unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

struct Job {
    block: Vec<u8>,
    last: bool,
    result: Sender<io::Result<Vec<u8>>>,
}

/// Compresses what is written to it.
pub(crate) struct GzipWriter<W> {
    output: W,
    block: Vec<u8>,
    checksum: Crc,
    level: u32,
    /// Where the threads take their work from: there are none before there is more than one block.
    jobs: Option<SyncSender<Job>>,
    pending: VecDeque<Receiver<io::Result<Vec<u8>>>>,
    workers: usize,
}

impl<W: Write> GzipWriter<W> {
    /// Begins a stream; the threads end when the writer is gone.
    pub(crate) fn new(output: W) -> io::Result<Self> {
        Self::with_level(output, LEVEL)
    }

    /// The same with a level from 0, which only stores, to 9.
    pub(crate) fn with_level(mut output: W, level: u32) -> io::Result<Self> {
        output.write_all(&HEADER)?;
        Ok(Self {
            output,
            block: Vec::new(),
            checksum: Crc::new(),
            level,
            jobs: None,
            pending: VecDeque::new(),
            workers: 0,
        })
    }

    /// Ends the stream and gives the output back.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.deflate(true)?;
        while !self.pending.is_empty() {
            self.collect()?;
        }
        self.output.write_all(&self.checksum.sum().to_le_bytes())?;
        self.output.write_all(&self.checksum.amount().to_le_bytes())?;
        Ok(self.output)
    }

    fn deflate(&mut self, last: bool) -> io::Result<()> {
        self.checksum.update(&self.block);
        if last && self.jobs.is_none() {
            return self.output.write_all(&deflate(&self.block, last, self.level)?);
        }
        if self.jobs.is_none() {
            self.start()?;
        }
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        let (result, receiver) = channel();
        let jobs = self.jobs.as_ref().ok_or_else(stopped)?;
        jobs.send(Job { block, last, result }).map_err(|_| stopped())?;
        self.pending.push_back(receiver);
        if self.pending.len() > 2 * self.workers { self.collect() } else { Ok(()) }
    }

    fn start(&mut self) -> io::Result<()> {
        self.workers = thread::available_parallelism().map_or(1, usize::from).min(16);
        let (jobs, queue) = sync_channel::<Job>(self.workers);
        let queue = Arc::new(Mutex::new(queue));
        let level = self.level;
        for _ in 0..self.workers {
            let queue = Arc::clone(&queue);
            thread::Builder::new().name("gzip".to_owned()).spawn(move || work(&queue, level))?;
        }
        self.jobs = Some(jobs);
        Ok(())
    }

    fn collect(&mut self) -> io::Result<()> {
        let Some(oldest) = self.pending.pop_front() else { return Ok(()) };
        let deflated = oldest.recv().map_err(|_| stopped())??;
        self.output.write_all(&deflated)
    }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let take = buffer.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&buffer[..take]);
        if self.block.len() == BLOCK {
            self.deflate(false)?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn stopped() -> io::Error {
    io::Error::other("compressing stopped")
}

fn work(queue: &Mutex<Receiver<Job>>, level: u32) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        // Whoever no longer waits for the result has failed elsewhere.
        let _ = job.result.send(deflate(&job.block, job.last, level));
    }
}

/// A block as raw deflate data that ends at a byte, so that another may follow. Those parts of it that
/// can't be made smaller are put there as they are.
fn deflate(block: &[u8], last: bool, level: u32) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(block.len() / 2 + 1024);
    let mut state = None;
    let mut rest = block;
    loop {
        let (noise, length) = match level <= LEVEL {
            true => run(rest),
            false => (false, rest.len()),
        };
        let (part, after) = rest.split_at(length);
        rest = after;
        let last = last && rest.is_empty();
        if noise {
            store(part, last, &mut out);
        } else {
            let state = state.get_or_insert_with(|| Compress::new(Compression::new(level), false));
            state.reset();
            deflate_part(state, part, last, &mut out)?;
        }
        if rest.is_empty() {
            return Ok(out);
        }
    }
}

/// Whether the block begins with noise, and how far it goes on like that.
fn run(block: &[u8]) -> (bool, usize) {
    let mut pieces = block.chunks(PIECE);
    let noise = pieces.next().is_some_and(is_noise);
    let same = pieces.take_while(|piece| is_noise(piece) == noise).count();
    (noise, block.len().min((1 + same) * PIECE))
}

fn deflate_part(
    state: &mut Compress,
    part: &[u8],
    last: bool,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    let flush = if last { FlushCompress::Finish } else { FlushCompress::Sync };
    let mut consumed = 0;
    loop {
        out.reserve(part.len() / 4 + 1024);
        let before = state.total_in();
        let status = state.compress_vec(&part[consumed..], out, flush)?;
        consumed += usize::try_from(state.total_in() - before).map_err(io::Error::other)?;
        // Room that is left shows that the flush is complete.
        let flushed = consumed == part.len() && out.len() < out.capacity();
        if status == Status::StreamEnd || (!last && flushed) {
            return Ok(());
        }
    }
}

/// Whether all bytes are about as frequent, as in what is compressed or encrypted already: deflating
/// it would take a hundred times as long as this does, and gain nothing. Counted in whole numbers, so
/// that the answer is the same everywhere.
fn is_noise(block: &[u8]) -> bool {
    // In fewer bytes chance alone makes too great a difference.
    if block.len() < PIECE {
        return false;
    }
    // Four tables: equal bytes that follow each other don't wait for one another.
    let mut tables = [[0_u32; 256]; 4];
    for (index, byte) in block.iter().enumerate() {
        tables[index % 4][usize::from(*byte)] += 1;
    }
    let squares: u64 = (0..256)
        .map(|byte| tables.iter().map(|table| u64::from(table[byte])).sum::<u64>().pow(2))
        .sum();
    // Equal frequencies would give a 256th of the square; a twentieth above that is allowed.
    let length = block.len() as u64;
    squares * 256 * 20 < length * length * 21
}

/// Adds the bytes as they are, in the form that deflate data have for it.
fn store(part: &[u8], last: bool, out: &mut Vec<u8>) {
    let pieces = part.chunks(usize::from(u16::MAX));
    let count = pieces.len();
    out.reserve(part.len() + 5 * count);
    for (index, piece) in pieces.enumerate() {
        out.push(u8::from(last && index + 1 == count));
        #[allow(clippy::cast_possible_truncation, reason = "as many as fit")]
        let length = piece.len() as u16;
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn compress(bytes: &[u8]) -> Vec<u8> {
        let mut writer = GzipWriter::new(Vec::new()).unwrap();
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn noise_is_stored_and_read_back() {
        let mut noise = 1_u64;
        let bytes: Vec<u8> = (0..BLOCK + 100_000)
            .map(|_| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                noise.to_be_bytes()[0]
            })
            .collect();
        assert!(is_noise(&bytes[..BLOCK]));
        let hex: Vec<u8> =
            bytes.iter().map(|byte| b"0123456789abcdef"[usize::from(byte >> 4)]).collect();
        assert!(!is_noise(&hex));
        assert!(!is_noise(&bytes[..1000]));
        let mut half = bytes.clone();
        half[..BLOCK / 10].fill(0);
        assert!(!is_noise(&half[..BLOCK]));
        assert_eq!(run(&half), (false, (BLOCK / 10).next_multiple_of(PIECE)));
        let mixed = [&half[..], &hex[..50_000], &bytes[..3 * PIECE]].concat();
        for bytes in [&bytes[..], &half, &mixed, &bytes[..PIECE], &bytes[..2 * PIECE]] {
            let compressed = compress(bytes);
            assert!(compressed.len() < bytes.len() + 500, "{}", compressed.len());
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&compressed[..]).read_to_end(&mut plain).unwrap();
            assert!(plain == bytes);
        }
    }

    #[test]
    fn levels_differ_in_length() {
        let text = "some words, and some words again; ".repeat(9000);
        let length = |level| {
            let mut writer = GzipWriter::with_level(Vec::new(), level).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
            writer.finish().unwrap().len()
        };
        assert!(length(0) > text.len());
        assert!(length(9) < length(1));
    }

    #[test]
    fn one_stream_that_any_gzip_reads() {
        let mut noise = 1u32;
        let bytes: Vec<u8> = (0..3 * BLOCK + 77)
            .map(|index| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if index / BLOCK == 1 { noise.to_be_bytes()[0] } else { b'a' }
            })
            .collect();
        for bytes in [&bytes[..], &bytes[..BLOCK], &bytes[..BLOCK + 1], b"x", b""] {
            let compressed = compress(bytes);
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&compressed[..]).read_to_end(&mut plain).unwrap();
            assert!(plain == bytes, "{} bytes", bytes.len());
            assert_eq!(compressed, compress(bytes));
        }
    }
}
