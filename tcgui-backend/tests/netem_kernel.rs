//! Traffic control on a kernel that has netem.
//!
//! The tests in [`bottleneck`], [`inside`], [`race`] and [`shares`] are ignored by `cargo test`,
//! because the kernel of the machine may have no netem. The tests here start this program again on such a kernel, through
//! `scripts/with-netem.sh`, and run them there. A test that does not run there has failed.

#[cfg(test)]
#[path = "netem_kernel/bottleneck.rs"]
mod bottleneck;
#[cfg(test)]
#[path = "common/configs.rs"]
mod configs;
#[cfg(test)]
#[path = "netem_kernel/inside.rs"]
mod inside;
#[cfg(test)]
#[path = "netem_kernel/race.rs"]
mod race;
#[cfg(test)]
#[path = "netem_kernel/shares.rs"]
mod shares;

#[cfg(test)]
mod tests {
    use std::env;
    use std::process::Command;

    const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/with-netem.sh");

    /// Time limit in seconds. A quiet machine with an emulated processor needs a quarter of it.
    const LIMIT: &str = "900";

    /// Runs ignored tests of this program through the script.
    fn run_ignored(filter: &str, options: &[&str]) {
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
            .args(options)
            .args(["--time", LIMIT, "--"])
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
        run_ignored("::with_netem::", &[]);
    }

    /// The test forbids loading modules. It runs in a virtual machine, because this machine may already have loaded the
    /// module.
    #[test]
    fn traffic_control_without_the_module_in_a_vm() {
        run_ignored("inside::without_netem::", &["--kernel", "vm"]);
    }
}
