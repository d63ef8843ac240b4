//! Rates in files: `10mbit` is 10 000 kbit/s. The units are those of `man 8 tc`, section PARAMETERS, with two
//! differences for files of released backends: a prefix may stand alone (`10m`), and `bps` means bits.

/// The units, each in bits per second. Upper and lower case are equivalent.
const UNITS: [(&str, f64); 14] = [
    ("", 1.0),
    ("bit", 1.0),
    ("k", 1e3),
    ("kbit", 1e3),
    ("m", 1e6),
    ("mbit", 1e6),
    ("g", 1e9),
    ("gbit", 1e9),
    ("t", 1e12),
    ("tbit", 1e12),
    ("kibit", 1024.0),
    ("mibit", 1_048_576.0),
    ("gibit", 1_073_741_824.0),
    ("tibit", 1_099_511_627_776.0),
];
/// The largest rate that the wire can hold, in bit/s.
const MOST: f64 = 4_294_967_295_000.0;

/// The reasons why a text is not a rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RateError {
    /// It does not begin with a number.
    #[error("{text:?} is no rate; write for instance \"10mbit\" or \"512kbit\"")]
    NoNumber {
        /// The text.
        text: String,
    },
    /// The text after the number is not a unit.
    #[error("{unit:?} is no unit of a rate; use bit, kbit, mbit, gbit or tbit (or kibit, mibit …)")]
    Unit {
        /// The text after the number.
        unit: String,
    },
    /// A unit with a capital B, which often means bytes.
    #[error(
        "the B of {unit:?} may mean bits or bytes: write {bits}bit for bits, or eight times as many for bytes"
    )]
    BitsOrBytes {
        /// The unit.
        unit: String,
        /// The prefix of the unit.
        bits: String,
    },
    /// The rate is too low: the smallest rate of the kernel is 1 byte per second.
    #[error("{text:?} is less than 8 bit/s")]
    TooSlow {
        /// The text.
        text: String,
    },
    /// The rate is too high: the protocol has 32 bits for a rate in kbit/s.
    #[error("{text:?} is more than {max} kbit/s", max = u32::MAX)]
    TooFast {
        /// The text.
        text: String,
    },
}

/// A parsed rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TextRate {
    /// The rate in bits per second. 0: no limit.
    pub(crate) bps: u64,
    /// Set if the unit ends in `bps`, which means bytes per second to `tc`.
    pub(crate) is_ambiguous: Option<AmbiguousUnit>,
}

/// A unit that means bits in files of released backends, but bytes to `tc`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{unit:?} is read as bits per second, but means bytes per second to tc(8): write {plain:?}"
)]
pub(crate) struct AmbiguousUnit {
    unit: String,
    /// The unit that means bits to both.
    pub(crate) plain: String,
}

/// Parses a rate.
pub(crate) fn parse(text: &str) -> Result<TextRate, RateError> {
    let given = || crate::document::shortened(text.to_owned());
    let trimmed = text.trim();
    let end = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let Ok(number) = number.parse::<f64>() else {
        return Err(RateError::NoNumber { text: given() });
    };
    let given_unit = unit.trim_start();
    let lower = given_unit.to_ascii_lowercase();
    // Released backends accept "kibps", too.
    let prefix = lower.strip_suffix("bps");
    let plain = prefix.map(|prefix| format!("{prefix}bit"));
    let wanted = plain.as_ref().unwrap_or(&lower);
    let Some((_, factor)) = UNITS.iter().find(|(name, _)| name == wanted) else {
        let unit = crate::document::shortened(given_unit.to_owned());
        return Err(RateError::Unit { unit });
    };
    if let Some(prefix) = prefix
        && given_unit.contains('B')
    {
        return Err(RateError::BitsOrBytes {
            unit: given_unit.to_owned(),
            bits: prefix.to_owned(),
        });
    }
    let bps = (number * factor).round();
    if number > 0.0 && bps < 8.0 {
        return Err(RateError::TooSlow { text: given() });
    }
    if bps > MOST {
        return Err(RateError::TooFast { text: given() });
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 2³² · 1000"
    )]
    let bps = bps as u64;
    Ok(TextRate {
        bps,
        is_ambiguous: plain.map(|plain| AmbiguousUnit {
            unit: given_unit.to_owned(),
            plain,
        }),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bps(text: &str) -> Result<u64, RateError> {
        parse(text).map(|rate| rate.bps)
    }

    #[test]
    fn rates_are_read_with_their_units() {
        let cases = [
            ("10mbit", 10_000_000),
            ("10 Mbit", 10_000_000),
            ("100.5kbit", 100_500),
            ("1000", 1000),
            ("64000bit", 64_000),
            ("512kbit", 512_000),
            ("512KBit", 512_000),
            ("512k", 512_000),
            ("2g", 2_000_000_000),
            ("1tbit", 1_000_000_000_000),
            ("1kibit", 1024),
            ("1mibit", 1_048_576),
            ("0.4kbit", 400),
            ("0", 0),
            ("0mbit", 0),
        ];
        for (text, expected) in cases {
            let rate = parse(text).unwrap();
            assert_eq!(rate.bps, expected, "{text}");
            assert_eq!(rate.is_ambiguous, None, "{text}");
        }
    }

    #[test]
    fn units_with_bps_mean_bits_and_are_reported() {
        for (text, expected, plain) in [
            ("1.5mbps", 1_500_000, "mbit"),
            ("1Mbps", 1_000_000, "mbit"),
            ("1gibps", 1_073_741_824, "gibit"),
            ("1500bps", 1500, "bit"),
        ] {
            let rate = parse(text).unwrap();
            assert_eq!(rate.bps, expected, "{text}");
            let warning = rate.is_ambiguous.unwrap().to_string();
            assert!(warning.contains(&format!("write {plain:?}")), "{warning}");
        }
        for text in ["1MBps", "1.5MBPS", "8kBps", "1000Bps"] {
            let error = parse(text).unwrap_err();
            assert!(
                matches!(error, RateError::BitsOrBytes { .. }),
                "{text}: {error}"
            );
            assert!(error.to_string().contains("bits or bytes"), "{error}");
        }
    }

    #[test]
    fn an_invalid_rate_is_explained() {
        let cases = [
            ("", "no rate"),
            ("fast", "no rate"),
            ("-1mbit", "no rate"),
            ("inf", "no rate"),
            ("1.2.3k", "no rate"),
            ("10 megabit", "no unit"),
            ("10e3", "no unit"),
            ("1MB", "no unit"),
            ("7bit", "less than"),
            ("5tbit", "more than"),
        ];
        for (text, expected) in cases {
            let message = bps(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn no_text_causes_a_panic(text in ".{0,40}") {
            bps(&text).ok();
        }

        #[test]
        fn every_rate_is_read_back(rate in 1..=u32::MAX) {
            prop_assert_eq!(bps(&format!("{rate}kbit")), Ok(u64::from(rate) * 1000));
        }
    }
}
