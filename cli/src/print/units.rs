//! How quantities are written.

use chrono::{Local, TimeZone as _};

/// Bytes with three decimals and a unit of 1024: `498.000`, `8.646 K`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["", " K", " M", " G", " T", " P", " E"];
    let (mut value, mut rest, mut unit) = (bytes as f64, bytes >> 10, 0);
    while rest > 0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        rest >>= 10;
        unit += 1;
    }
    format!("{value:.3}{}", UNITS[unit])
}

/// The largest unit that fits, cut off: `600ms`, `6s`, `1m`, `6h`, `5d`.
pub(super) fn age(ms: u64) -> String {
    let (mut value, mut unit) = (ms, "ms");
    for (size, larger) in [(1000, "s"), (60, "m"), (60, "h"), (24, "d")] {
        if value / size == 0 {
            break;
        }
        value /= size;
        unit = larger;
    }
    format!("{value}{unit}")
}

/// A moment in this machine's time zone.
pub(super) fn moment(seconds: u64) -> String {
    let moment = i64::try_from(seconds).ok().and_then(|s| Local.timestamp_opt(s, 0).single());
    moment.map(|m| m.format("%Y%m%d%H%M%S").to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_examples() {
        for (n, text) in [
            (0, "0.000"),
            (498, "498.000"),
            (1023, "1023.000"),
            (1024, "1.000 K"),
            (8854, "8.646 K"),
        ] {
            assert_eq!(bytes(n), text);
        }
        assert_eq!(bytes(5 << 30), "5.000 G");
        assert_eq!(bytes(u64::MAX), "16.000 E");
        for (ms, text) in [
            (0, "0ms"),
            (600, "600ms"),
            (6005, "6s"),
            (60_000, "1m"),
            (25_199_999, "6h"),
            (5 * 86_400_000, "5d"),
        ] {
            assert_eq!(age(ms), text);
        }
    }

    #[test]
    fn a_moment_is_fourteen_digits() {
        let text = moment(1_535_099_596);
        assert_eq!((text.len(), &text[..6]), (14, "201808"));
        assert!(text.bytes().all(|b| b.is_ascii_digit()));
    }
}
