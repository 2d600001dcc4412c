//! Blobs that are still on their way: who unpacks them reads what is there and
//! waits for the rest, so that the last byte finds all others unpacked.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::digest::Digest;

/// The blobs of one transfer.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    blobs: HashMap<Digest, Blob>,
    /// Nothing more will come.
    ended: bool,
    /// Something that was read already came anew and may be other bytes.
    began_anew: bool,
}

#[derive(Debug)]
struct Blob {
    file: Arc<File>,
    length: u64,
    whole: bool,
}

impl Arrivals {
    /// A blob begins to come into `file`, of which the first part may be there.
    pub(crate) fn begin(&self, digest: &Digest, file: File, length: u64) {
        let mut state = self.lock();
        let file = Arc::new(file);
        let before = state.blobs.insert(digest.clone(), Blob { file, length, whole: false });
        state.began_anew |= before.is_some();
        self.changed.notify_all();
    }

    /// It has so many bytes now; fewer than before if it was begun anew.
    pub(crate) fn grown(&self, digest: &Digest, length: u64) {
        let mut state = self.lock();
        if let Some(blob) = state.blobs.get_mut(digest) {
            let anew = length < blob.length;
            blob.length = length;
            state.began_anew |= anew;
        }
        self.changed.notify_all();
    }

    /// All of it is there.
    pub(crate) fn whole(&self, digest: &Digest) {
        if let Some(blob) = self.lock().blobs.get_mut(digest) {
            blob.whole = true;
        }
        self.changed.notify_all();
    }

    /// The transfer is over, whether it worked or not: nobody need wait any more.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// Whether what was read may not be what is there now.
    pub(crate) fn began_anew(&self) -> bool {
        self.lock().began_anew
    }

    /// A blob from its start; waits until it begins to come. `None` if it never does.
    pub(crate) fn open(self: &Arc<Self>, digest: &Digest) -> Option<Arriving> {
        let mut state = self.lock();
        loop {
            if let Some(blob) = state.blobs.get(digest) {
                let file = Arc::clone(&blob.file);
                let (arrivals, digest) = (Arc::clone(self), digest.clone());
                return Some(Arriving { arrivals, digest, file, position: 0 });
            }
            if state.ended {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A blob that is read while it comes.
#[derive(Debug)]
pub(crate) struct Arriving {
    arrivals: Arc<Arrivals>,
    digest: Digest,
    file: Arc<File>,
    position: u64,
}

impl Arriving {
    /// How many bytes can be read now; 0 at the end. Waits for more.
    fn available(&self) -> io::Result<u64> {
        let mut state = self.arrivals.lock();
        loop {
            if state.began_anew {
                return Err(io::Error::other("the download began anew"));
            }
            let Some(blob) = state.blobs.get(&self.digest) else {
                return Err(io::Error::other("the download is gone"));
            };
            if blob.length > self.position {
                return Ok(blob.length - self.position);
            }
            if blob.whole {
                return Ok(0);
            }
            if state.ended {
                return Err(io::Error::other("the download ended early"));
            }
            state = self.arrivals.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = usize::try_from(self.available()?).unwrap_or(usize::MAX);
        let length = buffer.len().min(available);
        let n = self.file.read_at(&mut buffer[..length], self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn readers_wait_for_what_comes() {
        let arrivals = Arc::new(Arrivals::default());
        let (digest, other) = (Digest::of(b"hello world"), Digest::of(b"other"));
        let mut file = tempfile::tempfile().unwrap();
        let reader = {
            let (arrivals, digest) = (Arc::clone(&arrivals), digest.clone());
            std::thread::spawn(move || {
                let mut text = String::new();
                arrivals.open(&digest).unwrap().read_to_string(&mut text).map(|_| text)
            })
        };
        arrivals.begin(&digest, file.try_clone().unwrap(), 0);
        for piece in [&b"hello"[..], b" world"] {
            file.write_all(piece).unwrap();
            arrivals.grown(&digest, file.metadata().unwrap().len());
        }
        arrivals.whole(&digest);
        assert_eq!(reader.join().unwrap().unwrap(), "hello world");
        let mut late = arrivals.open(&digest).unwrap();
        arrivals.grown(&digest, 2);
        assert!(arrivals.began_anew());
        assert!(late.read(&mut [0; 4]).is_err());
        arrivals.end();
        assert!(arrivals.open(&other).is_none());
    }
}
