//! Impairments that end: on time, after a crash, by hand; in Linux 6.1 in User Mode Linux.
//!
//! The tests in [`inside`] are ignored by the test command, because the kernel of the machine may have
//! no netem. The ones here start this program again in the machine of `scripts/netem-vm.sh` and let it
//! run them; what does not run there is a failure. `scripts/crashes.sh` sets `TCGUI_CRASHES`.

#[cfg(test)]
#[path = "leases/inside.rs"]
mod inside;

#[cfg(test)]
#[path = "leases/crashes.rs"]
mod crashes;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tcgui_tests::machine::run_ignored;

    use super::crashes;

    /// Of the machine, and more for each crash.
    const LIMIT: Duration = Duration::from_secs(400);
    const CRASH: Duration = Duration::from_secs(10);

    #[test]
    fn impairments_end() {
        run_ignored("inside::", LIMIT).unwrap();
    }

    #[test]
    fn nothing_is_left_behind_by_a_crash() {
        let crashes = u32::try_from(crashes::count().unwrap()).unwrap();
        run_ignored("crashes::", LIMIT + CRASH * crashes).unwrap();
    }
}
