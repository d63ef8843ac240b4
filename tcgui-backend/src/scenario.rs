//! Scenario files in JSON5, and the limits for scenarios of every source.
//!
//! Pure: [`read`] converts text and presets to a [`NetworkScenario`].

use serde::Deserialize;
use tcgui_shared::netem::TcNetemConfig;
use tcgui_shared::preset::CustomPreset;
use tcgui_shared::scenario::{NetworkScenario, ScenarioMetadata, ScenarioStep};

use crate::document::duration::{self, DurationError};
use crate::document::{Document, DocumentError, JsonPath};
use crate::preset::{
    self, Features, Flaw, FromFile, MAX_DESCRIPTION, MAX_NAME, Problem, check_config, check_id,
    check_text, notes,
};

/// The largest number of steps.
pub const MAX_STEPS: usize = 10_000;
/// The longest duration of one pass, in days. The documentation of released backends gives one day as the limit, but no
/// backend enforced it. A test may run over a weekend.
const MAX_DAYS: u64 = 7;
const MS_PER_DAY: u64 = 24 * 3600 * 1000;
/// The longest description of a step, in bytes.
const MAX_STEP_DESCRIPTION: usize = 1024;
/// The largest number of tags, and the longest tag, author and version, in bytes.
const MAX_TAGS: usize = 32;
const MAX_FACT: usize = 256;

/// The largest number of warnings about one file.
const MAX_WARNINGS: usize = 100;

/// The keys of a scenario file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    id: String,
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    loop_scenario: bool,
    #[serde(default = "cleans_up")]
    cleanup_on_failure: bool,
    metadata: Option<MetadataKeys>,
    steps: Vec<StepKeys>,
}

fn cleans_up() -> bool {
    true
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetadataKeys {
    #[serde(default)]
    tags: Vec<String>,
    author: Option<String>,
    #[serde(default = "first_version")]
    version: String,
}

fn first_version() -> String {
    "1.0".to_owned()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepKeys {
    duration: String,
    description: String,
    #[serde(default)]
    tc_config: Features,
    /// Takes precedence over `tc_config`.
    preset: Option<String>,
}

/// Reads a scenario file. Its steps may name presets. `now` is in seconds since the Unix epoch.
///
/// # Errors
/// It is not JSON5, has an unknown key or an invalid value, or names a preset that does not exist.
pub fn read(
    bytes: &[u8],
    presets: &[CustomPreset],
    now: u64,
) -> Result<FromFile<NetworkScenario>, DocumentError> {
    let document = Document::new(bytes)?;
    let keys: Keys = document.read()?;
    let place = |Flaw { place, problem }| document.error(place, &problem);
    let mut doubts = Vec::new();
    let value = scenario(keys, (presets, now), &mut doubts)
        .and_then(|scenario| check(&scenario).map(|()| scenario))
        .map_err(place)?;
    doubts.truncate(MAX_WARNINGS);
    let warnings = doubts.into_iter().map(place).collect();
    Ok(FromFile { value, warnings })
}

fn scenario(
    keys: Keys,
    (presets, now): (&[CustomPreset], u64),
    doubts: &mut Vec<Flaw>,
) -> Result<NetworkScenario, Flaw> {
    check_count(&keys.steps)?;
    let mut steps = Vec::with_capacity(keys.steps.len());
    for (index, keys) in keys.steps.into_iter().enumerate() {
        let place = |flaw: Flaw| flaw.within(JsonPath::member("steps").at(index));
        let (step, doubtful) = step(keys, presets).map_err(place)?;
        steps.push(step);
        doubts.extend(doubtful.into_iter().map(place));
    }
    let metadata = match keys.metadata {
        Some(keys) => ScenarioMetadata {
            tags: keys.tags,
            author: keys.author,
            version: keys.version,
            duration_ms: 0,
        },
        None => ScenarioMetadata::default(),
    };
    Ok(NetworkScenario {
        id: keys.id,
        name: keys.name,
        description: keys.description,
        loop_scenario: keys.loop_scenario,
        created_at: now,
        modified_at: now,
        metadata: ScenarioMetadata {
            duration_ms: duration_ms(&steps),
            ..metadata
        },
        cleanup_on_failure: keys.cleanup_on_failure,
        steps,
    })
}

/// Returns a step, and the warnings about it.
fn step(keys: StepKeys, presets: &[CustomPreset]) -> Result<(ScenarioStep, Vec<Flaw>), Flaw> {
    let duration_ms = duration::milliseconds(&keys.duration)
        .map_err(|err| Flaw::new("duration", Problem::Duration(err)))?;
    let mut doubts = Vec::new();
    let tc_config = match keys.preset {
        Some(id) => preset::find(presets, &id)
            .ok_or_else(|| Flaw::new("preset", Problem::UnknownPreset { id }))?,
        None => {
            let place = |flaw: Flaw| flaw.within(JsonPath::member("tc_config"));
            let (config, doubt) = keys.tc_config.into_config().map_err(place)?;
            doubts.extend(doubt.map(place));
            doubts.extend(notes(&config).map_err(place)?.into_iter().map(place));
            config
        }
    };
    let step = ScenarioStep {
        duration_ms,
        tc_config,
        description: keys.description,
    };
    Ok((step, doubts))
}

/// Returns the duration of one pass in ms.
pub(crate) fn duration_ms(steps: &[ScenarioStep]) -> u64 {
    steps
        .iter()
        .fold(0, |sum, step| sum.saturating_add(step.duration_ms))
}

fn check_count<T>(steps: &[T]) -> Result<(), Flaw> {
    let (count, max) = (steps.len(), MAX_STEPS);
    match count {
        0 => Err(Flaw::new("steps", Problem::NoSteps)),
        _ if count > max => Err(Flaw::new("steps", Problem::TooMany { count, max })),
        _ => Ok(()),
    }
}

/// Checks the limits that apply to every scenario, from a file or from the bus.
pub(crate) fn check(scenario: &NetworkScenario) -> Result<(), Flaw> {
    check_id(&scenario.id)?;
    check_text("name", &scenario.name, 1..=MAX_NAME)?;
    check_text("description", &scenario.description, 0..=MAX_DESCRIPTION)?;
    check_metadata(&scenario.metadata).map_err(|flaw| flaw.within(JsonPath::member("metadata")))?;
    check_count(&scenario.steps)?;
    let mut checked: Option<TcNetemConfig> = None;
    for (index, step) in scenario.steps.iter().enumerate() {
        check_step(step, &mut checked)
            .map_err(|flaw| flaw.within(JsonPath::member("steps").at(index)))?;
    }
    if duration_ms(&scenario.steps) > MAX_DAYS * MS_PER_DAY {
        let days = MAX_DAYS;
        return Err(Flaw::new("steps", Problem::TooLongRun { days }));
    }
    Ok(())
}

/// Checks a step. A configuration is not checked again if it equals the one that was checked last.
fn check_step(step: &ScenarioStep, checked: &mut Option<TcNetemConfig>) -> Result<(), Flaw> {
    if step.duration_ms == 0 {
        let problem = Problem::Duration(DurationError::TooShort);
        return Err(Flaw::new("duration", problem));
    }
    check_text("description", &step.description, 0..=MAX_STEP_DESCRIPTION)?;
    if checked.as_ref() != Some(&step.tc_config) {
        check_config(&step.tc_config).map_err(|flaw| flaw.within(JsonPath::member("tc_config")))?;
        *checked = Some(step.tc_config);
    }
    Ok(())
}

fn check_metadata(metadata: &ScenarioMetadata) -> Result<(), Flaw> {
    let count = metadata.tags.len();
    if count > MAX_TAGS {
        let max = MAX_TAGS;
        return Err(Flaw::new("tags", Problem::TooMany { count, max }));
    }
    for tag in &metadata.tags {
        check_text("tags", tag, 0..=MAX_FACT)?;
    }
    let author = metadata.author.as_deref().unwrap_or_default();
    check_text("author", author, 0..=MAX_FACT)?;
    check_text("version", &metadata.version, 0..=MAX_FACT)
}

#[cfg(test)]
mod tests;
