//! Serialises and deserialises numbers.
//!
//! Floats need a check only when they are written, because JSON has no NaN and a literal beyond the range of `f64` is
//! refused. Integers need a check when they are read, so that the error contains the allowed range.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serializer};

/// Writes a mandatory float, with 0.0 in place of NaN and infinity.
///
/// serde_json would write `null`, and a frontend would discard the whole message. An `Option<f64>` needs no check, because `null`
/// is a valid value there.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serialize_with calls"
)]
pub(crate) fn finite<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(if value.is_finite() { *value } else { 0.0 })
}

/// An integer type that is read from JSON.
pub(crate) trait Bounded: Copy + fmt::Display + TryFrom<u64> + TryFrom<i64> {
    const LEAST: Self;
    const MOST: Self;
}

macro_rules! bounded {
    ($($integer:ty),+) => {
        $(impl Bounded for $integer {
            const LEAST: Self = <$integer>::MIN;
            const MOST: Self = <$integer>::MAX;
        })+
    };
}

bounded!(u32, u64, i32);

/// Reads an integer. The error for any other value contains the allowed range.
pub(crate) fn integer<'de, T: Bounded, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Integer::deserialize(deserializer).map(|Integer(integer)| integer)
}

/// The same as [`integer`] for an optional field. `null` is `None`.
pub(crate) fn optional_integer<'de, T: Bounded, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let integer = Option::<Integer<T>>::deserialize(deserializer)?;
    Ok(integer.map(|Integer(integer)| integer))
}

struct Integer<T>(T);

impl<'de, T: Bounded> Deserialize<'de> for Integer<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);

        impl<T: Bounded> Visitor<'_> for Reader<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an integer from {} to {}", T::LEAST, T::MOST)
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<T, E> {
                let error = |_| E::invalid_value(Unexpected::Unsigned(value), &self);
                T::try_from(value).map_err(error)
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<T, E> {
                let error = |_| E::invalid_value(Unexpected::Signed(value), &self);
                T::try_from(value).map_err(error)
            }
        }

        deserializer.deserialize_any(Reader(PhantomData)).map(Self)
    }
}
