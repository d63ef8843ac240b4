//! Requests to netem, plans against a small kernel, netem to what is published.

mod desired;
mod fit;
pub(crate) mod plan;
mod race;
mod report;

use crate::kernel::netem::{Netem, Probability, Random};

#[path = "../../tests/common/configs.rs"]
mod configs;

use super::desired::LinkFacts;

const LINK: LinkFacts = super::desired::ANY_LINK;
const MS: u64 = 1_000_000;

fn percent(percent: f64) -> Probability {
    Probability::from_percent(percent)
}

fn random(probability: f64, correlation: f64) -> Random {
    Random {
        probability: percent(probability),
        correlation: percent(correlation),
    }
}

/// A netem with the shortest queue that we choose.
fn short() -> Netem {
    Netem {
        limit: 1000,
        ..Netem::default()
    }
}
