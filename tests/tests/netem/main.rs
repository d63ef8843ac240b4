//! The daemon end to end on a kernel that has netem.
//!
//! The tests in [`tc`], [`rates`], [`scenario`] and [`leases`] are ignored by `cargo test`, because the kernel of the machine may have
//! no netem. The tests here run them through `scripts/with-netem.sh`, two at a time. A test that does not run there has
//! failed.

#[cfg(test)]
mod leases;
#[cfg(test)]
mod pair;
#[cfg(test)]
mod rates;
#[cfg(test)]
mod scenario;
#[cfg(test)]
mod tc;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tcgui_tests::netem_kernel::{LIMIT, run_ignored};

    use super::leases::crashes;

    /// Additional time limit for each crash.
    const CRASH: Duration = Duration::from_secs(30);

    #[test]
    fn frontends_impair_interfaces() {
        run_ignored("tc::", LIMIT).unwrap();
    }

    #[test]
    fn rates_of_others_and_of_changed_links() {
        run_ignored("rates::", LIMIT).unwrap();
    }

    #[test]
    fn frontends_run_scenarios() {
        run_ignored("scenario::", LIMIT).unwrap();
    }

    #[test]
    fn leases_end() {
        run_ignored("leases::inside::", LIMIT).unwrap();
    }

    #[test]
    fn leases_and_executions_follow_their_links() {
        run_ignored("leases::identity::", LIMIT).unwrap();
    }

    #[test]
    fn leases_after_random_histories_of_links() {
        run_ignored("leases::histories::", LIMIT).unwrap();
    }

    #[test]
    fn leases_after_crashes() {
        let crashes = u32::try_from(crashes::count().unwrap()).unwrap();
        run_ignored("leases::crashes::", LIMIT + CRASH * crashes).unwrap();
    }
}
