//! Random numbers from a seed, so that a failure can be reproduced.

use std::env;
use std::time::SystemTime;

use anyhow::Context;

/// SplitMix64. Every seed is suitable.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Returns the sequence for this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below the limit, which must not be 0.
    pub fn below(&mut self, limit: usize) -> usize {
        // The remainder is below a usize.
        usize::try_from(self.bits() % limit as u64).unwrap_or_default()
    }

    /// One of these elements. There must be at least one.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// This number of bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count.div_ceil(8))
            .flat_map(|_| self.bits().to_le_bytes())
            .take(count)
            .collect()
    }
}

/// A number from the environment. `None` if the variable is not set.
///
/// # Errors
///
/// When its value is not a number.
pub fn number(variable: &str) -> anyhow::Result<Option<u64>> {
    let Some(text) = env::var_os(variable) else {
        return Ok(None);
    };
    let number = text.to_str().and_then(|text| text.parse().ok());
    number
        .map(Some)
        .with_context(|| format!("{variable} is not a number: {}", text.display()))
}

/// A seed from the clock.
///
/// # Errors
///
/// When the clock is set before 1970.
pub fn any_seed() -> anyhow::Result<u64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let mut random = Random::new(now.as_secs() << 30 | u64::from(now.subsec_nanos()));
    // 32 bits are short enough to be typed.
    Ok(random.bits() >> 32)
}
