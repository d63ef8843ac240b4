//! Tests of the numbers of built-in files. They are those of the released packages, but without correlations. In the
//! kernel a correlation changes the share of packets. So bursts of loss come from a loss model whose mean is the
//! released number.

use tcgui_shared::netem::{
    DelayConfig, LossModel, PercentageConfig, RateLimitConfig, ReorderConfig, TcNetemConfig,
};

use super::*;

/// The numbers of one configuration: percentages, and times in ms. 0: off. `loss` is a percentage and the mean length
/// of a burst in packets; with a length, it is a loss model.
#[derive(Clone, Copy, Default)]
struct Row {
    loss: (f64, f64),
    delay: (f64, f64),
    duplicate: f64,
    reorder: (f64, u32),
    corrupt: f64,
    kbps: u32,
}

impl Row {
    fn config(self) -> TcNetemConfig {
        let share = |percentage: f64| PercentageConfig {
            enabled: percentage > 0.0,
            percentage,
            correlation: 0.0,
        };
        let (base_ms, jitter_ms) = self.delay;
        let (loss, burst) = self.loss;
        let mut config = TcNetemConfig {
            loss: share(loss),
            delay: DelayConfig {
                enabled: base_ms > 0.0,
                base_ms,
                jitter_ms,
                correlation: 0.0,
            },
            duplicate: share(self.duplicate),
            corrupt: share(self.corrupt),
            ..TcNetemConfig::default()
        };
        if burst > 0.0 {
            let r = 100.0 / burst;
            config.extensions.loss_model = Some(LossModel::GilbertElliott {
                p: r * loss / (100.0 - loss),
                r,
                bad_loss: 100.0,
                good_loss: 0.0,
            });
        }
        let (percentage, gap) = self.reorder;
        if percentage > 0.0 {
            config.reorder = ReorderConfig {
                enabled: true,
                percentage,
                correlation: 0.0,
                gap,
            };
        }
        if self.kbps > 0 {
            config.rate_limit = RateLimitConfig {
                enabled: true,
                rate_kbps: self.kbps,
            };
        }
        config
    }
}

#[rustfmt::skip]
fn presets() -> [(&'static str, &'static str, Row); 7] {
    let row = Row::default();
    [
        ("satellite-link", "Satellite Link", Row { loss: (1.0, 100.0 / 49.5), delay: (500.0, 20.0), kbps: 2000, ..row }),
        ("cellular-network", "Cellular Network", Row { loss: (2.0, 100.0 / 49.0), delay: (150.0, 50.0), reorder: (5.0, 3), kbps: 10_000, ..row }),
        ("poor-wifi", "Poor WiFi", Row { loss: (8.0, 100.0 / 46.0), delay: (80.0, 30.0), duplicate: 1.0, reorder: (3.0, 2), corrupt: 0.5, ..row }),
        ("wan-link", "WAN Link", Row { loss: (0.5, 100.0 / 49.75), delay: (50.0, 10.0), kbps: 50_000, ..row }),
        ("unreliable-connection", "Unreliable Connection", Row { loss: (15.0, 100.0 / 34.0), delay: (200.0, 100.0), duplicate: 5.0, reorder: (10.0, 5), corrupt: 2.0, ..row }),
        ("high-latency-low-bandwidth", "High Latency + Low Bandwidth", Row { loss: (3.0, 100.0 / 48.5), delay: (800.0, 50.0), kbps: 512, ..row }),
        ("test-all", "Test All Features", Row { loss: (5.0, 100.0 / 38.0), delay: (100.0, 20.0), duplicate: 2.0, reorder: (8.0, 3), corrupt: 1.0, kbps: 5000 }),
    ]
}

struct Shipped {
    id: &'static str,
    name: &'static str,
    tags: &'static [&'static str],
    /// Total duration in seconds.
    total: u64,
    steps: Vec<(u64, Row)>,
}

#[rustfmt::skip]
fn mobile_to_intermittent() -> [Shipped; 3] {
    let row = Row::default();
    [
        Shipped {
            id: "mobile-degradation", name: "Mobile Device Distance Simulation", tags: &["mobile", "wireless", "degradation"], total: 120,
            steps: vec![
                (30, Row { delay: (5.0, 0.0), ..row }),
                (30, Row { loss: (1.0, 0.0), delay: (20.0, 0.0), ..row }),
                (30, Row { loss: (15.0, 100.0 / 34.0), delay: (100.0, 50.0), ..row }),
                (30, Row { loss: (25.0, 100.0 / 30.0), delay: (200.0, 100.0), duplicate: 1.0, ..row }),
            ],
        },
        Shipped {
            id: "network-congestion", name: "Network Congestion Simulation", tags: &["congestion", "bandwidth", "daily-pattern"], total: 240,
            steps: vec![
                (60, Row { loss: (0.1, 0.0), delay: (10.0, 0.0), ..row }),
                (90, Row { loss: (2.0, 0.0), delay: (50.0, 20.0), duplicate: 0.5, ..row }),
                (60, Row { loss: (5.0, 100.0 / 38.0), delay: (150.0, 75.0), duplicate: 1.5, kbps: 1000, ..row }),
                (30, Row { loss: (1.0, 0.0), delay: (30.0, 10.0), ..row }),
            ],
        },
        Shipped {
            id: "intermittent-connectivity", name: "Intermittent Connectivity Simulation", tags: &["intermittent", "unstable", "drops"], total: 150,
            steps: vec![
                (20, Row { delay: (15.0, 0.0), ..row }),
                (15, Row { loss: (30.0, 0.0), delay: (500.0, 200.0), ..row }),
                (25, Row { loss: (2.0, 0.0), delay: (50.0, 0.0), ..row }),
                (20, Row { loss: (60.0, 100.0 / 16.0), delay: (1000.0, 500.0), duplicate: 5.0, ..row }),
                (40, Row { loss: (5.0, 0.0), delay: (80.0, 30.0), ..row }),
                (30, Row { delay: (20.0, 0.0), ..row }),
            ],
        },
    ]
}

#[rustfmt::skip]
fn quality_to_fast() -> [Shipped; 3] {
    let row = Row::default();
    [
        Shipped {
            id: "quality-degradation", name: "Gradual Quality Degradation", tags: &["degradation", "gradual", "recovery"], total: 240,
            steps: vec![
                (30, Row { delay: (10.0, 3.0), ..row }),
                (30, Row { loss: (1.0, 0.0), delay: (25.0, 7.5), ..row }),
                (30, Row { loss: (3.0, 0.0), delay: (50.0, 15.0), duplicate: 0.6, ..row }),
                (30, Row { loss: (7.0, 0.0), delay: (100.0, 30.0), duplicate: 1.4, ..row }),
                (30, Row { loss: (12.0, 0.0), delay: (200.0, 60.0), duplicate: 2.0, ..row }),
                (30, Row { loss: (8.0, 0.0), delay: (150.0, 45.0), duplicate: 1.6, ..row }),
                (30, Row { loss: (4.0, 0.0), delay: (80.0, 24.0), ..row }),
                (30, Row { loss: (1.0, 0.0), delay: (30.0, 9.0), ..row }),
            ],
        },
        Shipped {
            id: "load-testing", name: "Load Testing Conditions", tags: &["load-testing", "reproducible", "testing"], total: 300,
            steps: vec![
                (60, Row { delay: (50.0, 0.0), ..row }),
                (60, Row { loss: (0.5, 0.0), delay: (75.0, 15.0), ..row }),
                (60, Row { loss: (2.0, 0.0), delay: (120.0, 40.0), duplicate: 0.8, ..row }),
                (60, Row { loss: (5.0, 100.0 / 38.0), delay: (200.0, 80.0), duplicate: 1.5, kbps: 2000, ..row }),
                (60, Row { delay: (50.0, 0.0), ..row }),
            ],
        },
        Shipped {
            id: "fast-degradation", name: "Fast Network Degradation Test", tags: &["testing", "demo", "fast", "degradation"], total: 30,
            steps: vec![
                (3, row),
                (3, Row { loss: (2.0, 0.0), ..row }),
                (3, Row { loss: (5.0, 0.0), delay: (100.0, 0.0), ..row }),
                (3, Row { loss: (8.0, 100.0 / 46.0), delay: (150.0, 50.0), ..row }),
                (3, Row { loss: (12.0, 0.0), delay: (200.0, 0.0), duplicate: 3.0, ..row }),
                (3, Row { loss: (15.0, 0.0), delay: (250.0, 0.0), reorder: (5.0, 3), ..row }),
                (3, Row { loss: (20.0, 0.0), delay: (300.0, 0.0), corrupt: 2.0, ..row }),
                (3, Row { loss: (25.0, 0.0), delay: (400.0, 0.0), kbps: 1000, ..row }),
                (3, Row { loss: (30.0, 100.0 / 21.0), delay: (500.0, 200.0), duplicate: 5.0, reorder: (10.0, 5), corrupt: 3.0, kbps: 512 }),
                (3, row),
            ],
        },
    ]
}

/// Compares two configurations. The numbers of an expected loss model are calculated, so they may differ in the last
/// digit.
fn assert_same(shipped: &TcNetemConfig, expected: &TcNetemConfig, place: &str) {
    let numbers = |config: &TcNetemConfig| match config.extensions.loss_model {
        None => [0.0; 5],
        Some(LossModel::GilbertElliott {
            p,
            r,
            bad_loss,
            good_loss,
        }) => [1.0, p, r, bad_loss, good_loss],
        Some(LossModel::FourState { .. }) => panic!("{place}: another model"),
    };
    for (found, expected) in numbers(shipped).into_iter().zip(numbers(expected)) {
        assert!(
            (found - expected).abs() < 1e-9,
            "{place}: {found} {expected}"
        );
    }
    let without_model = |config: &TcNetemConfig| {
        let mut config = *config;
        config.extensions.loss_model = None;
        config
    };
    assert_eq!(without_model(shipped), without_model(expected), "{place}");
}

async fn shipped() -> Library {
    let (handle, _task) = open(LibraryConfig::default()).await;
    Arc::unwrap_or_clone(handle.snapshot())
}

#[tokio::test]
async fn shipped_presets_have_the_released_numbers() {
    let library = shipped().await;
    assert_eq!(library.load_errors, []);
    assert_eq!(library.warnings, []);
    let expected = presets();
    assert_eq!(library.presets.len(), expected.len());
    for (preset, (id, name, row)) in library.presets.iter().zip(expected) {
        assert_eq!((preset.id.as_str(), preset.name.as_str()), (id, name));
        assert_same(&preset.config, &row.config(), id);
        assert!(!preset.description.is_empty(), "{id}");
    }
}

#[tokio::test]
async fn shipped_scenarios_have_the_released_numbers() {
    let library = shipped().await;
    let expected: Vec<_> = mobile_to_intermittent()
        .into_iter()
        .chain(quality_to_fast())
        .collect();
    assert_eq!(library.scenarios.len(), expected.len());
    for (scenario, expected) in library.scenarios.iter().zip(expected) {
        let id = expected.id;
        assert_eq!(
            (scenario.id.as_str(), scenario.name.as_str()),
            (id, expected.name)
        );
        assert_eq!(scenario.metadata.tags, expected.tags, "{id}");
        assert_eq!(scenario.metadata.version, "1.0", "{id}");
        assert_eq!(scenario.metadata.duration_ms, expected.total * 1000, "{id}");
        assert!(
            !scenario.loop_scenario && scenario.cleanup_on_failure,
            "{id}"
        );
        assert_eq!(scenario.steps.len(), expected.steps.len(), "{id}");
        for (index, (step, (seconds, row))) in scenario.steps.iter().zip(expected.steps).enumerate()
        {
            assert_eq!(step.duration_ms, seconds * 1000, "{id} {index}");
            assert_same(&step.tc_config, &row.config(), &format!("{id} {index}"));
            assert!(!step.description.is_empty(), "{id} {index}");
        }
    }
}

#[tokio::test]
async fn every_asset_is_compiled_in() {
    for (kind, compiled) in [
        ("presets", &built_in::PRESETS[..]),
        ("scenarios", &built_in::SCENARIOS),
    ] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("assets")
            .join(kind);
        let mut there: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| format!("built-in/{kind}/{}", entry.unwrap().file_name().display()))
            .collect();
        let mut compiled: Vec<_> = compiled
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect();
        there.sort();
        compiled.sort();
        assert_eq!(there, compiled);
    }
}

#[test]
fn the_examples_of_the_documentation_are_valid() {
    let text = include_str!("../../../../docs/presets-and-scenarios.md");
    let examples: Vec<_> = text
        .split("```json5\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert_eq!(examples.len(), 2);
    let root = tempfile::tempdir().unwrap();
    let paths: Vec<_> = examples
        .iter()
        .enumerate()
        .map(|(index, example)| {
            let path = root.path().join(format!("{index}.json5"));
            fs::write(&path, example).unwrap();
            path
        })
        .collect();
    let verdicts = check::check(&paths, &LibraryConfig::default());
    let lines: Vec<_> = verdicts.iter().map(ToString::to_string).collect();
    assert!(lines[0].ends_with("0.json5: preset \"ship\""), "{lines:?}");
    assert!(
        lines[1].ends_with("1.json5: scenario \"commute\", 3 steps"),
        "{lines:?}"
    );
}
