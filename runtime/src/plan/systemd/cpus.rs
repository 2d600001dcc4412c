//! Lists of CPUs and memory nodes as the bit masks that systemd takes.

use anyhow::{Context, Result, bail};

use crate::dbus::value::Value;

/// More than any kernel is built for.
const HIGHEST: u32 = 65_535;

/// `0-2,5` -> bytes, the lowest bit of the first for number 0.
pub(super) fn mask(list: &str) -> Result<Value> {
    let mut mask: Vec<u8> = Vec::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| {
            text.parse()
                .ok()
                .filter(|number| *number <= HIGHEST)
                .with_context(|| format!("{list:?} is no list of numbers and ranges such as 0-2,5"))
        };
        let (first, last): (u32, u32) = (number(first)?, number(last)?);
        if first > last {
            bail!("invalid range: {range}");
        }
        for number in first..=last {
            let byte = number as usize / 8;
            if mask.len() <= byte {
                mask.resize(byte + 1, 0);
            }
            mask[byte] |= 1 << (number % 8);
        }
    }
    if mask.is_empty() {
        bail!("{list:?} names no number");
    }
    Ok(Value::bytes(mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_masks() {
        for (list, expected) in [
            ("0", &[1][..]),
            ("1,3-5", &[0b11_1010]),
            (" 7 , 8-9,,", &[128, 3]),
            ("0-15", &[255, 255]),
            ("17", &[0, 0, 2]),
        ] {
            assert_eq!(mask(list).unwrap(), Value::bytes(expected.iter().copied()), "{list}");
        }
        for bad in ["", ",", "a", "3-1", "-1", "1-", "65536", "0-4294967295", "1-2-3"] {
            assert!(mask(bad).is_err(), "{bad}");
        }
    }
}
