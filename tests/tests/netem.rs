//! Traffic control over the wire, on a kernel that has netem.
//!
//! The tests in [`inside`] are ignored by `cargo test`, because the kernel of the machine may have no netem. The test
//! here runs them through `scripts/with-netem.sh`. A test that does not run there has failed.

#[cfg(test)]
#[path = "netem/inside.rs"]
mod inside;

#[cfg(test)]
mod tests {
    use tcgui_tests::netem_kernel::{LIMIT, run_ignored};

    #[test]
    fn frontends_impair_interfaces() {
        run_ignored("inside::", LIMIT).unwrap();
    }
}
