//! Killed after any request of any change: what was there before comes back, on the small kernel of `tc`.

use proptest::prelude::*;

use super::super::restore::Restored;
use super::super::terms::Grant;
use super::*;
use crate::tc::handle;
use crate::tc::plan::{ForeignQdiscs, plan, steps};
use crate::tc::tests::plan::{Kernel, netem, roots};

/// Changes the root under a lease, up to a number of requests; `None` when it is refused.
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

/// The handle of the root; ours are all the same to others.
fn handle(kernel: &Kernel) -> Option<u32> {
    let handle = kernel.observed().root.handle();
    Some(handle).filter(|handle| handle::tables(*handle).is_none())
}

proptest! {
    #[test]
    fn what_was_there_before_comes_back(
        root in roots(),
        first in prop::option::of(netem()),
        wishes in prop::collection::vec(prop::option::of(netem()), 1..4),
        requests in 0..4_usize,
    ) {
        let mut kernel = Kernel::new(root);
        // Something without an end, perhaps; with four requests nothing is cut off.
        if first.is_some() {
            change(&mut kernel, None, first, 4);
        }
        let before = (kernel.in_force(), handle(&kernel));
        let mut lease = None;
        for (number, wanted) in (1..).zip(&wishes) {
            let is_last = number == wishes.len();
            let requests = if is_last { requests } else { 4 };
            // Somebody else's tree is not replaced.
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
