//! The network-impairment daemon as a library. The binary only starts it.
//!
//! Data flows one way: kernel → [`namespace_watcher`], `interfaces` → `backend` (the main select loop)
//! → `bus` → frontends. Decisions are pure functions of `(input, now)`; actors own resources.
//!
//! Without default features only the namespace watcher is built. It serves programs that only need the named network namespaces.

#[cfg(feature = "daemon")]
pub mod backend;
#[cfg(feature = "daemon")]
pub mod bandwidth;
#[cfg(feature = "daemon")]
mod blocking;
#[cfg(feature = "daemon")]
pub mod bus;
#[cfg(feature = "daemon")]
pub mod cli;
#[cfg(feature = "daemon")]
pub mod client;
mod clock;
#[cfg(feature = "daemon")]
pub mod config;
#[cfg(feature = "daemon")]
pub mod containers;
#[cfg(feature = "daemon")]
pub mod diagnostics;
#[cfg(feature = "daemon")]
pub mod doctor;
#[cfg(feature = "daemon")]
pub mod document;
pub mod error;
#[cfg(feature = "daemon")]
pub mod execution;
mod exit_watches;
#[cfg(feature = "daemon")]
pub mod explain;
#[cfg(feature = "daemon")]
pub mod interfaces;
pub mod kernel;
#[cfg(feature = "daemon")]
pub mod lease;
#[cfg(feature = "daemon")]
pub mod library;
#[cfg(feature = "daemon")]
pub mod listing;
pub mod namespace_watcher;
#[cfg(feature = "daemon")]
pub mod netns_holders;
mod pacing;
#[cfg(feature = "daemon")]
pub mod policy;
#[cfg(feature = "daemon")]
pub mod preset;
#[cfg(feature = "daemon")]
pub mod processes;
#[cfg(feature = "daemon")]
pub mod scenario;
#[cfg(feature = "daemon")]
pub mod service_manager;
#[cfg(feature = "daemon")]
pub mod sockets;
#[cfg(feature = "daemon")]
pub mod standalone;
#[cfg(feature = "daemon")]
pub mod tc;
#[cfg(feature = "daemon")]
pub mod telemetry;
#[cfg(feature = "daemon")]
mod token_bucket;
#[cfg(feature = "daemon")]
pub mod unix_socket;
