//! Traffic control, decisions.
