//! Times for people and for programs.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Returns a time in ms since the Unix epoch as RFC 3339 text in UTC.
pub(super) fn rfc3339(unix_ms: u64) -> String {
    timestamp(unix_ms).to_string()
}

/// Returns when something ends, in local time: `14:32:10`, with the date if that is another day.
pub(super) fn clock(unix_ms: u64) -> String {
    let zone = TimeZone::system();
    let at = timestamp(unix_ms).to_zoned(zone.clone());
    let is_today = at.date() == Timestamp::now().to_zoned(zone).date();
    let format = if is_today {
        "%H:%M:%S"
    } else {
        "%Y-%m-%d %H:%M:%S"
    };
    at.strftime(format).to_string()
}

/// Returns [`clock`] of a time that [`rfc3339`] has written.
pub(super) fn clock_of(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(at) => clock(u64::try_from(at.as_millisecond()).unwrap_or_default()),
        Err(_) => text.to_owned(),
    }
}

/// Returns a duration without parts that do not matter: `1m 30s`, `500ms`.
pub(super) fn duration(time: Duration) -> String {
    let time = if time < Duration::from_secs(10) {
        Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    } else {
        Duration::from_secs(time.as_secs())
    };
    humantime::format_duration(time).to_string()
}

fn timestamp(unix_ms: u64) -> Timestamp {
    let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(rfc3339(1_767_300_000_250), "2026-01-01T20:40:00.25Z");
        assert_eq!(rfc3339(u64::MAX), Timestamp::MAX.to_string());
    }

    #[test]
    fn long_durations_have_no_milliseconds() {
        assert_eq!(duration(Duration::from_millis(1_500)), "1s 500ms");
        assert_eq!(duration(Duration::from_millis(90_400)), "1m 30s");
    }
}
