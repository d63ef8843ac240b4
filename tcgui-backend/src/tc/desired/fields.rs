//! The names of the fields in both forms of a request, and checks of their values.

use std::fmt;

use tcgui_shared::error_kind::ErrorKind;

use crate::kernel::netem::Probability;

/// An invalid request: the field, and its allowed values.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TcInputError {
    /// NaN or an infinity.
    #[error("{field} is not a number")]
    NotANumber {
        /// The field.
        field: &'static str,
    },
    /// The value is out of range.
    #[error("{field} is {value}, not between {min} and {max}{unit}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// The value.
        value: f64,
        /// The smallest allowed value.
        min: f64,
        /// The largest allowed value.
        max: f64,
        /// The unit of the three numbers.
        unit: Unit,
    },
    /// Two fields contradict each other.
    #[error("{field} cannot be combined with {other}")]
    Excluded {
        /// One of them.
        field: &'static str,
        /// The other.
        other: &'static str,
    },
    /// A field that another one needs is absent or 0.
    #[error("{field} is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
}

impl TcInputError {
    /// Returns the kind of the error on the wire.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    /// Returns the name of the field that is wrong.
    pub fn field(&self) -> &'static str {
        match self {
            Self::NotANumber { field }
            | Self::OutOfRange { field, .. }
            | Self::Excluded { field, .. }
            | Self::Missing { field } => field,
        }
    }
}

/// The unit of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit(&'static str);

impl Unit {
    /// Milliseconds.
    pub const MILLISECONDS: Self = Self("ms");
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, " {}", self.0)
        }
    }
}

/// The names of the fields in one form of a request.
pub(super) struct Fields {
    pub(super) loss: &'static str,
    pub(super) loss_correlation: &'static str,
    pub(super) delay: &'static str,
    pub(super) jitter: &'static str,
    pub(super) delay_correlation: &'static str,
    pub(super) duplicate: &'static str,
    pub(super) duplicate_correlation: &'static str,
    pub(super) reorder: &'static str,
    pub(super) reorder_correlation: &'static str,
    pub(super) gap: &'static str,
    pub(super) corrupt: &'static str,
    pub(super) corrupt_correlation: &'static str,
    pub(super) rate: &'static str,
}

/// The names in `TcNetemConfig`.
pub(super) static STRUCTURED: Fields = Fields {
    loss: "loss.percentage",
    loss_correlation: "loss.correlation",
    delay: "delay.base_ms",
    jitter: "delay.jitter_ms",
    delay_correlation: "delay.correlation",
    duplicate: "duplicate.percentage",
    duplicate_correlation: "duplicate.correlation",
    reorder: "reorder.percentage",
    reorder_correlation: "reorder.correlation",
    gap: "reorder.gap",
    corrupt: "corrupt.percentage",
    corrupt_correlation: "corrupt.correlation",
    rate: "rate_limit.rate_kbps",
};

/// The names in `FlatNetem`.
pub(super) static FLAT: Fields = Fields {
    loss: "loss",
    loss_correlation: "correlation",
    delay: "delay_ms",
    jitter: "delay_jitter_ms",
    delay_correlation: "delay_correlation",
    duplicate: "duplicate_percent",
    duplicate_correlation: "duplicate_correlation",
    reorder: "reorder_percent",
    reorder_correlation: "reorder_correlation",
    gap: "reorder_gap",
    corrupt: "corrupt_percent",
    corrupt_correlation: "corrupt_correlation",
    rate: "rate_limit_kbps",
};

/// Returns the value if it is a number between 0 and `max`.
pub(super) fn number(
    field: &'static str,
    value: f64,
    max: f64,
    unit: &'static str,
) -> Result<f64, TcInputError> {
    if !value.is_finite() {
        Err(TcInputError::NotANumber { field })
    } else if (0.0..=max).contains(&value) {
        Ok(value)
    } else {
        Err(TcInputError::OutOfRange {
            field,
            value,
            min: 0.0,
            max,
            unit: Unit(unit),
        })
    }
}

/// Returns the probability if the value is a percentage.
pub(super) fn percentage(field: &'static str, value: f64) -> Result<Probability, TcInputError> {
    number(field, value, 100.0, "%").map(Probability::from_percent)
}

/// Returns the value if it is between `min` and `max`.
pub(super) fn integer<T: Copy + Into<i64>>(
    field: &'static str,
    value: T,
    min: i64,
    max: i64,
) -> Result<T, TcInputError> {
    if (min..=max).contains(&value.into()) {
        return Ok(value);
    }
    #[expect(clippy::cast_precision_loss, reason = "for people to read")]
    let [value, min, max] = [value.into(), min, max].map(|number| number as f64);
    Err(TcInputError::OutOfRange {
        field,
        value,
        min,
        max,
        unit: Unit(""),
    })
}

/// Returns the value if it is at least `min`.
pub(super) fn at_least(field: &'static str, value: u32, min: u32) -> Result<u32, TcInputError> {
    integer(field, value, min.into(), u32::MAX.into())
}
