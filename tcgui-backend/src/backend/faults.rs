//! Deliberate failures for tests. They exist only in builds with debug assertions.

use std::env;
use std::ffi::OsString;
use std::thread;

use super::state::Input;
use crate::namespace_watcher::NamespaceEvent;

/// Name of the actor that panics one second after the start.
const FAIL_ACTOR: &str = "TCGUI_TEST_FAIL_ACTOR";
/// Name of a namespace. The decision about its appearance panics halfway.
const FAIL_DECISION: &str = "TCGUI_TEST_FAIL_DECISION";

/// Name of a namespace. The main loop never returns from the decision about its appearance.
const HANG_DECISION: &str = "TCGUI_TEST_HANG_DECISION";

/// Returns the name of the actor that must panic.
pub(super) fn failing_actor() -> Option<OsString> {
    variable(FAIL_ACTOR)
}

/// Returns the name of the namespace at which the decision must panic.
pub(super) fn failing_namespace() -> Option<OsString> {
    variable(FAIL_DECISION)
}

/// Never returns if the main loop is to hang at this input.
pub(super) fn hang_at(input: &Input) {
    let Input::Namespace(NamespaceEvent::Added { name, .. }) = input else {
        return;
    };
    while variable(HANG_DECISION).as_ref() == Some(name) {
        thread::park();
    }
}

fn variable(name: &str) -> Option<OsString> {
    if cfg!(debug_assertions) {
        env::var_os(name)
    } else {
        None
    }
}
