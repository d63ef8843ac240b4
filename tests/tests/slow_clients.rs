//! Clients that stop reading, read slowly, or connect and send nothing must not affect other clients.

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::net::TcpStream;
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use anyhow::{Context, ensure};
    use nix::sys::signal::Signal;
    use serde_json::json;
    use tcgui_tests::client::Options;
    use tcgui_tests::frontend::Route;
    use tcgui_tests::lab::Kind;
    use tcgui_tests::measure::Times;
    use tcgui_tests::peer::Peer;
    use tcgui_tests::process::run;
    use tcgui_tests::scene::Scene;
    use tcgui_tests::wait::at_rate;
    use tcgui_tests::{lab_test, measure, netns};

    const PROGRAM: &str = env!("CARGO_BIN_EXE_bus-peer");

    const DAEMON: &str = "tcp/127.0.0.1:7447";

    const MANY: usize = 1000;

    const LONG: Duration = Duration::from_secs(30);

    /// Observation period. Zenoh closes a silent link after 10 s. The faults that this test detects lasted for up to 80 s.
    const WATCH: Duration = Duration::from_secs(60);

    /// Limits for a query of a well-behaved client: for 99 % of the queries, and for all. The faults that this test detects
    /// lasted for many seconds. Another program on the machine may occupy a processor for some tenths of a second.
    const QUERY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
    /// The limits for the time from opening a session to the first list: for 90 %, and for all.
    const JOIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3));

    fn start_with_many(scene: &mut Scene, args: &[&str]) -> anyhow::Result<()> {
        netns::add_burst((0..MANY).map(|number| format!("n{number}")).collect())?;
        scene.start_with(args)?;
        scene
            .client()?
            .wait_for("all are listed", LONG, |state| state.named().len() >= MANY)
            .map(drop)
    }

    /// Connections that send nothing. A connection that the daemon closes is opened again.
    struct IdleConnections(Vec<TcpStream>);

    impl IdleConnections {
        fn open(count: usize) -> anyhow::Result<Self> {
            let streams: anyhow::Result<_> = (0..count).map(|_| Self::connect()).collect();
            Ok(Self(streams?))
        }

        fn connect() -> anyhow::Result<TcpStream> {
            let stream = TcpStream::connect("127.0.0.1:7447").context("connect")?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        }

        fn renew(&mut self) -> anyhow::Result<()> {
            for stream in &mut self.0 {
                let waits = stream.read(&mut [0; 64]).map_err(|error| error.kind());
                if waits != Err(ErrorKind::WouldBlock) {
                    *stream = Self::connect()?;
                }
            }
            Ok(())
        }
    }

    fn freeze(count: usize) -> anyhow::Result<Vec<Peer>> {
        let start = || Peer::start(PROGRAM, &["frontend", DAEMON]);
        let frontends = (0..count)
            .map(|_| start())
            .collect::<anyhow::Result<Vec<_>>>()?;
        for frontend in &frontends {
            frontend.wait_for_line(&format!("listed {MANY}"), LONG * 3)?;
        }
        for frontend in &frontends {
            frontend.signal(Signal::SIGSTOP)?;
        }
        Ok(frontends)
    }

    /// The times that well-behaved clients measured.
    #[derive(Default)]
    struct Seen {
        queries: Times,
        joins: Times,
    }

    /// Sends queries and opens sessions in turns while namespaces are created and deleted. Returns the times.
    fn watch(idle: &mut IdleConnections, period: Duration) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let changes = scope.spawn(|| {
                let mut listed = false;
                at_rate(4, period, || {
                    listed = !listed;
                    if listed {
                        netns::add("blue")
                    } else {
                        netns::del("blue")
                    }
                })?;
                over.store(true, Ordering::Relaxed);
                if listed { netns::del("blue") } else { Ok(()) }
            });
            let asks = scope.spawn(|| {
                let client = Options::default().deaf().open()?;
                let mut times = Times::default();
                at_rate(8, period, || {
                    let (reply, elapsed) = client.ask("scenario", &json!("List"))?;
                    ensure!(reply["Listed"]["scenarios"].is_array(), "{reply}");
                    times.push(elapsed);
                    Ok(())
                })?;
                client.close()?;
                anyhow::Ok(times)
            });
            while !over.load(Ordering::Relaxed) {
                let start = Instant::now();
                let client = Options::default().route(Route::client(DAEMON)).open()?;
                client.wait_for("the list", LONG, |state| state.named().len() >= MANY)?;
                seen.joins.push(start.elapsed());
                client.close()?;
                idle.renew()?;
                thread::park_timeout(Duration::from_secs(1));
            }
            changes.join().expect("no panic")?;
            seen.queries = asks.join().expect("no panic")?;
            anyhow::Ok(())
        })?;
        Ok(seen)
    }

    lab_test!(
        frozen_and_idle_clients_do_not_delay_other_clients,
        Kind::AloneFor(Duration::from_secs(400)),
        |scene| {
            start_with_many(scene, &[])?;
            let mut idle = IdleConnections::open(0)?;
            let quiet = watch(&mut idle, Duration::from_secs(10))?;
            measure::report(format!(
                "alone: queries {}, joins {}",
                quiet.queries, quiet.joins
            ))?;
            for count in [16, 40] {
                let frozen = freeze(count)?;
                let mut idle = IdleConnections::open(200)?;
                let seen = watch(&mut idle, WATCH)?;
                measure::report(format!(
                    "{count} frozen, {} idle: queries {}, joins {}; threads {}, resident {} KiB",
                    idle.0.len(),
                    seen.queries,
                    seen.joins,
                    scene.daemon()?.threads()?,
                    scene.daemon()?.rss()? / 1024,
                ))?;
                let are_quick = |times: &Times, percent, (most, all)| {
                    Ok::<_, anyhow::Error>(
                        times.percentile(percent)? <= most && times.percentile(100)? <= all,
                    )
                };
                ensure!(
                    are_quick(&seen.queries, 99, QUERY)?,
                    "queries: {}",
                    seen.queries
                );
                ensure!(are_quick(&seen.joins, 90, JOIN)?, "joins: {}", seen.joins);
                drop(frozen);
            }
            Ok(())
        }
    );

    /// The daemon's endpoint of a link with 1 Mbit/s towards the client.
    const SLOW_ENDPOINT: &str = "tcp/198.51.100.1:7448";
    /// A list of a thousand namespaces has about 213 kB, which takes 1.7 s on that link.
    const SLOW_LIST: Duration = Duration::from_secs(20);
    /// Replies that were queued during the overload, up to 1 MiB, arrive before the last list.
    const CAUGHT_UP: Duration = Duration::from_secs(60);
    /// Longer than Zenoh keeps a silent link.
    const OVERLOAD: Duration = Duration::from_secs(20);

    fn make_slow_link() -> anyhow::Result<()> {
        netns::add("far")?;
        netns::ip_line("link add near type veth peer name there netns far")?;
        netns::ip_line("address add 198.51.100.1/24 dev near")?;
        netns::ip_line("link set near up")?;
        netns::ip_line("-n far address add 198.51.100.2/24 dev there")?;
        netns::ip_line("-n far link set there up")?;
        let tbf = "qdisc add dev near root tbf rate 1mbit burst 10kb latency 200ms";
        run(Command::new("tc").args(tbf.split(' '))).map(drop)
    }

    lab_test!(
        client_behind_a_slow_link_gets_the_list_and_stays,
        Kind::AloneFor(Duration::from_secs(300)),
        |scene| {
            make_slow_link()?;
            start_with_many(scene, &["--zenoh-listen", SLOW_ENDPOINT])?;
            let role = ["netns", "exec", "far", PROGRAM, "frontend", SLOW_ENDPOINT];
            let slow = Peer::start("ip", &role)?;
            let start = Instant::now();
            slow.wait_for_line(&format!("listed {}", MANY + 1), SLOW_LIST)?;
            measure::report(format!("first list after {:.1?}", start.elapsed()))?;
            // More lists than the link can carry.
            at_rate(2, OVERLOAD, || {
                netns::add("blue")?;
                netns::del("blue")
            })?;
            netns::add("green")?;
            netns::add("red")?;
            let start = Instant::now();
            slow.wait_for_line(&format!("listed {}", MANY + 3), CAUGHT_UP)?;
            measure::report(format!("last list after {:.1?}", start.elapsed()))?;
            ensure!(
                !slow.has_printed("lost tcgui/default/health"),
                "its link was given up"
            );
            slow.kill()
        }
    );
}
