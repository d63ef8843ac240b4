//! Tests of executions without a kernel and a bus: [`fakes`] replace both.

use std::sync::Arc;

use tcgui_shared::names::{InterfaceName, NamespaceName};
use tcgui_shared::netem::{DelayConfig, TcNetemConfig};
use tcgui_shared::scenario::{NetworkScenario, ScenarioMetadata, ScenarioStep};

use super::port::Impairment;
use super::{InterfaceKey, InterfaceNames, Target};
use crate::kernel::netns::NetnsKey;

mod actor;
mod executions;
mod fakes;
mod load;
mod machine;

/// Returns a configuration that differs only in its delay. With 0 there is no impairment.
fn config(delay_ms: u32) -> TcNetemConfig {
    TcNetemConfig {
        delay: DelayConfig {
            enabled: delay_ms > 0,
            base_ms: f64::from(delay_ms),
            ..DelayConfig::default()
        },
        ..TcNetemConfig::default()
    }
}

fn netem(delay_ms: u32) -> Impairment {
    Impairment::Netem(Box::new(config(delay_ms)))
}

/// Returns a scenario with steps of these durations. The first step has a delay of 1 ms, the second of 2 ms, and so on.
fn scenario(id: &str, durations_ms: &[u64]) -> NetworkScenario {
    let step = |(delay_ms, duration_ms): (u32, &u64)| ScenarioStep {
        duration_ms: *duration_ms,
        tc_config: config(delay_ms),
        description: "a step".to_owned(),
    };
    NetworkScenario {
        id: id.to_owned(),
        name: id.to_owned(),
        description: String::new(),
        steps: (1..).zip(durations_ms).map(step).collect(),
        loop_scenario: false,
        created_at: 0,
        modified_at: 0,
        metadata: ScenarioMetadata::default(),
        cleanup_on_failure: true,
    }
}

/// Returns the interface of the host with this index, under the name `v` and a number.
fn target(ifindex: u32, name: u32) -> Target {
    Target {
        key: InterfaceKey {
            netns: NetnsKey::Host,
            ifindex,
        },
        names: InterfaceNames {
            netns: NamespaceName::host(),
            interface: InterfaceName::new(format!("v{name}")).unwrap(),
        },
    }
}

fn shared(scenario: NetworkScenario) -> Arc<NetworkScenario> {
    Arc::new(scenario)
}
