//! Failures on purpose, for the tests of what follows. A build without debug assertions has none of them.

use std::env;
use std::ffi::OsString;

/// Names the actor that panics one second after the start.
const FAIL_ACTOR: &str = "TCGUI_TEST_FAIL_ACTOR";
/// Names a namespace. The decision about its appearance panics halfway.
const FAIL_DECISION: &str = "TCGUI_TEST_FAIL_DECISION";

/// Returns the actor that is to panic.
pub(super) fn failing_actor() -> Option<OsString> {
    variable(FAIL_ACTOR)
}

/// Returns the namespace with which the main loop's decision is to panic.
pub(super) fn failing_namespace() -> Option<OsString> {
    variable(FAIL_DECISION)
}

fn variable(name: &str) -> Option<OsString> {
    if cfg!(debug_assertions) {
        env::var_os(name)
    } else {
        None
    }
}
