//! Output for people: columns, sizes and ages as docker writes them.

use std::io::{self, Write};

use jiff::Timestamp;

/// What tables show where there is nothing.
pub(crate) const NONE: &str = "<none>";

/// Writes rows in columns; the last column is not padded.
pub(crate) fn write(out: &mut impl Write, header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    const GAP: usize = 3;
    const MIN_WIDTH: usize = 10;
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .chain([header[column].len()])
                .max()
                .map_or(MIN_WIDTH, |width| MIN_WIDTH.max(width + GAP))
        })
        .collect();
    let mut line = |cells: &[&str]| {
        let mut text = String::new();
        for (column, cell) in cells.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < cells.len() {
                let padding = widths[column].saturating_sub(cell.chars().count());
                text.extend(std::iter::repeat_n(' ', padding));
            }
        }
        writeln!(out, "{text}")
    };
    line(header)?;
    for row in rows {
        line(&row.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Three significant digits in decimal units: `7.34MB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut unit = 0;
    let mut scale = 1_u64;
    while bytes / scale >= 1000 {
        scale *= 1000;
        unit += 1;
    }
    let whole = bytes / scale;
    let decimals = match whole {
        100.. => 0,
        10.. => 1,
        _ => 2,
    };
    let power = 10_u128.pow(decimals);
    let rounded = (u128::from(bytes) * power + u128::from(scale) / 2) / u128::from(scale);
    let mut text = (rounded / power).to_string();
    let fraction = rounded % power;
    if fraction != 0 {
        let digits = format!("{fraction:0width$}", width = decimals as usize);
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
    }
    text.push_str(UNITS[unit]);
    text
}

/// How long ago `time` was, in words; `N/A` for no time and for Go's zero time.
pub(crate) fn age(time: Option<Timestamp>, now: Timestamp) -> String {
    // Builders without a clock write year 1.
    let Some(time) = time.filter(|time| time.as_second() > -62_135_596_800) else {
        return "N/A".to_owned();
    };
    let seconds = (now.as_second() - time.as_second()).max(0);
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    let days = hours / 24;
    let words = match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if days < 14 => format!("{days} days"),
        () if days < 60 => format!("{} weeks", days / 7),
        () if days < 730 => format!("{} months", days / 30),
        () => format!("{} years", days / 365),
    };
    format!("{words} ago")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.23kB"),
            (7_340_000, "7.34MB"),
            (12_340_000, "12.3MB"),
            (1_200_000_000, "1.2GB"),
            (u64::MAX, "18.4EB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn ages_are_docker_s_words() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let at =
            |seconds: i64| age(Some(Timestamp::from_second(1_700_000_000 - seconds).unwrap()), now);
        assert_eq!(at(0), "Less than a second ago");
        assert_eq!(at(30), "30 seconds ago");
        assert_eq!(at(3600), "About an hour ago");
        assert_eq!(at(86_400 * 3), "3 days ago");
        assert_eq!(at(86_400 * 15), "2 weeks ago");
        assert_eq!(at(86_400 * 800), "2 years ago");
        assert_eq!(age(None, now), "N/A");
    }

    #[test]
    fn columns_line_up() {
        let mut out = Vec::new();
        write(&mut out, &["NAME", "SIZE"], &[vec!["a-long-name".into(), "1B".into()]]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "NAME          SIZE\na-long-name   1B\n");
    }
}
