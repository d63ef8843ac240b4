//! Traffic control: what is asked for against what is there, and the step between the two.
//!
//! ```text
//!  TcOperation ──desired──▶ Netem ─┐
//!                                  ├─plan──▶ Plan ──perform──▶ kernel ──read back──▶ Outcome ──report──▶ wire
//!  kernel ──────observed──▶ Root ──┘
//! ```
//!
//! All but [`perform`] is pure. Nothing is remembered between two operations: what is needed to tell our
//! own netem, and which distribution tables it has, is in its [`handle`].

pub mod desired;
pub mod error;
pub mod handle;
pub mod note;
pub mod observed;
pub mod perform;
pub mod plan;
pub mod report;
#[cfg(test)]
pub(crate) mod tests;
