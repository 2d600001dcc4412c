//! A layer's blob, inflated by a thread and hashed by another while the caller unpacks: the three
//! take about as long, and a layer is not taken for good before its digest is known.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use anyhow::{Context, Result, anyhow, ensure};

use super::compress::{self, BUFFER};
use crate::digest::{Digest, Hasher};

/// Pieces that may wait for the reader.
const QUEUE: usize = 4;

/// The layer's archive, to be read to its end and then verified.
pub(crate) struct Inflated<'scope> {
    pieces: Receiver<io::Result<Vec<u8>>>,
    spent: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
    hash: ScopedJoinHandle<'scope, Digest>,
}

impl<'scope> Inflated<'scope> {
    /// Begins to inflate `blob`. If this is dropped early the thread ends at its next piece.
    pub(crate) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        blob: impl Read + Send + 'scope,
        diff_id: &Digest,
    ) -> Result<Self> {
        let (inflated, unhashed) = sync_channel(QUEUE);
        let (send, pieces) = sync_channel(QUEUE);
        let (spent, reuse) = sync_channel(2 * QUEUE);
        let hasher = Hasher::new(diff_id.algorithm());
        Builder::new()
            .spawn_scoped(scope, move || inflate(blob, &inflated, &reuse))
            .context("start a thread")?;
        let hash = Builder::new()
            .spawn_scoped(scope, move || hash(hasher, &unhashed, &send))
            .context("start a thread")?;
        Ok(Self { pieces, spent, current: Vec::new(), position: 0, hash })
    }

    /// Reads what is left and compares the digest of all bytes.
    pub(crate) fn verify(mut self, diff_id: &Digest) -> Result<()> {
        loop {
            let length = self.fill_buf().context("read layer")?.len();
            if length == 0 {
                break;
            }
            self.consume(length);
        }
        let digest = self.hash.join().map_err(|_| anyhow!("inflating stopped"))?;
        ensure!(digest == *diff_id, "layer has the diff ID {digest}, its image says {diff_id}");
        Ok(())
    }
}

impl BufRead for Inflated<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.current.len() {
            let spent = std::mem::take(&mut self.current);
            // A full queue only means that there are enough buffers.
            let _ = self.spent.try_send(spent);
            self.position = 0;
            if let Ok(piece) = self.pieces.recv() {
                self.current = piece?;
            }
        }
        Ok(&self.current[self.position..])
    }

    fn consume(&mut self, amount: usize) {
        self.position += amount;
    }
}

impl Read for Inflated<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

/// Reads until the buffer is full or the input ends: inflating is fast where much fits.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match input.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn inflate(
    blob: impl Read + Send,
    send: &SyncSender<io::Result<Vec<u8>>>,
    reuse: &Receiver<Vec<u8>>,
) {
    let step = || -> io::Result<()> {
        let mut plain = compress::reader(blob)?;
        loop {
            let mut piece = reuse.try_recv().unwrap_or_default();
            // A buffer that comes back is full of bytes already and is not cleared again.
            piece.resize(BUFFER, 0);
            let length = fill(&mut plain, &mut piece)?;
            if length == 0 {
                return Ok(());
            }
            piece.truncate(length);
            if send.send(Ok(piece)).is_err() {
                // The reader failed and says why itself.
                return Ok(());
            }
        }
    };
    if let Err(error) = step() {
        let _ = send.send(Err(error));
    }
}

/// Hashes what passes.
fn hash(
    mut hasher: Hasher,
    unhashed: &Receiver<io::Result<Vec<u8>>>,
    send: &SyncSender<io::Result<Vec<u8>>>,
) -> Digest {
    for piece in unhashed {
        if let Ok(piece) = &piece {
            hasher.update(piece);
        }
        if send.send(piece).is_err() {
            break;
        }
    }
    hasher.finish()
}
