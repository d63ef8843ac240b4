//! Traffic control over the wire, on a kernel that has netem: Linux 6.1 in User Mode Linux.
//!
//! The tests in [`inside`] are ignored by the test command, because the kernel of the machine may have
//! no netem. The one here starts this program again in the machine of `scripts/netem-vm.sh` and lets it
//! run them; what does not run there is a failure.

#[cfg(test)]
#[path = "netem/inside.rs"]
mod inside;

#[cfg(test)]
mod tests {
    use tcgui_tests::machine;

    #[test]
    fn frontends_impair_interfaces() {
        machine::run_ignored("inside::", machine::LIMIT).unwrap();
    }
}
