//! Bytes of netem.
