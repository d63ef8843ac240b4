//! Tests of the accuracy of a rate limit. Packets pass a router, so that the socket buffer of the sender does not limit
//! it.
//!
//! ```text
//!  source ── r0 [router] r1 (netem and filter) ── sink
//! ```
//!
//! The tests print a table: requested value, measured value, limit.

mod with_netem {
    use std::fs::File;
    use std::io::{self, Write};
    use std::net::UdpSocket;
    use std::ops::RangeInclusive;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use nix::sys::socket::{setsockopt, sockopt};
    use tcgui_backend::kernel::netns::inside;
    use tcgui_shared::netem::{FlatNetem, QueueConfig};

    use crate::inside::{Lab, flat};

    const ROUTER: &str = "mkdir -p /run/netns
        ip netns add source && ip netns add sink
        ip link add r0 type veth peer name s0 netns source
        ip link add r1 type veth peer name d0 netns sink
        sysctl -qw net.ipv4.ip_forward=1
        ip addr add 10.8.0.1/24 dev r0 && ip link set r0 up
        ip addr add 10.8.1.1/24 dev r1 && ip link set r1 up
        ip -n source addr add 10.8.0.2/24 dev s0 && ip -n source link set s0 up
        ip -n source route add default via 10.8.0.1
        ip -n sink addr add 10.8.1.2/24 dev d0 && ip -n sink link set d0 up
        ip -n sink route add default via 10.8.1.1
        ip link set lo up";
    const UNDO: &str = "ip netns del source; ip netns del sink";
    /// The lengths of the Ethernet, IPv4 and UDP headers.
    const HEADERS: usize = 14 + 20 + 8;
    const ATTEMPTS: u32 = 4;
    /// Receive buffer in bytes for packets that arrive while the receiver does not run.
    const ROOM: usize = 4 * 1024 * 1024;

    /// A packet that arrived: the times at which it was sent and received, since the start, and its size on the wire.
    #[derive(Debug, Clone, Copy)]
    struct Arrival {
        sent: Duration,
        came: Duration,
        bytes: usize,
    }

    impl Arrival {
        fn delay(self) -> Duration {
            self.came.saturating_sub(self.sent)
        }
    }

    /// The two ends of the path.
    struct Path {
        source: UdpSocket,
        sink: UdpSocket,
        began: Instant,
    }

    impl Path {
        fn open() -> Self {
            let socket = |netns: &str, address: &str| {
                let file = File::open(format!("/run/netns/{netns}")).unwrap();
                inside(file.into(), || UdpSocket::bind(address).unwrap()).unwrap()
            };
            let source = socket("source", "10.8.0.2:0");
            let sink = socket("sink", "10.8.1.2:7000");
            source.connect("10.8.1.2:7000").unwrap();
            setsockopt(&sink, sockopt::RcvBufForce, &ROOM).unwrap();
            sink.set_read_timeout(Some(Duration::from_millis(100)))
                .unwrap();
            Self {
                source,
                sink,
                began: Instant::now(),
            }
        }

        /// Sends packets of a size at a rate for a time, and calls `meanwhile` during that. Receives until no packet
        /// has arrived for `patience`. Returns the number of packets sent, and those that arrived.
        fn send(
            &self,
            (bytes, kbps): (usize, u32),
            time: Duration,
            patience: Duration,
            meanwhile: impl FnOnce(),
        ) -> (usize, Vec<Arrival>) {
            let over = AtomicBool::new(false);
            let last = Mutex::new(Instant::now());
            std::thread::scope(|scope| {
                let receiver = scope.spawn(|| {
                    let mut buffer = [0; 2048];
                    let mut arrivals = Vec::new();
                    loop {
                        match self.sink.recv(&mut buffer) {
                            Ok(length) => {
                                *last.lock().unwrap() = Instant::now();
                                let us = u64::from_ne_bytes(buffer[..8].try_into().unwrap());
                                arrivals.push(Arrival {
                                    sent: Duration::from_micros(us),
                                    came: self.began.elapsed(),
                                    bytes: length + HEADERS,
                                });
                            }
                            Err(_) if over.load(Ordering::Relaxed) => {
                                if last.lock().unwrap().elapsed() > patience {
                                    return arrivals;
                                }
                            }
                            Err(_) => {}
                        }
                    }
                });
                let sender = scope.spawn(|| self.flood(bytes, kbps, time));
                meanwhile();
                let sent = sender.join();
                over.store(true, Ordering::Relaxed);
                (sent.unwrap(), receiver.join().unwrap())
            })
        }

        fn flood(&self, bytes: usize, kbps: u32, time: Duration) -> usize {
            // No program sends to this socket, so reading from it is a pause.
            let pause = UdpSocket::bind("0.0.0.0:0").unwrap();
            pause
                .set_read_timeout(Some(Duration::from_millis(2)))
                .unwrap();
            let per_s = f64::from(kbps) * 125.0 / bytes as f64;
            let start = Instant::now();
            let mut packet = vec![0; bytes - HEADERS];
            let mut sent = 0;
            while start.elapsed() < time {
                while (sent as f64) < start.elapsed().as_secs_f64() * per_s {
                    let us = u64::try_from(self.began.elapsed().as_micros()).unwrap();
                    packet[..8].copy_from_slice(&us.to_ne_bytes());
                    self.source.send(&packet).unwrap();
                    sent += 1;
                }
                pause.recv(&mut [0]).unwrap_err();
            }
            sent
        }
    }

    fn line(delay_ms: f64, kbps: u32, queue_ms: f64) -> FlatNetem {
        let mut flat = FlatNetem {
            delay_ms: Some(delay_ms),
            rate_limit_kbps: Some(kbps),
            ..FlatNetem::default()
        };
        flat.extensions.queue = Some(QueueConfig {
            ms: Some(queue_ms),
            bytes: None,
        });
        flat
    }

    /// Prints a row, and returns whether the value is within its limit.
    fn row(what: &str, asked: f64, measured: f64, limit: RangeInclusive<f64>) -> bool {
        writeln!(
            io::stderr(),
            "| {what} | {asked:.1} | {measured:.1} | {:.1} to {:.1} |",
            limit.start(),
            limit.end()
        )
        .unwrap();
        limit.contains(&measured)
    }

    /// Measures again if a value is outside its limit, because packets leave and arrive late on a busy machine.
    fn holds(what: &str, mut measure: impl FnMut() -> bool) {
        let held = (0..ATTEMPTS).any(|_| measure());
        assert!(held, "{what}: missed {ATTEMPTS} times");
    }

    fn ms(time: Duration) -> f64 {
        time.as_secs_f64() * 1e3
    }

    fn median(mut values: Vec<f64>) -> f64 {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }

    /// Removes the named namespaces, also if the test fails.
    struct Undo;

    impl Drop for Undo {
        fn drop(&mut self) {
            std::process::Command::new("sh")
                .args(["-c", UNDO])
                .status()
                .ok();
        }
    }

    #[test]
    #[ignore = "needs netem"]
    fn a_rate_limit_has_the_configured_rate() {
        let mut lab = Lab::new(&[ROUTER]);
        let _undo = Undo;
        let path = Path::open();
        writeln!(
            io::stderr(),
            "| figure | asked | measured | limit |\n|---|---|---|---|"
        )
        .unwrap();
        let seconds = Duration::from_secs;
        for (kbps, queue_ms, time) in [(512, 500.0, 6), (4_000, 200.0, 4)] {
            lab.perform("r1", flat(line(50.0, kbps, queue_ms))).unwrap();
            holds("delay and throughput under overload", || {
                let (_, arrivals) = path.send((1000, kbps * 2), seconds(time), seconds(1), || {});
                let first = arrivals[0].came;
                let is_steady = |it: &&Arrival| it.came > first + Duration::from_millis(1500);
                let steady: Vec<_> = arrivals.iter().filter(is_steady).copied().collect();
                let asked = 50.0 + queue_ms;
                let delay = median(steady.iter().map(|it| ms(it.delay())).collect());
                let what = format!("delay in ms under twice the rate of {kbps} kbit/s");
                let is_delay = row(&what, asked, delay, asked * 0.9..=asked * 1.1);
                let (from, to) = (steady[0].came, steady[steady.len() - 1].came);
                let bytes: usize = steady[1..].iter().map(|it| it.bytes).sum();
                let measured = bytes as f64 / 125.0 / (to - from).as_secs_f64();
                let asked = f64::from(kbps);
                let what = "throughput of UDP in kbit/s";
                is_delay & row(what, asked, measured, asked * 0.97..=asked * 1.03)
            });
        }

        holds("a raised rate", || {
            // The rate is raised while packets arrive at twice the old rate.
            lab.perform("r1", flat(line(50.0, 512, 500.0))).unwrap();
            let mut raised = Duration::ZERO;
            let (_, arrivals) = path.send((1000, 1024), seconds(6), seconds(1), || {
                let pause = UdpSocket::bind("0.0.0.0:0").unwrap();
                pause.set_read_timeout(Some(seconds(3))).unwrap();
                pause.recv(&mut [0]).unwrap_err();
                lab.perform("r1", flat(line(50.0, 10_000, 500.0))).unwrap();
                raised = path.began.elapsed();
            });
            let late = |it: &&Arrival| it.came > raised && ms(it.delay()) > 100.0;
            let late = arrivals.iter().filter(late);
            let until = late.map(|it| ms(it.came - raised)).fold(0.0, f64::max);
            let what = "rate raised: ms until the delay is as asked";
            row(what, 0.0, until, 0.0..=600.0)
        });

        // Below the rate no packet is dropped, whatever its size is.
        for (bytes, delay_ms, kbps) in [
            (100, 2_000.0, 4_000),
            (64, 200.0, 1_000),
            (1_500, 50.0, 4_000),
        ] {
            lab.perform("r1", flat(line(delay_ms, kbps, 200.0)))
                .unwrap();
            holds("no loss below capacity", || {
                let patience = Duration::from_secs_f64(delay_ms / 1e3) + seconds(2);
                let load = (bytes, kbps * 28 / 100);
                let (sent, arrivals) = path.send(load, seconds(4), patience, || {});
                let lost = sent as f64 - arrivals.len() as f64;
                let what =
                    format!("lost of {sent} packets of {bytes} bytes at 28 % of {kbps} kbit/s");
                row(&what, 0.0, lost, 0.0..=0.0)
            });
        }
    }
}
