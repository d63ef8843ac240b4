//! Traffic control on a kernel that has netem: Linux 6.1 in User Mode Linux.
//!
//! The tests in [`inside`] are ignored by the test command, because the kernel of the machine may have no
//! netem and its links are none of theirs. The one test here starts this program again in the machine
//! of `scripts/netem-vm.sh` and lets it run them; what does not run there is a failure.

#[cfg(test)]
#[path = "common/configs.rs"]
mod configs;
#[cfg(test)]
#[path = "netem_kernel/inside.rs"]
mod inside;

#[cfg(test)]
mod tests {
    use std::env;
    use std::process::Command;

    const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/netem-vm.sh");

    /// Of the machine, in seconds; it needs a tenth of it when nothing else runs.
    const LIMIT: &str = "500";

    /// Runs tests of this program in a machine of their own.
    fn in_the_machine(filter: &str) {
        let program = env::current_exe().unwrap();
        let arguments = ["--ignored", "--test-threads=1", "--color=never", filter];
        let listed = Command::new(&program)
            .args(arguments)
            .arg("--list")
            .output()
            .unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let count = listed.lines().filter(|l| l.ends_with(": test")).count();
        assert!(count > 0, "no tests of {filter}: {listed}");
        let output = Command::new(SCRIPT)
            .args(["-t", LIMIT, "--"])
            .arg(&program)
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains(&format!("test result: ok. {count} passed")),
            "{}: {text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }

    #[test]
    fn traffic_control_on_a_kernel_with_netem() {
        in_the_machine("inside::with_netem::");
    }

    #[test]
    fn traffic_control_on_a_kernel_without_the_module() {
        in_the_machine("inside::without_netem::");
    }
}
