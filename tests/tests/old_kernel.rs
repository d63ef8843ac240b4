//! Tests of other suites on an older kernel: Linux 6.1 in a virtual machine, even if the kernel of this machine is older or has
//! netem.
//!
//! The binaries of those suites are used. A test that does not run there counts as failed.

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::time::SystemTime;

    use anyhow::Context;
    use tcgui_tests::netem_kernel::run_in_vm;

    /// Returns the newest binary of a suite, which was built together with this one.
    fn suite(name: &str) -> anyhow::Result<PathBuf> {
        let this = env::current_exe()?;
        let directory = this.parent().context("this program has no directory")?;
        let built = |path: &Path| -> Option<SystemTime> {
            let file = path.file_name()?.to_str()?;
            let hash = file.strip_prefix(name)?.strip_prefix('-')?;
            let is_program = hash.bytes().all(|byte| byte.is_ascii_hexdigit());
            fs::metadata(path)
                .ok()?
                .modified()
                .ok()
                .filter(|_| is_program)
        };
        let newest = fs::read_dir(directory)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter_map(|path| Some((built(&path)?, path)))
            .max();
        let (_, path) = newest
            .with_context(|| format!("no {name} beside {}: run scripts/test.sh", this.display()))?;
        Ok(path)
    }

    /// Runs these tests of a suite on the older kernel.
    fn run_tests(name: &str, tests: &[&str]) -> anyhow::Result<()> {
        let names: Vec<_> = tests.iter().map(|test| format!("tests::{test}")).collect();
        let names = names.iter().map(String::as_str);
        let arguments: Vec<_> = ["--exact"].into_iter().chain(names).collect();
        run_in_vm(&suite(name)?, &arguments, tests.len())
    }

    #[test]
    fn namespaces_on_an_older_kernel_in_a_vm() {
        run_tests(
            "namespace_rows",
            &[
                "row_01_first_namespace_of_a_fresh_boot",
                "row_02_directory_destroyed_again_and_again",
                "row_03_namespace_older_than_the_daemon",
                "row_05_bind_on_a_file_that_waited",
                "row_06_unmounted_with_the_file_left",
                "row_08_directory_covered_and_uncovered",
                "row_12_two_names_for_one_namespace",
                "row_13_names_of_every_kind",
            ],
        )
        .unwrap();
    }

    #[test]
    fn no_namespace_ids_are_left_on_an_older_kernel_in_a_vm() {
        run_tests(
            "no_trace",
            &[
                "commands_that_look_without_a_daemon_leave_no_ids",
                "namespace_ids_are_as_without_the_daemon_when_processes_are_looked_at",
                "the_observer_is_never_listed_and_ends_with_the_daemon",
            ],
        )
        .unwrap();
    }

    #[test]
    fn links_on_an_older_kernel_in_a_vm() {
        run_tests(
            "interfaces",
            &[
                "carrier_follows_the_other_end",
                "life_of_a_link_in_a_namespace_younger_than_the_daemon",
                "link_moves_between_namespaces",
            ],
        )
        .unwrap();
    }
}
