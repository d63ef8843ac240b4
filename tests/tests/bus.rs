//! The bus under load and failures: a thousand namespaces at once, frozen clients, lost sessions.

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    use anyhow::{Context, anyhow, ensure};
    use nix::sys::signal::Signal;
    use serde_json::json;
    use tcgui_tests::client::Options;
    use tcgui_tests::frontend::{ADVANCED, Route};
    use tcgui_tests::lab::Kind;
    use tcgui_tests::links::PROMPT;
    use tcgui_tests::measure::Times;
    use tcgui_tests::peer::Peer;
    use tcgui_tests::scene::{SOON, Scene};
    use tcgui_tests::wait::wait_for;
    use tcgui_tests::{lab_test, measure, netns};
    use zenoh::Wait;

    const PROGRAM: &str = env!("CARGO_BIN_EXE_bus-peer");

    const DAEMON: &str = "tcp/127.0.0.1:7447";

    const MANY: usize = 1000;

    const LONG: Duration = Duration::from_secs(30);
    /// Time limit for the end of a daemon whose decision panics, including the delays of a busy machine.
    const AT_ONCE: Duration = Duration::from_secs(2);

    /// Starts a daemon with so many namespaces that a list does not fit into a socket buffer.
    fn start_with_many(scene: &mut Scene) -> anyhow::Result<()> {
        netns::add_burst((0..MANY).map(|number| format!("n{number}")).collect())?;
        scene.start()?;
        scene
            .client()?
            .wait_for("all are listed", LONG, |state| state.named().len() == MANY)
            .map(drop)
    }

    lab_test!(
        frontend_that_joins_late_gets_a_thousand,
        Kind::Alone,
        |scene| {
            start_with_many(scene)?;
            let frontend = Peer::start(PROGRAM, &["frontend", DAEMON])?;
            let start = Instant::now();
            for key in ADVANCED {
                frontend.wait_for_line(&format!("declared {key}"), PROMPT)?;
            }
            frontend.wait_for_line("declared everything", PROMPT)?;
            let declared = start.elapsed();
            frontend.wait_for_line(&format!("listed {MANY}"), PROMPT)?;
            frontend.wait_for_line("received tcgui/default/health", PROMPT)?;
            let listed = start.elapsed();
            measure::report(format!(
                "process started, declared {declared:.1?}, listed {listed:.1?}"
            ))?;
            ensure!(listed <= PROMPT, "listed after {listed:?}");
            netns::add("later")?;
            frontend.wait_for_line(&format!("listed {}", MANY + 1), PROMPT)?;
            frontend.kill()
        }
    );

    /// Memory in bytes that the daemon may keep for a client that does not read.
    const KEPT: u64 = 32 * 1024 * 1024;

    /// Limits for other clients during the flood. A debug build with a thousand namespaces needs a tenth of each.
    #[derive(Debug, Clone, Copy)]
    struct Bounds {
        list: Duration,
        answer: Duration,
    }

    const UNDISTURBED: Bounds = Bounds {
        list: Duration::from_secs(1),
        answer: Duration::from_secs(1),
    };

    /// Long enough for every writer to reach every frozen link.
    const WHILE: Duration = Duration::from_secs(10);

    /// Checks that the daemon serves other clients while one client blocks.
    fn others_are_served(scene: &Scene, period: Duration, within: Bounds) -> anyhow::Result<()> {
        let client = scene.client()?;
        let mut seen = Times::default();
        let mut answered = Times::default();
        let mut refused = 0;
        let began = Instant::now();
        let mut listed = false;
        while began.elapsed() < period || listed || seen.is_empty() {
            listed = !listed;
            if listed {
                netns::add("blue")?;
            } else {
                netns::del("blue")?;
            }
            let start = Instant::now();
            client.wait_for(&format!("blue is listed: {listed}"), LONG, |state| {
                state.named().contains("blue") == listed
            })?;
            seen.push(start.elapsed());
            let (reply, elapsed) = client.ask("scenario", &json!("List"))?;
            refused += usize::from(reply["Error"]["error"]["category"] == "Transient");
            answered.push(elapsed);
        }
        measure::report(format!(
            "changes seen: {seen}; answers: {answered}, {refused} of them refusals"
        ))?;
        // Clients that do not read must not use up the request slots of other clients.
        ensure!(refused == 0, "{refused} refusals");
        wait_for("a successful reply", SOON, || scene.ping(), Result::is_ok)??;
        ensure!(seen.percentile(100)? < within.list, "changes seen: {seen}");
        ensure!(
            answered.percentile(100)? < within.answer,
            "answers: {answered}"
        );
        Ok(())
    }

    fn memory_stays(scene: &Scene, before: u64) -> anyhow::Result<()> {
        let after = scene.daemon()?.rss()?;
        measure::report(format!(
            "resident: {} KiB, then {} KiB",
            before / 1024,
            after / 1024
        ))?;
        ensure!(after < before + KEPT, "{before} grew to {after} bytes");
        Ok(())
    }

    lab_test!(frozen_frontends_block_no_client, Kind::Alone, |scene| {
        start_with_many(scene)?;
        let mut frozen = Vec::new();
        for _ in 0..3 {
            let frontend = Peer::start(PROGRAM, &["frontend", DAEMON])?;
            frontend.wait_for_line(&format!("listed {MANY}"), LONG)?;
            frontend.signal(Signal::SIGSTOP)?;
            frozen.push(frontend);
        }
        let before = scene.daemon()?.rss()?;
        others_are_served(scene, WHILE, UNDISTURBED)?;
        memory_stays(scene, before)?;
        for frontend in &frozen {
            frontend.signal(Signal::SIGCONT)?;
        }
        netns::add("green")?;
        for frontend in frozen {
            frontend.wait_for_line(&format!("listed {}", MANY + 1), LONG)?;
            frontend.kill()?;
        }
        Ok(())
    });

    const HISTORY: &str = "tcgui/default/interfaces/list/@adv/**";
    const QUERY: &str = "tcgui/default/query/scenario";
    const CHANGE: &str = "tcgui/default/query/interface";

    /// Runs clients that query the list until it fills their link, then query for replies, and never read.
    fn flooded(
        scene: &Scene,
        role: &str,
        clients: u32,
        (histories, query, queries): (u32, &str, u32),
        within: Bounds,
    ) -> anyhow::Result<()> {
        let before = scene.daemon()?.rss()?;
        let (histories, queries) = (histories.to_string(), queries.to_string());
        let floods = (0..clients)
            .map(|_| {
                let asks = [role, DAEMON, HISTORY, &histories, query, &queries];
                let flood = Peer::start(PROGRAM, &asks)?;
                flood.wait_for_line("asked", LONG)?;
                Ok(flood)
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        others_are_served(scene, WHILE, within)?;
        memory_stays(scene, before)?;
        drop(floods);
        others_are_served(scene, Duration::ZERO, UNDISTURBED)
    }

    lab_test!(unread_replies_block_no_client, Kind::Alone, |scene| {
        start_with_many(scene)?;
        flooded(scene, "flood", 1, (60, QUERY, 20), UNDISTURBED)?;
        // More queries than the request queue holds: refusals also wait for the client.
        flooded(scene, "flood", 1, (900, QUERY, 900), UNDISTURBED)
    });

    // The worker that makes a change also writes the reply.
    lab_test!(unread_link_replies_block_no_client, Kind::Alone, |scene| {
        start_with_many(scene)?;
        flooded(scene, "flood", 1, (60, CHANGE, 30), UNDISTURBED)
    });

    lab_test!(many_unread_replies_block_no_client, Kind::Alone, |scene| {
        start_with_many(scene)?;
        flooded(scene, "flood", 4, (50, QUERY, 40), UNDISTURBED)
    });

    // Without priorities all messages to a client share one queue, including lists.
    lab_test!(
        unread_replies_without_priorities_block_no_client,
        Kind::Alone,
        |scene| {
            start_with_many(scene)?;
            let within = Bounds {
                list: Duration::from_secs(3),
                ..UNDISTURBED
            };
            flooded(scene, "flood-plain", 1, (200, QUERY, 20), within)
        }
    );

    /// Duration of a flood of health messages. It is shorter than the pause of the daemon after such a message.
    const FLOOD: Duration = Duration::from_secs(3);

    lab_test!(
        a_flood_of_health_messages_gives_one_warning,
        Kind::Alone,
        |scene| {
            scene.start()?;
            scene.wait_for("health", |state| state.health().is_some())?;
            let health = scene.client()?.state().health().cloned();
            let mut health = health.context("no health")?;
            let mut of_host = |host: &str| {
                health["metadata"]["hostname"] = json!(host);
                health.to_string()
            };
            let messages = [of_host("one"), of_host("two")];
            let attacker = Options::default().deaf().open()?;
            let began = Instant::now();
            let mut sent = 0;
            let mut answered = Times::default();
            while began.elapsed() < FLOOD {
                for _ in 0..100 {
                    attacker
                        .session()
                        .put("tcgui/default/health", messages[sent % 2].as_str())
                        .wait()
                        .map_err(|error| anyhow!(error).context("put"))?;
                    sent += 1;
                }
                answered.push(scene.ping()?);
            }
            let log = scene.daemon()?.stderr();
            let about = |line: &&str| line.contains("another backend of this name");
            let warnings = log.lines().filter(about).count();
            measure::report(format!(
                "{sent} messages, {warnings} warnings; answers: {answered}"
            ))?;
            attacker.close()?;
            ensure!(warnings == 1, "{warnings} warnings of {sent} messages");
            Ok(())
        }
    );

    fn router(endpoint: &str) -> anyhow::Result<Peer> {
        let router = Peer::start(PROGRAM, &["router", endpoint])?;
        router.wait_for_line("listening", SOON)?;
        Ok(router)
    }

    /// Maximum time until a session is restored after the router has returned.
    const REGAINED: Duration = Duration::from_secs(15);

    lab_test!(session_lost_and_regained_through_a_router, |scene| {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let endpoint = format!("tcp/127.0.0.1:{port}");
        let mut routers = router(&endpoint)?;
        let client = Options::default().route(Route::client(&endpoint));
        let connect = ["--zenoh-mode", "client", "--zenoh-connect", &endpoint];
        scene.start_watched(&connect, client, |_| ())?;
        netns::add("before")?;
        netns::add("stays")?;
        scene.wait_named(&["before", "stays"])?;
        for change in ["first", "second"] {
            routers.kill()?;
            scene.wait_for("the token is removed", |state| !state.alive())?;
            netns::add(change)?;
            routers = router(&endpoint)?;
            let start = Instant::now();
            scene
                .client()?
                .wait_for("what changed meanwhile is listed", REGAINED, |state| {
                    state.alive() && state.named().contains(change)
                })?;
            measure::report(format!("session regained after {:.1?}", start.elapsed()))?;
        }
        netns::del("before")?;
        scene.wait_named(&["first", "second", "stays"])?;
        scene.ping()?;
        // Nothing changed while the router was away. The client keeps its state or receives it again.
        routers.kill()?;
        scene.wait_for("the token is removed", |state| !state.alive())?;
        let routers = router(&endpoint)?;
        let late = Options::default().route(Route::client(&endpoint)).open()?;
        late.wait_for("a client that joins then gets all", REGAINED, |state| {
            state.alive() && state.named().len() == 3
        })?;
        late.close()?;
        let daemon = scene.take_daemon()?;
        daemon.stop()?;
        routers.kill()
    });

    /// Checks that a panic of an actor ends the daemon in order, and that the next daemon publishes the current state.
    fn fails(
        scene: &mut Scene,
        wrapper: &'static [&'static str],
        actor: &str,
    ) -> anyhow::Result<()> {
        netns::add("before")?;
        scene.wrap_daemon(wrapper);
        scene.start()?;
        scene.wait_named(&["before"])?;
        let mut daemon = scene.take_daemon()?;
        let status = daemon.wait(SOON)?;
        let log = daemon.stderr();
        ensure!(status.code() == Some(1), "{status}: {log}");
        let last = log.lines().last().context("nothing was logged")?;
        ensure!(last.contains("ERROR") && last.contains(actor), "{log}");
        scene.wait_for("the token is removed", |state| !state.alive())?;
        netns::del("before")?;
        netns::add("after")?;
        scene.wrap_daemon(&[]);
        scene.start_daemon::<&str>(&[])?;
        scene.wait_named(&["after"])?;
        scene.ping().map(drop)
    }

    lab_test!(watcher_that_fails_ends_the_daemon, |scene| fails(
        scene,
        &["env", "TCGUI_TEST_FAIL_ACTOR=namespace_watcher"],
        "namespace_watcher"
    ));

    lab_test!(interfaces_that_fail_end_the_daemon, |scene| fails(
        scene,
        &["env", "TCGUI_TEST_FAIL_ACTOR=interfaces"],
        "interfaces"
    ));

    lab_test!(a_decision_that_panics_ends_the_daemon_at_once, |scene| {
        scene.wrap_daemon(&["env", "TCGUI_TEST_FAIL_DECISION=fatal"]);
        netns::add("before")?;
        scene.start()?;
        scene.wait_named(&["before"])?;
        netns::add("fatal")?;
        let mut daemon = scene.take_daemon()?;
        let status = daemon.wait(AT_ONCE)?;
        let log = daemon.stderr();
        ensure!(status.code() == Some(1), "{status}: {log}");
        ensure!(log.contains("told to fail"), "{log}");
        scene.wait_for("the token is removed", |state| !state.alive())?;
        ensure!(
            !scene.was_ever_listed("fatal"),
            "it went on after the panic"
        );
        scene.wrap_daemon(&[]);
        scene.start_daemon::<&str>(&[])?;
        scene.wait_named(&["before", "fatal"])?;
        scene.ping().map(drop)
    });

    lab_test!(bus_that_fails_ends_the_daemon, |scene| fails(
        scene,
        &["env", "TCGUI_TEST_FAIL_ACTOR=bus"],
        "bus"
    ));
}
