//! Impairments: from options to requests, and from answers to words and documents. Pure, but for reading preset files.

use std::io::Read;
use std::path::Path;

use tcgui_backend::cli::netem::{DistributionName, NetemArgs};
use tcgui_backend::cli::values::{BitsPerSecond, Milliseconds, Percent, Slot};
use tcgui_backend::preset;
use tcgui_shared::netem::{
    Distribution, FlatNetem, LossModel, PercentageConfig, QueueConfig, SlotConfig, TcNetemConfig,
    rounded_kbps,
};

use super::documents::NetemDocument;
use super::failure::{Failure, Status};
use super::output::Output;

/// The largest preset file.
const LARGEST_FILE: u64 = 1024 * 1024;

/// Returns what the options ask for, beginning with `base`.
pub(super) fn with_options(base: FlatNetem, args: &NetemArgs) -> FlatNetem {
    let mut netem = base;
    let percent = |value: Option<Percent>| value.map(|Percent(value)| value);
    let set = |field: &mut Option<f64>, value: Option<f64>| *field = value.or(*field);
    let ms = |value: Option<Milliseconds>| value.map(|Milliseconds(value)| value);
    set(&mut netem.delay_ms, ms(args.delay));
    set(&mut netem.delay_jitter_ms, ms(args.jitter));
    set(
        &mut netem.delay_correlation,
        percent(args.delay_correlation),
    );
    if let Some(Percent(loss)) = args.loss {
        netem.loss = loss;
        netem.extensions.loss_model = None;
    }
    set(&mut netem.correlation, percent(args.loss_correlation));
    set(&mut netem.duplicate_percent, percent(args.duplicate));
    set(
        &mut netem.duplicate_correlation,
        percent(args.duplicate_correlation),
    );
    set(&mut netem.corrupt_percent, percent(args.corrupt));
    set(
        &mut netem.corrupt_correlation,
        percent(args.corrupt_correlation),
    );
    set(&mut netem.reorder_percent, percent(args.reorder));
    set(
        &mut netem.reorder_correlation,
        percent(args.reorder_correlation),
    );
    netem.reorder_gap = args.gap.or(netem.reorder_gap);
    if let Some(BitsPerSecond(rate)) = args.rate {
        set_rate(&mut netem, rate);
    }
    let extensions = &mut netem.extensions;
    if let Some(model) = args.loss_model {
        extensions.loss_model = Some(model);
        netem.loss = 0.0;
        netem.correlation = None;
    }
    extensions.distribution = args
        .distribution
        .map(distribution)
        .or(extensions.distribution);
    extensions.ecn = args.ecn.then_some(true).or(extensions.ecn);
    extensions.seed = args.seed.or(extensions.seed);
    extensions.slot = args.slot.map(slot).or(extensions.slot);
    let is_retimed =
        args.delay.is_some() || args.jitter.is_some() || args.rate.is_some() || args.slot.is_some();
    if args.limit.is_some() || is_retimed {
        // The limit in force was chosen for other times. The daemon chooses another one.
        extensions.limit = args.limit;
    }
    netem
}

/// Sets the rate. The queue of a configuration in force has a length in bytes that was right for another rate: only its time
/// is kept.
fn set_rate(netem: &mut FlatNetem, bps: u64) {
    netem.rate_limit_kbps = Some(rounded_kbps(bps));
    netem.extensions.rate_limit_bps = (!bps.is_multiple_of(1000)).then_some(bps);
    if let Some(QueueConfig {
        ms: Some(_), bytes, ..
    }) = &mut netem.extensions.queue
    {
        *bytes = None;
    }
}

/// Returns the rate in bit/s.
fn rate_of(netem: &FlatNetem) -> Option<u64> {
    let rounded = netem.rate_limit_kbps.map(|kbps| u64::from(kbps) * 1000);
    netem
        .extensions
        .rate_limit_bps
        .or(rounded)
        .filter(|rate| *rate > 0)
}

/// Returns whether no parameter is given.
pub(super) fn is_empty(args: &NetemArgs) -> bool {
    *args == NetemArgs::default()
}

/// Returns whether nothing of it has an effect.
pub(super) fn does_nothing(netem: &FlatNetem) -> bool {
    let is_on = |value: Option<f64>| value.is_some_and(|value| value > 0.0);
    !(netem.loss > 0.0
        || is_on(netem.delay_ms)
        || is_on(netem.duplicate_percent)
        || is_on(netem.reorder_percent)
        || is_on(netem.corrupt_percent)
        || rate_of(netem).is_some()
        || netem.extensions.loss_model.is_some()
        || netem.extensions.slot.is_some())
}

fn distribution(name: DistributionName) -> Distribution {
    match name {
        DistributionName::Normal => Distribution::Normal,
        DistributionName::Pareto => Distribution::Pareto,
        DistributionName::ParetoNormal => Distribution::ParetoNormal,
    }
}

fn slot(slot: Slot) -> SlotConfig {
    SlotConfig {
        min_ms: Some(slot.min_ms),
        max_ms: Some(slot.max_ms),
        ..SlotConfig::default()
    }
}

/// Returns the flat form of a configuration with switches.
pub(super) fn flat(config: &TcNetemConfig) -> FlatNetem {
    let share = |it: &PercentageConfig| it.enabled.then_some(it.percentage);
    let correlation = |it: &PercentageConfig| it.enabled.then_some(it.correlation);
    let delay = config.delay;
    let reorder = config.reorder;
    FlatNetem {
        loss: share(&config.loss).unwrap_or_default(),
        correlation: correlation(&config.loss),
        delay_ms: delay.enabled.then_some(delay.base_ms),
        delay_jitter_ms: delay.enabled.then_some(delay.jitter_ms),
        delay_correlation: delay.enabled.then_some(delay.correlation),
        duplicate_percent: share(&config.duplicate),
        duplicate_correlation: correlation(&config.duplicate),
        reorder_percent: reorder.enabled.then_some(reorder.percentage),
        reorder_correlation: reorder.enabled.then_some(reorder.correlation),
        reorder_gap: reorder.enabled.then_some(reorder.gap),
        corrupt_percent: share(&config.corrupt),
        corrupt_correlation: correlation(&config.corrupt),
        rate_limit_kbps: config
            .rate_limit
            .enabled
            .then_some(config.rate_limit.rate_kbps),
        extensions: config.extensions,
    }
}

/// Reads a preset file, or standard input with `-`. Prints its warnings as notes.
pub(super) fn read_preset(path: &Path, output: Output) -> Result<FlatNetem, Failure> {
    let bytes = read_file(path)?;
    match preset::read(&bytes) {
        Ok(preset) => {
            for warning in &preset.warnings {
                output.note(&format!("{}:{warning}", path.display()));
            }
            Ok(flat(&preset.value.config))
        }
        Err(err) => Err(Failure::new(
            Status::Usage,
            format!("{}:{err}", path.display()),
        )),
    }
}

/// Reads a file of bounded size, or standard input with `-`.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin()
            .take(LARGEST_FILE + 1)
            .read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes))
    };
    let wrong = |what: String| Failure::new(Status::Usage, format!("{}: {what}", path.display()));
    let length = read.map_err(|err| wrong(format!("cannot read the file: {err}")))?;
    if u64::try_from(length).unwrap_or(u64::MAX) > LARGEST_FILE {
        return Err(wrong(format!("has more than {LARGEST_FILE} bytes")));
    }
    Ok(bytes)
}

/// Returns the document of an impairment.
pub(super) fn document(netem: &FlatNetem) -> NetemDocument {
    let on = |value: Option<f64>| value.filter(|value| *value > 0.0);
    let extensions = &netem.extensions;
    let delays = on(netem.delay_ms);
    let reorders = on(netem.reorder_percent);
    NetemDocument {
        delay_ms: delays,
        jitter_ms: delays.and(on(netem.delay_jitter_ms)),
        delay_correlation_percent: delays.and(on(netem.delay_correlation)),
        distribution: extensions
            .distribution
            .map(|it| distribution_name(it).to_owned()),
        loss_percent: on(Some(netem.loss)),
        loss_correlation_percent: on(Some(netem.loss)).and(on(netem.correlation)),
        loss_model: extensions.loss_model.map(|model| model_text(&model)),
        duplicate_percent: on(netem.duplicate_percent),
        duplicate_correlation_percent: on(netem.duplicate_percent)
            .and(on(netem.duplicate_correlation)),
        corrupt_percent: on(netem.corrupt_percent),
        corrupt_correlation_percent: on(netem.corrupt_percent).and(on(netem.corrupt_correlation)),
        reorder_percent: reorders,
        reorder_correlation_percent: reorders.and(on(netem.reorder_correlation)),
        gap: reorders.and(netem.reorder_gap),
        rate_bps: rate_of(netem),
        queue_ms: extensions.queue.and_then(|queue| queue.ms),
        queue_bytes: extensions.queue.and_then(|queue| queue.bytes),
        limit_packets: extensions.limit,
        ecn: extensions.ecn.filter(|is_on| *is_on),
        seed: extensions.seed,
        slot: extensions.slot.map(|slot| slot_text(&slot)),
    }
}

fn distribution_name(distribution: Distribution) -> &'static str {
    match distribution {
        Distribution::Normal => "normal",
        Distribution::Pareto => "pareto",
        Distribution::ParetoNormal => "paretonormal",
    }
}

fn model_text(model: &LossModel) -> String {
    match model {
        LossModel::GilbertElliott {
            p,
            r,
            bad_loss,
            good_loss,
        } => format!("gemodel:{}", percents(&[*p, *r, *bad_loss, *good_loss])),
        LossModel::FourState {
            p13,
            p31,
            p32,
            p23,
            p14,
        } => format!("state:{}", percents(&[*p13, *p31, *p32, *p23, *p14])),
    }
}

fn percents(values: &[f64]) -> String {
    let values: Vec<_> = values
        .iter()
        .map(|value| format!("{}%", number(*value)))
        .collect();
    values.join(",")
}

fn slot_text(slot: &SlotConfig) -> String {
    match (slot.min_ms, slot.max_ms, slot.delay_ms) {
        (_, _, Some(delay)) => {
            let jitter = slot.jitter_ms.unwrap_or_default();
            format!("{}ms ± {}ms", number(delay), number(jitter))
        }
        (min, max, None) => {
            let min = min.unwrap_or_default();
            let max = max.unwrap_or(min);
            format!("{}ms,{}ms", number(min), number(max))
        }
    }
}

/// Returns a number with at most three decimals, and none that are zero.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Returns a rate with the largest unit in which it is at least 1.
pub(super) fn rate(bps: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "less than 2⁵³ bit/s")]
    let bps = bps as f64;
    let units = [
        (1e12, "Tbit/s"),
        (1e9, "Gbit/s"),
        (1e6, "Mbit/s"),
        (1e3, "kbit/s"),
    ];
    let unit = units.into_iter().find(|(factor, _)| bps >= *factor);
    let (factor, unit) = unit.unwrap_or((1.0, "bit/s"));
    format!("{} {unit}", number(bps / factor))
}

/// Describes an impairment in a line: `delay 100 ms ± 10 ms, loss 1 %, queue 1250 packets`.
pub(super) fn describe(netem: &NetemDocument) -> String {
    let mut parts = Vec::new();
    let correlated = |value: Option<f64>| match value {
        Some(value) => format!(" (correlation {} %)", number(value)),
        None => String::new(),
    };
    if let Some(delay) = netem.delay_ms {
        let mut text = format!("delay {} ms", number(delay));
        if let Some(jitter) = netem.jitter_ms {
            text.push_str(&format!(" ± {} ms", number(jitter)));
        }
        if let Some(distribution) = &netem.distribution {
            text.push_str(&format!(" {distribution}"));
        }
        parts.push(text + &correlated(netem.delay_correlation_percent));
    }
    let shares = [
        ("loss", netem.loss_percent, netem.loss_correlation_percent),
        (
            "duplicates",
            netem.duplicate_percent,
            netem.duplicate_correlation_percent,
        ),
        (
            "corruption",
            netem.corrupt_percent,
            netem.corrupt_correlation_percent,
        ),
        (
            "reordering",
            netem.reorder_percent,
            netem.reorder_correlation_percent,
        ),
    ];
    for (name, share, correlation) in shares {
        // Beside a model, the share is what the model loses on average.
        let has_model = name == "loss" && netem.loss_model.is_some();
        if let Some(share) = share.filter(|_| !has_model) {
            parts.push(format!(
                "{name} {} %{}",
                number(share),
                correlated(correlation)
            ));
        }
        if let ("loss", Some(model)) = (name, &netem.loss_model) {
            parts.push(format!("loss {model}"));
        }
        if let ("reordering", Some(gap)) = (name, netem.gap.filter(|gap| *gap > 1)) {
            parts.push(format!("gap {gap}"));
        }
    }
    parts.extend(netem.rate_bps.map(|bps| format!("rate {}", rate(bps))));
    parts.extend(netem.slot.as_ref().map(|slot| format!("slots {slot}")));
    parts.extend(netem.ecn.map(|_| "ecn".to_owned()));
    parts.extend(queue(netem));
    if parts.is_empty() {
        return "no impairment".to_owned();
    }
    parts.join(", ")
}

/// Describes the queue in which packets wait longest: that of the rate limit, or else that of netem.
fn queue(netem: &NetemDocument) -> Option<String> {
    if let Some(ms) = netem.queue_ms {
        return Some(format!("queue {} ms", number(ms)));
    }
    if let Some(bytes) = netem.queue_bytes {
        return Some(format!("queue {bytes} bytes"));
    }
    netem
        .limit_packets
        .map(|limit| format!("queue {limit} packets"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        netem: NetemArgs,
    }

    fn parsed(line: &str) -> NetemArgs {
        Line::parse_from(["x"].into_iter().chain(line.split_whitespace())).netem
    }

    fn applied(line: &str) -> FlatNetem {
        with_options(FlatNetem::default(), &parsed(line))
    }

    #[test]
    fn options_become_a_complete_configuration() {
        let netem =
            applied("--delay 100ms --jitter 10ms --distribution normal --loss 1% --rate 10mbit");
        assert_eq!(netem.delay_ms, Some(100.0));
        assert_eq!(netem.delay_jitter_ms, Some(10.0));
        assert_eq!(netem.loss, 1.0);
        assert_eq!(netem.rate_limit_kbps, Some(10_000));
        assert_eq!(netem.extensions.rate_limit_bps, None);
        assert_eq!(netem.extensions.distribution, Some(Distribution::Normal));
        assert_eq!(netem.duplicate_percent, None);
    }

    #[test]
    fn a_change_keeps_what_is_not_named_and_chooses_the_queue_anew() {
        let mut base = applied("--delay 100ms --loss 1%");
        base.extensions.limit = Some(1250);
        let changed = with_options(base, &parsed("--loss 2%"));
        assert_eq!((changed.delay_ms, changed.loss), (Some(100.0), 2.0));
        assert_eq!(changed.extensions.limit, Some(1250));
        let slower = with_options(base, &parsed("--delay 1s"));
        assert_eq!(slower.extensions.limit, None);
        let limited = with_options(base, &parsed("--delay 1s --limit 10"));
        assert_eq!(limited.extensions.limit, Some(10));
    }

    #[test]
    fn another_rate_keeps_the_time_of_the_queue_and_not_its_bytes() {
        let mut base = applied("--rate 10mbit");
        base.extensions.queue = Some(QueueConfig {
            ms: Some(50.0),
            bytes: Some(62_500),
        });
        let slower = with_options(base, &parsed("--rate 100.5kbit"));
        let queue = slower.extensions.queue.unwrap();
        assert_eq!((queue.ms, queue.bytes), (Some(50.0), None));
        assert_eq!(slower.rate_limit_kbps, Some(101));
        let document = document(&slower);
        assert_eq!(document.rate_bps, Some(100_500));
        assert_eq!(describe(&document), "rate 100.5 kbit/s, queue 50 ms");
        let whole = with_options(slower, &parsed("--rate 1mbit"));
        assert_eq!(rate_of(&whole), Some(1_000_000));
    }

    #[test]
    fn random_loss_and_a_model_replace_each_other() {
        let model = applied("--loss-model gemodel:1%,10%");
        assert!(model.extensions.loss_model.is_some());
        let random = with_options(model, &parsed("--loss 3%"));
        assert_eq!((random.loss, random.extensions.loss_model), (3.0, None));
        let again = with_options(random, &parsed("--loss-model state:1%,2%"));
        assert_eq!(again.loss, 0.0);
    }

    #[test]
    fn what_does_nothing_is_recognised() {
        assert!(does_nothing(&applied("")));
        assert!(does_nothing(&applied("--delay 0ms --loss 0%")));
        assert!(!does_nothing(&applied("--slot 20ms")));
    }

    #[test]
    fn an_impairment_is_described_in_a_line() {
        let mut netem = applied("--delay 100ms --jitter 10ms --loss 1%");
        netem.extensions.limit = Some(1250);
        assert_eq!(
            describe(&document(&netem)),
            "delay 100 ms ± 10 ms, loss 1 %, queue 1250 packets"
        );
        let netem = applied("--rate 1500kbit --reorder 25% --gap 5 --loss-model gemodel:1%,10%");
        assert_eq!(
            describe(&document(&netem)),
            "loss gemodel:1%,10%,100%,0%, reordering 25 %, gap 5, rate 1.5 Mbit/s"
        );
        assert_eq!(describe(&document(&applied(""))), "no impairment");
    }

    #[test]
    fn a_preset_has_the_values_of_its_features_that_are_on() {
        let mut config = TcNetemConfig::default();
        config.delay.enabled = true;
        config.delay.base_ms = 40.0;
        config.loss.percentage = 5.0;
        let flat = flat(&config);
        assert_eq!(
            (flat.delay_ms, flat.loss, flat.rate_limit_kbps),
            (Some(40.0), 0.0, None)
        );
    }
}
