//! Programs that a test can see go on: they keep what they know in memory alone, so that whoever is
//! started anew in their place begins at one.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpListener;

/// Answers each line with one that says how many there were; how many there were in all.
pub(crate) fn count(input: impl Read, mut output: impl Write) -> io::Result<u8> {
    let mut number = 0;
    for line in BufReader::new(input).lines() {
        line?;
        number += 1;
        writeln!(output, "{number}")?;
        output.flush()?;
    }
    Ok(number)
}

/// Does so on the one connection that it takes.
pub(crate) fn count_on(port: &str) -> io::Result<u8> {
    let port: u16 = port.parse().map_err(io::Error::other)?;
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    println!("listening");
    let (stream, _) = listener.accept()?;
    count(&stream, &stream)
}

/// Locks the file, says so, and counts on.
pub(crate) fn count_locked(path: &str) -> io::Result<u8> {
    let file = fs::File::create(path)?;
    file.lock()?;
    println!("locked");
    let counted = count(io::stdin(), io::stdout());
    drop(file);
    counted
}
