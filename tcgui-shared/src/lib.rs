//! The wire contract between tcgui-backend and its frontends.
//!
//! A backend publishes what exists (interfaces, counters, netem configurations, running scenarios)
//! and answers queries that change it. All of that crosses Zenoh as UTF-8 JSON. This crate holds
//! the names, the key expressions and the messages; it does no I/O and knows no Zenoh.
//!
//! Frontends of the releases 0.4 to 0.8 read these messages, so field names, enum spellings and
//! units are fixed. Rules that hold for every message:
//!
//! - an object ignores the fields it does not know, so that either side can be newer;
//! - an `Option` is written as `null` and may be absent when read;
//! - an integer field refuses `1.0`, a float field accepts `1`;
//! - a float that is not finite never leaves: JSON has no word for it, and a frontend discards a
//!   message in which a mandatory number is `null` (see [`bandwidth::BandwidthStats`]). A
//!   mandatory field writes 0.0 in its place, an optional one `null`;
//! - times are seconds since the Unix epoch, or milliseconds where the documentation says so;
//! - names in messages are plain strings, the *wire text* of the types in [`names`].
//!
//! | module | messages | direction |
//! |---|---|---|
//! | [`names`] | validated names, their wire text and their key chunk | |
//! | [`keys`] | every key expression | |
//! | [`interface`] | namespaces and interfaces that exist | published |
//! | [`bandwidth`] | interface counters and rates | published |
//! | [`health`] | the state of the backend itself | published |
//! | [`netem`] | a netem configuration, flat and structured | part of others |
//! | [`tc`] | configurations and counters; apply and remove | published, query |
//! | [`control`] | interface up and down | query |
//! | [`diagnostics`] | reachability and latency | query |
//! | [`explain`] | why a namespace is or is not shown | query |
//! | [`preset`] | named netem configurations | published |
//! | [`scenario`] | sequences of netem configurations and their execution | published, query |
//! | [`error_kind`] | why an operation failed | part of replies |

#![warn(missing_docs)]

pub mod bandwidth;
pub mod control;
pub mod diagnostics;
pub mod error_kind;
pub mod explain;
pub mod health;
pub mod interface;
pub mod keys;
pub mod names;
pub mod netem;
pub mod preset;
pub mod scenario;
pub mod tc;

mod number;
