//! A duration as people write it: whole numbers with units, `1m 30s`.

/// The units in nanoseconds; a year has 365.24 days.
const UNITS: [(&str, u128); 9] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", NS_PER_MS),
    ("s", NS_PER_S),
    ("m", 60 * NS_PER_S),
    ("h", 3_600 * NS_PER_S),
    ("d", 86_400 * NS_PER_S),
    ("w", 604_800 * NS_PER_S),
    ("y", 31_556_736 * NS_PER_S),
];
const NS_PER_MS: u128 = 1_000_000;
const NS_PER_S: u128 = 1_000_000_000;

/// Why a text is no duration of a step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DurationError {
    /// Not made of numbers and units.
    #[error(
        "{text:?} is no duration; write whole numbers with units, for instance \"1m 30s\" or \"500ms\""
    )]
    Form {
        /// As given.
        text: String,
    },
    /// No such unit.
    #[error("{unit:?} is no unit of time; use ns, us, ms, s, m, h, d, w or y")]
    Unit {
        /// As given.
        unit: String,
    },
    /// Nothing, or next to nothing.
    #[error("is shorter than 1 ms")]
    TooShort,
    /// Beyond any number.
    #[error("{text:?} is too long")]
    TooLong {
        /// As given.
        text: String,
    },
}

/// Returns a duration in whole milliseconds, at least one.
pub(crate) fn milliseconds(text: &str) -> Result<u64, DurationError> {
    let given = || crate::document::shortened(text.to_owned());
    let form = || DurationError::Form { text: given() };
    let too_long = || DurationError::TooLong { text: given() };
    let mut rest = text.trim();
    let mut sum = 0_u128;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(form)?;
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after
            .find(|c: char| !c.is_alphabetic())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        if number.is_empty() || unit.is_empty() {
            return Err(form());
        }
        let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            let unit = crate::document::shortened(unit.to_owned());
            return Err(DurationError::Unit { unit });
        };
        let number: u128 = number.parse().map_err(|_| too_long())?;
        let length = number.checked_mul(*factor).ok_or_else(too_long)?;
        sum = sum.checked_add(length).ok_or_else(too_long)?;
        rest = after.trim_start();
    }
    if text.trim().is_empty() {
        return Err(form());
    }
    match u64::try_from(sum / NS_PER_MS) {
        Ok(0) => Err(DurationError::TooShort),
        Ok(ms) => Ok(ms),
        Err(_) => Err(too_long()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_sums_of_numbers_with_units() {
        let cases = [
            ("30s", 30_000),
            (" 1m 30s ", 90_000),
            ("1m30s", 90_000),
            ("2 h", 7_200_000),
            ("1d1w", 691_200_000),
            ("1y", 31_556_736_000),
            ("1500us", 1),
            ("999999ns 1ns", 1),
            ("0s 5ms", 5),
        ];
        for (text, expected) in cases {
            assert_eq!(milliseconds(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_explained() {
        let cases = [
            ("", "no duration"),
            ("30", "no duration"),
            ("s", "no duration"),
            ("1.5s", "no duration"),
            ("-1s", "no duration"),
            ("30S", "no unit"),
            ("3min", "no unit"),
            ("0s", "shorter"),
            ("500us", "shorter"),
            ("99999999999999y", "too long"),
            (&"9".repeat(50), "no duration"),
            (&format!("{}s", "9".repeat(50)), "too long"),
        ];
        for (text, expected) in cases {
            let message = milliseconds(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text in ".{0,40}") {
            milliseconds(&text).ok();
        }

        #[test]
        fn what_is_written_is_read(h in 0_u64..99, m in 0_u64..99, ms in 1_u64..9999) {
            let text = format!("{h}h{m}m {ms}ms");
            prop_assert_eq!(milliseconds(&text), Ok(h * 3_600_000 + m * 60_000 + ms));
        }
    }
}
