//! Values with units, as on command lines. The only place of the command line that calls the grammar of preset files.
//!
//! Every value has a unit: `tc` reads a bare `100` as microseconds, which nobody expects. Counts have none.

use std::time::Duration;

use tcgui_shared::netem::LossModel;

use crate::preset;

/// The units of times, for messages.
const TIME_UNITS: &str = "us, ms, s, m (minutes) or h";
/// The units of rates, for messages.
const RATE_UNITS: &str =
    "bit, kbit, mbit, gbit or tbit (1000), kibit, mibit, gibit or tibit (1024)";

/// A delay, a jitter or a time between slots, in ms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Milliseconds(pub f64);

/// A share, in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percent(pub f64);

/// A rate in bit/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitsPerSecond(pub u64);

/// `MIN[,MAX]`, or a single time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slot {
    /// The shortest time between slots, in ms.
    pub min_ms: f64,
    /// The longest, in ms.
    pub max_ms: f64,
}

/// Returns whether anything follows the number.
fn has_unit(text: &str) -> bool {
    let is_of_number = |c: char| c.is_ascii_digit() || ".,_+- ".contains(c);
    !text.trim_end_matches(is_of_number).is_empty()
}

/// Reads a time such as `100ms` or `1.5s`.
///
/// # Errors
/// The message for the user.
pub fn milliseconds(text: &str) -> Result<Milliseconds, String> {
    duration(text).map(|time| Milliseconds(time.as_secs_f64() * 1000.0))
}

/// Reads a time that is a whole number of milliseconds or less, such as `30s`.
///
/// # Errors
/// The message for the user.
pub fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if !has_unit(text) {
        return Err(format!(
            "has no unit, write for example 100ms; the units are {TIME_UNITS}"
        ));
    }
    let mistake =
        |err| format!("{err}; write for example 100ms or 1.5s; the units are {TIME_UNITS}");
    humantime::parse_duration(text).map_err(mistake)
}

/// Reads a time that is not zero, such as a timeout or a time to live.
///
/// # Errors
/// The message for the user.
pub fn period(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if time < Duration::from_millis(1) => Err("must be at least 1ms".to_owned()),
        time => Ok(time),
    }
}

/// Reads a share such as `1%` or `0.5%`.
///
/// # Errors
/// The message for the user.
pub fn percent(text: &str) -> Result<Percent, String> {
    let Some(number) = text.trim().strip_suffix('%') else {
        return Err("has no unit, write for example 1%; the unit is %".to_owned());
    };
    match number.trim().parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Percent(percent)),
        Ok(_) => Err("must be from 0% to 100%".to_owned()),
        Err(_) => Err("is not a number with %, write for example 0.5%".to_owned()),
    }
}

/// Reads a rate such as `10mbit`.
///
/// # Errors
/// The message for the user.
pub fn rate(text: &str) -> Result<BitsPerSecond, String> {
    if !has_unit(text) {
        return Err(format!(
            "has no unit, write for example 10mbit; the units are {RATE_UNITS}"
        ));
    }
    let rate = preset::parse_rate(text).map_err(|err| err.to_string())?;
    match rate.is_ambiguous {
        // tc(8) and preset files differ by a factor of eight.
        Some(unit) => Err(format!(
            "may mean bits or bytes per second, write {:?} for bits",
            unit.plain
        )),
        None => Ok(BitsPerSecond(rate.bps)),
    }
}

/// Reads `gemodel:P,R[,BAD[,GOOD]]` or `state:P13,P31[,P32[,P23[,P14]]]`, as `tc` names the models.
///
/// # Errors
/// The message for the user.
pub fn loss_model(text: &str) -> Result<LossModel, String> {
    let forms =
        "write gemodel:P,R[,BAD[,GOOD]] or state:P13,P31[,P32[,P23[,P14]]], each value with %";
    let (name, values) = text.split_once(':').ok_or(forms)?;
    let values: Vec<f64> = values
        .split(',')
        .map(|value| percent(value).map(|Percent(value)| value))
        .collect::<Result<_, _>>()
        .map_err(|err| format!("a value {err}; {forms}"))?;
    let value = |index: usize, default: f64| values.get(index).copied().unwrap_or(default);
    match (name, values.len()) {
        ("gemodel", 2..=4) => Ok(LossModel::GilbertElliott {
            p: value(0, 0.0),
            r: value(1, 0.0),
            bad_loss: value(2, 100.0),
            good_loss: value(3, 0.0),
        }),
        ("state", 2..=5) => Ok(LossModel::FourState {
            p13: value(0, 0.0),
            p31: value(1, 0.0),
            p32: value(2, 0.0),
            p23: value(3, 100.0),
            p14: value(4, 0.0),
        }),
        _ => Err(forms.to_owned()),
    }
}

/// Reads the times between slots: `20ms` or `20ms,40ms`.
///
/// # Errors
/// The message for the user.
pub fn slot(text: &str) -> Result<Slot, String> {
    let (min, max) = text.split_once(',').unwrap_or((text, text));
    let (Milliseconds(min_ms), Milliseconds(max_ms)) = (milliseconds(min)?, milliseconds(max)?);
    if max_ms < min_ms {
        return Err("the longest time is shorter than the shortest".to_owned());
    }
    Ok(Slot { min_ms, max_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_units_are_read() {
        assert_eq!(milliseconds("100ms"), Ok(Milliseconds(100.0)));
        assert_eq!(milliseconds("1.5s"), Ok(Milliseconds(1500.0)));
        assert_eq!(milliseconds("250us"), Ok(Milliseconds(0.25)));
        assert_eq!(milliseconds("0ms"), Ok(Milliseconds(0.0)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(percent("0.5%"), Ok(Percent(0.5)));
        assert_eq!(percent("100 %"), Ok(Percent(100.0)));
        assert_eq!(rate("10mbit"), Ok(BitsPerSecond(10_000_000)));
        assert_eq!(rate("1.5Gbit"), Ok(BitsPerSecond(1_500_000_000)));
        assert_eq!(rate("100.5kbit"), Ok(BitsPerSecond(100_500)));
        let slot = slot("20ms,1s").unwrap();
        assert_eq!((slot.min_ms, slot.max_ms), (20.0, 1000.0));
    }

    #[test]
    fn a_missing_unit_is_an_error_that_lists_the_units() {
        for (message, units) in [
            (milliseconds("100").unwrap_err(), TIME_UNITS),
            (period("10").unwrap_err(), TIME_UNITS),
            (rate("100").unwrap_err(), RATE_UNITS),
            (percent("1").unwrap_err(), "%"),
            (slot("20,40ms").unwrap_err(), TIME_UNITS),
        ] {
            assert!(message.contains("no unit"), "{message}");
            assert!(message.contains(units), "{message}");
        }
    }

    #[test]
    fn wrong_values_are_explained() {
        for (message, word) in [
            (milliseconds("100kg").unwrap_err(), "kg"),
            (milliseconds("ms").unwrap_err(), "100ms"),
            (milliseconds("-5ms").unwrap_err(), "100ms"),
            (percent("101%").unwrap_err(), "100%"),
            (percent("nan%").unwrap_err(), "100%"),
            (percent("x%").unwrap_err(), "0.5%"),
            (rate("10megabit").unwrap_err(), "mbit"),
            (rate("10mbps").unwrap_err(), "\"mbit\" for bits"),
            (period("0s").unwrap_err(), "1ms"),
            (loss_model("gemodel").unwrap_err(), "gemodel:P,R"),
            (loss_model("gemodel:1%").unwrap_err(), "gemodel:P,R"),
            (loss_model("gemodel:1,2").unwrap_err(), "no unit"),
            (loss_model("bernoulli:1%,2%").unwrap_err(), "state:P13"),
            (slot("40ms,20ms").unwrap_err(), "shorter"),
        ] {
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn loss_models_have_the_defaults_of_tc() {
        assert_eq!(
            loss_model("gemodel:1%,10%"),
            Ok(LossModel::GilbertElliott {
                p: 1.0,
                r: 10.0,
                bad_loss: 100.0,
                good_loss: 0.0
            })
        );
        assert_eq!(
            loss_model("state:1%,2%,3%"),
            Ok(LossModel::FourState {
                p13: 1.0,
                p31: 2.0,
                p32: 3.0,
                p23: 100.0,
                p14: 0.0
            })
        );
    }
}
