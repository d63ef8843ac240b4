//! Which lease is in force after a change that failed. Pure.

use super::Lease;
use crate::tc::observed::Root;

/// The lease that is in force, and what its file has to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AfterFailure {
    /// The lease of before, which the file still describes; `None`: none, and there is no file.
    AsBefore(Option<Lease>),
    /// This lease, which has to be written.
    Write(Lease),
    /// No lease. The file that was written for the change has to go.
    Erase(Lease),
}

/// Decides after a failure: if the root is as before the change, or another program has replaced it, the lease is as
/// before.
///
/// `held` is the lease of before, `recorded` the one that was written for the change. `before` is the root that the
/// change began with (`None`: it was refused before it began), `after` the root now (`None`: it cannot be read).
pub fn after_failure(
    held: Option<&Lease>,
    recorded: Option<Lease>,
    before: Option<&Root>,
    after: Option<&Root>,
) -> AfterFailure {
    let is_unchanged = match (before, after) {
        (None, _) => true,
        (Some(before), Some(after)) => is_same(before, after) || is_of_others(before, after),
        (Some(_), None) => false,
    };
    match (recorded, held) {
        (None, None) => AfterFailure::AsBefore(None),
        (None, Some(held)) if is_unchanged => AfterFailure::AsBefore(Some(held.clone())),
        (Some(_), Some(held)) if is_unchanged => AfterFailure::Write(held.clone()),
        (Some(recorded), None) if is_unchanged => AfterFailure::Erase(recorded),
        (recorded, held) => match recorded.or_else(|| held.cloned()) {
            Some(mut lease) => {
                if let Some(Root::Own { netem, .. }) = after {
                    lease.may_be(Some(*netem));
                }
                AfterFailure::Write(lease)
            }
            None => AfterFailure::AsBefore(None),
        },
    }
}

/// Returns whether another program has installed the root meanwhile. Then the change has not taken effect: all that
/// it does to a root of others before it replaces it is to change its parameters.
fn is_of_others(before: &Root, after: &Root) -> bool {
    let is_foreign = matches!(after, Root::Foreign(_) | Root::ForeignNetem { .. });
    is_foreign && after.handle() != before.handle()
}

fn is_same(before: &Root, after: &Root) -> bool {
    let is_nothing = |root: &Root| matches!(root, Root::Absent | Root::Default { .. });
    before == after || (is_nothing(before) && is_nothing(after))
}
