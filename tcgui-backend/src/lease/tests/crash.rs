//! Crashes after any request of any change. The earlier state must be restored, in the kernel model of `tc`.

use proptest::prelude::*;

use super::super::restore::Restored;
use super::super::terms::Grant;
use super::*;
use crate::tc::handle;
use crate::tc::plan::{ForeignQdiscs, plan, steps};
use crate::tc::tests::plan::{Kernel, netem, roots};

/// Changes the root under a lease, and stops after a number of requests. `None`: the change is refused.
fn change(
    kernel: &mut Kernel,
    held: Option<&Lease>,
    wanted: Option<Netem>,
    requests: usize,
) -> Option<Lease> {
    let observed = kernel.observed();
    let plan = plan(wanted.as_ref(), &observed, ForeignQdiscs::Keep).ok()?;
    let grant = Grant {
        owner: Owner::Plain,
        expires: Some(at(10)),
        confirm_by: None,
        holder: LeaseHolder::default(),
    };
    let of = (NETNS, 3, "far".to_owned());
    let mut lease = Lease::record(held, of, &observed, wanted, grant);
    let steps = steps(plan, wanted.as_ref(), &observed);
    for step in steps.iter().take(requests) {
        assert_eq!(kernel.take(step), Ok(()), "{step:?} on {observed:?}");
    }
    if requests >= steps.len() {
        lease.set = vec![kernel.observed().netem().copied()];
    }
    Some(lease)
}

/// Returns the handle of the root. `None`: it is a handle of the daemon, and the test accepts any of them.
fn handle(kernel: &Kernel) -> Option<u32> {
    let handle = kernel.observed().root.handle();
    Some(handle).filter(|handle| handle::tables(*handle).is_none())
}

proptest! {
    #[test]
    fn the_earlier_state_is_restored_after_a_crash(
        root in roots(),
        first in prop::option::of(netem()),
        wishes in prop::collection::vec(prop::option::of(netem()), 1..4),
        requests in 0..4_usize,
    ) {
        let mut kernel = Kernel::new(root);
        // Optionally begin with a change without a lease. Four requests are enough to complete it.
        if first.is_some() {
            change(&mut kernel, None, first, 4);
        }
        let before = (kernel.in_force(), handle(&kernel));
        let mut lease = None;
        for (number, wanted) in (1..).zip(&wishes) {
            let is_last = number == wishes.len();
            let requests = if is_last { requests } else { 4 };
            // A tree of another program is not replaced.
            if let Some(changed) = change(&mut kernel, lease.as_ref(), *wanted, requests) {
                lease = Some(changed);
            }
        }
        let Some(lease) = lease else {
            return Ok(());
        };
        let (restored, steps) = decide(&lease, &kernel.observed());
        prop_assert!(!matches!(restored, Restored::Left { .. }), "{restored} of {lease:?}");
        for step in &steps {
            prop_assert_eq!(kernel.take(step), Ok(()), "{:?}", step);
        }
        prop_assert_eq!((kernel.in_force(), handle(&kernel)), before);
        let (again, steps) = decide(&lease, &kernel.observed());
        prop_assert_eq!((again, steps.len()), (Restored::Already, 0));
    }
}
