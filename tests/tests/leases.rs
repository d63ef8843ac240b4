//! Impairments that end: on time, after a crash of the daemon, by hand. On a kernel that has netem.
//!
//! The tests in [`inside`], [`identity`], [`histories`] and [`crashes`] are ignored by `cargo test`, because the kernel of
//! the machine may have no netem. The tests here run them through `scripts/with-netem.sh`. A test that does not run there has failed.
//! `scripts/crashes.sh` sets `TCGUI_CRASHES`.

#[cfg(test)]
#[path = "leases/inside.rs"]
mod inside;

#[cfg(test)]
#[path = "leases/identity.rs"]
mod identity;

#[cfg(test)]
#[path = "leases/histories.rs"]
mod histories;

#[cfg(test)]
#[path = "leases/crashes.rs"]
mod crashes;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tcgui_tests::netem_kernel::{LIMIT, run_ignored};

    use super::crashes;

    /// Additional time limit for each crash.
    const CRASH: Duration = Duration::from_secs(30);

    #[test]
    fn impairments_end() {
        run_ignored("inside::", LIMIT).unwrap();
    }

    #[test]
    fn executions_and_leases_follow_their_links() {
        run_ignored("identity::", LIMIT).unwrap();
    }

    #[test]
    fn random_histories_leave_nothing_without_its_link() {
        run_ignored("histories::", LIMIT).unwrap();
    }

    #[test]
    fn nothing_is_left_behind_by_a_crash() {
        let crashes = u32::try_from(crashes::count().unwrap()).unwrap();
        run_ignored("crashes::", LIMIT + CRASH * crashes).unwrap();
    }
}
