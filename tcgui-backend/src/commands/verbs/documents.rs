//! The JSON documents of the verbs. An absent field means "not set".
//!
//! Each document has the field `schema`. Fields are added, never removed or changed, while its value stays the same.

use schemars::JsonSchema;
use serde::Serialize;

/// The value of the field `schema`.
pub(super) const SCHEMA: &str = "tcgui.cli/1";

/// What netem does.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
pub(super) struct NetemDocument {
    /// How long each packet is held, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) delay_ms: Option<f64>,
    /// How far the delay varies, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) jitter_ms: Option<f64>,
    /// How much each delay depends on the one before, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) delay_correlation_percent: Option<f64>,
    /// `normal`, `pareto` or `paretonormal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) distribution: Option<String>,
    /// The share of lost packets, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) loss_percent: Option<f64>,
    /// How much each loss depends on the one before, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) loss_correlation_percent: Option<f64>,
    /// The model of loss in bursts, as `--loss-model` takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) loss_model: Option<String>,
    /// The share of duplicated packets, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) duplicate_percent: Option<f64>,
    /// How much each duplication depends on the one before, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) duplicate_correlation_percent: Option<f64>,
    /// The share of corrupted packets, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) corrupt_percent: Option<f64>,
    /// How much each corruption depends on the one before, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) corrupt_correlation_percent: Option<f64>,
    /// The share of packets that are sent before delayed ones, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reorder_percent: Option<f64>,
    /// How much each reordering depends on the one before, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reorder_correlation_percent: Option<f64>,
    /// After how many packets one may be reordered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gap: Option<u32>,
    /// The rate, in bit/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate_bps: Option<u64>,
    /// The longest time that a packet waits for the rate limit, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) queue_ms: Option<f64>,
    /// How many bytes wait for the rate limit at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) queue_bytes: Option<u32>,
    /// How many packets the queue holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limit_packets: Option<u32>,
    /// Whether packets are marked instead of lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ecn: Option<bool>,
    /// What the random numbers begin with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seed: Option<u64>,
    /// When packets leave together, as `--slot` takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) slot: Option<String>,
}

/// One interface, and what is in force on it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct InterfaceDocument {
    /// The interface as it can be given as TARGET.
    pub(super) target: String,
    /// The namespace.
    pub(super) namespace: String,
    /// Other names of the namespace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) namespace_aliases: Vec<String>,
    /// The interface in it.
    pub(super) interface: String,
    /// `physical`, `virtual`, `veth`, `bridge`, `tun`, `tap` or `loopback`.
    #[serde(rename = "type")]
    pub(super) interface_type: String,
    /// Whether it is switched on.
    pub(super) up: bool,
    /// Whether it has a carrier.
    pub(super) carrier: bool,
    /// What netem does, as the kernel reported it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) netem: Option<NetemDocument>,
    /// True if there is a netem that the daemon cannot read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) unreadable: bool,
    /// When the daemon set it (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<String>,
    /// When it ends (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<String>,
    /// When it ends unless it is confirmed (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) confirm_by: Option<String>,
    /// Who set it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) set_by: Option<SetByDocument>,
    /// The scenario that runs there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scenario: Option<ScenarioProgressDocument>,
    /// Rates and counters, with `--stats`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stats: Option<StatsDocument>,
}

/// Who set an impairment.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct SetByDocument {
    /// `client`, `scenario` or `other_program`.
    pub(super) kind: String,
    /// What the client calls itself, or the id of the scenario.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
}

/// How far a scenario is.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct ScenarioProgressDocument {
    /// The id of the scenario.
    pub(super) id: String,
    /// The step that runs, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) step: Option<usize>,
    /// How many steps there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) steps: Option<usize>,
    /// What the author says about the step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<String>,
    /// Whether it is held.
    pub(super) paused: bool,
    /// The pass that runs, from 1.
    pub(super) pass: u32,
    /// 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) progress_percent: Option<f64>,
}

/// Rates and counters of an interface.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct StatsDocument {
    /// Received bytes per second.
    pub(super) rx_bytes_per_s: f64,
    /// Sent bytes per second.
    pub(super) tx_bytes_per_s: f64,
    /// Received bytes.
    pub(super) rx_bytes: u64,
    /// Sent bytes.
    pub(super) tx_bytes: u64,
    /// Received packets.
    pub(super) rx_packets: u64,
    /// Sent packets.
    pub(super) tx_packets: u64,
    /// Packets that the interface dropped.
    pub(super) dropped: u64,
    /// Packets that netem dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) netem_dropped: Option<u32>,
    /// Packets that wait in netem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) netem_queued: Option<u32>,
}

/// The output of `show`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct ShowDocument {
    /// The version of this schema.
    #[schemars(extend("const" = SCHEMA))]
    pub(super) schema: &'static str,
    /// The daemon.
    pub(super) backend: String,
    /// When the state was read (RFC 3339).
    pub(super) read_at: String,
    /// The interfaces.
    pub(super) interfaces: Vec<InterfaceDocument>,
}

/// The output of verbs that change something, also of `scenario start` and the like.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct ChangeDocument {
    /// The version of this schema.
    #[schemars(extend("const" = SCHEMA))]
    pub(super) schema: &'static str,
    /// The daemon.
    pub(super) backend: String,
    /// True if nothing was changed, because of `--dry-run`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) dry_run: bool,
    /// What became of each target.
    pub(super) results: Vec<ResultDocument>,
}

/// What became of one target.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct ResultDocument {
    /// The interface as it can be given as TARGET.
    pub(super) target: String,
    /// Whether it was done.
    pub(super) ok: bool,
    /// What is in force now, or would be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) netem: Option<NetemDocument>,
    /// When it ends (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<String>,
    /// What else the daemon says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) notes: Vec<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<ErrorDocument>,
}

/// A failure.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct ErrorDocument {
    /// The exit status that it has alone.
    pub(super) status: u8,
    /// For people.
    pub(super) message: String,
}

/// The output of `backends`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct BackendsDocument {
    /// The version of this schema.
    #[schemars(extend("const" = SCHEMA))]
    pub(super) schema: &'static str,
    /// The daemons on the bus.
    pub(super) backends: Vec<BackendDocument>,
}

/// One daemon.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct BackendDocument {
    /// Its name.
    pub(super) name: String,
    /// Its host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) host: Option<String>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<String>,
    /// When it started (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) started_at: Option<String>,
    /// How many namespaces it lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespaces: Option<usize>,
    /// How many interfaces it lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) interfaces: Option<usize>,
    /// Why it has not answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// The output of `preset list` and `preset show`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct PresetsDocument {
    /// The version of this schema.
    #[schemars(extend("const" = SCHEMA))]
    pub(super) schema: &'static str,
    /// The daemon.
    pub(super) backend: String,
    /// The presets.
    pub(super) presets: Vec<PresetDocument>,
}

/// One preset.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct PresetDocument {
    /// Its id.
    pub(super) id: String,
    /// Its name.
    pub(super) name: String,
    /// What it is for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) description: String,
    /// What it does.
    pub(super) netem: NetemDocument,
}

/// The output of `scenario list` and `scenario show`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct ScenariosDocument {
    /// The version of this schema.
    #[schemars(extend("const" = SCHEMA))]
    pub(super) schema: &'static str,
    /// The daemon.
    pub(super) backend: String,
    /// The scenarios.
    pub(super) scenarios: Vec<ScenarioDocument>,
    /// The files that the daemon cannot read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) load_errors: Vec<LoadErrorDocument>,
}

/// One scenario.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct ScenarioDocument {
    /// Its id.
    pub(super) id: String,
    /// Its name.
    pub(super) name: String,
    /// What it is for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) description: String,
    /// How long one pass takes, in ms.
    pub(super) duration_ms: u64,
    /// Whether it starts over after the last step.
    #[serde(rename = "loop")]
    pub(super) repeat: bool,
    /// Its steps.
    pub(super) steps: Vec<StepDocument>,
}

/// One step of a scenario.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct StepDocument {
    /// What it is for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) description: String,
    /// How long it lasts, in ms.
    pub(super) duration_ms: u64,
    /// What it does.
    pub(super) netem: NetemDocument,
}

/// A file that the daemon cannot read.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct LoadErrorDocument {
    /// Its path.
    pub(super) file: String,
    /// What is wrong with it.
    pub(super) message: String,
}

/// The output of `diagnose`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct DiagnosisDocument {
    /// The version of this schema.
    #[schemars(extend("const" = SCHEMA))]
    pub(super) schema: &'static str,
    /// The daemon.
    pub(super) backend: String,
    /// The interface as it can be given as TARGET.
    pub(super) target: String,
    /// The summary of the daemon.
    pub(super) message: String,
    /// Whether it is switched on.
    pub(super) up: bool,
    /// Whether it has a carrier.
    pub(super) carrier: bool,
    /// The largest packet, in bytes.
    pub(super) mtu: u32,
    /// The address that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<String>,
    /// Whether it answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reachable: Option<bool>,
    /// The fastest answer, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) min_ms: Option<f64>,
    /// The mean of the answers, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mean_ms: Option<f64>,
    /// The slowest answer, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_ms: Option<f64>,
    /// The share of requests without an answer, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lost_percent: Option<f64>,
    /// What netem does on the interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) netem: Option<NetemDocument>,
}
