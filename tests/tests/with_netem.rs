//! `scripts/with-netem.sh`: streams and status of the command, the choice of the kernel, and the clean-up.

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    use std::process::{Output, Stdio};
    use std::sync::{Mutex, MutexGuard, PoisonError};
    use std::time::{Duration, Instant};

    use anyhow::{Context, ensure};
    use nix::sys::signal::{Signal, killpg};
    use nix::unistd::Pid;
    use tcgui_tests::netem_kernel::{SCRIPT, cache_directory};
    use tcgui_tests::process::{Companion, bound_to_parent};
    use tcgui_tests::wait::wait_for;

    /// Time limit for the start or the end of a virtual machine, on a busy machine.
    const START: Duration = Duration::from_secs(120);

    /// The exit status if the command did not run to its end.
    const NOT_RUN: Option<i32> = Some(125);

    fn script(arguments: &[&str]) -> anyhow::Result<Output> {
        let output = bound_to_parent(SCRIPT)
            .args(arguments)
            .stdin(Stdio::null())
            .output()?;
        Ok(output)
    }

    /// Serialises these tests, because an emulated processor occupies all processors.
    fn one_at_a_time() -> MutexGuard<'static, ()> {
        static TURN: Mutex<()> = Mutex::new(());
        TURN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// Returns the kernel that this machine offers, so that each choice is tested if possible.
    fn chosen() -> anyhow::Result<String> {
        let output = script(&["--choose"])?;
        ensure!(output.status.success(), "{output:?}");
        Ok(text(&output.stdout).trim().to_owned())
    }

    #[test]
    fn output_status_environment_and_directory_pass_through_in_a_vm() -> anyhow::Result<()> {
        let _turn = one_at_a_time();
        let line = "uname -r; pwd; printf '%s|' \"$TCGUI_TEST_VALUE\" \"$@\"; echo;
            echo to standard error >&2; echo again >/dev/stderr; ip -br link; exit 7";
        let output = bound_to_parent(SCRIPT)
            .args(["--quiet", "--kernel", "vm", "--", "sh", "-c", line, "_"])
            .args(["two words", "a'quote", "grün*"])
            .env("TCGUI_TEST_VALUE", "line 1\nline 2 $HOME")
            .env("LC_ALL", "C.UTF-8")
            .current_dir("/usr/share")
            .stdin(Stdio::null())
            .output()?;
        ensure!(output.status.code() == Some(7), "{output:?}");
        ensure!(
            text(&output.stderr) == "to standard error\nagain\n",
            "{output:?}"
        );
        let stdout = text(&output.stdout);
        let (kernel, rest) = stdout.split_once('\n').context("no output")?;
        ensure!(kernel.starts_with("6."), "{kernel}");
        let expected = "/usr/share\nline 1\nline 2 $HOME|two words|a'quote|grün*|\nlo ";
        ensure!(rest.starts_with(expected), "{rest}");
        ensure!(rest.lines().count() == 4, "other links than lo: {rest}");
        Ok(())
    }

    #[test]
    fn a_signal_is_reported_by_the_exit_status_after_large_output_in_a_vm() -> anyhow::Result<()> {
        let _turn = one_at_a_time();
        // A process that is left behind does not keep the virtual machine running.
        let line = "seq 200000; sleep 1000 & kill -KILL $$";
        let output = script(&["--kernel", "vm", "--", "bash", "-c", line])?;
        ensure!(output.status.code() == Some(128 + 9), "{:?}", output.status);
        let stdout = text(&output.stdout);
        let wrong = stdout
            .lines()
            .zip(1..)
            .find(|(line, n)| *line != n.to_string());
        ensure!(
            stdout.lines().count() == 200_000 && wrong.is_none(),
            "{wrong:?}"
        );
        Ok(())
    }

    #[test]
    fn the_time_limit_ends_the_command_in_a_vm() -> anyhow::Result<()> {
        let _turn = one_at_a_time();
        let started = Instant::now();
        let output = script(&["--kernel", "vm", "--time", "3", "--", "sleep", "1000"])?;
        ensure!(output.status.code() == NOT_RUN, "{output:?}");
        let stderr = text(&output.stderr);
        ensure!(stderr.contains("still running after 3 s"), "{stderr}");
        ensure!(started.elapsed() < START, "{:?}", started.elapsed());
        Ok(())
    }

    #[test]
    fn an_early_end_is_an_error_in_a_vm() -> anyhow::Result<()> {
        let _turn = one_at_a_time();
        let crash = "echo c >/proc/sysrq-trigger; sleep 1000";
        for (arguments, message) in [
            // Not enough memory to boot.
            (
                ["--memory", "16M", "--", "true", "", ""],
                "without a status",
            ),
            (
                ["--memory", "512M", "--", "sh", "-c", crash],
                "without a status",
            ),
            (
                ["--memory", "much", "--", "true", "", ""],
                "without a status",
            ),
        ] {
            let mut options = vec!["--kernel", "vm", "--time", "100"];
            options.extend(arguments.iter().filter(|argument| !argument.is_empty()));
            let output = script(&options)?;
            ensure!(output.status.code() == NOT_RUN, "{options:?}: {output:?}");
            let stderr = text(&output.stderr);
            ensure!(stderr.contains(message), "{options:?}: {stderr}");
        }
        Ok(())
    }

    /// The next run tries again. An incomplete kernel is never used.
    #[test]
    fn a_failed_download_is_an_error_each_time() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let programs = directory.path().join("bin");
        fs::create_dir(&programs)?;
        for (name, line) in [
            ("apt-cache", "echo '  Depends: linux-image-6.1.0-0-test'"),
            ("apt-get", "exit 100"),
            ("qemu-system-x86_64", "exit 1"),
            ("qemu-system-aarch64", "exit 1"),
            ("modprobe", "exit 1"),
            ("busybox", "exit 1"),
        ] {
            let path = programs.join(name);
            fs::write(&path, format!("#!/bin/sh\n{line}\n"))?;
            fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        }
        let path = format!("{}:{}", programs.display(), env::var("PATH")?);
        let target = directory.path().join("target");
        for _ in 0..2 {
            let output = bound_to_parent(SCRIPT)
                .args(["--kernel", "vm", "--", "true"])
                .env("PATH", &path)
                .env("CARGO_TARGET_DIR", &target)
                .stdin(Stdio::null())
                .output()?;
            ensure!(output.status.code() == NOT_RUN, "{output:?}");
            let stderr = text(&output.stderr);
            ensure!(
                stderr.contains("the kernel of linux-image-") && stderr.contains("is missing"),
                "{stderr}"
            );
            ensure!(!target.join("with-netem/complete").exists(), "{stderr}");
        }
        Ok(())
    }

    #[test]
    fn wrong_options_are_refused() -> anyhow::Result<()> {
        for (arguments, message) in [
            (&["--kernel", "uml", "--", "true"][..], "unknown kernel uml"),
            (&["--time", "soon", "--", "true"], "not a number of seconds"),
            (
                &["--writable", "/absent", "--", "true"],
                "not a directory: /absent",
            ),
            (&["--strange"], "unknown option --strange"),
            (&["--kernel"], "needs a value"),
            (&[], "no command"),
        ] {
            let output = script(arguments)?;
            ensure!(output.status.code() == NOT_RUN, "{output:?}");
            let stderr = text(&output.stderr);
            ensure!(stderr.contains(message), "{arguments:?}: {stderr}");
        }
        let output = bound_to_parent(SCRIPT)
            .args(["--", "true"])
            .env("TCGUI_NETEM_KERNEL", "uml")
            .output()?;
        ensure!(output.status.code() == NOT_RUN, "{output:?}");
        ensure!(
            text(&output.stderr).contains("TCGUI_NETEM_KERNEL is uml"),
            "{output:?}"
        );
        Ok(())
    }

    #[test]
    fn each_kernel_is_used_or_refused_with_the_reason_in_a_vm() -> anyhow::Result<()> {
        let _turn = one_at_a_time();
        let chosen = chosen()?;
        for (kernel, refusal) in [
            ("host", ["has no sch_netem", "sch_netem is not loaded"]),
            ("kvm", ["KVM does not work", "KVM does not work"]),
        ] {
            let output = script(&[
                "--kernel", kernel, "--", "tc", "qdisc", "add", "dev", "lo", "root", "netem",
            ])?;
            let stderr = text(&output.stderr);
            if output.status.success() {
                ensure!(stderr.contains(&format!("kernel {kernel}: ")), "{stderr}");
                continue;
            }
            ensure!(
                kernel != chosen,
                "{kernel} was chosen, and then: {output:?}"
            );
            ensure!(output.status.code() == NOT_RUN, "{output:?}");
            ensure!(
                refusal.iter().any(|reason| stderr.contains(reason)),
                "{stderr}"
            );
        }
        // TCG emulates the processor on every machine. The environment variable has the same effect as the option.
        let output = bound_to_parent(SCRIPT)
            .args(["--", "tc", "qdisc", "add", "dev", "lo", "root", "netem"])
            .env("TCGUI_NETEM_KERNEL", "tcg")
            .output()?;
        ensure!(output.status.success(), "{output:?}");
        ensure!(
            text(&output.stderr).contains("kernel tcg: Linux 6."),
            "{output:?}"
        );
        Ok(())
    }

    /// The kernel in the virtual machine has netem. Therefore the script uses it as the kernel of "this machine".
    #[test]
    fn a_kernel_with_netem_is_used_in_a_vm() -> anyhow::Result<()> {
        let _turn = one_at_a_time();
        let inside = format!(
            "set -e
            unset TCGUI_NETEM_KERNEL
            ip link add seen type dummy
            status=0
            {SCRIPT} -- bash -c 'ip -br link; echo $$; touch /run/a /tmp/a; echo error >&2; sleep 1000 & exit 7' || status=$?
            echo \"status $status\"
            ls /run/a /tmp/a 2>/dev/null || echo private
            pgrep -x sleep || echo ended
            status=0; {SCRIPT} --time 2 -- sleep 1000 || status=$?
            echo \"status $status\"
            status=0; {SCRIPT} --kernel host -- timeout 1 sleep 1000 || status=$?
            echo \"status $status\"
            status=0; {SCRIPT} --kernel host -- bash -c 'kill -TERM $$' || status=$?
            echo \"status $status\""
        );
        let output = script(&["--quiet", "--kernel", "vm", "--", "bash", "-c", &inside])?;
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        ensure!(output.status.success(), "{stdout}{stderr}");
        ensure!(
            stderr.contains("kernel host: Linux 6.") && stderr.contains("it has netem"),
            "{stderr}"
        );
        ensure!(stderr.contains("\nerror\n"), "{stderr}");
        ensure!(stderr.contains("still running after 2 s"), "{stderr}");
        let lines: Vec<_> = stdout.lines().collect();
        ensure!(
            lines[0].starts_with("lo ") && lines[0].contains("LOOPBACK,UP"),
            "{stdout}"
        );
        let expected = [
            "status 7",
            "private",
            "ended",
            "status 125",
            "status 124",
            "status 143",
        ];
        ensure!(lines[2..] == expected, "{stdout}");
        Ok(())
    }

    /// Returns whether a virtual machine with this amount of memory runs. The amount identifies the machine of a test.
    fn machine_runs(memory: &str) -> anyhow::Result<bool> {
        let is_marked = |arguments: &[u8]| {
            let mut words = arguments.split(|byte| *byte == 0);
            arguments.starts_with(b"qemu-system") && words.any(|word| word == memory.as_bytes())
        };
        let mut found = false;
        for process in fs::read_dir("/proc")?.flatten() {
            let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
            found |= is_marked(&arguments);
        }
        Ok(found)
    }

    fn wait_machine(memory: &str, runs: bool) -> anyhow::Result<()> {
        let look = || machine_runs(memory);
        let what = format!("the virtual machine runs: {runs}");
        wait_for(&what, START, look, |it| {
            it.as_ref().is_ok_and(|it| *it == runs)
        })??;
        Ok(())
    }

    #[test]
    fn nothing_is_left_behind_after_sigkill_in_a_vm() -> anyhow::Result<()> {
        let _turn = one_at_a_time();
        const MEMORY: &str = "517M";
        let started = Companion::start(
            bound_to_parent(SCRIPT)
                .args(["--kernel", "vm", "--memory", MEMORY, "--", "sleep", "1000"])
                .stderr(Stdio::null()),
        )?;
        wait_machine(MEMORY, true)?;
        started.kill()?;
        wait_machine(MEMORY, false)?;
        // The files of a run are unlinked once it has started.
        let cache = cache_directory()?;
        let left: Vec<_> = fs::read_dir(&cache)?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|it| it.len() == 6))
            .collect();
        let are_gone = |_: &()| !left.iter().any(|path| path.exists());
        wait_for("files of runs that begin are gone", START, || (), are_gone)
    }

    #[test]
    fn an_interrupt_from_the_terminal_ends_the_command_in_a_vm() -> anyhow::Result<()> {
        let _turn = one_at_a_time();
        const MEMORY: &str = "518M";
        // Without a terminal, the signal may be ignored. A shell cannot change that.
        let mut script = bound_to_parent("env")
            .args(["--default-signal=INT", SCRIPT, "--kernel", "vm"])
            .args(["--memory", MEMORY, "--", "sleep", "1000"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        wait_machine(MEMORY, true)?;
        killpg(Pid::from_raw(i32::try_from(script.id())?), Signal::SIGINT)?;
        let status = wait_for(
            "the script ends",
            START,
            || script.try_wait().ok().flatten(),
            Option::is_some,
        )?;
        ensure!(status.and_then(|it| it.code()) == Some(130), "{status:?}");
        wait_machine(MEMORY, false)
    }
}
