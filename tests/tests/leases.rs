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
    use std::env;
    use std::time::Duration;

    use tcgui_tests::machine::{count_tests, run_tests_within};
    use tcgui_tests::measure;

    use super::crashes;

    /// Of the machine, and more for each crash.
    const LIMIT: Duration = Duration::from_secs(400);
    const CRASH: Duration = Duration::from_secs(10);

    fn in_the_machine(module: &str, limit: Duration) {
        let program = env::current_exe().unwrap();
        let chosen = ["--ignored", module];
        let count = count_tests(&program, &chosen).unwrap();
        let output = run_tests_within(limit, &program, &chosen, count).unwrap();
        let measured = output.lines().filter(|line| line.contains("measured: "));
        for line in measured {
            measure::report(line).unwrap();
        }
    }

    #[test]
    fn impairments_end() {
        in_the_machine("inside::", LIMIT);
    }

    #[test]
    fn nothing_is_left_behind_by_a_crash() {
        let crashes = u32::try_from(crashes::count().unwrap()).unwrap();
        in_the_machine("crashes::", LIMIT + CRASH * crashes);
    }
}
