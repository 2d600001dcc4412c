//! What a supervisor and those attached to it say, over one stream socket each way.
//!
//! A frame is a head of four bytes and a body: the kind, a zero, and the body's length as two
//! bytes, high byte first. No body is longer than [`MOST`].
//!
//! ```text
//!   to the supervisor
//!     1 input      bytes for standard input; none is its end
//!     2 resize     rows and columns of the terminal, two bytes each, high byte first
//!     3 signal     one byte: the signal's number, for the container's first process
//!     4 quiet      nothing: no output is to be sent, only the end
//!   from the supervisor
//!     16 hello     one byte: 1 if the container has a terminal, 2 if it takes input, or their sum
//!     17 started   the container runs (only to who has started it)
//!     18 failed    text: it was not started (the same)
//!     19 warning   text (the same)
//!     20 output    bytes of standard output, or of the terminal
//!     21 error     bytes of standard error
//!     22 gap       eight bytes, high byte first: so many bytes were not sent, since nobody read
//!     23 exit      one byte: the exit code, and nothing follows
//! ```

use std::io::{self, ErrorKind, Read};

use super::log::Stream;

pub(super) const HEAD: usize = 4;
/// The longest body.
pub(super) const MOST: usize = 8 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Input,
    Resize,
    Signal,
    Quiet,
    Hello,
    Started,
    Failed,
    Warning,
    Output,
    Error,
    Gap,
    Exit,
}

const KINDS: [(Kind, u8); 12] = [
    (Kind::Input, 1),
    (Kind::Resize, 2),
    (Kind::Signal, 3),
    (Kind::Quiet, 4),
    (Kind::Hello, 16),
    (Kind::Started, 17),
    (Kind::Failed, 18),
    (Kind::Warning, 19),
    (Kind::Output, 20),
    (Kind::Error, 21),
    (Kind::Gap, 22),
    (Kind::Exit, 23),
];

impl Kind {
    fn number(self) -> u8 {
        KINDS.iter().find(|(kind, _)| *kind == self).map_or(0, |(_, number)| *number)
    }

    fn of(number: u8) -> Option<Self> {
        KINDS.iter().find(|(_, known)| *known == number).map(|(kind, _)| *kind)
    }
}

impl From<Stream> for Kind {
    fn from(stream: Stream) -> Self {
        match stream {
            Stream::Stdout => Kind::Output,
            Stream::Stderr => Kind::Error,
        }
    }
}

/// Appends one frame; a longer body is cut.
pub(super) fn put(to: &mut Vec<u8>, kind: Kind, body: &[u8]) {
    let body = &body[..body.len().min(MOST)];
    // MOST fits into two bytes.
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
    to.extend_from_slice(&[kind.number(), 0, length[0], length[1]]);
    to.extend_from_slice(body);
}

/// One frame alone.
pub(super) fn of(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + body.len());
    put(&mut bytes, kind, body);
    bytes
}

/// Bytes that have come, until they are whole frames.
#[derive(Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    /// Of them, what has been taken.
    taken: usize,
}

/// Something that is no frame: there is no going on after it.
#[derive(Debug)]
pub(super) struct Garbled;

impl Inbox {
    /// Room for no more than one frame is ever kept.
    pub(super) fn room(&self) -> usize {
        HEAD + MOST - (self.bytes.len() - self.taken)
    }

    /// Takes what has come, as far as there is room. False at the end of the stream.
    pub(super) fn fill(&mut self, from: &mut impl Read) -> io::Result<bool> {
        let mut buffer = [0; HEAD + MOST];
        match from.read(&mut buffer[..self.room()]) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.add(&buffer[..count]);
                Ok(true)
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame.
    pub(super) fn next(&mut self) -> Result<Option<(Kind, &[u8])>, Garbled> {
        let rest = &self.bytes[self.taken..];
        let Some((head, rest)) = rest.split_first_chunk::<HEAD>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let kind = Kind::of(head[0]).filter(|_| head[1] == 0 && length <= MOST).ok_or(Garbled)?;
        if rest.len() < length {
            return Ok(None);
        }
        let start = self.taken + HEAD;
        self.taken = start + length;
        Ok(Some((kind, &self.bytes[start..self.taken])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_whatever_the_pieces() {
        let mut bytes = of(Kind::Input, b"ls\n");
        put(&mut bytes, Kind::Resize, &[0, 24, 0, 80]);
        put(&mut bytes, Kind::Input, &[]);
        let mut inbox = Inbox::default();
        let mut seen = Vec::new();
        for piece in bytes.chunks(5) {
            assert!(inbox.room() >= piece.len());
            inbox.add(piece);
            while let Some((kind, body)) = inbox.next().unwrap() {
                seen.push((kind, body.to_vec()));
            }
        }
        let wanted = [
            (Kind::Input, b"ls\n".to_vec()),
            (Kind::Resize, vec![0, 24, 0, 80]),
            (Kind::Input, vec![]),
        ];
        assert_eq!(seen, wanted);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for head in [[9, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0xff, 0xff]] {
            let mut inbox = Inbox::default();
            inbox.add(&head);
            assert!(inbox.next().is_err(), "{head:?}");
        }
    }

    #[test]
    fn every_kind_has_a_number_of_its_own() {
        for (kind, number) in KINDS {
            assert_eq!((kind.number(), Kind::of(number)), (number, Some(kind)));
        }
    }
}
