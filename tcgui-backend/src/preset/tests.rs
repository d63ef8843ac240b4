//! Tests of preset files: their meaning, and the errors and warnings about them.

use tcgui_shared::netem::LossModel;

use super::*;

fn refusal(text: &str) -> String {
    super::read(text.as_bytes()).unwrap_err().to_string()
}

/// Reads a preset that must have no warnings.
fn read(bytes: &[u8]) -> Result<CustomPreset, DocumentError> {
    let read = super::read(bytes)?;
    assert_eq!(read.warnings, []);
    Ok(read.value)
}

#[test]
fn a_feature_in_the_file_is_enabled() {
    let preset = read(
        br"{
            // A line to the moon.
            id: 'moon', name: 'Moon',
            delay: { base_ms: 1300, jitter_ms: 9 }, reorder: { percentage: 1 }, rate_limit: { rate: '1.5mbit', rate_kbps: 7 },
            distribution: 'normal', seed: 0x10,
            loss_model: { GilbertElliott: { p: 1, r: 20 } },
        }",
    )
    .unwrap();
    let config = &preset.config;
    assert_eq!(
        (preset.id.as_str(), preset.description.as_str()),
        ("moon", "")
    );
    assert!(config.delay.enabled && config.loss.enabled);
    // The share that the model loses, for frontends that do not know models.
    assert!((config.loss.percentage - 100.0 / 21.0).abs() < 1e-6);
    assert_eq!((config.reorder.gap, config.rate_limit.rate_kbps), (5, 1500));
    assert_eq!(config.extensions.seed, Some(16));
    let bursts = LossModel::GilbertElliott {
        p: 1.0,
        r: 20.0,
        bad_loss: 100.0,
        good_loss: 0.0,
    };
    assert_eq!(config.extensions.loss_model, Some(bursts));
    let plain = read(b"{ id: 'x', name: 'x', rate_limit: {} }").unwrap();
    assert!(plain.config.rate_limit.enabled && plain.config.rate_limit.rate_kbps == 1000);
}

#[test]
fn errors_have_line_and_column() {
    let of = |members: &str| refusal(&format!("{{\n id: 'x', name: 'x',\n {members}\n}}"));
    let cases = [
        ("los: {}", "line 3, column 2: los: unknown field `los`"),
        (
            "loss: { percent: 1 }",
            "line 3, column 10: loss.percent: unknown field `percent`",
        ),
        (
            "loss: { percentage: 101 }",
            "line 3, column 22: loss.percentage: loss.percentage is 101",
        ),
        (
            "loss: { percentage: NaN }",
            "line 3, column 22: loss.percentage: loss.percentage is not a number",
        ),
        (
            "delay: { base_ms: -Infinity }",
            "line 3, column 20: delay.base_ms",
        ),
        (
            "delay: { base_ms: 1e999 }",
            "line 3, column 20: delay.base_ms",
        ),
        (
            "delay: { base_ms: '3' }",
            "line 3, column 20: delay.base_ms: expected number",
        ),
        (
            "reorder: { percentage: 1, gap: 0 }",
            "line 3, column 33: reorder.gap",
        ),
        (
            "rate_limit: { rate: '10 apples' }",
            "line 3, column 22: rate_limit.rate: \"apples\"",
        ),
        (
            "rate_limit: { rate_kbps: -5 }",
            "line 3, column 27: rate_limit.rate_kbps: -5 is not between 0 and",
        ),
        (
            "rate_limit: { rate_kbps: '10mbit' }",
            "line 3, column 27: rate_limit.rate_kbps: \"10mbit\" is a text, not a number in kbit/s; a text with a unit belongs in rate",
        ),
        (
            "rate_limit: { rate: 100 }",
            "line 3, column 22: rate_limit.rate: 100 has no unit; write a text such as \"10mbit\", or a number of kbit/s in rate_kbps",
        ),
        (
            "rate_limit: { rate: '1MBps' }",
            "line 3, column 22: rate_limit.rate: the B of \"MBps\" may mean bits or bytes",
        ),
        (
            "reorder: { percentage: 1, gap: 2.5 }",
            "line 3, column 33: reorder.gap: ",
        ),
        (
            "slot: { min: 1 }",
            "line 3, column 10: slot.min: unknown field",
        ),
        (
            "loss: {}, loss: {}",
            "line 1, column 1: duplicate field `loss`",
        ),
        (
            "preset: 'x'",
            "line 3, column 2: preset: unknown field `preset`",
        ),
        (
            "steps: []",
            "line 3, column 2: steps: unknown field `steps`",
        ),
    ];
    for (members, expected) in cases {
        let message = of(members);
        assert!(message.starts_with(expected), "{members}: {message}");
    }
    assert!(refusal("{ name: 'x' }").contains("missing field `id`"));
}

#[test]
fn a_rate_may_have_a_fraction() {
    for rate in ["rate_kbps: 100.5", "rate: '100.5kbit'"] {
        let text = format!("{{ id: 'x', name: 'x', rate_limit: {{ {rate} }} }}");
        let config = read(text.as_bytes()).unwrap().config;
        assert_eq!(config.rate_limit.rate_kbps, 101, "{rate}");
        assert_eq!(config.extensions.rate_limit_bps, Some(100_500), "{rate}");
    }
}

#[test]
fn ambiguous_values_cause_warnings() {
    let text = "{ id: 'x', name: 'x',\n loss: { percentage: 2, correlation: 25 },\n rate_limit: { rate: '1mbps' } }";
    let read = super::read(text.as_bytes()).unwrap();
    assert_eq!(read.value.config.rate_limit.rate_kbps, 1000);
    let warnings: Vec<_> = read.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0]
            .starts_with("line 3, column 22: rate_limit.rate: \"mbps\" is read as bits per second"),
        "{warnings:?}"
    );
    assert!(
        warnings[1].starts_with("line 2, column 38: loss.correlation: loss of 2 % with a correlation of 25 % hits 0.0057"),
        "{warnings:?}"
    );
}

#[test]
fn only_valid_ids_are_accepted() {
    let of = |id: &str| read(format!("{{ id: \"{id}\", name: 'x' }}").as_bytes());
    for id in ["a", "ABC_1-2.3", "größer", "a b", &"x".repeat(128)] {
        assert_eq!(of(id).unwrap().id, id);
    }
    let wrong = [
        "", ".", "..", "../x", "a/b", "a*", "a\\nb", "$x", "a?b", "a#b", " a", "a\\\\b",
    ];
    for id in wrong.into_iter().chain([&*"x".repeat(129)]) {
        let message = of(id).unwrap_err().to_string();
        assert!(
            message.starts_with("line 1, column 7: id: "),
            "{id}: {message}"
        );
    }
    assert!(refusal("{ id: 'x', name: '' }").contains("name: is empty"));
}

#[test]
fn short_names_work_in_scenarios_only() {
    let preset = |id: &str, percentage: f64| CustomPreset {
        id: id.to_owned(),
        name: id.to_owned(),
        description: String::new(),
        config: TcNetemConfig {
            loss: tcgui_shared::netem::LossConfig {
                enabled: true,
                percentage,
                correlation: 0.0,
            },
            ..TcNetemConfig::default()
        },
    };
    let mut presets = vec![preset("satellite-link", 1.0), preset("poor-wifi", 2.0)];
    let loss = |presets: &[CustomPreset], id| find(presets, id).map(|it| it.loss.percentage);
    assert_eq!(loss(&presets, "satellite"), Some(1.0));
    assert_eq!(loss(&presets, "poor-wifi"), Some(2.0));
    assert_eq!(
        loss(&presets, "wan"),
        None,
        "the preset itself is not there"
    );
    presets.push(preset("wifi", 3.0));
    assert_eq!(
        loss(&presets, "wifi"),
        Some(3.0),
        "an id goes before a short name"
    );
}
