//! Maps of files with holes: the old GNU one in header blocks, the text one before the contents.

use anyhow::{Result, bail, ensure};

/// A part of a file that the archive holds; between the parts are zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Position in the file.
    pub(crate) offset: u64,
    /// Length.
    pub(crate) length: u64,
}

/// Most parts that a file may have.
const MAX_SEGMENTS: u64 = 1 << 18;

/// Refuses a map whose parts overlap, are out of order, or don't hold `stored` bytes in all.
pub(super) fn check(segments: &[Segment], size: u64, stored: u64) -> Result<()> {
    ensure!(segments.len() as u64 <= MAX_SEGMENTS, "sparse file of too many parts");
    let mut end = 0;
    let mut total: u64 = 0;
    for segment in segments {
        let Some(next) = segment.offset.checked_add(segment.length) else {
            bail!("sparse map overflows");
        };
        ensure!(segment.offset >= end && next <= size, "sparse map is not in order");
        end = next;
        total += segment.length;
    }
    ensure!(total == stored, "sparse map holds {total} bytes, the archive {stored}");
    Ok(())
}

/// The numbers of a PAX 0.1 map: `offset,length,offset,length…`.
pub(super) fn from_list(text: &[u8]) -> Result<Vec<Segment>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let numbers = text.split(|byte| *byte == b',').map(decimal).collect::<Result<Vec<u64>>>()?;
    ensure!(numbers.len() % 2 == 0, "sparse map has an odd number of values");
    Ok(numbers.chunks_exact(2).map(|pair| Segment { offset: pair[0], length: pair[1] }).collect())
}

/// A PAX 1.0 map: lines of decimal numbers in blocks before the contents, the first one their
/// count. `block` gives the next block.
pub(super) fn from_blocks(
    mut block: impl FnMut() -> Result<[u8; super::BLOCK]>,
) -> Result<Vec<Segment>> {
    let mut current = block()?;
    let mut position = 0;
    let mut number = || -> Result<u64> {
        let mut digits = Vec::new();
        loop {
            if position == current.len() {
                current = block()?;
                position = 0;
            }
            let byte = current[position];
            position += 1;
            if byte == b'\n' {
                return decimal(&digits);
            }
            ensure!(digits.len() < 20, "malformed sparse map");
            digits.push(byte);
        }
    };
    let count = number()?;
    ensure!(count <= MAX_SEGMENTS, "sparse file of too many parts");
    let mut segments = Vec::new();
    for _ in 0..count {
        segments.push(Segment { offset: number()?, length: number()? });
    }
    Ok(segments)
}

/// Reads a decimal number without sign.
pub(super) fn decimal(text: &[u8]) -> Result<u64> {
    let digits = std::str::from_utf8(text).ok().filter(|text| !text.starts_with('+'));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(number) => Ok(number),
        None => bail!("malformed number {:?}", String::from_utf8_lossy(text)),
    }
}
