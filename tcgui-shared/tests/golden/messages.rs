//! The examples of the protocol description and of its extensions, written with the types.

use std::sync::Arc;

use serde_json::{Value, json};
use tcgui_shared::bandwidth::{BandwidthStats, BandwidthUpdate};
use tcgui_shared::control::{
    InterfaceControlOperation, InterfaceControlRequest, InterfaceControlResponse,
};
use tcgui_shared::diagnostics::{
    Connectivity, DiagnosticsRequest, DiagnosticsResponse, DiagnosticsResults, Latency, LinkStatus,
};
use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::explain::{
    DoorbellReport, EntryReport, ExplainRequest, ExplainResponse, Explanation, LimitReport, Reason,
    ReasonCode,
};
use tcgui_shared::health::{BackendHealthStatus, BackendMetadata};
use tcgui_shared::interface::{
    InterfaceListUpdate, InterfaceType, NamespaceType, NetworkInterface, NetworkNamespace,
};
use tcgui_shared::netem::{
    DelayConfig, Distribution, FlatNetem, LossConfig, LossModel, NetemExtensions, RateLimitConfig,
    RateOverhead, SlotConfig, TcNetemConfig,
};
use tcgui_shared::preset::{CustomPreset, PresetList};
use tcgui_shared::scenario::{
    ErrorCategory, ExecutionState, ExecutionStats, LoadError, NetworkScenario, ScenarioError,
    ScenarioExecution, ScenarioExecutionUpdate, ScenarioMetadata, ScenarioResponse, ScenarioStep,
};
use tcgui_shared::state::{
    BackendState, InterfaceState, ScenarioProgress, SetBy, StateRequest, StateResponse,
};
use tcgui_shared::tc::{
    BasicStats, QueueStats, TcConfigUpdate, TcConfiguration, TcOperation, TcRequest, TcResponse,
    TcStatisticsUpdate,
};

/// Returns each example as it is written, with the name of its fixture, sorted by name.
pub(crate) fn all() -> Vec<(&'static str, Value)> {
    vec![
        ("bandwidth", json!(bandwidth())),
        ("diagnostics-request", json!(diagnostics_request())),
        ("diagnostics-response", json!(diagnostics_response())),
        ("execution-update", json!(execution_update())),
        (
            "explain-request",
            json!(ExplainRequest {
                namespace: "lab".into()
            }),
        ),
        ("explain-response", json!(explain_response())),
        (
            "explain-response-failure",
            json!(ExplainResponse::failure(
                "too many requests at once, try again",
                ErrorKind::Busy
            )),
        ),
        ("extended-health", json!(extended_health())),
        ("extended-interface-list", json!(extended_interface_list())),
        ("extended-tc-config", json!(extended_tc_config())),
        (
            "extended-tc-request-apply",
            json!(tc_request(extended_apply())),
        ),
        (
            "extended-tc-request-apply-config",
            json!(tc_request(extended_apply_config())),
        ),
        (
            "extended-tc-request-confirm",
            json!(tc_request(TcOperation::Confirm)),
        ),
        (
            "extended-tc-request-lease",
            json!(extended_tc_request_lease()),
        ),
        (
            "extended-tc-request-renew",
            json!(extended_tc_request_renew()),
        ),
        (
            "extended-tc-request-token",
            json!(extended_tc_request_token()),
        ),
        ("extended-tc-response", json!(extended_tc_response())),
        ("health", json!(health())),
        ("interface-list", json!(interface_list())),
        ("interface-request", json!(interface_request())),
        ("interface-response", json!(interface_response())),
        ("preset-list", json!(preset_list())),
        ("scenario-listed", json!(scenario_listed())),
        ("state-request", json!(state_request())),
        ("state-response", json!(state_response())),
        ("tc-config", json!(tc_config())),
        ("tc-request-apply", json!(tc_request(apply()))),
        ("tc-request-apply-config", json!(tc_request(apply_config()))),
        ("tc-request-remove", json!(tc_request(TcOperation::Remove))),
        ("tc-response-failure", json!(tc_response_failure())),
        ("tc-statistics", json!(tc_statistics())),
    ]
}

fn explain_response() -> ExplainResponse {
    let text = "an empty file on which a namespace is to be mounted, which has not happened";
    ExplainResponse::success(Explanation {
        namespace: "lab".into(),
        listed: false,
        reasons: vec![Reason {
            code: ReasonCode::Placeholder,
            text: text.into(),
        }],
        entry: Some(EntryReport {
            path: "/run/netns/lab".into(),
            kind: "empty file".into(),
            link_target: None,
            namespace_type: None,
            file_system: Some("tmpfs".into()),
            mount: None,
            identity: None,
        }),
        aliases: Vec::new(),
        interfaces: None,
        looked_ms_ago: None,
        doorbells: vec![DoorbellReport {
            name: "mount table".into(),
            works: true,
            problem: None,
            rang_ms_ago: Some(1250),
        }],
        limits: vec![LimitReport {
            name: "fs.inotify.max_user_instances".into(),
            value: Some(128),
        }],
        missing_capabilities: Vec::new(),
        propagation: Some("shared:5".into()),
    })
}

fn bandwidth() -> BandwidthUpdate {
    BandwidthUpdate {
        namespace: "default".into(),
        interface: "ens3".into(),
        stats: BandwidthStats {
            rx_bytes: 90210,
            rx_packets: 640,
            rx_dropped: 2,
            tx_bytes: 41100,
            tx_packets: 410,
            timestamp: 1_767_300_002,
            rx_bytes_per_sec: 1250.5,
            tx_bytes_per_sec: 310.0,
            ..BandwidthStats::default()
        },
        backend_name: "edge1".into(),
    }
}

fn diagnostics_request() -> DiagnosticsRequest {
    DiagnosticsRequest {
        namespace: "default".into(),
        interface: "ens3".into(),
        target: None,
        timeout_ms: 5000,
    }
}

fn diagnostics_response() -> DiagnosticsResponse {
    let target = "10.0.0.1";
    let results = DiagnosticsResults {
        link_status: LinkStatus {
            is_up: true,
            has_carrier: true,
            mtu: 1500,
        },
        connectivity: Some(Connectivity {
            target: target.into(),
            reachable: true,
            method: "ping".into(),
        }),
        latency: Some(Latency {
            target: target.into(),
            min_ms: 0.9,
            avg_ms: 1.2,
            max_ms: 1.9,
            packet_loss_percent: 0.0,
            samples: 5,
        }),
        configured_tc: None,
        tc_stats: None,
    };
    DiagnosticsResponse::success("Link UP, 10.0.0.1 reachable, avg latency: 1.2ms", results)
}

/// The scenario of the examples, without steps.
fn blip() -> NetworkScenario {
    NetworkScenario {
        id: "blip".into(),
        name: "Short blip".into(),
        description: String::new(),
        steps: Vec::new(),
        loop_scenario: false,
        created_at: 0,
        modified_at: 0,
        metadata: ScenarioMetadata {
            version: "1.0".into(),
            ..ScenarioMetadata::default()
        },
        cleanup_on_failure: true,
    }
}

fn execution_update() -> ScenarioExecutionUpdate {
    let (namespace, interface) = ("lab-a", "v-a1");
    ScenarioExecutionUpdate {
        namespace: namespace.into(),
        interface: interface.into(),
        backend_name: "edge1".into(),
        timestamp: 1_767_300_020_500,
        execution: ScenarioExecution {
            scenario: blip(),
            start_time: 1_767_300_020_000,
            current_step: 0,
            state: ExecutionState::Paused {
                paused_at: 1_767_300_020_400,
            },
            target_namespace: namespace.into(),
            target_interface: interface.into(),
            stats: ExecutionStats {
                tc_operations: 1,
                ..ExecutionStats::default()
            },
            loop_execution: false,
            loop_iteration: 0,
        },
    }
}

fn health() -> BackendHealthStatus {
    BackendHealthStatus {
        backend_name: "edge1".into(),
        status: "Backend started".into(),
        timestamp: 1_767_300_000,
        metadata: BackendMetadata {
            capabilities: vec!["tc_netem".into(), "interface_control".into()],
            ..BackendMetadata::default()
        },
        namespace_count: 0,
        interface_count: 0,
        name_conflict: None,
    }
}

fn extended_health() -> BackendHealthStatus {
    BackendHealthStatus {
        name_conflict: Some("lab-host".into()),
        ..health()
    }
}

/// A namespace with one interface that is up. `edit` changes it.
fn namespace(
    name: &str,
    namespace_type: NamespaceType,
    ifname: &str,
    edit: impl FnOnce(&mut NetworkInterface),
) -> NetworkNamespace {
    let mut interface = NetworkInterface {
        name: ifname.into(),
        index: 2,
        namespace: name.into(),
        is_up: true,
        is_oper_up: true,
        has_tc_qdisc: false,
        interface_type: InterfaceType::Veth,
    };
    edit(&mut interface);
    NetworkNamespace {
        name: name.into(),
        aliases: Vec::new(),
        id: None,
        is_active: true,
        namespace_type,
        interfaces: vec![interface],
    }
}

fn interface_list() -> InterfaceListUpdate {
    let container = NamespaceType::Container {
        runtime: "Docker".into(),
        container_id: "0a1b2c3d4e5f".into(),
        image: "nginx:1.27".into(),
    };
    InterfaceListUpdate {
        namespaces: vec![
            namespace("default", NamespaceType::Default, "ens3", |interface| {
                interface.interface_type = InterfaceType::Physical;
            }),
            namespace("lab-a", NamespaceType::Traditional, "v-a1", |interface| {
                interface.index = 5;
                interface.is_oper_up = false;
                interface.has_tc_qdisc = true;
            }),
            namespace("container:web", container, "eth0", |interface| {
                interface.index = 12;
            }),
        ],
        timestamp: 1_767_300_000,
        backend_name: "edge1".into(),
    }
}

fn extended_interface_list() -> InterfaceListUpdate {
    let process = "pid:812(unshare)";
    InterfaceListUpdate {
        namespaces: vec![
            NetworkNamespace {
                aliases: ["lab-b", "container:web", "pid:4711(nginx)"]
                    .map(str::to_owned)
                    .into(),
                ..namespace("lab-a", NamespaceType::Traditional, "v-a1", |_| ())
            },
            namespace(process, NamespaceType::Traditional, "lo", |interface| {
                interface.interface_type = InterfaceType::Loopback;
            }),
        ],
        ..interface_list()
    }
}

fn interface_request() -> InterfaceControlRequest {
    InterfaceControlRequest {
        namespace: "lab-a".into(),
        interface: "v-a1".into(),
        operation: InterfaceControlOperation::Disable,
    }
}

fn interface_response() -> InterfaceControlResponse {
    InterfaceControlResponse::success(InterfaceControlOperation::Disable, "v-a1 is down")
}

fn preset_list() -> PresetList {
    let config = TcNetemConfig {
        delay: DelayConfig {
            enabled: true,
            base_ms: 25.0,
            jitter_ms: 4.0,
            correlation: 0.0,
        },
        rate_limit: RateLimitConfig {
            enabled: true,
            rate_kbps: 16000,
        },
        ..TcNetemConfig::default()
    };
    PresetList {
        presets: vec![CustomPreset {
            id: "dsl".into(),
            name: "DSL line".into(),
            description: String::new(),
            config,
        }],
    }
}

/// A configuration that only loses packets.
fn loses(percentage: f64) -> TcNetemConfig {
    TcNetemConfig {
        loss: LossConfig {
            enabled: true,
            percentage,
            correlation: 0.0,
        },
        ..TcNetemConfig::default()
    }
}

fn scenario_listed() -> ScenarioResponse {
    let error = ScenarioError::new(ErrorCategory::Validation, "line 3: unexpected token");
    ScenarioResponse::Listed {
        scenarios: vec![Arc::new(NetworkScenario {
            steps: vec![ScenarioStep {
                duration_ms: 5000,
                tc_config: loses(20.0),
                description: "loss burst".into(),
            }],
            created_at: 1_767_300_000,
            modified_at: 1_767_300_000,
            metadata: ScenarioMetadata {
                tags: vec!["demo".into()],
                author: None,
                version: "1.0".into(),
                duration_ms: 5000,
            },
            ..blip()
        })],
        load_errors: vec![LoadError {
            file_path: "/etc/x/bad.json5".into(),
            error,
        }],
    }
}

fn tc_config() -> TcConfigUpdate {
    TcConfigUpdate {
        namespace: "lab-a".into(),
        interface: "v-a1".into(),
        backend_name: "edge1".into(),
        timestamp: 1_767_300_010,
        configuration: Some(TcConfiguration {
            netem: FlatNetem {
                loss: 1.5,
                delay_ms: Some(40.0),
                delay_jitter_ms: Some(5.0),
                rate_limit_kbps: Some(2000),
                ..FlatNetem::default()
            },
            command: "tc qdisc replace dev v-a1 root netem loss 1.5% delay 40ms 5ms rate 2mbit"
                .into(),
            notes: Vec::new(),
        }),
        has_tc: true,
    }
}

fn tc_request(operation: TcOperation) -> TcRequest {
    TcRequest::new("default", "ens3", operation)
}

fn extended_tc_request_lease() -> TcRequest {
    TcRequest {
        ttl_ms: Some(60_000),
        confirm_within_ms: Some(5_000),
        ..tc_request(apply())
    }
}

fn extended_tc_request_token() -> TcRequest {
    TcRequest {
        client: Some("tcgui-backend run (ping)".into()),
        operation: apply(),
        ..extended_tc_request_renew()
    }
}

fn extended_tc_request_renew() -> TcRequest {
    TcRequest {
        ttl_ms: Some(10_000),
        lease_token: Some("4711-9f3c".into()),
        ..tc_request(TcOperation::Renew)
    }
}

fn state_request() -> StateRequest {
    StateRequest {
        namespace: Some("lab".into()),
        interface: Some("eth0".into()),
        impaired: true,
    }
}

fn state_response() -> StateResponse {
    let netem = FlatNetem {
        loss: 2.0,
        delay_ms: Some(100.0),
        extensions: NetemExtensions {
            limit: Some(1250),
            ..NetemExtensions::default()
        },
        ..FlatNetem::default()
    };
    StateResponse::success(BackendState {
        backend_name: "edge1".into(),
        version: "0.9.0".into(),
        hostname: Some("box".into()),
        started_at: 1_767_300_000_000,
        timestamp: 1_767_300_060_000,
        namespace_count: 2,
        interface_count: 5,
        interfaces: vec![InterfaceState {
            namespace: "lab".into(),
            namespace_aliases: vec!["container:web".into()],
            interface: "eth0".into(),
            is_up: true,
            is_oper_up: true,
            interface_type: InterfaceType::Veth,
            has_tc_qdisc: true,
            configuration: Some(TcConfiguration {
                netem,
                command: "tc qdisc replace dev eth0 root netem limit 1250 delay 100ms loss 2%"
                    .into(),
                notes: Vec::new(),
            }),
            since: Some(1_767_300_050_000),
            expires_at: Some(1_767_300_650_000),
            confirm_by: Some(1_767_300_080_000),
            scenario: Some(ScenarioProgress {
                id: "blip".into(),
                name: Some("Short blip".into()),
                step: Some(1),
                steps: Some(3),
                description: Some("Loss".into()),
                paused: false,
                loop_iteration: 0,
                progress_percent: Some(40.0),
            }),
            set_by: Some(SetBy::Scenario { id: "blip".into() }),
        }],
    })
}

fn extended_tc_response() -> TcResponse {
    TcResponse {
        expires_at: Some(1_767_300_010_250),
        ..TcResponse::success("netem is in force on ens3 in default", None)
    }
}

fn apply() -> TcOperation {
    TcOperation::Apply(FlatNetem {
        loss: 2.0,
        correlation: Some(10.0),
        delay_ms: Some(100.0),
        ..FlatNetem::default()
    })
}

fn apply_config() -> TcOperation {
    TcOperation::ApplyConfig { config: loses(2.0) }
}

fn extended_tc_config() -> TcConfigUpdate {
    TcConfigUpdate {
        configuration: Some(TcConfiguration {
            netem: FlatNetem {
                delay_ms: Some(40.0),
                delay_jitter_ms: Some(5.0),
                rate_limit_kbps: Some(2000),
                extensions: NetemExtensions {
                    distribution: Some(Distribution::Normal),
                    loss_model: Some(LossModel::GilbertElliott {
                        p: 1.0,
                        r: 10.0,
                        bad_loss: 70.0,
                        good_loss: 0.0,
                    }),
                    ecn: Some(true),
                    rate_overhead: Some(RateOverhead {
                        packet: -14,
                        cell_size: 48,
                        cell: 5,
                    }),
                    slot: Some(SlotConfig {
                        min_ms: Some(1.0),
                        max_ms: Some(2.5),
                        packets: Some(8),
                        ..SlotConfig::default()
                    }),
                    seed: Some(987_654_321),
                    limit: Some(1000),
                    ..NetemExtensions::default()
                },
                ..FlatNetem::default()
            },
            command: "tc qdisc replace dev v-a1 root netem loss gemodel 1% 10% 70% 0% delay 40ms \
                      5ms distribution normal rate 2mbit -14 48 5 slot 1ms 2500us packets 8 ecn"
                .into(),
            notes: Vec::new(),
        }),
        ..tc_config()
    }
}

fn extended_apply() -> TcOperation {
    TcOperation::Apply(FlatNetem {
        delay_ms: Some(100.0),
        delay_jitter_ms: Some(10.0),
        extensions: NetemExtensions {
            distribution: Some(Distribution::Pareto),
            ecn: Some(false),
            ..NetemExtensions::default()
        },
        ..FlatNetem::default()
    })
}

fn extended_apply_config() -> TcOperation {
    let config = TcNetemConfig {
        delay: DelayConfig {
            enabled: true,
            base_ms: 40.0,
            jitter_ms: 5.0,
            correlation: 0.0,
        },
        extensions: NetemExtensions {
            distribution: Some(Distribution::ParetoNormal),
            loss_model: Some(LossModel::FourState {
                p13: 1.0,
                p31: 20.0,
                p32: 3.0,
                p23: 90.0,
                p14: 5.0,
            }),
            slot: Some(SlotConfig {
                distribution: Some(Distribution::Pareto),
                delay_ms: Some(10.0),
                jitter_ms: Some(1.5),
                bytes: Some(15_000),
                ..SlotConfig::default()
            }),
            seed: Some(7),
            limit: Some(5000),
            ..NetemExtensions::default()
        },
        ..TcNetemConfig::default()
    };
    TcOperation::ApplyConfig { config }
}

/// The example is from a released backend, which has no error kinds.
fn tc_response_failure() -> TcResponse {
    TcResponse {
        error_kind: None,
        ..TcResponse::failure("interface ens9 does not exist", ErrorKind::NotFound)
    }
}

fn tc_statistics() -> TcStatisticsUpdate {
    TcStatisticsUpdate {
        namespace: "lab-a".into(),
        interface: "v-a1".into(),
        backend_name: "edge1".into(),
        timestamp: 1_767_300_012,
        stats_basic: Some(BasicStats {
            bytes: 51200,
            packets: 77,
        }),
        stats_queue: Some(QueueStats {
            qlen: 1,
            backlog: 98,
            drops: 3,
            requeues: 0,
            overlimits: 0,
        }),
        stats_rate_est: None,
    }
}
