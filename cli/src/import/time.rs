//! Times as people write them, to and from milliseconds since 1970 in UTC.
//!
//! Taken: milliseconds since 1970; a date; a date and a time, with up to nine digits of a second; the same with `T` and
//! an offset (RFC 3339). Without an offset it is UTC.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};

/// Milliseconds since 1970.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("the time is empty".into());
    }
    if text.bytes().all(|c| c.is_ascii_digit()) {
        let ms = text.parse::<u64>().ok().filter(|ms| i64::try_from(*ms).is_ok());
        return ms.ok_or_else(|| format!("the time {text} is too large"));
    }
    let wrong = || {
        format!("'{text}' is no time: give milliseconds since 1970, or like 2024-02-29 13:14:15")
    };
    let ms = civil(text).ok_or_else(wrong)?;
    u64::try_from(ms).map_err(|_| format!("the time {text} is before 1970"))
}

/// The text of a time: `2024-02-29 13:14:15.678`, in UTC.
#[must_use]
pub(crate) fn format(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis);
    time.map_or_else(|| ms.to_string(), |time| time.format("%Y-%m-%d %H:%M:%S%.3f").to_string())
}

fn civil(text: &str) -> Option<i64> {
    // chrono also takes shorter years, months and days.
    let shape = |at: usize, c: u8| if at == 4 || at == 7 { c == b'-' } else { c.is_ascii_digit() };
    let (date, clock) = text
        .split_at_checked(10)
        .filter(|(date, _)| date.bytes().enumerate().all(|(at, c)| shape(at, c)))?;
    if clock.is_empty() {
        return Some(
            NaiveDate::parse_from_str(date, "%Y-%m-%d")
                .ok()?
                .and_time(NaiveTime::MIN)
                .and_utc()
                .timestamp_millis(),
        );
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_millis());
    }
    let local = |format: &str| {
        NaiveDateTime::parse_from_str(text, format)
            .ok()
            .map(|time| time.and_utc().timestamp_millis())
    };
    ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M"].into_iter().find_map(local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_moment() {
        let moment = 1_709_212_455_000; // 2024-02-29 13:14:15 UTC
        for text in [
            "1709212455000",
            " 1709212455000 ",
            "2024-02-29 13:14:15",
            "2024-02-29T13:14:15",
            "2024-02-29T13:14:15Z",
            "2024-02-29t13:14:15z",
            "2024-02-29T14:14:15+01:00",
            "2024-02-29 05:14:15-08:00",
            "2024-02-29T13:14:15.000000000Z",
        ] {
            assert_eq!(parse(text), Ok(moment), "{text}");
        }
        assert_eq!(parse("2024-02-29"), Ok(moment - (13 * 3600 + 14 * 60 + 15) * 1000));
        assert_eq!(parse("2024-02-29 13:14"), Ok(moment - 15_000));
        assert_eq!(parse("2024-02-29 13:14:15.6789"), Ok(moment + 678));
        assert_eq!(parse("2024-02-29T13:14:15.5Z"), Ok(moment + 500));
        assert_eq!(parse("1970-01-01"), Ok(0));
        assert_eq!(parse("0"), Ok(0));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "x",
            "-5",
            "1.5",
            "2023-02-29",
            "2024-13-01",
            "2024-00-10",
            "2024-2-9",
            "24-02-29",
            "2024-02-29 24:00:00",
            "2024-02-29 13:60",
            "2024-02-29 13",
            "2024-02-29 13:14:15+1",
            "2024-02-29Z",
            "2024-02-29 13:14:15 UTC",
            "20240229 131415",
            "2024-02-29T",
            "é024-02-29",
            "2024-02-2é",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("1969-12-31").unwrap_err().contains("before 1970"));
        assert!(parse("99999999999999999999").unwrap_err().contains("too large"));
    }

    #[test]
    fn what_is_formatted_is_parsed() {
        for ms in [0, 1, 951_782_400_000, 1_709_212_455_678, 253_402_300_799_999] {
            assert_eq!(parse(&format(ms)), Ok(ms), "{}", format(ms));
        }
        assert_eq!(format(1_709_212_455_678), "2024-02-29 13:14:15.678");
        assert_eq!(format(u64::MAX), u64::MAX.to_string());
    }
}
