//! Decides which lease is in force after a change that failed. Pure.

use super::Lease;
use crate::tc::observed::Root;

/// The lease that is in force, and the necessary change of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AfterFailure {
    /// The earlier lease. Its file is still correct. `None`: there is no lease and no file.
    AsBefore(Option<Lease>),
    /// This lease, which must be written.
    Write(Lease),
    /// No lease. The file that was written for the change must be removed.
    Erase(Lease),
}

/// Decides after a failure. The earlier lease applies if the root is the same as before the change, or if another
/// program has replaced it.
///
/// `held` is the earlier lease, `recorded` the lease that was written for the change. `before` is the root before the
/// change (`None`: the change was refused before it began). `after` is the current root (`None`: it cannot be read).
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

/// Returns whether another program has installed the root in the meantime. Then the change has not taken effect: before
/// it replaces a foreign root, it only changes its parameters.
fn is_of_others(before: &Root, after: &Root) -> bool {
    let is_foreign = matches!(after, Root::Foreign(_) | Root::ForeignNetem { .. });
    is_foreign && after.handle() != before.handle()
}

fn is_same(before: &Root, after: &Root) -> bool {
    let is_nothing = |root: &Root| matches!(root, Root::Absent | Root::Default { .. });
    before == after || (is_nothing(before) && is_nothing(after))
}
