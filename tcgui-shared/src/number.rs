//! Serialises numbers in a form that JSON can represent.
//!
//! Deserialisation needs no check: JSON has no NaN, and a literal beyond the range of `f64` is refused.

use serde::Serializer;

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
