//! Times as RFC 3339 in UTC, as the log and the state record show them.

use std::time::{SystemTime, UNIX_EPOCH};

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
    use std::time::Duration;

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
}
