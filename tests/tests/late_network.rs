//! Starts before the network is ready, and the resulting log messages.

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::net::TcpListener;
    use std::path::Path;
    use std::thread;
    use std::time::Duration;

    use anyhow::{Context, ensure};
    use nix::sys::signal::Signal;
    use tcgui_tests::client::Options;
    use tcgui_tests::daemon::{self, Daemon};
    use tcgui_tests::frontend::Route;
    use tcgui_tests::lab::Kind;
    use tcgui_tests::peer::Peer;
    use tcgui_tests::scene::{SOON, Scene};
    use tcgui_tests::wait::{holds_for, wait_for};
    use tcgui_tests::{lab_test, netns};

    const PROGRAM: &str = env!("CARGO_BIN_EXE_bus-peer");

    /// Time until the network is ready.
    const LATE: Duration = Duration::from_secs(30);
    /// Time limit for joining. The longest pause between two attempts is 5 s.
    const JOINED: Duration = Duration::from_secs(12);

    /// Returns the log lines that report a problem.
    fn complaints(daemon: &Daemon) -> Vec<String> {
        let log = daemon.stderr();
        let lines = log.lines();
        lines
            .filter(|line| line.contains(" WARN ") || line.contains("ERROR"))
            .map(str::to_owned)
            .collect()
    }

    /// Checks that the missing network is logged once, and that nothing is logged afterwards.
    fn ensure_one_complaint(daemon: &Daemon, words: &[&str]) -> anyhow::Result<()> {
        let lines = complaints(daemon);
        let about: Vec<_> = lines
            .iter()
            .filter(|line| line.contains(words[0]))
            .collect();
        ensure!(about.len() == 1, "{lines:#?}");
        for word in words {
            ensure!(about[0].contains(word), "no {word:?} in {about:?}");
        }
        ensure!(!daemon.stderr().contains("zenoh-"), "{}", daemon.stderr());
        Ok(())
    }

    fn free_port() -> anyhow::Result<u16> {
        Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
    }

    lab_test!(
        the_daemon_waits_for_a_late_router,
        Kind::Lasting(Duration::from_secs(150)),
        |_| {
            let endpoint = format!("tcp/127.0.0.1:{}", free_port()?);
            let args = ["--zenoh-mode", "client", "--zenoh-connect", &endpoint];
            let mut daemon = Daemon::start(&[], &args)?;
            thread::park_timeout(LATE / 2);
            netns::add("before")?;
            thread::park_timeout(LATE / 2);
            daemon.ensure_alive()?;
            wait_for(
                "the namespace is discovered meanwhile",
                SOON,
                || daemon.stderr(),
                |log| log.contains("before"),
            )?;
            ensure_one_complaint(&daemon, &["cannot join the bus yet", &endpoint, "refused"])?;
            let router = Peer::start(PROGRAM, &["router", &endpoint])?;
            router.wait_for_line("listening", SOON)?;
            let client = Options::default().route(Route::client(&endpoint)).open()?;
            client.wait_for("the backend is visible", JOINED, |state| {
                state.alive() && state.named().contains("before") && state.health().is_some()
            })?;
            netns::add("after")?;
            client.wait_for("it publishes", SOON, |state| {
                state.named().contains("after")
            })?;
            ensure_one_complaint(&daemon, &["cannot join the bus yet"])?;
            let status = daemon.stop()?;
            ensure!(status.code() == Some(0), "{status}");
            router.kill()
        }
    );

    lab_test!(
        the_daemon_waits_for_a_late_address,
        Kind::Lasting(Duration::from_secs(150)),
        |scene| {
            // Meanwhile the built-in endpoint works.
            let endpoint = "tcp/198.51.100.1:7448";
            scene.start_with(&["--zenoh-listen", endpoint])?;
            thread::park_timeout(LATE);
            scene.ping()?;
            ensure_one_complaint(scene.daemon()?, &["cannot listen yet", endpoint])?;
            netns::ip_line("link add late type veth peer name other")?;
            netns::ip_line("address add 198.51.100.1/24 dev late")?;
            netns::ip_line("link set late up")?;
            let client = wait_for(
                "a client gets in",
                JOINED,
                || Options::default().route(Route::client(endpoint)).open(),
                Result::is_ok,
            )??;
            client.wait_for("the list", SOON, |state| state.list().is_some())?;
            client.close()?;
            ensure_one_complaint(scene.daemon()?, &["cannot listen yet"])?;
            netns::ip_line("link del late").map(drop)
        }
    );

    lab_test!(sigterm_ends_the_wait_at_once, |_| {
        for mode in ["client", "peer"] {
            let args = match mode {
                "client" => ["--zenoh-mode=client", "--zenoh-connect=tcp/127.0.0.1:1"],
                _ => ["--zenoh-mode=peer", "--zenoh-listen=tcp/198.51.100.1:7448"],
            };
            // The short pauses interrupt the start at several points. After the last one it is complete.
            for pause in [0, 2, 4, 8, 500].map(Duration::from_millis) {
                let mut daemon = Daemon::start(&[], &args)?;
                wait_for(
                    "it waits",
                    SOON,
                    || daemon.stderr(),
                    |log| log.contains(" yet"),
                )?;
                thread::park_timeout(pause);
                daemon.signal(Signal::SIGTERM)?;
                let status = daemon
                    .wait(Duration::from_secs(1))
                    .with_context(|| format!("{mode}, {pause:?} after the complaint"))?;
                ensure!(
                    status.code() == Some(0),
                    "{mode}, {pause:?}: {status}: {}",
                    daemon.stderr()
                );
            }
        }
        Ok(())
    });

    lab_test!(endpoints_that_include_the_built_in_one_widen_it, |scene| {
        netns::ip_line("address add 198.51.100.1/24 dev lo")?;
        for wide in [
            "tcp/0.0.0.0:7447",
            "tcp/[::]:7447",
            "tcp/localhost:7447",
            "tcp/[::ffff:127.0.0.1]:7447",
        ] {
            let daemon = Daemon::start(&[], &["--zenoh-listen", wide])?;
            let mut endpoints = vec!["tcp/127.0.0.1:7447"];
            if wide.contains("0.0.0") || wide.contains("[::]") {
                endpoints.push("tcp/198.51.100.1:7447");
            }
            for endpoint in endpoints {
                let client = wait_for(
                    "a client gets in",
                    SOON,
                    || Options::default().route(Route::client(endpoint)).open(),
                    Result::is_ok,
                )
                .with_context(|| format!("{wide}: {}", daemon.stderr()))??;
                client.wait_for("the list", SOON, |state| state.list().is_some())?;
                client.close()?;
            }
            ensure!(
                complaints(&daemon).is_empty(),
                "{wide}: {:?}",
                complaints(&daemon)
            );
            daemon.stop()?;
        }
        scene.start()
    });

    fn refusal(args: &[&str]) -> anyhow::Result<String> {
        let args: Vec<_> = args.iter().map(OsStr::new).collect();
        let output = daemon::run(&[], &args, SOON * 2)?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.code() == Some(1),
            "{args:?}: {}: {text}",
            output.status
        );
        Ok(text)
    }

    lab_test!(the_hint_beside_a_failure_names_its_cause, |_| {
        let owner = TcpListener::bind("127.0.0.1:7448")?;
        let text = refusal(&["--zenoh-listen", "tcp/127.0.0.1:7448"])?;
        ensure!(
            text.contains("7448") && text.contains("in use") && text.contains("ss -tulpn"),
            "{text}"
        );
        ensure!(!text.contains("--zenoh-mode client"), "{text}");
        drop(owner);
        let owner = TcpListener::bind("127.0.0.1:7447")?;
        let text = refusal(&[])?;
        ensure!(
            text.contains("in use") && text.contains("--zenoh-mode client"),
            "{text}"
        );
        drop(owner);
        let text = refusal(&["--zenoh-listen", "tls/127.0.0.1:7448"])?;
        ensure!(
            text.contains("--tls-cert") && text.contains("--tls-key"),
            "{text}"
        );
        let text = refusal(&["--zenoh-mode", "client", "--no-multicast"])?;
        ensure!(text.contains("--zenoh-connect"), "{text}");
        let args = [OsStr::new("--zenoh-listen"), OsStr::new("tcp/127.0.0.1:80")];
        let output = daemon::run(&["--bounding-set=-net_bind_service"], &args, SOON * 2)?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(1) && text.contains("CAP_NET_BIND_SERVICE"),
            "{text}"
        );
        Ok(())
    });

    /// Returns the values of a key in the sections `[Unit]` and `[Service]` of the packaged unit.
    fn unit_value(key: &str) -> anyhow::Result<String> {
        let path = "../tcgui-backend/assets/packaging/tcgui-backend.service";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let unit = fs::read_to_string(path)?;
        let mut values = unit
            .lines()
            .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        values
            .next_back()
            .map(str::to_owned)
            .with_context(|| format!("no {key} in the unit"))
    }

    lab_test!(the_packaged_unit_restarts_without_a_limit, |_| {
        ensure!(
            unit_value("StartLimitIntervalSec")? == "0",
            "systemd gives up"
        );
        ensure!(unit_value("Restart")? == "on-failure");
        ensure!(unit_value("RestartSec")? == "2s");
        Ok(())
    });

    fn name_conflict(scene: &Scene) -> anyhow::Result<Option<String>> {
        let state = scene.client()?.state();
        let conflict = state.health().map(|health| health["name_conflict"].clone());
        Ok(conflict.and_then(|host| host.as_str().map(str::to_owned)))
    }

    lab_test!(
        two_backends_of_one_name_warn_of_each_other,
        Kind::Lasting(Duration::from_secs(150)),
        |scene| {
            scene.start()?;
            ensure!(name_conflict(scene)?.is_none(), "a conflict with itself");
            // The second daemon has another host name and joins through the first.
            let wrapper = [
                "unshare",
                "-u",
                "sh",
                "-c",
                "hostname other-host; exec \"$@\"",
                "sh",
            ];
            let args = [
                "--zenoh-mode",
                "client",
                "--zenoh-connect",
                "tcp/127.0.0.1:7447",
                "--state-dir",
                "/run/other",
            ];
            let mut second = Daemon::start(&wrapper, &args)?;
            let warnings = |daemon: &Daemon, word: &str| {
                let lines = complaints(daemon).into_iter();
                let about = lines.filter(|line| line.contains("another backend of this name"));
                about.filter(|line| line.contains(word)).count()
            };
            let counts = || {
                anyhow::Ok((
                    warnings(scene.daemon()?, "other-host"),
                    warnings(&second, ""),
                ))
            };
            let both_warn = |counts: &anyhow::Result<_>| matches!(counts, Ok((1, 1)));
            wait_for("both warn", SOON * 3, counts, both_warn)??;
            let is_named = |conflict: &anyhow::Result<_>| matches!(conflict, Ok(Some(_)));
            wait_for(
                "health names the other host",
                SOON * 3,
                || name_conflict(scene),
                is_named,
            )??;
            holds_for("one warning each", SOON * 3, counts, both_warn)?;
            second.ensure_alive()?;
            second.stop()?;
            let is_over = |conflict: &anyhow::Result<_>| matches!(conflict, Ok(None));
            wait_for(
                "the conflict ends",
                SOON * 10,
                || name_conflict(scene),
                is_over,
            )??;
            Ok(())
        }
    );
}
