//! The daemon under a service manager: the messages of sd_notify(3), and the packaged unit.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    use std::time::{Duration, Instant};

    use anyhow::{Context, ensure};
    use nix::sys::signal::Signal;
    use tcgui_tests::client::{self, Client};
    use tcgui_tests::daemon::{Daemon, STOP_DEADLINE};
    use tcgui_tests::peer::Peer;
    use tcgui_tests::scene::SOON;
    use tcgui_tests::wait::patience;
    use tcgui_tests::{lab_test, netns};

    const PROGRAM: &str = env!("CARGO_BIN_EXE_bus-peer");
    /// The path of the socket in tests with a file.
    const PATH: &str = "/run/notify";
    /// The watchdog limit of tests, in microseconds and as a duration.
    const LIMIT: (&str, Duration) = ("WATCHDOG_USEC=2000000", Duration::from_secs(2));

    /// The side of the service manager.
    struct Manager {
        socket: UnixDatagram,
        variable: String,
    }

    impl Manager {
        fn at_path() -> anyhow::Result<Self> {
            Ok(Self {
                socket: UnixDatagram::bind(PATH)?,
                variable: format!("NOTIFY_SOCKET={PATH}"),
            })
        }

        fn abstract_address() -> anyhow::Result<Self> {
            let name = "/org/freedesktop/systemd1/notify";
            let address = SocketAddr::from_abstract_name(name)?;
            Ok(Self {
                socket: UnixDatagram::bind_addr(&address)?,
                variable: format!("NOTIFY_SOCKET=@{name}"),
            })
        }

        /// Starts the daemon with `NOTIFY_SOCKET` and other variables.
        fn start(&self, variables: &[&str], args: &[&str]) -> anyhow::Result<Daemon> {
            let own = self.variable.as_str();
            Daemon::start(&[&["env", own], variables].concat(), args)
        }

        /// Waits for the next message, with the time of its arrival.
        fn next(&self, limit: Duration) -> anyhow::Result<(String, Instant)> {
            self.socket.set_read_timeout(Some(limit * patience()))?;
            let mut buffer = [0; 4096];
            let length = self.socket.recv(&mut buffer).context("no message")?;
            let text = String::from_utf8(buffer[..length].to_vec())?;
            Ok((text, Instant::now()))
        }

        /// Waits for the next message with this line, and returns it. Other messages before it are dropped.
        fn wait_line(&self, start: &str) -> anyhow::Result<String> {
            let end = Instant::now() + SOON * 2 * patience();
            while Instant::now() < end {
                let (message, _) = self.next(SOON * 2)?;
                if message.lines().any(|line| line.starts_with(start)) {
                    return Ok(message);
                }
            }
            anyhow::bail!("no message with {start}")
        }

        fn ensure_silent(&self, period: Duration) -> anyhow::Result<()> {
            self.socket.set_read_timeout(Some(period))?;
            let mut buffer = [0; 4096];
            let received = self.socket.recv(&mut buffer);
            ensure!(received.is_err(), "a message: {received:?}");
            Ok(())
        }
    }

    /// Returns the lines of messages in order, without the texts of the status.
    fn kinds(messages: &[String]) -> Vec<&str> {
        let lines = messages.iter().flat_map(|message| message.lines());
        lines
            .map(|line| {
                if line.starts_with("STATUS=") {
                    "STATUS"
                } else {
                    line
                }
            })
            .collect()
    }

    lab_test!(the_daemon_is_ready_when_its_list_is_complete, |_| {
        for name in ["first", "second", "third"] {
            netns::add(name)?;
        }
        let manager = Manager::at_path()?;
        let mut daemon = manager.start(&[], &[])?;
        let (first, _) = manager.next(SOON * 2)?;
        // The client asks only now, so it gets the list that was published before the message.
        let client = Client::open()?;
        client.wait_for("a list", SOON, |state| state.lists() > 0)?;
        let list = client.state().list().cloned().context("no list")?;
        let named = client::named(&list);
        ensure!(
            named.len() == 3,
            "ready before the list is complete: {named:?}"
        );
        ensure!(first.lines().next() == Some("READY=1"), "{first}");
        let status = manager_status(&first)?;
        ensure!(status.contains("4 network namespaces"), "{status}");
        ensure!(
            !first.contains("WATCHDOG"),
            "no watchdog was requested: {first}"
        );
        daemon.signal(Signal::SIGTERM)?;
        let last = manager.wait_line("STOPPING=1")?;
        ensure!(kinds(&[last]) == ["STOPPING=1", "STATUS"]);
        ensure!(daemon.wait(STOP_DEADLINE)?.success());
        manager.ensure_silent(Duration::from_millis(100))
    });

    fn manager_status(message: &str) -> anyhow::Result<&str> {
        let status = message
            .lines()
            .find_map(|line| line.strip_prefix("STATUS="));
        status.with_context(|| format!("no status in {message:?}"))
    }

    lab_test!(an_abstract_socket_is_used_too, |_| {
        let manager = Manager::abstract_address()?;
        let daemon = manager.start(&[], &[])?;
        let (first, _) = manager.next(SOON * 2)?;
        ensure!(first.starts_with("READY=1\n"), "{first}");
        ensure!(daemon.stop()?.success());
        manager.wait_line("STOPPING=1")?;
        Ok(())
    });

    lab_test!(the_status_has_the_bus_and_the_counts, |_| {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let endpoint = format!("tcp/127.0.0.1:{port}");
        let manager = Manager::at_path()?;
        let args = ["--zenoh-mode", "client", "--zenoh-connect", &endpoint];
        let daemon = manager.start(&[], &args)?;
        let ready = manager.wait_line("READY=1")?;
        let status = manager_status(&ready)?.to_owned();
        ensure!(
            status == "Not on the bus yet: 1 network namespace, 1 interface",
            "{status}"
        );
        let router = Peer::start(PROGRAM, &["router", &endpoint])?;
        router.wait_for_line("listening", SOON)?;
        manager.wait_line("STATUS=On the bus: 1 network namespace")?;
        netns::add("new")?;
        let message = manager.wait_line("STATUS=On the bus: 2 network namespaces")?;
        ensure!(!message.contains("READY"), "ready twice: {message}");
        ensure!(daemon.stop()?.success());
        Ok(())
    });

    lab_test!(the_main_loop_answers_the_watchdog, |_| {
        let manager = Manager::at_path()?;
        let daemon = manager.start(&[LIMIT.0], &[])?;
        manager.wait_line("READY=1")?;
        let (_, mut last) = manager.next(SOON)?;
        let start = last;
        for _ in 0..4 {
            let (message, at) = manager.next(LIMIT.1)?;
            ensure!(message.contains("WATCHDOG=1"), "{message}");
            let gap = at.duration_since(last);
            ensure!(
                gap < LIMIT.1 * patience(),
                "systemd would restart it: {gap:?}"
            );
            last = at;
        }
        // At least three intervals of one second.
        let elapsed = last.duration_since(start);
        ensure!(elapsed > LIMIT.1, "more often than wanted: {elapsed:?}");
        daemon.signal(Signal::SIGSTOP)?;
        // A message may have been under way.
        manager.ensure_silent(Duration::from_millis(20)).ok();
        manager.ensure_silent(LIMIT.1 * 2)?;
        daemon.signal(Signal::SIGCONT)?;
        manager.wait_line("WATCHDOG=1")?;
        ensure!(daemon.stop()?.success());
        Ok(())
    });

    lab_test!(a_hung_main_loop_does_not_answer_the_watchdog, |_| {
        let manager = Manager::at_path()?;
        let daemon = manager.start(&[LIMIT.0, "TCGUI_TEST_HANG_DECISION=hang"], &[])?;
        manager.wait_line("WATCHDOG=1")?;
        netns::add("hang")?;
        // Messages that were sent before the decision.
        while manager.next(LIMIT.1 * 2).is_ok() {}
        // Only the main loop hangs: the process runs, and other threads work.
        manager.ensure_silent(LIMIT.1)?;
        ensure!(fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).is_ok());
        daemon.crash()
    });

    lab_test!(nothing_is_sent_without_a_socket, |scene| {
        let manager = Manager::at_path()?;
        scene.start()?;
        manager.ensure_silent(Duration::from_secs(1))?;
        ensure!(scene.take_daemon()?.stop()?.success());
        manager.ensure_silent(Duration::from_millis(100))
    });

    lab_test!(a_watchdog_for_another_process_is_not_answered, |_| {
        let manager = Manager::at_path()?;
        let daemon = manager.start(&["WATCHDOG_USEC=100000", "WATCHDOG_PID=1"], &[])?;
        manager.wait_line("READY=1")?;
        let end = Instant::now() + Duration::from_secs(1);
        while let Ok((message, _)) = manager.next(Duration::from_millis(300)) {
            ensure!(!message.contains("WATCHDOG"), "{message}");
            ensure!(Instant::now() < end, "messages without end");
        }
        ensure!(daemon.stop()?.success());
        Ok(())
    });

    lab_test!(
        a_wrong_environment_is_logged_and_the_daemon_starts,
        |scene| {
            scene.wrap_daemon(&["env", "NOTIFY_SOCKET=notify", "WATCHDOG_USEC=soon"]);
            scene.start()?;
            let log = scene.daemon()?.stderr();
            for word in ["NOTIFY_SOCKET", "WATCHDOG_USEC"] {
                ensure!(log.contains(word), "{log}");
            }
            Ok(())
        }
    );

    lab_test!(
        a_missing_service_manager_does_not_stop_the_daemon,
        |scene| {
            scene.wrap_daemon(&["env", "NOTIFY_SOCKET=/run/missing"]);
            scene.start()?;
            let log = scene.daemon()?.stderr();
            ensure!(log.contains("cannot notify the service manager"), "{log}");
            netns::add("new")?;
            scene.wait_listed("new", true)
        }
    );
}
