//! Probabilities in the kernel's unit: n / (2³² − 1).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A probability or correlation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Probability(u32);

impl Probability {
    /// Never.
    pub const ZERO: Self = Self(0);
    /// Always.
    pub const ONE: Self = Self(u32::MAX);

    /// Returns the probability for a number of the kernel.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// Returns the kernel's number.
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// Returns whether the event never happens.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Returns the probability that the event does not happen.
    #[must_use]
    pub const fn contrary(self) -> Self {
        Self(u32::MAX - self.0)
    }

    /// Returns the probability that is nearest to a percentage, as `tc` does. Values below 0 become 0, values above 100
    /// become 100, and NaN becomes 0.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the number is between 0 and 2³² − 1"
    )]
    pub fn from_percent(percent: f64) -> Self {
        let share = (percent / 100.0).clamp(0.0, 1.0);
        Self((share * f64::from(u32::MAX)).round() as u32)
    }

    /// Returns the shortest percentage that [`Self::from_percent`] converts to the same probability: 1.5, not
    /// 1.499999993.
    pub fn percent(self) -> f64 {
        let exact = f64::from(self.0) / f64::from(u32::MAX) * 100.0;
        [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8]
            .into_iter()
            .map(|scale: f64| (exact * scale).round() / scale)
            .find(|short| Self::from_percent(*short) == self)
            .unwrap_or(exact)
    }
}

impl fmt::Debug for Probability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.percent())
    }
}
