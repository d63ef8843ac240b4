//! A rate as people write it: `10mbit` is 10 000 kbit/s.

/// The units, each in bits per second; upper and lower case are the same.
const UNITS: [(&str, f64); 19] = [
    ("", 1.0),
    ("bit", 1.0),
    ("bps", 1.0),
    ("k", 1e3),
    ("kbit", 1e3),
    ("kbps", 1e3),
    ("m", 1e6),
    ("mbit", 1e6),
    ("mbps", 1e6),
    ("g", 1e9),
    ("gbit", 1e9),
    ("gbps", 1e9),
    ("t", 1e12),
    ("tbit", 1e12),
    ("tbps", 1e12),
    ("kibit", 1024.0),
    ("mibit", 1_048_576.0),
    ("gibit", 1_073_741_824.0),
    ("tibit", 1_099_511_627_776.0),
];

/// Why a text is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RateError {
    /// It does not begin with a number.
    #[error("{text:?} is no rate; write for instance \"10mbit\" or \"512kbit\"")]
    NoNumber {
        /// As given.
        text: String,
    },
    /// What follows the number.
    #[error("{unit:?} is no unit of a rate; use bit, kbit, mbit, gbit or tbit (or kibit, mibit …)")]
    Unit {
        /// As given.
        unit: String,
    },
    /// The kernel counts in whole bytes, the protocol in kbit/s.
    #[error("{text:?} is less than 1 kbit/s")]
    TooSlow {
        /// As given.
        text: String,
    },
    /// The protocol has 32 bits for it.
    #[error("{text:?} is more than {max} kbit/s", max = u32::MAX)]
    TooFast {
        /// As given.
        text: String,
    },
}

/// Returns a rate in kbit/s of 1000 bit, rounded.
pub(crate) fn kbps(text: &str) -> Result<u32, RateError> {
    let given = || crate::document::shortened(text.to_owned());
    let trimmed = text.trim();
    let end = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let Ok(number) = number.parse::<f64>() else {
        return Err(RateError::NoNumber { text: given() });
    };
    let unit = unit.trim_start().to_ascii_lowercase();
    // "kibps" is read as released backends read it.
    let plain = unit
        .strip_suffix("ibps")
        .map(|prefix| format!("{prefix}ibit"));
    let wanted = plain.as_ref().unwrap_or(&unit);
    let Some((_, factor)) = UNITS.iter().find(|(name, _)| name == wanted) else {
        let unit = crate::document::shortened(unit);
        return Err(RateError::Unit { unit });
    };
    let kbps = (number * factor / 1e3).round();
    if kbps < 1.0 {
        return Err(RateError::TooSlow { text: given() });
    }
    if kbps > f64::from(u32::MAX) {
        return Err(RateError::TooFast { text: given() });
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and the largest u32"
    )]
    let kbps = kbps as u32;
    Ok(kbps)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_mean_what_they_say() {
        let cases = [
            ("10mbit", 10_000),
            ("10 Mbit", 10_000),
            (" 1.5MBPS ", 1_500),
            ("1000", 1),
            ("64000bit", 64),
            ("512kbit", 512),
            ("512k", 512),
            ("2g", 2_000_000),
            ("1tbit", 1_000_000_000),
            ("1kibit", 1),
            ("1mibit", 1_049),
            ("1gibps", 1_073_742),
            ("1500bps", 2),
        ];
        for (text, expected) in cases {
            assert_eq!(kbps(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_rate_is_explained() {
        let cases = [
            ("", "no rate"),
            ("fast", "no rate"),
            ("-1mbit", "no rate"),
            ("inf", "no rate"),
            ("1.2.3k", "no rate"),
            ("10 megabit", "no unit"),
            ("10e3", "no unit"),
            ("0", "less than"),
            ("0.4kbit", "less than"),
            ("5tbit", "more than"),
        ];
        for (text, expected) in cases {
            let message = kbps(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text in ".{0,40}") {
            kbps(&text).ok();
        }

        #[test]
        fn what_is_written_is_read(rate in 1..=u32::MAX) {
            prop_assert_eq!(kbps(&format!("{rate}kbit")), Ok(rate));
        }
    }
}
