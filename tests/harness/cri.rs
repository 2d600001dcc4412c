//! A client of the Container Runtime Interface, as a kubelet is one: gRPC over a unix socket, with curl
//! for HTTP/2, and messages put together by hand from the numbers in the interface's definition.

use std::fs;
use std::path::{Path, PathBuf};

use super::command::Cmd;

pub(crate) struct Cri {
    socket: PathBuf,
    dir: PathBuf,
}

impl Cri {
    pub(crate) fn new(socket: PathBuf, dir: &Path) -> Self {
        Self { socket, dir: dir.to_owned() }
    }

    /// Calls a method of the RuntimeService; a refusal fails the test.
    #[track_caller]
    pub(crate) fn call(&self, method: &str, request: &Message) -> Message {
        let (answer, headers) = (self.dir.join("answer"), self.dir.join("headers"));
        // A frame: not compressed, the length, the message.
        let length = u32::try_from(request.0.len()).expect("a message is short");
        let frame = [&[0], length.to_be_bytes().as_slice(), &request.0].concat();
        let curl = Cmd::line("curl -sS --http2-prior-knowledge --max-time 60 --data-binary @-");
        let curl = curl.args(["-H", "content-type: application/grpc", "-H", "te: trailers"]);
        let curl = curl.arg("--output").arg(&answer).arg("--dump-header").arg(&headers);
        let curl = curl.arg("--unix-socket").arg(&self.socket);
        let url = format!("http://localhost/runtime.v1.RuntimeService/{method}");
        curl.arg(url).stdin(frame).run().success();
        let headers = fs::read_to_string(&headers).expect("read the headers");
        assert!(headers.contains("grpc-status: 0"), "{method}: {headers}");
        let frame = fs::read(&answer).expect("read the answer");
        Message(frame.get(5..).expect("an answer has one frame").to_owned())
    }
}

/// A message of protocol buffers.
#[derive(Clone, Default)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    pub(crate) fn text(self, field: u64, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    pub(crate) fn texts(self, field: u64, values: &[&str]) -> Self {
        values.iter().fold(self, |message, value| message.text(field, value))
    }

    pub(crate) fn message(self, field: u64, value: &Self) -> Self {
        self.bytes(field, &value.0)
    }

    fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    /// The number in `field`; one that is 0 is not written at all.
    pub(crate) fn get_number(&self, field: u64) -> u64 {
        self.fields().find_map(|(f, value)| (f == field).then_some(value.0)).unwrap_or(0)
    }

    pub(crate) fn get_text(&self, field: u64) -> String {
        String::from_utf8_lossy(&self.get(field).0).into_owned()
    }

    pub(crate) fn get(&self, field: u64) -> Self {
        let found = self.fields().find_map(|(f, value)| (f == field).then_some(value.1));
        Self(found.unwrap_or_default().to_owned())
    }

    fn fields(&self) -> impl Iterator<Item = (u64, (u64, &[u8]))> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let key = take_varint(&mut rest);
            let number = take_varint(&mut rest);
            match key & 7 {
                0 => Some((key >> 3, (number, [].as_slice()))),
                2 => {
                    let length = usize::try_from(number).expect("a field is short");
                    let (value, after) = rest.split_at(length);
                    rest = after;
                    Some((key >> 3, (0, value)))
                }
                kind => panic!("a field of kind {kind}, which the interface does not use"),
            }
        })
    }
}

fn take_varint(rest: &mut &[u8]) -> u64 {
    let length = rest.iter().position(|byte| byte & 0x80 == 0).expect("a number ends") + 1;
    let (number, after) = rest.split_at(length);
    *rest = after;
    number.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
}
