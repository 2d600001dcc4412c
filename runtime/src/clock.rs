//! Times as RFC 3339 in UTC, as the log and the state record show them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `2026-11-24T07:35:21Z`.
pub(crate) fn seconds(time: SystemTime) -> String {
    format!("{}Z", whole_seconds(time).0)
}

/// `2026-11-24T07:35:21.681362631Z`: without the zeros at the end, as Go prints it.
pub(crate) fn nanoseconds(time: SystemTime) -> String {
    let (date, nanos) = whole_seconds(time);
    if nanos == 0 {
        return format!("{date}Z");
    }
    let fraction = format!("{nanos:09}");
    format!("{date}.{}Z", fraction.trim_end_matches('0'))
}

/// The same with all nine digits, as lines of a log have it, so that they stand in columns.
pub(crate) fn nine_digits(time: SystemTime) -> String {
    let (date, nanos) = whole_seconds(time);
    format!("{date}.{nanos:09}Z")
}

/// Seconds since 1970 of a time as [`nanoseconds`] and [`seconds`] write it.
pub(crate) fn parse_seconds(text: &str) -> Option<u64> {
    parse(text).map(|since| since.as_secs())
}

/// Time since 1970 of a time in UTC as RFC 3339 has it.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let text = text.strip_suffix('Z')?;
    let (text, fraction) = text.split_once('.').unwrap_or((text, ""));
    let (date, time) = text.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.splitn(3, ':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    if !(1970..=9999).contains(&year)
        || !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
        || fraction.len() > 9
        || !fraction.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let seconds = days_before(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    Some(Duration::new(seconds, nanos))
}

/// The other way round than `civil_date`.
fn days_before(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let march_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// How long, in docker's words: `3 minutes`, `About an hour`.
pub(crate) fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{minutes} minutes"),
        3600..7200 => "About an hour".to_owned(),
        7200..172_800 => format!("{hours} hours"),
        _ if days < 14 => format!("{days} days"),
        _ if days < 60 => format!("{} weeks", days / 7),
        _ if days < 730 => format!("{} months", days / 30),
        _ => format!("{} years", days / 365),
    }
}

fn whole_seconds(time: SystemTime) -> (String, u32) {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since_epoch.as_secs();
    let (year, month, day) = civil_date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    (text, since_epoch.subsec_nanos())
}

/// Gregorian date of a day counted from 1970-01-01: eras of 400 years that begin on March 1st,
/// so that the leap day is the last of its year.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, nanos: u32) -> SystemTime {
        UNIX_EPOCH + Duration::new(seconds, nanos)
    }

    #[test]
    fn leap_days_and_centuries_come_out_right() {
        assert_eq!(seconds(at(0, 0)), "1970-01-01T00:00:00Z");
        assert_eq!(seconds(at(951_782_400, 0)), "2000-02-29T00:00:00Z");
        assert_eq!(seconds(at(1_795_505_721, 0)), "2026-11-24T07:35:21Z");
        assert_eq!(seconds(at(4_107_542_399, 0)), "2100-02-28T23:59:59Z");
        assert_eq!(seconds(at(4_107_542_400, 0)), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn trailing_zeros_of_the_fraction_are_cut() {
        assert_eq!(nanoseconds(at(0, 120_000_000)), "1970-01-01T00:00:00.12Z");
        assert_eq!(nanoseconds(at(0, 0)), "1970-01-01T00:00:00Z");
        assert_eq!(nanoseconds(at(0, 7)), "1970-01-01T00:00:00.000000007Z");
    }

    #[test]
    fn a_time_that_was_written_is_read_back() {
        for seconds in [0, 951_782_400, 1_795_505_721, 4_107_542_399, 4_107_542_400] {
            for nanos in [0, 7, 120_000_000, 999_999_999] {
                let (time, since) = (at(seconds, nanos), Duration::new(seconds, nanos));
                assert_eq!(parse(&nanoseconds(time)), Some(since));
                assert_eq!(parse(&nine_digits(time)), Some(since));
            }
        }
        for text in ["", "2026", "2026-11-24T07:35:21", "2026-13-24T07:35:21Z", "2026-1-1T1:1:1.xZ"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn ages_are_told_as_docker_tells_them() {
        for (seconds, words) in [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (185, "3 minutes"),
            (3600, "About an hour"),
            (90_000, "25 hours"),
            (259_200, "3 days"),
            (1_209_600, "2 weeks"),
        ] {
            assert_eq!(age(seconds), words);
        }
    }
}
