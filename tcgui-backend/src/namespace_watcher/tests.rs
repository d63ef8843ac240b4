//! The actor over a real directory and a real kernel, and its life with tasks and tokens.
