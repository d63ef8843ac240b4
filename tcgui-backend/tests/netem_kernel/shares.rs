//! Compares the calculated share of packets that a correlated event hits with the counters of the kernel.

mod with_netem {
    use std::io::{self, Write};
    use std::net::UdpSocket;

    use tcgui_backend::kernel::netem::{Loss, Random};

    use tcgui_shared::netem::FlatNetem;

    use crate::inside::{Lab, flat, netem_of};

    const PACKETS: u32 = 20_000;
    /// A dummy interface needs no neighbour entries, and drops all packets.
    const DUMMY: &str = "ip link add dummy1 type dummy && ip addr add 10.9.9.1/24 dev dummy1 && ip link set dummy1 up";
    /// Largest difference in standard deviations. With 20 points, a correct kernel exceeds it once in a thousand runs.
    const DEVIATIONS: f64 = 4.06;

    /// Probability and correlation in percent. The first ten points measure loss, the other ten duplication.
    const POINTS: [(f64, f64); 20] = [
        (2.0, 0.0),
        (1.0, 10.0),
        (8.0, 25.0),
        (10.0, 25.0),
        (15.0, 30.0),
        (30.0, 50.0),
        (50.0, 50.0),
        (80.0, 50.0),
        (45.0, 90.0),
        (5.0, 2.0),
        (5.0, 0.0),
        (3.0, 5.0),
        (10.0, 10.0),
        (20.0, 25.0),
        (25.0, 40.0),
        (40.0, 60.0),
        (60.0, 30.0),
        (90.0, 25.0),
        (55.0, 80.0),
        (70.0, 70.0),
    ];

    #[test]
    #[ignore = "needs netem"]
    fn correlated_events_hit_the_calculated_share() {
        let mut lab = Lab::new(&[DUMMY]);
        let socket = UdpSocket::bind("10.9.9.1:0").unwrap();
        socket.connect("10.9.9.2:9").unwrap();
        let mut wrong = Vec::new();
        for (index, (probability, correlation)) in POINTS.into_iter().enumerate() {
            let is_loss = index < POINTS.len() / 2;
            let off = FlatNetem::default();
            let desired = flat(if is_loss {
                FlatNetem {
                    loss: probability,
                    correlation: Some(correlation),
                    ..off
                }
            } else {
                FlatNetem {
                    duplicate_percent: Some(probability),
                    duplicate_correlation: Some(correlation),
                    ..off
                }
            });
            let netem = netem_of(&desired);
            lab.perform("dummy1", flat(off)).unwrap();
            lab.perform("dummy1", desired).unwrap();
            for _ in 0..PACKETS {
                socket.send(&[0; 32]).unwrap();
            }
            let counted = lab.root("dummy1").unwrap().statistics;
            let random: Random = match netem.loss {
                Loss::Random(loss) if is_loss => loss,
                _ => netem.duplicate,
            };
            let share = random.share().percent() / 100.0;
            let packets = f64::from(PACKETS);
            let hits = if is_loss {
                f64::from(counted.drops)
            } else {
                counted.packets as f64 - packets
            };
            // Successive random numbers of the kernel depend on each other.
            let weight = correlation / 100.0;
            let independent = packets * (1.0 - weight) / (1.0 + weight);
            let deviation = (share * (1.0 - share) / independent)
                .sqrt()
                .max(1.0 / packets);
            let off_by = (hits / packets - share) / deviation;
            writeln!(
                io::stderr(),
                "{probability} % with {correlation} %: calculated {share:.6}, counted {:.6}, {off_by:.2} deviations",
                hits / packets
            )
            .unwrap();
            if off_by.abs() > DEVIATIONS {
                wrong.push((probability, correlation, share, hits / packets));
            }
        }
        assert_eq!(wrong, []);
    }
}
