//! The daemon is killed repeatedly at random moments. Ended changes must be restored, and permanent changes must stay.

mod changes;

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};
use tcgui_tests::lab::Kind;
use tcgui_tests::links::attribute;
use tcgui_tests::random::{self, Random};
use tcgui_tests::scene::{SOON, Scene};
use tcgui_tests::wait::{holds_for, wait_for};
use tcgui_tests::{lab_test, measure};

use super::inside::{delay, delay_request, leases};
use crate::pair::{root, started_with_pair};

/// Variable with the number of crashes. `scripts/crashes.sh` sets it.
const CRASHES: &str = "TCGUI_CRASHES";
/// The number of crashes without the variable.
const FEW: u64 = 20;
/// A short lifetime ends before the daemon runs again, or soon after.
const SHORT_MS: u64 = 700;
/// A long lifetime lasts longer than the test.
const LONG_MS: u64 = 24 * 3600 * 1000;
/// The daemon is killed within this time after the last request was sent.
const MOMENTS_MS: usize = 120;

const INTERFACES: [(&str, &str); 2] = [("blue", "far"), ("default", "near")];

pub(crate) fn count() -> anyhow::Result<u64> {
    Ok(random::number(CRASHES)?.unwrap_or(FEW))
}

/// The expected state of one interface: delays in ms, 0 without a netem.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// The delay without a lease.
    base: u64,
    /// The delay under a long lease.
    leased: Option<u64>,
}

impl Known {
    fn there(self) -> u64 {
        self.leased.unwrap_or(self.base)
    }
}

/// Waits until the delay of the kernel is one of the possible ones, and returns that state.
fn settled(at: (&str, &str), possible: &[Known], seed: u64) -> anyhow::Result<Known> {
    let delay_there = || -> anyhow::Result<u64> {
        let root = root(at)?;
        let Some((_, rest)) = root.split_once(" delay ") else {
            ensure!(!root.contains("netem"), "a netem without a delay: {root}");
            return Ok(0);
        };
        let ms: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Ok(ms.parse()?)
    };
    let find = |ms: u64| possible.iter().find(|known| known.there() == ms).copied();
    let there = wait_for(
        &format!("{at:?} is one of {possible:?} (seed {seed})"),
        SOON,
        delay_there,
        |there| there.as_ref().is_ok_and(|ms| find(*ms).is_some()),
    )??;
    Ok(find(there).unwrap_or_default())
}

/// One run of the daemon: requests that are answered, then one that may not be.
fn live(
    scene: &mut Scene,
    random: &mut Random,
    known: &[Known; 2],
    number: &mut u64,
) -> anyhow::Result<[Vec<Known>; 2]> {
    let mut next = || {
        // The kernel counts in ns, and `tc` prints delays below 1 s in ms.
        *number = *number % 900 + 1;
        *number
    };
    let mut possible: [Vec<Known>; 2] = [Vec::new(), Vec::new()];
    for (which, at) in INTERFACES.into_iter().enumerate() {
        let mut now = known[which];
        let ms = next();
        match random.below(4) {
            0 => {
                delay(scene, at, 0, &Value::Null)?;
                now = Known::default();
            }
            1 | 2 => {
                delay(scene, at, ms, &Value::Null)?;
                now = Known {
                    base: ms,
                    leased: None,
                };
            }
            _ => {
                delay(scene, at, ms, &json!({"ttl_ms": LONG_MS}))?;
                now.leased = Some(ms);
            }
        }
        possible[which].push(now);
    }
    for _ in 0..1 + random.below(4) {
        let which = random.below(INTERFACES.len());
        let ms = next();
        let plain = Known {
            base: ms,
            leased: None,
        };
        if random.below(4) == 0 {
            // The scenario is restored, and a lease that it suspended continues.
            let (namespace, interface) = INTERFACES[which];
            let start = json!({"Start": {"scenario_id": "mobile-degradation",
                "namespace": namespace, "interface": interface}});
            ask_and_go(scene, "scenario/execution", &start)?;
            continue;
        }
        let (more, then) = match random.below(4) {
            0 => (Value::Null, plain),
            1 => (
                json!({"confirm_within_ms": SHORT_MS}),
                without_lease(&possible[which]),
            ),
            _ => (json!({"ttl_ms": SHORT_MS}), without_lease(&possible[which])),
        };
        possible[which].push(then);
        ask_and_go(scene, "tc", &delay_request(INTERFACES[which], ms, &more))?;
    }
    let moment = u64::try_from(random.below(MOMENTS_MS))?;
    holds_for("a moment", Duration::from_millis(moment), || (), |()| true)?;
    scene.take_daemon()?.crash()?;
    Ok(possible)
}

/// Sends a request and does not wait for the reply, which may never arrive.
fn ask_and_go(scene: &Scene, queryable: &str, request: &Value) -> anyhow::Result<()> {
    let key = format!("tcgui/default/query/{queryable}");
    let asked = scene
        .client()?
        .begin(&key, Some(request.to_string().as_bytes()))?;
    drop(asked);
    Ok(())
}

/// Returns the state after a short lease that replaced a long one: the end of the short lease ends the long one too.
fn without_lease(possible: &[Known]) -> Known {
    let last = possible.last().copied().unwrap_or_default();
    Known {
        leased: None,
        ..last
    }
}

lab_test!(
    #[ignore = "needs netem"]
    killed_at_any_moment,
    Kind::Lasting(Duration::from_secs(7200)),
    |scene| {
        let crashes = count()?;
        let seed = random::any_seed()?;
        let mut random = Random::new(seed);
        started_with_pair(scene)?;
        let mut known = [Known::default(); 2];
        let mut number = 0;
        let start = Instant::now();
        for _ in 0..crashes {
            let possible = live(scene, &mut random, &known, &mut number)?;
            scene.start_daemon::<&str>(&[])?;
            for (which, at) in INTERFACES.into_iter().enumerate() {
                attribute(scene, at, "is_up", true)?;
                known[which] = settled(at, &possible[which], seed)?;
            }
            let held = known.iter().filter(|known| known.leased.is_some()).count();
            wait_for(
                &format!("{held} leases are left on disk (seed {seed}): {known:?}"),
                SOON,
                leases,
                |there| *there == held,
            )?;
        }
        measure::report(format!(
            "{crashes} crashes in {:.1?}, nothing left behind, nothing lost",
            start.elapsed()
        ))?;
        for at in INTERFACES {
            delay(scene, at, 0, &Value::Null)?;
        }
        Ok(())
    }
);
