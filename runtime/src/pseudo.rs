//! Files that the kernel writes as they are read: their size says nothing, so none is asked for, and one
//! read takes what most of them hold. For those that every start reads.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The whole text of such a file.
pub(crate) fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    read(File::open(path)?)
}

/// The rest of one that is open.
pub(crate) fn read(mut file: impl Read) -> io::Result<String> {
    let mut bytes = vec![0; 1024];
    let mut length = 0;
    loop {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if length == bytes.len() {
            bytes.resize(2 * length, 0);
        }
    }
    bytes.truncate(length);
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_whatever_its_length_and_pieces() {
        for length in [0, 1, 1023, 1024, 1025, 5000] {
            let text = "x".repeat(length);
            assert_eq!(read(text.as_bytes()).unwrap(), text);
        }
        let pieces = "ab".as_bytes().chain("".as_bytes()).chain("cd".as_bytes());
        assert_eq!(read(pieces).unwrap(), "abcd");
        assert_eq!(read(&b"\xff"[..]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(read_to_string("/proc/self/status").unwrap().contains("Pid:"));
        assert_eq!(read_to_string("/proc/nothing").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
