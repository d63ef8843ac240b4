//! Calculates the share of packets that a random event hits.
//!
//! With a correlation, netem compares the probability with an average of random numbers (`get_crandom`,
//! `net/sched/sch_netem.c`): x' = (1 − a) · u + a · x, where u is uniform and a is the correlation. The average is not
//! uniform, so the share of packets differs from the probability: 2 % with a correlation of 25 % hits 0.006 %.
//!
//! In the long run x is Σ (1 − a) aᵏ uₖ. Its distribution on 0 to 1 has a Fourier series of period 2. The coefficients
//! of this series are products of sin(s)/s. [`Random::share`] sums it.

use std::f64::consts::PI;

use super::{Loss, Probability, Random};

/// The number of values of the kernel's random numbers, which have 32 bits.
const RANGE: f64 = 4_294_967_296.0;
/// Below this correlation the series converges slowly. There, x is uniform except near 0 and 1.
const WEAK: f64 = 0.01;
/// Above this correlation x is an average of hundreds of numbers. It is then normally distributed, with an error below
/// 10⁻⁴.
const STRONG: f64 = 0.995;
/// Terms below this are ignored, because shares are shown with four digits.
const NEGLIGIBLE: f64 = 1e-13;
/// The largest number of terms of the series. With a correlation of [`WEAK`] the error is below 10⁻⁸.
const MOST_TERMS: u32 = 4096;

impl Random {
    /// Returns the share of packets that the event hits in the long run.
    ///
    /// With a correlation of 100 %, the first random number decides for all packets. The result is then the probability
    /// that the event hits all of them.
    pub fn share(self) -> Probability {
        if self.probability.is_zero() || self.correlation.is_zero() {
            return self.probability;
        }
        let threshold = f64::from(self.probability.raw()) / RANGE;
        let weight = (f64::from(self.correlation.raw()) + 1.0) / RANGE;
        let share = if weight >= 1.0 {
            threshold
        } else if weight > STRONG {
            let variance = (1.0 - weight) / (1.0 + weight) / 12.0;
            normal((threshold - 0.5) / variance.sqrt())
        } else if weight < WEAK {
            weakly_correlated(threshold, weight)
        } else {
            series(threshold - 0.5, weight)
        };
        Probability::from_percent(share * 100.0)
    }
}

impl Loss {
    /// Returns the share of packets that are lost in the long run. `None`: the probabilities of a model contradict each
    /// other, because two ways out of one state add up to more than 100 %.
    pub fn share(self) -> Option<Probability> {
        let fraction = |probability: Probability| probability.percent() / 100.0;
        let share = match self {
            Self::Random(random) => return Some(random.share()),
            Self::GilbertElliott { p, r, h, k1 } => {
                let [p, r, good_loss] = [p, r, k1].map(fraction);
                // The chain begins in the good state.
                let bad = if p > 0.0 { p / (p + r) } else { 0.0 };
                bad * fraction(h.contrary()) + (1.0 - bad) * good_loss
            }
            Self::FourState {
                p13,
                p31,
                p32,
                p14,
                p23,
            } => four_states([p13, p31, p32, p14, p23].map(fraction))?,
        };
        Some(Probability::from_percent(share * 100.0))
    }
}

/// Returns the share that a chain with four states loses. It loses a packet when it enters state 3 or 4
/// (`loss_4state`). It starts in state 1.
fn four_states([p13, p31, p32, p14, p23]: [f64; 5]) -> Option<f64> {
    if p13 + p14 > 1.0 || p31 + p32 > 1.0 {
        return None;
    }
    if p13 == 0.0 {
        return Some(p14 / (1.0 + p14));
    }
    // The number of packets in a state for each packet in state 3.
    let burst = match (p32 > 0.0, p23 > 0.0) {
        (true, true) => p32 / p23,
        // The chain never leaves state 2.
        (true, false) => return Some(0.0),
        (false, _) => 0.0,
    };
    let gap = p31 / p13;
    let single = gap * p14;
    Some((1.0 + single) / (1.0 + single + burst + gap))
}

/// Sums the series of the distribution function. `distance` is measured from the middle, 0.5.
fn series(distance: f64, weight: f64) -> f64 {
    let mut sum = 0.0;
    for n in 1..=MOST_TERMS {
        let s = PI * f64::from(n);
        let mut coefficient = 1.0;
        let mut part = (1.0 - weight) * s / 2.0;
        while part > 1e-5 && f64::abs(coefficient) > NEGLIGIBLE {
            coefficient *= part.sin() / part;
            part *= weight;
        }
        sum += coefficient * (s * distance).sin() / s;
    }
    (0.5 + distance / 2.0 + sum).clamp(0.0, 1.0)
}

/// Returns the share for a weak correlation. x' is exact here. The x before it is taken as uniform except near 0 and 1.
fn weakly_correlated(threshold: f64, weight: f64) -> f64 {
    if threshold > 0.5 {
        return 1.0 - weakly_correlated(1.0 - threshold, weight);
    }
    let inner = |z: f64| (z - weight / 2.0).max(0.0) / (1.0 - weight);
    if threshold >= weight {
        return inner(threshold);
    }
    // weight / (1 − weight) · ∫ F from 0 to threshold / weight
    let end = threshold / weight;
    let integral = (end - weight / 2.0).max(0.0).powi(2) / 2.0 / (1.0 - weight);
    weight / (1.0 - weight) * integral
}

/// The distribution function of the normal distribution (Abramowitz and Stegun 7.1.26; error below 1.5 · 10⁻⁷).
fn normal(x: f64) -> f64 {
    let z = x.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let polynomial = t
        * (0.254_829_592
            + t * (-0.284_496_736
                + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    let tail = polynomial * (-z * z).exp() / 2.0;
    if x < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percent(percent: f64) -> Probability {
        Probability::from_percent(percent)
    }

    fn random(probability: f64, correlation: f64) -> Random {
        Random {
            probability: percent(probability),
            correlation: percent(correlation),
        }
    }

    /// Uniform numbers of 32 bits (splitmix64).
    struct Uniform(u64);

    impl Uniform {
        fn next(&mut self) -> u32 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            u32::try_from((z ^ (z >> 31)) >> 32).unwrap()
        }
    }

    /// Simulates the integer arithmetic of `get_crandom` and of its callers for a number of packets. Returns the share
    /// in percent.
    fn simulated(random: Random, packets: u32) -> f64 {
        let mut uniform = Uniform(7);
        let rho = u64::from(random.correlation.raw()) + 1;
        let mut last = u64::from(uniform.next());
        let mut hits = 0_u32;
        for _ in 0..packets {
            let value = u64::from(uniform.next());
            if random.correlation.is_zero() {
                last = value;
            } else {
                let sum = u128::from(value) * u128::from((1_u64 << 32) - rho)
                    + u128::from(last) * u128::from(rho);
                last = u64::try_from(sum >> 32).unwrap() & 0xffff_ffff;
            }
            hits += u32::from(u64::from(random.probability.raw()) >= last);
        }
        f64::from(hits) / f64::from(packets) * 100.0
    }

    #[test]
    fn the_share_is_that_of_the_kernels_arithmetic() {
        let packets = 400_000;
        for (probability, correlation) in [
            (0.0, 30.0),
            (1.0, 0.0),
            (1.0, 10.0),
            (0.5, 5.0),
            (2.0, 15.0),
            (2.0, 25.0),
            (8.0, 25.0),
            (10.0, 25.0),
            (15.0, 30.0),
            (50.0, 50.0),
            (80.0, 50.0),
            (80.0, 10.0),
            (99.0, 3.0),
            (3.0, 0.5),
            (0.3, 0.5),
            (30.0, 90.0),
            (45.0, 90.0),
            (100.0, 90.0),
        ] {
            let random = random(probability, correlation);
            let (share, simulated) = (random.share().percent(), simulated(random, packets));
            // The random numbers of a run depend on each other. They count like `packets` · (1 − a) / (1 + a)
            // independent numbers.
            let weight = correlation / 100.0;
            let effective = f64::from(packets) * (1.0 - weight) / (1.0 + weight);
            let variance = share.max(0.001) / 100.0 * (1.0 - share / 100.0).max(1e-5) / effective;
            let tolerance = 4.5 * variance.sqrt() * 100.0;
            assert!(
                (share - simulated).abs() <= tolerance,
                "{probability} % with {correlation} %: {share} and not {simulated} ± {tolerance}"
            );
        }
    }

    #[test]
    fn both_methods_agree_where_both_apply() {
        for threshold in [0.001, 0.004, 0.02, 0.3, 0.499, 0.7, 0.998] {
            let series_weak = series(threshold - 0.5, WEAK);
            let weak = weakly_correlated(threshold, WEAK);
            assert!(
                (series_weak - weak).abs() < 1e-6,
                "{threshold}: {series_weak} {weak}"
            );
            let variance: f64 = (1.0 - STRONG) / (1.0 + STRONG) / 12.0;
            let strong = normal((threshold - 0.5) / variance.sqrt());
            let series_strong = series(threshold - 0.5, STRONG);
            assert!(
                (series_strong - strong).abs() < 5e-4,
                "{threshold}: {series_strong} {strong}"
            );
        }
    }

    #[test]
    fn the_share_agrees_with_measurements() {
        // Measured on Linux 6.1: 0.000 %, 1.65 % and 97 %. Presets with 1 % and 8 %, correlated by 10 % and 25 %, lost
        // 0.035 % and 0.92 %.
        for (probability, correlation, from, to) in [
            (2.0, 25.0, 0.004, 0.008),
            (10.0, 25.0, 1.5, 1.8),
            (80.0, 50.0, 96.5, 97.5),
            (1.0, 10.0, 0.015, 0.04),
            (8.0, 25.0, 0.85, 1.0),
        ] {
            let share = random(probability, correlation).share().percent();
            assert!(
                (from..=to).contains(&share),
                "{probability}/{correlation}: {share}"
            );
        }
        let frozen = random(7.0, 100.0).share().percent();
        assert!((frozen - 7.0).abs() < 1e-6, "{frozen}");
    }

    #[test]
    fn loss_models_lose_their_mean() {
        let gilbert_elliott = |p, r, bad: f64, good| Loss::GilbertElliott {
            p: percent(p),
            r: percent(r),
            h: percent(bad).contrary(),
            k1: percent(good),
        };
        let share = |loss: Loss| {
            loss.share()
                .map(|share| (share.percent() * 1e4).round() / 1e4)
        };
        assert_eq!(share(gilbert_elliott(4.0, 46.0, 100.0, 0.0)), Some(8.0));
        assert_eq!(share(gilbert_elliott(1.0, 9.0, 50.0, 1.0)), Some(5.9));
        assert_eq!(share(gilbert_elliott(0.0, 0.0, 100.0, 0.0)), Some(0.0));
        assert_eq!(share(gilbert_elliott(1.0, 0.0, 70.0, 0.0)), Some(70.0));
        let four = |p13, p31, p32, p14, p23| Loss::FourState {
            p13: percent(p13),
            p31: percent(p31),
            p32: percent(p32),
            p14: percent(p14),
            p23: percent(p23),
        };
        assert_eq!(share(four(0.0, 0.0, 0.0, 25.0, 0.0)), Some(20.0));
        assert_eq!(share(four(1.0, 99.0, 0.0, 0.0, 100.0)), Some(1.0));
        assert_eq!(share(four(1.0, 50.0, 50.0, 0.0, 0.0)), Some(0.0));
        assert_eq!(share(four(1.0, 60.0, 50.0, 0.0, 0.0)), None);
        assert_eq!(share(four(1.0, 0.0, 0.0, 0.0, 0.0)), Some(100.0));
    }
}
