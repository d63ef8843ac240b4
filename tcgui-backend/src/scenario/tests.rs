//! Tests of scenario files: their meaning, and the errors about them.

use std::fmt::Write;

use super::*;

const NOW: u64 = 1_700_000_000;

fn parse(text: &str) -> Result<NetworkScenario, DocumentError> {
    let presets = [
        preset::read(b"{ id: 'poor-wifi', name: 'x', loss: { percentage: 7 } }")
            .unwrap()
            .value,
    ];
    read(text.as_bytes(), &presets, NOW).map(|read| read.value)
}

fn refusal(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

fn with_steps(steps: &str) -> String {
    format!("{{ id: 'x', name: 'x', steps: [\n{steps}\n] }}")
}

#[test]
fn defaults_are_those_of_released_backends() {
    let text = "{ id: 'x', name: 'X', steps: [ { duration: '1m 30s', description: '' } ] }";
    let scenario = parse(text).unwrap();
    assert!(!scenario.loop_scenario && scenario.cleanup_on_failure);
    assert_eq!((scenario.created_at, scenario.modified_at), (NOW, NOW));
    assert_eq!(scenario.metadata.duration_ms, 90_000);
    assert_eq!(
        (
            scenario.metadata.version.as_str(),
            &scenario.metadata.author
        ),
        ("", &None)
    );
    assert_eq!(scenario.steps[0].tc_config, TcNetemConfig::default());
    let with_metadata = text.replace("name:", "metadata: {}, loop_scenario: true, name:");
    let scenario = parse(&with_metadata).unwrap();
    assert_eq!(scenario.metadata.version, "1.0");
    assert!(scenario.loop_scenario);
}

#[test]
fn a_preset_wins_over_features_and_has_short_names() {
    let text = with_steps(
        "{ duration: '1s', description: '', preset: 'wifi', tc_config: { delay: { base_ms: 3 } } },
         { duration: '1s', description: '', tc_config: { delay: { base_ms: 3 } } },",
    );
    let steps = parse(&text).unwrap().steps;
    assert_eq!(steps[0].tc_config.loss.percentage, 7.0);
    assert!(!steps[0].tc_config.delay.enabled && steps[1].tc_config.delay.enabled);
}

#[test]
fn errors_have_line_and_column() {
    let first = "{ duration: '1s', description: '' },\n";
    let cases = [
        (
            "{ duration: '0s', description: '' }",
            "line 3, column 13: steps[1].duration: is shorter",
        ),
        (
            "{ duration: '1 parsec', description: '' }",
            "line 3, column 13: steps[1].duration: \"1 parsec\" is not a duration",
        ),
        (
            "{ duration: 5, description: '' }",
            "line 3, column 13: steps[1].duration: expected string",
        ),
        (
            "{ duration: '1s' }",
            "line 3, column 1: steps[1]: missing field `description`",
        ),
        (
            "{ duration: '1s', description: '', preset: 'moon' }",
            "line 3, column 44: steps[1].preset: there is no preset \"moon\"",
        ),
        (
            "{ duration: '1s', description: '', tc_config: { los: {} } }",
            "line 3, column 49: steps[1].tc_config.los: unknown field",
        ),
        (
            "{ duration: '1s', description: '', tc_config: { delay: { base_ms: 10001 } } }",
            "line 3, column 67: steps[1].tc_config.delay.base_ms: delay.base_ms is 10001",
        ),
        (
            "{ duration: '1s', description: '', tc_config: { rate_limit: { rate: 'x' } } }",
            "line 3, column 69: steps[1].tc_config.rate_limit.rate",
        ),
        (
            "{ duration: '1s', description: '', hold: true }",
            "line 3, column 36: steps[1].hold: unknown field",
        ),
    ];
    for (step, expected) in cases {
        let error = parse(&with_steps(&format!("{first}{step}"))).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with(expected), "{step}: {message}");
        assert_eq!(error.step(), Some(1), "{step}");
    }
    assert!(refusal(&with_steps("")).starts_with("line 1, column 30: steps: there must be"));
    assert!(refusal("{ id: 'x', name: 'x' }").contains("missing field `steps`"));
    assert!(
        refusal(&with_steps(first).replace("'x'", "'a/b'")).starts_with("line 1, column 7: id: ")
    );
}

#[test]
fn ten_thousand_steps_are_the_most() {
    let steps = |count: usize| {
        let mut steps = String::new();
        for _ in 0..count {
            steps.push_str("{duration:'1s',description:''},");
        }
        with_steps(&steps)
    };
    assert_eq!(
        parse(&steps(10_000)).unwrap().metadata.duration_ms,
        10_000_000
    );
    assert!(refusal(&steps(10_001)).contains("there are 10001, more than 10000"));
}

#[test]
fn a_week_is_the_longest() {
    let step =
        |duration: &str| with_steps(&format!("{{ duration: '{duration}', description: '' }}"));
    assert_eq!(parse(&step("1w")).unwrap().steps.len(), 1);
    assert!(refusal(&step("1w 1ms")).contains("longer than 7 days"));
    let long = "{ duration: '500000000y', description: '' },".repeat(3);
    assert!(refusal(&with_steps(&long)).contains("longer than 7 days"));
}

#[test]
fn texts_are_bounded() {
    let mut tags = String::new();
    for index in 0..33 {
        write!(tags, "'{index}',").unwrap();
    }
    let text = with_steps("{ duration: '1s', description: '' }");
    let metadata = format!("metadata: {{ tags: [{tags}] }}, name:");
    assert!(refusal(&text.replace("name:", &metadata)).contains("metadata.tags: there are 33"));
    let long = format!("description: '{}', name:", "x".repeat(4097));
    assert!(refusal(&text.replace("name:", &long)).contains("description: has more than 4096"));
}
