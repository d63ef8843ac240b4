//! Measures loss, duplication and corruption of the built-in presets and scenarios, on a kernel with netem.

mod with_netem {
    use std::fs;
    use std::io::{self, Write};
    use std::net::UdpSocket;
    use std::path::Path;
    use std::time::Duration;

    use tcgui_backend::kernel::netem::Netem;
    use tcgui_backend::tc::desired::Desired;
    use tcgui_backend::{preset, scenario};
    use tcgui_shared::netem::{LossModel, TcNetemConfig};

    use crate::inside::{LINK, Lab};

    const PACKETS: u32 = 20_000;
    /// Number of packets that are sent before the receiver reads.
    const CHUNK: u32 = 50;
    /// Size of the payload in bytes. It is large, so that few flipped bits are in the Ethernet header, which has no
    /// checksum here.
    const PAYLOAD: usize = 1200;
    /// Largest difference in standard deviations. With about fifty measurements, a correct kernel exceeds it once in a
    /// thousand runs.
    const DEVIATIONS: f64 = 4.3;

    /// One feature of one configuration, and the expected share of packets in percent, from its file.
    struct Promise {
        place: String,
        config: TcNetemConfig,
        percent: f64,
        /// The factor by which the variance is larger, because packets in a burst depend on each other.
        clustering: f64,
    }

    /// Returns the features of a configuration, each with all other features off. A delay would keep packets in the
    /// queue.
    fn promises(place: &str, config: &TcNetemConfig) -> Vec<Promise> {
        let off = TcNetemConfig::default;
        let mut promises = Vec::new();
        let mut push = |feature: &str, config: TcNetemConfig, percent: f64, clustering: f64| {
            promises.push(Promise {
                place: format!("{place}: {feature}"),
                config,
                percent,
                clustering,
            });
        };
        if config.loss.enabled {
            let mut alone = off();
            alone.loss = config.loss;
            alone.extensions.loss_model = config.extensions.loss_model;
            let clustering = match config.extensions.loss_model {
                Some(LossModel::GilbertElliott { p, r, .. }) => {
                    let memory = 1.0 - (p + r) / 100.0;
                    (1.0 + memory) / (1.0 - memory)
                }
                _ => 1.0,
            };
            push("loss", alone, config.loss.percentage, clustering);
        }
        if config.duplicate.enabled {
            let mut alone = off();
            alone.duplicate = config.duplicate;
            push("duplicate", alone, config.duplicate.percentage, 1.0);
        }
        if config.corrupt.enabled {
            let mut alone = off();
            alone.corrupt = config.corrupt;
            push("corrupt", alone, config.corrupt.percentage, 1.0);
        }
        promises
    }

    /// Returns the features of all files in `assets`. Equal features are measured once.
    fn shipped() -> Vec<Promise> {
        let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
        let read = |kind: &str| {
            let mut files: Vec<_> = fs::read_dir(assets.join(kind))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            files.sort();
            files.into_iter().map(|path| fs::read(path).unwrap())
        };
        let mut all = Vec::new();
        for bytes in read("presets") {
            let preset = preset::read(&bytes).unwrap().value;
            all.extend(promises(&preset.id, &preset.config));
        }
        for bytes in read("scenarios") {
            let scenario = scenario::read(&bytes, &[], 0).unwrap().value;
            for (index, step) in scenario.steps.iter().enumerate() {
                let place = format!("{} step {index}", scenario.id);
                all.extend(promises(&place, &step.tc_config));
            }
        }
        let mut unique: Vec<Promise> = Vec::new();
        for promise in all {
            if !unique.iter().any(|it| it.config == promise.config) {
                unique.push(promise);
            }
        }
        unique
    }

    /// Sends packets to the own address, and returns how many arrived intact.
    fn fly(socket: &UdpSocket) -> u32 {
        let mut buffer = [0; PAYLOAD];
        let mut arrived = 0;
        for _ in 0..PACKETS / CHUNK {
            for _ in 0..CHUNK {
                socket.send(&[0; PAYLOAD]).unwrap();
            }
            while socket.recv(&mut buffer).is_ok() {
                arrived += 1;
            }
        }
        // The last packets may still be in the backlog of the processor.
        socket.set_nonblocking(false).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        while socket.recv(&mut buffer).is_ok() {
            arrived += 1;
        }
        socket.set_nonblocking(true).unwrap();
        arrived
    }

    #[test]
    #[ignore = "needs netem"]
    fn shipped_files_hit_the_share_of_packets_that_they_name() {
        let mut lab = Lab::new(&["ip link set lo up"]);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(socket.local_addr().unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let promises = shipped();
        assert!(promises.len() > 20, "{}", promises.len());
        let mut broken = Vec::new();
        for promise in &promises {
            let desired = Desired::from_config(&promise.config, LINK).unwrap();
            assert!(desired.netem.as_ref().is_some_and(Netem::impairs));
            lab.perform("lo", desired).unwrap();
            let arrived = f64::from(fly(&socket));
            let packets = f64::from(PACKETS);
            let share = promise.percent / 100.0;
            let hit = (arrived - packets).abs() / packets;
            let variance = share * (1.0 - share) * promise.clustering / packets;
            let off_by = (hit - share) / variance.sqrt();
            writeln!(
                io::stderr(),
                "{}: asked {:.3} %, measured {:.3} %, {off_by:.2} deviations (limit {DEVIATIONS})",
                promise.place,
                promise.percent,
                hit * 100.0
            )
            .unwrap();
            if off_by.abs() > DEVIATIONS {
                broken.push(&promise.place);
            }
        }
        assert!(broken.is_empty(), "{broken:?}");
    }
}
