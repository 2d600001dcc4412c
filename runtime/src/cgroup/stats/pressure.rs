//! How long processes waited for something (PSI, 4.20; v2 only).

use anyhow::Result;
use rustix::io::Errno;

use crate::cgroup::files::Dir;

/// Some processes waited, or all of them at once.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Pressure {
    pub(crate) some: Stall,
    pub(crate) full: Stall,
}

/// Per cent of the last 10, 60 and 300 seconds; microseconds altogether.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Stall {
    pub(crate) averages: [f64; 3],
    pub(crate) total_us: u64,
}

/// `None` where the kernel has no such file, or was told not to count.
pub(super) fn read(dir: &Dir, file: &str) -> Result<Option<Pressure>> {
    match dir.read_if_exists(file) {
        Ok(text) => Ok(text.map(|text| parse(&text))),
        Err(error) if error.errno == Errno::OPNOTSUPP => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn parse(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let stall = match words.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => stall.averages[0] = value.parse().unwrap_or(0.0),
                "avg60" => stall.averages[1] = value.parse().unwrap_or(0.0),
                "avg300" => stall.averages[2] = value.parse().unwrap_or(0.0),
                "total" => stall.total_us = value.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
    pressure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_read() {
        let pressure = parse(
            "some avg10=1.50 avg60=0.20 avg300=0.01 total=77\n\
             full avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
        );
        assert_eq!(pressure.some, Stall { averages: [1.5, 0.2, 0.01], total_us: 77 });
        assert_eq!(pressure.full.total_us, 5);
    }
}
