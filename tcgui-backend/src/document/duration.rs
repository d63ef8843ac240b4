//! The duration of a scenario step: numbers with units that are added, such as `1m 30s`.

/// The reasons why a text is not a valid duration of a step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DurationError {
    /// The text does not consist of numbers and units.
    #[error(
        "{text:?} is not a duration: {reason}; write numbers with units, for instance \"1m 30s\" or \"500ms\""
    )]
    Form {
        /// The text, shortened.
        text: String,
        /// The error from `humantime`, shortened.
        reason: String,
    },
    /// The duration is less than one millisecond.
    #[error("is shorter than 1 ms")]
    TooShort,
    /// The number of milliseconds does not fit into 64 bits.
    #[error("{text:?} is too long")]
    TooLong {
        /// The text, shortened.
        text: String,
    },
}

/// Returns a duration in whole milliseconds, rounded down. It is at least one.
pub(crate) fn milliseconds(text: &str) -> Result<u64, DurationError> {
    let given = || super::shortened(text.to_owned());
    let duration = match humantime::parse_duration(text.trim()) {
        Ok(duration) => duration,
        Err(humantime::DurationError::NumberOverflow) => {
            return Err(DurationError::TooLong { text: given() });
        }
        Err(err) => {
            return Err(DurationError::Form {
                text: given(),
                reason: super::shortened(err.to_string()),
            });
        }
    };
    match u64::try_from(duration.as_millis()) {
        Ok(0) => Err(DurationError::TooShort),
        Ok(ms) => Ok(ms),
        Err(_) => Err(DurationError::TooLong { text: given() }),
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
            ("1500us", 1),
            ("999999ns 1ns", 1),
            ("0s 5ms", 5),
            ("1.5s", 1_500),
            ("3min", 180_000),
        ];
        for (text, expected) in cases {
            assert_eq!(milliseconds(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_text_that_is_not_a_duration_is_explained() {
        let cases = [
            ("", "not a duration"),
            ("30", "not a duration"),
            ("s", "not a duration"),
            ("-1s", "not a duration"),
            ("30S", "unknown time unit \"S\""),
            ("0s", "shorter"),
            ("500us", "shorter"),
            ("99999999999999y", "too long"),
            (&format!("{}s", "9".repeat(50)), "too long"),
        ];
        for (text, expected) in cases {
            let message = milliseconds(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            milliseconds(&text).ok();
        }

        #[test]
        fn a_written_duration_is_read(h in 0_u64..99, m in 0_u64..99, ms in 1_u64..9999) {
            let text = format!("{h}h{m}m {ms}ms");
            prop_assert_eq!(milliseconds(&text), Ok(h * 3_600_000 + m * 60_000 + ms));
        }
    }
}
