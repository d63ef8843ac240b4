//! The wire contract between tcgui-backend and its frontends.
//!
//! A backend publishes the current state (interfaces, counters, netem configurations, running scenarios) and answers queries that
//! change it. All messages are UTF-8 JSON over Zenoh. This crate contains the names, the key expressions and the messages. It
//! does no I/O and does not depend on Zenoh.
//!
//! Frontends of the releases 0.4 to 0.8 read these messages. Therefore field names, enum spellings and units are fixed. These
//! rules hold for every message:
//!
//! - unknown fields of an object are ignored, so that either side can be newer;
//! - an `Option` is written as `null` and may be absent when read;
//! - an integer field refuses `1.0`, a float field accepts `1`;
//! - a float that is not finite is never sent, because JSON cannot represent it and a frontend discards a message in which a
//!   mandatory number is `null` (see [`bandwidth::BandwidthStats`]). A mandatory field is written as 0.0, an optional one as
//!   `null`;
//! - times are seconds since the Unix epoch, or milliseconds if the documentation says so;
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
//! | [`state`] | what is in force, until when, and who set it | query |
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
pub mod number;
pub mod preset;
pub mod scenario;
pub mod state;
pub mod tc;
