//! Tests of rate limits by a token bucket filter below a netem, on a kernel with netem.

mod with_netem {
    use std::collections::BTreeSet;
    use std::net::UdpSocket;
    use std::time::{Duration, Instant};

    use tcgui_backend::kernel::bottleneck_probe::bottleneck_support;
    use tcgui_backend::kernel::qdisc::Qdisc;
    use tcgui_backend::tc::observed::Root;
    use tcgui_backend::tc::perform::Outcome;
    use tcgui_backend::tc::plan::Plan;
    use tcgui_backend::tc::report::command;
    use tcgui_shared::netem::{FlatNetem, QueueConfig, RateOverhead};

    use crate::inside::{Lab, delay, flat, nothing, sh};

    const DUMMY: &str = "ip link add dummy1 type dummy && ip link set dummy1 up";

    fn rate(kbps: u32) -> FlatNetem {
        FlatNetem {
            delay_ms: Some(20.0),
            rate_limit_kbps: Some(kbps),
            ..FlatNetem::default()
        }
    }

    fn kinds(lab: &mut Lab) -> Vec<(String, u32)> {
        let qdiscs = lab.qdiscs("dummy1");
        let names = qdiscs.into_iter().filter(|it| it.handle != 0);
        names.map(|it| (it.kind, it.handle >> 16)).collect()
    }

    fn filter(lab: &mut Lab) -> Qdisc {
        let qdiscs = lab.qdiscs("dummy1");
        let mut filters = qdiscs.into_iter().filter(|it| it.tbf.is_some());
        filters.next().expect("a filter")
    }

    #[test]
    #[ignore = "needs netem"]
    fn this_kernel_can_have_a_bottleneck() {
        assert!(bottleneck_support());
    }

    #[test]
    #[ignore = "needs netem"]
    fn a_rate_limit_adds_changes_and_removes_its_filter() {
        let mut lab = Lab::new(&[DUMMY]);
        let reach = |lab: &mut Lab, wish: FlatNetem| -> Outcome {
            let outcome = lab.perform("dummy1", flat(wish)).unwrap();
            let again = lab.perform("dummy1", flat(wish)).unwrap();
            assert_eq!(again.plan, Plan::Nothing, "{wish:?}");
            outcome
        };
        let outcome = reach(&mut lab, rate(512));
        assert!(matches!(outcome.plan, Plan::Add { .. }), "{outcome:?}");
        let both = [("netem".to_owned(), 0x7c60), ("tbf".to_owned(), 0x7c80)];
        assert_eq!(kinds(&mut lab), both);
        let tbf = filter(&mut lab).tbf.unwrap();
        assert_eq!((tbf.bytes_per_s, tbf.limit), (64_000, 15_140));
        for kbps in [64, 20_000, 1_000_000, 40_000_000] {
            let outcome = reach(&mut lab, rate(kbps));
            assert!(matches!(outcome.plan, Plan::Change { .. }), "{outcome:?}");
            let tbf = filter(&mut lab).tbf.unwrap();
            assert_eq!(tbf.bytes_per_s, u64::from(kbps) * 125);
        }
        let mut queue = rate(512);
        queue.extensions.queue = Some(QueueConfig {
            ms: Some(1000.0),
            bytes: None,
        });
        reach(&mut lab, queue);
        assert_eq!(filter(&mut lab).tbf.unwrap().limit, 64_000);
        // Jitter, a distribution table and duplication, each with the filter.
        let mut jitter = rate(512);
        jitter.delay_jitter_ms = Some(5.0);
        reach(&mut lab, jitter);
        jitter.extensions.distribution = Some(tcgui_shared::netem::Distribution::Pareto);
        reach(&mut lab, jitter);
        jitter.duplicate_percent = Some(5.0);
        reach(&mut lab, jitter);
        // To remove a table, the netem is replaced together with its filter.
        jitter.extensions.distribution = None;
        let outcome = reach(&mut lab, jitter);
        assert!(matches!(outcome.plan, Plan::Replace { .. }), "{outcome:?}");
        assert_eq!(kinds(&mut lab), both);
        // Only netem itself can count cells.
        let mut cells = rate(512);
        cells.extensions.rate_overhead = Some(RateOverhead {
            cell_size: 48,
            ..RateOverhead::default()
        });
        reach(&mut lab, cells);
        assert_eq!(kinds(&mut lab), both[..1]);
        reach(&mut lab, rate(512));
        lab.perform("dummy1", delay(3.0)).unwrap();
        assert_eq!(kinds(&mut lab), both[..1]);
        reach(&mut lab, rate(512));
        lab.perform("dummy1", nothing()).unwrap();
        assert_eq!(kinds(&mut lab), []);
    }

    #[test]
    #[ignore = "needs netem"]
    fn a_netem_with_its_own_rate_gets_a_filter() {
        let mut lab = Lab::new(&[DUMMY]);
        sh("tc qdisc add dev dummy1 root handle 7c60: netem delay 20ms rate 512kbit");
        let outcome = lab.perform("dummy1", flat(rate(512))).unwrap();
        assert!(matches!(outcome.plan, Plan::Change { .. }), "{outcome:?}");
        let netem = outcome.observed.netem().unwrap();
        assert_eq!((netem.rate.bytes_per_s, netem.rate_in_force()), (0, 64_000));
    }

    #[test]
    #[ignore = "needs netem"]
    fn the_published_commands_make_the_same_qdiscs() {
        let mut lab = Lab::new(&[DUMMY]);
        let mut wish = rate(512);
        wish.delay_jitter_ms = Some(5.0);
        let ours = lab.perform("dummy1", flat(wish)).unwrap().observed;
        let ours = *ours.netem().unwrap();
        lab.perform("dummy1", nothing()).unwrap();
        sh(&command("dummy1", &ours));
        let theirs = lab.observe("dummy1");
        let Root::ForeignNetem { netem, .. } = theirs.root else {
            panic!("{theirs:?}");
        };
        assert_eq!(netem.rate_in_force(), 64_000);
        let (ours, theirs) = (ours.bottleneck.unwrap(), netem.bottleneck.unwrap());
        assert!(ours.is_close_to(&theirs), "{ours:?} {theirs:?}");
    }

    /// Sends packets of 1 000 bytes to the own address at twice the rate. Returns the longest time that a packet took.
    fn longest_wait(kbps: u32, time: Duration) -> Duration {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        let began = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // No program sends to this socket, so reading from it is a pause.
                let pause = UdpSocket::bind("127.0.0.1:0").unwrap();
                pause
                    .set_read_timeout(Some(Duration::from_millis(5)))
                    .unwrap();
                let bytes_per_s = f64::from(kbps) * 125.0 * 2.0;
                let mut sent = 0.0;
                while began.elapsed() < time {
                    while sent < began.elapsed().as_secs_f64() * bytes_per_s {
                        let mut packet = [0; 1000];
                        let now = u64::try_from(began.elapsed().as_micros()).unwrap();
                        packet[..8].copy_from_slice(&now.to_ne_bytes());
                        sender.send(&packet).ok();
                        sent += 1042.0;
                    }
                    pause.recv(&mut [0]).unwrap_err();
                }
            });
            let mut longest = Duration::ZERO;
            let mut packet = [0; 1000];
            while receiver.recv(&mut packet).is_ok() {
                let sent = u64::from_ne_bytes(packet[..8].try_into().unwrap());
                longest = longest.max(began.elapsed().saturating_sub(Duration::from_micros(sent)));
            }
            longest
        })
    }

    /// With a rate limit of netem itself, a queue of 1 000 packets would take 16 s.
    #[test]
    #[ignore = "needs netem"]
    fn packets_wait_no_longer_than_the_queue() {
        let mut lab = Lab::new(&["ip link set lo up mtu 1500"]);
        let mut wish = rate(512);
        wish.extensions.queue = Some(QueueConfig {
            ms: Some(500.0),
            bytes: None,
        });
        lab.perform("lo", flat(wish)).unwrap();
        // 20 ms of delay, and 500 ms of queue. On a busy machine, packets arrive late.
        let asked = Duration::from_millis(520);
        let measured = [(); 4].map(|()| longest_wait(512, Duration::from_secs(4)));
        let is_close = |it: &Duration| *it > asked.mul_f64(0.85) && *it < asked.mul_f64(1.15);
        assert!(
            measured.iter().any(is_close),
            "asked {asked:?}, measured {measured:?}"
        );
    }

    #[test]
    #[ignore = "needs netem"]
    fn every_transition_ends_in_the_requested_state() {
        let mut lab = Lab::new(&[DUMMY]);
        let mut own = rate(512);
        own.extensions.rate_overhead = Some(RateOverhead {
            packet: 1,
            ..RateOverhead::default()
        });
        let wishes = [
            FlatNetem::default(),
            FlatNetem {
                loss: 1.0,
                ..FlatNetem::default()
            },
            rate(512),
            own,
        ];
        let mut seen = BTreeSet::new();
        for from in 0..wishes.len() {
            for to in 0..wishes.len() {
                for (index, wish) in [(from, wishes[from]), (to, wishes[to])] {
                    let desired = flat(wish);
                    let outcome = lab.perform("dummy1", desired.clone()).unwrap();
                    let found = outcome
                        .observed
                        .netem()
                        .map(|it| (it.rate, it.bottleneck.is_some()));
                    let wanted = desired.netem.map(|it| (it.rate, it.bottleneck.is_some()));
                    assert_eq!(found, wanted, "{from} to {to}");
                    seen.insert(index);
                }
                // Begin with the netem of another program.
                sh("tc qdisc replace dev dummy1 root handle 9: netem delay 1ms rate 1mbit");
                let outcome = lab.perform("dummy1", flat(wishes[to])).unwrap();
                assert_eq!(outcome.observed.netem().is_some(), to > 0);
            }
        }
        assert_eq!(seen.len(), wishes.len());
    }
}
