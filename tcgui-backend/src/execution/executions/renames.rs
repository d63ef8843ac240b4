//! Renames of the interface or namespace of an execution. Pure.

use tcgui_shared::names::NamespaceName;
use tcgui_shared::scenario::{ExecutionState, ScenarioExecution};

use super::{Executions, Outgoing};
use crate::execution::InterfaceNames;
use crate::kernel::netns::NetnsKey;

impl Executions {
    /// Renames the executions of a namespace.
    pub(super) fn rename_namespace(&mut self, netns: NetnsKey, name: &NamespaceName) {
        let here = self.by_key.iter().filter(|(key, _)| key.netns == netns);
        let numbers: Vec<_> = here.map(|(_, number)| *number).collect();
        for number in numbers {
            self.rename(number, |names| names.netns = name.clone());
        }
    }

    /// Continues an execution under new names. Another interface may have the old names by now. Under the old names the execution
    /// is published as stopped, and then its publisher is removed.
    pub(super) fn rename(&mut self, number: u64, rename: impl FnOnce(&mut InterfaceNames)) {
        let Some(execution) = self.all.get_mut(&number) else {
            return;
        };
        let old = execution.claim.target.names.clone();
        rename(&mut execution.claim.target.names);
        let new = execution.claim.target.names.clone();
        if new == old {
            return;
        }
        let begun = execution.machine.has_begun();
        if self.by_names.get(&old) == Some(&number) {
            self.by_names.remove(&old);
            if self.published.remove(&old).is_some() {
                let stopped = ScenarioExecution {
                    state: ExecutionState::Stopped,
                    ..execution.machine.snapshot(&old)
                };
                self.outbox
                    .insert(old, Outgoing::TakenBack(Box::new(stopped)));
            }
        }
        self.by_names.insert(new.clone(), number);
        if begun {
            self.published.insert(new.clone(), None);
            self.outbox.insert(new, Outgoing::Live(number));
        }
    }
}
