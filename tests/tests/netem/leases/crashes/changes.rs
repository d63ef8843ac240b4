//! The daemon is killed at a random moment during a change with a rate limit. The netem and its filter are then as before the
//! change or as after it, never in between.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tcgui_tests::lab::Kind;
use tcgui_tests::links::attribute;
use tcgui_tests::random::{self, Random};
use tcgui_tests::wait::holds_for;
use tcgui_tests::{lab_test, measure};

use super::{LONG_MS, ask_and_go, count};
use crate::pair::{FAR, started_with_pair, tc};

/// The daemon is killed within this time after the request was sent.
const MOMENTS_US: usize = 60_000;
/// Rates in kbit/s, and how `tc` prints them.
const RATES: [(u32, &str); 4] = [
    (64, "64Kbit"),
    (512, "512Kbit"),
    (2_000, "2Mbit"),
    (20_000, "20Mbit"),
];

/// How a rate is limited.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Limit {
    None,
    Filter(u32, &'static str),
    /// By netem itself.
    Own(u32, &'static str),
}

/// A state of the interface. No two requests have the same delay.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Wanted {
    ms: u64,
    limit: Limit,
    /// With a distribution table. Without it again, the netem is replaced.
    table: bool,
}

impl Wanted {
    fn any(random: &mut Random, ms: u64) -> Self {
        let (kbps, text) = random.pick(&RATES);
        let limit = match random.below(6) {
            0 => Limit::None,
            1 => Limit::Own(kbps, text),
            _ => Limit::Filter(kbps, text),
        };
        Self {
            ms,
            limit,
            table: random.below(3) == 0,
        }
    }

    /// Returns the request. Every second change has an end, so a lease is written before it.
    fn request(self) -> Value {
        let mut flat = json!({"loss": 0.0, "delay_ms": self.ms});
        if self.table {
            flat["delay_jitter_ms"] = json!(0.5);
            flat["distribution"] = json!("normal");
        }
        match self.limit {
            Limit::None => {}
            Limit::Filter(kbps, _) => flat["rate_limit_kbps"] = json!(kbps),
            Limit::Own(kbps, _) => {
                flat["rate_limit_kbps"] = json!(kbps);
                flat["rate_overhead"] = json!({"packet": 1});
            }
        }
        let mut request =
            json!({"namespace": FAR.0, "interface": FAR.1, "operation": {"Apply": flat}});
        if self.ms.is_multiple_of(2) {
            request["ttl_ms"] = json!(LONG_MS);
        }
        request
    }

    /// Returns whether these qdiscs are all of it.
    fn is(self, listed: &str) -> bool {
        let lines = |kind: &str| {
            let kind = format!("qdisc {kind} ");
            listed.lines().find(|line| line.starts_with(&kind))
        };
        let value = |line: &str, word: &str| {
            let mut words = line.split_whitespace();
            words.find(|it| *it == word)?;
            words.next().map(str::to_owned)
        };
        let Some(netem) = lines("netem") else {
            return false;
        };
        // With a filter and a jitter, netem has a very high rate, which keeps packets in order.
        let own = value(netem, "rate").filter(|_| !(self.table && self.filter().is_some()));
        let filter = lines("tbf").and_then(|line| value(line, "rate"));
        let limit = match self.limit {
            Limit::Own(_, text) => Some(text),
            Limit::None | Limit::Filter(..) => None,
        };
        value(netem, "delay") == Some(format!("{}ms", self.ms))
            && own.as_deref() == limit
            && filter.as_deref() == self.filter()
    }

    fn filter(self) -> Option<&'static str> {
        match self.limit {
            Limit::Filter(_, text) => Some(text),
            Limit::None | Limit::Own(..) => None,
        }
    }
}

lab_test!(
    #[ignore = "needs netem"]
    killed_while_a_rate_changes,
    Kind::Lasting(Duration::from_secs(7200)),
    |scene| {
        let crashes = count()?;
        let seed = random::any_seed()?;
        let mut random = Random::new(seed);
        started_with_pair(scene)?;
        let far = || tc(FAR.0, &format!("qdisc show dev {}", FAR.1));
        let (mut not_begun, mut done) = (0, 0);
        for number in 0..crashes {
            let ms = number % 400 * 2 + 1;
            let before = Wanted::any(&mut random, ms);
            let (reply, _) = scene.client()?.ask("tc", &before.request())?;
            ensure!(reply["success"] == true, "{reply}");
            ensure!(before.is(&far()?), "{before:?} (seed {seed}): {}", far()?);
            let after = Wanted::any(&mut random, ms + 1);
            ask_and_go(scene, "tc", &after.request())?;
            let moment = Duration::from_micros(u64::try_from(random.below(MOMENTS_US))?);
            holds_for("a moment", moment, || (), |()| true)?;
            scene.take_daemon()?.crash()?;
            let listed = far()?;
            match (before.is(&listed), after.is(&listed)) {
                (true, _) => not_begun += 1,
                (_, true) => done += 1,
                _ => {
                    return Err(anyhow::anyhow!(listed))
                        .context(format!("neither {before:?} nor {after:?} (seed {seed})"));
                }
            }
            scene.start_daemon::<&str>(&[])?;
            attribute(scene, FAR, "is_up", true)?;
            // No change has ended, so the new daemon restores nothing.
            ensure!(far()? == listed, "{listed} became {} (seed {seed})", far()?);
        }
        let remove = json!({"namespace": FAR.0, "interface": FAR.1, "operation": "Remove"});
        let (reply, _) = scene.client()?.ask("tc", &remove)?;
        ensure!(reply["success"] == true, "{reply}");
        measure::report(format!(
            "{crashes} crashes (seed {seed}): {not_begun} × as before the change, {done} × as after it, never in between"
        ))?;
        Ok(())
    }
);
