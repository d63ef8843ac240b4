//! Command line, start-up checks and exit status: everything before the daemon joins the bus.

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::net::TcpListener;
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::process::Output;
    use std::time::{Duration, Instant};

    use anyhow::ensure;
    use nix::sys::signal::Signal;
    use tcgui_tests::daemon::{self, STOP_DEADLINE};
    use tcgui_tests::lab_test;
    use tcgui_tests::scene::Scene;

    /// Wide limit for start-up checks on any machine.
    const DEADLINE: Duration = Duration::from_secs(10);

    fn run(privileges: &[&str], args: &[&str]) -> anyhow::Result<Output> {
        let args: Vec<_> = args.iter().map(OsStr::new).collect();
        daemon::run(privileges, &args, DEADLINE)
    }

    /// Checks the exit status, and the words (in any case) that the message must contain.
    fn refuses(
        privileges: &[&str],
        args: &[&str],
        status: i32,
        words: &[&str],
    ) -> anyhow::Result<()> {
        let output = run(privileges, args)?;
        let text = String::from_utf8_lossy(&output.stderr).to_lowercase();
        ensure!(
            output.status.code() == Some(status),
            "{args:?}: {}: {text}",
            output.status
        );
        for word in words {
            ensure!(
                text.contains(&word.to_lowercase()),
                "{args:?}: no {word:?} in: {text}"
            );
        }
        ensure!(!text.contains("panicked"), "{args:?}: {text}");
        Ok(())
    }

    lab_test!(help_names_every_option, |_| {
        for form in ["--help", "-h"] {
            let output = run(&[], &[form])?;
            ensure!(output.status.code() == Some(0), "{output:?}");
            let text = String::from_utf8(output.stdout)?;
            let options = [
                "--verbose",
                "--exclude-loopback",
                "--name",
                "--zenoh-mode",
                "--zenoh-connect",
                "--zenoh-listen",
                "--no-multicast",
                "--scenario-dir",
                "--no-default-scenarios",
                "--preset-dir",
                "--no-default-presets",
                "--state-dir",
                "check",
                "--netns-dir",
                "--sweep-interval",
                "--state-dir",
                "--default-ttl",
                "--keep-on-exit",
            ];
            for option in options {
                ensure!(
                    text.contains(option),
                    "{form} does not name {option}:\n{text}"
                );
            }
        }
        Ok(())
    });

    lab_test!(version_is_that_of_the_packages, |_| {
        for form in ["--version", "-V"] {
            let output = run(&[], &[form])?;
            ensure!(output.status.code() == Some(0), "{output:?}");
            let text = String::from_utf8(output.stdout)?;
            ensure!(
                text == concat!("tcgui-backend ", env!("CARGO_PKG_VERSION"), "\n"),
                "{text:?}"
            );
        }
        Ok(())
    });

    lab_test!(usage_errors_end_with_2, |_| {
        refuses(&[], &["--no-such-option"], 2, &["--no-such-option"])?;
        refuses(
            &[],
            &["--zenoh-mode", "router"],
            2,
            &["router", "peer", "client"],
        )?;
        refuses(&[], &["--zenoh-mode", "Peer"], 2, &["peer"])?;
        refuses(&[], &["--zenoh-mode"], 2, &["--zenoh-mode"])?;
        refuses(
            &[],
            &["--sweep-interval", "soon"],
            2,
            &["--sweep-interval", "soon"],
        )?;
        refuses(&[], &["argument"], 2, &["argument"])
    });

    lab_test!(invalid_backend_names_end_with_1, |_| {
        for name in ["", "a/b", "a b", "*", "@x", "a#b"] {
            refuses(&[], &["--name", name], 1, &["name"])?;
        }
        Ok(())
    });

    lab_test!(invalid_endpoints_end_with_1, |_| {
        let builtin = "tcp/127.0.0.1:7447";
        refuses(
            &[],
            &["--zenoh-listen", builtin],
            1,
            &["duplicate", builtin],
        )?;
        let twice = "tcp/127.0.0.1:7448,tcp/127.0.0.1:7448";
        refuses(
            &[],
            &["--zenoh-connect", twice],
            1,
            &["duplicate", "tcp/127.0.0.1:7448"],
        )?;
        let listening_client = [
            "--zenoh-mode",
            "client",
            "--zenoh-listen",
            "tcp/127.0.0.1:7448",
        ];
        refuses(&[], &listening_client, 1, &["client", "listen"])?;
        for bad in [
            "nonsense",
            "ws/127.0.0.1:80",
            "tcp/127.0.0.1",
            "tcp/:7448",
            "tcp/224.0.0.1:1",
        ] {
            refuses(&[], &["--zenoh-connect", bad], 1, &[bad])?;
        }
        Ok(())
    });

    lab_test!(port_in_use_ends_with_1, |_| {
        let _owner = TcpListener::bind("127.0.0.1:7447")?;
        refuses(&[], &[], 1, &["7447", "in use"])
    });

    lab_test!(missing_privileges_end_with_1, |_| {
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        refuses(&nobody, &[], 1, &["CAP_NET_ADMIN", "CAP_SYS_ADMIN"])?;
        for capability in ["net_admin", "net_broadcast", "sys_admin"] {
            let without = format!("--bounding-set=-{capability}");
            let name = format!("CAP_{capability}");
            refuses(&[&without], &[], 1, &[&name])?;
        }
        Ok(())
    });

    lab_test!(netns_directory_that_is_a_file_ends_with_1, |_| {
        let file = tempfile::NamedTempFile::new()?;
        let path = file.path().to_string_lossy().into_owned();
        refuses(&[], &["--netns-dir", &path], 1, &[&path, "directory"])
    });

    lab_test!(netns_directory_that_is_closed_ends_with_1, |_| {
        let parent = tempfile::tempdir()?;
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755))?;
        let closed = parent.path().join("closed");
        fs::create_dir(&closed)?;
        chown(&closed, Some(65534), Some(65534))?;
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000))?;
        let path = closed.to_string_lossy().into_owned();
        let without = ["--bounding-set=-dac_override,-dac_read_search"];
        refuses(&without, &["--netns-dir", &path], 1, &[&path, "CAP_DAC"])
    });

    fn stops_on(scene: &mut Scene, signal: Signal) -> anyhow::Result<()> {
        scene.start()?;
        let mut daemon = scene.take_daemon()?;
        let start = Instant::now();
        daemon.signal(signal)?;
        let status = daemon.wait(STOP_DEADLINE)?;
        ensure!(
            status.code() == Some(0),
            "{signal}: {status} after {:?}",
            start.elapsed()
        );
        let log = daemon.stderr();
        ensure!(!log.contains("panicked"), "{log}");
        Ok(())
    }

    lab_test!(sigterm_is_an_orderly_stop, |scene| stops_on(
        scene,
        Signal::SIGTERM
    ));

    lab_test!(sigint_is_an_orderly_stop, |scene| stops_on(
        scene,
        Signal::SIGINT
    ));

    lab_test!(log_goes_to_standard_error_without_colours, |scene| {
        scene.start()?;
        let daemon = scene.daemon()?;
        let log = daemon.stderr();
        ensure!(!log.is_empty(), "nothing was logged");
        ensure!(!log.contains('\u{1b}'), "escape sequences: {log}");
        ensure!(
            daemon.stdout().is_empty(),
            "standard output: {}",
            daemon.stdout()
        );
        Ok(())
    });
}
