//! Traffic control: compares a request with the qdiscs of a link, and makes the change between the two.
//!
//! ```text
//!  TcOperation ──desired──▶ Netem ─┐
//!                                  ├─plan──▶ Plan ──perform──▶ kernel ──read back──▶ Outcome ──report──▶ wire
//!  kernel ──────observed──▶ Root ──┘
//! ```
//!
//! All modules except [`perform`] are pure. No state is kept between two operations. The [`handle`] of a netem shows
//! that the daemon configured it, and which distribution tables it has.

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
