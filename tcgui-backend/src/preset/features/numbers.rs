//! The two keys of a rate. If a value has the wrong type, the error names the key that accepts this type.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use tcgui_shared::netem::RateKbps;

/// `rate`: a text with a unit.
#[derive(Debug)]
pub(super) struct RateText(pub(super) String);

/// `rate_kbps`: a number.
#[derive(Debug)]
pub(super) struct FileKbps(pub(super) RateKbps);

impl<'de> Deserialize<'de> for RateText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Reader {
            fn number<E: Error>(number: impl fmt::Display) -> E {
                E::custom(format!(
                    "{number} has no unit; write a text such as \"10mbit\", or a number of kbit/s in rate_kbps"
                ))
            }
        }

        impl Visitor<'_> for Reader {
            type Value = RateText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text such as \"10mbit\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<RateText, E> {
                Ok(RateText(text.to_owned()))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<RateText, E> {
                Err(Self::number(number))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<RateText, E> {
                Err(Self::number(number))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<RateText, E> {
                Err(Self::number(number))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

impl<'de> Deserialize<'de> for FileKbps {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = FileKbps;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number in kbit/s")
            }

            #[expect(clippy::cast_precision_loss, reason = "larger numbers are refused")]
            fn visit_u64<E: Error>(self, kbps: u64) -> Result<FileKbps, E> {
                self.visit_f64(kbps as f64)
            }

            #[expect(clippy::cast_precision_loss, reason = "all of them are refused")]
            fn visit_i64<E: Error>(self, kbps: i64) -> Result<FileKbps, E> {
                self.visit_f64(kbps as f64)
            }

            fn visit_f64<E: Error>(self, kbps: f64) -> Result<FileKbps, E> {
                RateKbps::new(kbps).map(FileKbps).map_err(E::custom)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<FileKbps, E> {
                let text = crate::document::shortened(text.to_owned());
                Err(E::custom(format!(
                    "{text:?} is a text, not a number in kbit/s; a text with a unit belongs in rate"
                )))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}
