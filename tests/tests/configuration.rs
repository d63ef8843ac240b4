//! The configuration of the real daemon: files, environment and command line, and SIGHUP.

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::path::Path;
    use std::process::{Command, Output};
    use std::time::Duration;

    use anyhow::{Context, ensure};
    use nix::sys::signal::Signal;
    use serde_json::{Value, json};
    use tcgui_tests::links::attribute;
    use tcgui_tests::scene::{SOON, Scene};
    use tcgui_tests::wait::{holds_for, wait_for};
    use tcgui_tests::{daemon, lab_test, netns};

    /// Wide limit for commands on any machine.
    const DEADLINE: Duration = Duration::from_secs(10);
    /// Long enough to see a change that must not be made.
    const A_WHILE: Duration = Duration::from_millis(300);
    const FILE: &str = "/run/etc/backend.toml";
    const DROP_IN: &str = "/run/etc/backend.d/lab.toml";
    const FAR: (&str, &str) = ("blue", "far");

    /// Writes a file that only root can change.
    fn write(path: &str, text: &str) -> anyhow::Result<()> {
        if let Some(directory) = Path::new(path).parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(path, text)?;
        Ok(fs::set_permissions(path, Permissions::from_mode(0o644))?)
    }

    /// Runs a command of the program with the configuration file.
    fn run(args: &[&str]) -> anyhow::Result<Output> {
        let args = [&["--config", FILE], args].concat();
        let args: Vec<_> = args.iter().map(OsStr::new).collect();
        daemon::run(&[], &args, DEADLINE)
    }

    fn text(output: &Output) -> String {
        let of = |bytes| String::from_utf8_lossy(bytes).into_owned();
        of(&output.stdout) + &of(&output.stderr)
    }

    /// Checks the exit status and the words that the output must contain.
    fn says(args: &[&str], status: i32, words: &[&str]) -> anyhow::Result<()> {
        let output = run(args)?;
        let text = text(&output);
        ensure!(
            output.status.code() == Some(status),
            "{args:?}: {}: {text}",
            output.status
        );
        for word in words {
            ensure!(text.contains(word), "{args:?}: no {word:?} in: {text}");
        }
        ensure!(!text.contains("panicked"), "{args:?}: {text}");
        Ok(())
    }

    /// Starts the daemon with the configuration file, and with a veth pair into a namespace.
    fn started(scene: &mut Scene, args: &[&str]) -> anyhow::Result<()> {
        netns::add("blue")?;
        netns::ip_line("link add near type veth peer name far netns blue")?;
        scene.start_with(&[&["--config", FILE], args].concat())?;
        attribute(scene, FAR, "is_up", false)
    }

    fn switch(scene: &Scene, operation: &str) -> anyhow::Result<Value> {
        let (namespace, interface) = FAR;
        let request =
            json!({"namespace": namespace, "interface": interface, "operation": operation});
        Ok(scene.client()?.ask("interface", &request)?.0)
    }

    /// Returns the error kind of a request to switch the interface on. `Null`: it succeeded.
    fn refusal(scene: &Scene) -> anyhow::Result<Value> {
        Ok(switch(scene, "Enable")?["error_kind"].clone())
    }

    /// Sends SIGHUP, and waits for a line of the log that the daemon has not written before.
    fn reload(scene: &Scene, words: &[&str]) -> anyhow::Result<()> {
        let daemon = scene.daemon()?;
        let before = daemon.stderr().len();
        daemon.signal(Signal::SIGHUP)?;
        let has_line = |log: &String| {
            let new = log.get(before..).unwrap_or_default();
            new.lines()
                .any(|line| words.iter().all(|word| line.contains(word)))
        };
        wait_for(
            &format!("the log contains {words:?}"),
            SOON,
            || daemon.stderr(),
            has_line,
        )
        .map(drop)
    }

    lab_test!(sighup_applies_what_can_change, |scene| {
        write(FILE, "")?;
        started(scene, &[])?;
        ensure!(refusal(scene)?.is_null(), "{}", refusal(scene)?);
        write(FILE, "read-only = true\n")?;
        reload(scene, &["options changed", "read-only"])?;
        ensure!(refusal(scene)? == "Denied", "{}", refusal(scene)?);
        // A file of the directory takes precedence.
        write(DROP_IN, "read-only = false\nallow = [\"other/*\"]\n")?;
        reload(scene, &["options changed", "read-only, allow"])?;
        let reply = switch(scene, "Enable")?;
        ensure!(reply.to_string().contains("--allow other/*"), "{reply}");
        write(DROP_IN, "allow = [\"blue/*\"]\nread-only = false\n")?;
        reload(scene, &["options changed", "allow"])?;
        ensure!(refusal(scene)?.is_null(), "{}", refusal(scene)?);
        reload(scene, &["no option changed"])?;
        fs::remove_file(DROP_IN)?;
        reload(scene, &["options changed", "read-only, allow"])?;
        ensure!(refusal(scene)? == "Denied", "{}", refusal(scene)?);
        fs::remove_file(FILE)?;
        // The file was named on the command line, so it must exist.
        reload(scene, &["the old one stays in force", "No such file"])?;
        ensure!(refusal(scene)? == "Denied", "{}", refusal(scene)?);
        Ok(())
    });

    lab_test!(sighup_names_options_that_need_a_restart, |scene| {
        write(FILE, "")?;
        started(scene, &["--bandwidth-interval", "1s"])?;
        write(
            FILE,
            "sweep-interval = \"5s\"\nbandwidth-interval = \"5s\"\nread-only = true\nname = \"new\"\n",
        )?;
        // The command line sets the interval of counters, so the file does not change it.
        let restart = ["restarted", "options=\"name, sweep-interval\""];
        reload(scene, &restart)?;
        ensure!(refusal(scene)? == "Denied", "{}", refusal(scene)?);
        // They are named until the daemon is restarted.
        reload(scene, &restart)?;
        write(FILE, "read-only = true\n")?;
        reload(scene, &["no option changed"])
    });

    lab_test!(
        an_invalid_file_changes_nothing_while_the_daemon_runs,
        |scene| {
            write(FILE, "allow = [\"other/*\"]\n")?;
            started(scene, &[])?;
            for (broken, words) in [
                ("allow = []\nread-only = tru\n", "backend.toml:2:13"),
                (
                    "allow = []\nreadonly = true\n",
                    "did you mean \"read-only\"?",
                ),
                ("allow = []\nzenoh-listen = \"x\"\n", "does not start with"),
            ] {
                write(FILE, broken)?;
                reload(scene, &["the old one stays in force", words])?;
                ensure!(refusal(scene)? == "Denied", "{broken}");
            }
            write(FILE, "allow = []\n")?;
            fs::set_permissions(FILE, Permissions::from_mode(0o666))?;
            reload(scene, &["the old one stays in force", "chmod go-w"])?;
            let denied = || refusal(scene);
            let holds = |it: &anyhow::Result<Value>| it.as_ref().is_ok_and(|it| it == "Denied");
            holds_for("the request is refused", A_WHILE, denied, holds)?;
            fs::set_permissions(FILE, Permissions::from_mode(0o644))?;
            reload(scene, &["options changed", "allow"])?;
            ensure!(refusal(scene)?.is_null(), "{}", refusal(scene)?);
            Ok(())
        }
    );

    lab_test!(many_sighups_end_with_the_last_file_in_force, |scene| {
        write(FILE, "")?;
        started(scene, &[])?;
        for round in 0..50 {
            write(FILE, &format!("read-only = {}\n", round % 2 == 0))?;
            scene.daemon()?.signal(Signal::SIGHUP)?;
        }
        write(FILE, "read-only = true\n")?;
        scene.daemon()?.signal(Signal::SIGHUP)?;
        let look = || refusal(scene);
        wait_for("the last file is in force", SOON, look, |it| {
            it.as_ref().is_ok_and(|it| it == "Denied")
        })?
        .map(drop)
    });

    lab_test!(the_environment_takes_precedence_over_files, |scene| {
        scene.wrap_daemon(&["env", "TCGUI_READ_ONLY=true"]);
        write(FILE, "read-only = false\n")?;
        started(scene, &[])?;
        ensure!(refusal(scene)? == "Denied", "{}", refusal(scene)?);
        write(FILE, "read-only = false\nallow = [\"blue/*\"]\n")?;
        reload(scene, &["options changed", "allow"])?;
        ensure!(refusal(scene)? == "Denied", "{}", refusal(scene)?);
        Ok(())
    });

    lab_test!(the_daemon_does_not_start_with_a_broken_file, |_| {
        for (text, words) in [
            (
                "name = \"a\"\ncolour = 1\n",
                "backend.toml:2:1: error: unknown key",
            ),
            ("read_only = true", "did you mean \"read-only\"?"),
            (
                "sweep-interval = 5",
                "sweep-interval must be a string: sweep-interval = \"VALUE\"",
            ),
            ("name = \"a/b\"", "--name \"a/b\" is not a backend name"),
            ("tls-cert = \"/x\"", "--tls-cert needs --tls-key"),
        ] {
            write(FILE, text)?;
            says(&[], 1, &[words])?;
            says(&["check"], 1, &[words])?;
            says(&["config"], 1, &[words])?;
        }
        write(FILE, "")?;
        fs::set_permissions(FILE, Permissions::from_mode(0o646))?;
        says(&[], 1, &["others may write to it", "chmod go-w"])?;
        fs::set_permissions(FILE, Permissions::from_mode(0o644))?;
        chown(FILE, Some(65534), None)?;
        says(&[], 1, &["belongs to the user with the id 65534"])?;
        fs::remove_file(FILE)?;
        tcgui_tests::process::run(Command::new("mkfifo").arg(FILE))?;
        says(&[], 1, &["it is a FIFO"])?;
        fs::remove_file(FILE)?;
        says(&[], 1, &["No such file"])
    });

    lab_test!(restore_works_with_a_broken_configuration, |_| {
        fs::create_dir("/run/leases")?;
        fs::set_permissions("/run/leases", Permissions::from_mode(0o700))?;
        // The state directory stands in a file with errors.
        write(
            FILE,
            "colour = 1\nstate-dir = \"/run/leases\"\nname = \nread-only = 5\n",
        )?;
        let words = ["backend.toml:1:1", "backend.toml:3:", "is not used"];
        says(&["restore"], 0, &words)?;
        says(&["restore", "--all"], 0, &words)?;
        // A file that another user can write is not used at all.
        fs::set_permissions(FILE, Permissions::from_mode(0o666))?;
        says(
            &["restore", "--state-dir", "/run/leases"],
            0,
            &["chmod go-w"],
        )?;
        write(FILE, "state-dir = \"/run/nothing\"\n")?;
        says(&["restore"], 1, &["/run/nothing"])?;
        fs::remove_file(FILE)?;
        says(
            &["--state-dir", "/run/leases", "restore"],
            0,
            &["No such file"],
        )
    });

    lab_test!(config_prints_each_value_with_its_source, |_| {
        write(
            FILE,
            "allow = [\"lab*/eth0\", \"x/y\"]\nsweep-interval = \"5s\"\n",
        )?;
        write(DROP_IN, "\n\nread-only = true\n")?;
        let output = run(&["--name", "lab", "--preset-dir", "/a", "config"])?;
        ensure!(output.status.success(), "{}", text(&output));
        let printed = String::from_utf8(output.stdout)?;
        for (setting, source) in [
            ("name = \"lab\"", "command line"),
            ("preset-dir = [\"/a\"]", "command line"),
            ("allow = [\"lab*/eth0\", \"x/y\"]", &format!("{FILE}:1")),
            ("sweep-interval = \"5s\"", &format!("{FILE}:2")),
            ("read-only = true", &format!("{DROP_IN}:3")),
            ("netns-dir = \"/run/netns\"", "default"),
            ("# default-ttl", "default, not set"),
        ] {
            let line = printed.lines().find(|line| line.starts_with(setting));
            let line = line.with_context(|| format!("no {setting} in {printed}"))?;
            ensure!(line.ends_with(&format!("# {source}")), "{line}");
        }
        // The output is a configuration file with the same values.
        fs::remove_file(DROP_IN)?;
        write(FILE, &printed)?;
        let again = run(&["config"])?;
        let values = |text: &str| {
            let lines = text.lines().map(|line| line.split(" # ").next());
            lines
                .map(|it| it.map(str::trim).map(str::to_owned))
                .collect::<Vec<_>>()
        };
        let again = String::from_utf8(again.stdout)?;
        ensure!(values(&again) == values(&printed), "{again}\n{printed}");
        says(&["check"], 0, &["options set"])
    });

    lab_test!(check_reports_each_configuration_file, |_| {
        write(FILE, "read-only = true\n")?;
        write("/run/x/good.toml", "name = \"a\"\nread-only = true\n")?;
        write("/run/x/bad.toml", "nam = \"a\"\nread-only = 1\n")?;
        says(
            &["check", "/run/x/good.toml"],
            0,
            &["configuration, options set: 2"],
        )?;
        says(
            &["check", "/run/x/good.toml", "/run/x/bad.toml"],
            1,
            &[
                "good.toml: configuration",
                "/run/x/bad.toml:1:1: error: unknown key \"nam\", did you mean \"name\"?",
                "/run/x/bad.toml:2:1: error: read-only must be true or false",
            ],
        )?;
        says(
            &["check"],
            0,
            &["backend.toml: configuration, options set: 1"],
        )?;
        says(&["check", "/run/x/none.toml"], 1, &["No such file"])
    });

    lab_test!(the_default_files_are_read_without_an_option, |_| {
        // In a mount namespace of its own, because the files are in /etc.
        let script = "mount -t tmpfs none /etc && mkdir -p /etc/tcgui/backend.d && \
            echo 'name = \"of-file\"' > /etc/tcgui/backend.toml && \
            echo 'read-only = true' > /etc/tcgui/backend.d/1.toml && exec \"$0\" config";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-ec", script]);
        let output = command.arg(daemon::binary()?).output()?;
        let printed = text(&output);
        ensure!(output.status.success(), "{printed}");
        for (setting, source) in [
            ("name = \"of-file\"", "/etc/tcgui/backend.toml:1"),
            ("read-only = true", "/etc/tcgui/backend.d/1.toml:1"),
        ] {
            let mut lines = printed.lines();
            let found = lines.any(|line| line.starts_with(setting) && line.ends_with(source));
            ensure!(found, "no {setting} in {printed}");
        }
        Ok(())
    });
}
