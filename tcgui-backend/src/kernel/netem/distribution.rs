//! Delay distributions: tables of 4 096 quantiles, calculated from formulas.
//!
//! The kernel picks a random entry and adds `entry / 8192` (`NETEM_DIST_SCALE`) standard deviations to the mean. The
//! formulas are those of the tables that `tc` reads from its `*.dist` files.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// The number of entries of a table, the same as in the tables of `tc`.
const ENTRIES: u16 = 4096;
/// One standard deviation (`NETEM_DIST_SCALE`, `include/uapi/linux/pkt_sched.h`).
const SCALE: f64 = 8192.0;
/// Position of a quantile of the normal distribution within its step. `tc` calculates 16 384 quantiles, each in the
/// middle of its step, and keeps every fourth one.
const OFFSET: f64 = 0.125;

static NORMAL: LazyLock<Vec<i16>> = LazyLock::new(|| table(&normal()));
static PARETO: LazyLock<Vec<i16>> = LazyLock::new(|| table(&pareto()));
static PARETO_NORMAL: LazyLock<Vec<i16>> = LazyLock::new(|| {
    // The Pareto part is the finished table, which ends at four standard deviations, as in `tc`.
    let mixed = normal().into_iter().zip(PARETO.iter());
    let mixed = mixed.map(|(n, p)| (n + 3.0 * f64::from(*p) / SCALE) / 4.0);
    table(&mixed.collect::<Vec<_>>())
});

/// The distribution of random values around their mean (`man 8 tc-netem`, `distribution`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Distribution {
    /// The normal distribution.
    Normal,
    /// The Pareto distribution with exponent 3: many short values and few long ones.
    Pareto,
    /// One part normal, three parts Pareto.
    ParetoNormal,
}

impl Distribution {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Normal, Self::Pareto, Self::ParetoNormal];

    /// Returns the name that `tc` uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Pareto => "pareto",
            Self::ParetoNormal => "paretonormal",
        }
    }

    /// Returns the table for the kernel.
    pub fn table(self) -> &'static [i16] {
        match self {
            Self::Normal => &NORMAL,
            Self::Pareto => &PARETO,
            Self::ParetoNormal => &PARETO_NORMAL,
        }
    }
}

/// Converts quantiles in standard deviations to the kernel's scale.
fn table(quantiles: &[f64]) -> Vec<i16> {
    quantiles
        .iter()
        .map(|quantile| {
            let scaled = (quantile * SCALE).round();
            #[expect(clippy::cast_possible_truncation, reason = "clamped to the range")]
            let entry = scaled.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
            entry
        })
        .collect()
}

/// Returns the quantiles of the Pareto distribution with exponent 3. Its mean is 3/2. `tc` scales it by 4/3.
fn pareto() -> Vec<f64> {
    (0..ENTRIES)
        .map(|i| f64::from(ENTRIES - i) / f64::from(ENTRIES))
        .map(|above| (above.powf(-1.0 / 3.0) - 1.5) * 4.0 / 3.0)
        .collect()
}

/// Returns the quantiles of the normal distribution. Each one is calculated from its neighbour that is nearer to the
/// mean.
fn normal() -> Vec<f64> {
    let half = ENTRIES / 2;
    let step = 1.0 / f64::from(ENTRIES);
    let march = |first: f64, count: u16| {
        let mut x = 0.0;
        (0..count)
            .map(|i| {
                x = advance(x, if i == 0 { first } else { step });
                x
            })
            .collect::<Vec<_>>()
    };
    // The distribution is symmetric: the lower half is calculated like the upper half, and then negated.
    let mut quantiles = march((1.0 - OFFSET) * step, half);
    quantiles.reverse();
    quantiles.iter_mut().for_each(|x| *x = -*x);
    quantiles.extend(march(OFFSET * step, half));
    quantiles
}

/// Returns the point above `from` at which the integral of the density from `from` is `share`, by Newton's method.
fn advance(from: f64, share: f64) -> f64 {
    const ROUNDS: usize = 20;
    (0..ROUNDS).fold(from, |to, _| {
        to - (integral(from, to) - share) / density(to)
    })
}

/// Returns the density of the standard normal distribution.
fn density(x: f64) -> f64 {
    (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt()
}

/// Returns the integral of the density, by Simpson's rule.
fn integral(from: f64, to: f64) -> f64 {
    const PIECES: u8 = 8;
    let width = (to - from) / f64::from(PIECES);
    let sum: f64 = (0..PIECES)
        .map(|i| from + width * f64::from(i))
        .map(|at| density(at) + 4.0 * density(at + width / 2.0) + density(at + width))
        .sum();
    sum * width / 6.0
}
