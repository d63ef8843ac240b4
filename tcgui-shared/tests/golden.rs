//! Compares recorded messages with the types, in both directions.
//!
//! The files `fixtures/released-*.json` were captured from a running released backend. Files `extended-*.json` have the
//! optional fields of this version. The other files are the examples of the protocol description. Each message is read
//! and written again. The rules for reading are checked on variants of it. The messages written in Rust must be equal
//! to the examples.

#[cfg(test)]
#[path = "golden/messages.rs"]
mod messages;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use serde_json::{Error, Value, json};
    use tcgui_shared::bandwidth::BandwidthUpdate;
    use tcgui_shared::control::{InterfaceControlRequest, InterfaceControlResponse};
    use tcgui_shared::diagnostics::{DiagnosticsRequest, DiagnosticsResponse};
    use tcgui_shared::error_kind::ErrorKind;
    use tcgui_shared::explain::{ExplainRequest, ExplainResponse, ReasonCode};
    use tcgui_shared::health::BackendHealthStatus;
    use tcgui_shared::interface::{InterfaceListUpdate, InterfaceStateEvent};
    use tcgui_shared::netem::{Distribution, LossModel};
    use tcgui_shared::preset::{CustomPreset, PresetList};
    use tcgui_shared::scenario::{
        ScenarioExecutionRequest, ScenarioExecutionResponse, ScenarioExecutionUpdate,
        ScenarioRequest, ScenarioResponse,
    };
    use tcgui_shared::state::{StateRequest, StateResponse};
    use tcgui_shared::tc::{TcConfigUpdate, TcRequest, TcResponse, TcStatisticsUpdate};

    use super::messages;

    /// Reads a message and writes it again.
    type Reprint = fn(&Value) -> Result<Value, Error>;

    fn reprint<T: DeserializeOwned + Serialize>(json: &Value) -> Result<Value, Error> {
        let message: T = serde_json::from_str(&json.to_string())?;
        serde_json::from_str(&serde_json::to_string(&message)?)
    }

    const FIXTURES: &[(&str, Reprint)] = &[
        ("bandwidth", reprint::<BandwidthUpdate>),
        ("diagnostics-request", reprint::<DiagnosticsRequest>),
        ("diagnostics-response", reprint::<DiagnosticsResponse>),
        ("execution-update", reprint::<ScenarioExecutionUpdate>),
        ("explain-request", reprint::<ExplainRequest>),
        ("explain-response", reprint::<ExplainResponse>),
        ("explain-response-failure", reprint::<ExplainResponse>),
        ("extended-health", reprint::<BackendHealthStatus>),
        ("extended-interface-list", reprint::<InterfaceListUpdate>),
        ("extended-tc-config", reprint::<TcConfigUpdate>),
        ("extended-tc-request-apply", reprint::<TcRequest>),
        ("extended-tc-request-apply-config", reprint::<TcRequest>),
        ("extended-tc-request-confirm", reprint::<TcRequest>),
        ("extended-tc-request-lease", reprint::<TcRequest>),
        ("extended-tc-request-renew", reprint::<TcRequest>),
        ("extended-tc-request-token", reprint::<TcRequest>),
        ("extended-tc-response", reprint::<TcResponse>),
        ("health", reprint::<BackendHealthStatus>),
        ("interface-list", reprint::<InterfaceListUpdate>),
        ("interface-request", reprint::<InterfaceControlRequest>),
        ("interface-response", reprint::<InterfaceControlResponse>),
        ("preset-list", reprint::<PresetList>),
        ("released-bandwidth-default-lo", reprint::<BandwidthUpdate>),
        ("released-bandwidth-red-vr", reprint::<BandwidthUpdate>),
        ("released-health", reprint::<BackendHealthStatus>),
        ("released-interfaces-list", reprint::<InterfaceListUpdate>),
        ("released-presets-list", reprint::<PresetList>),
        ("released-tc-blue-vb", reprint::<TcConfigUpdate>),
        ("scenario-listed", reprint::<ScenarioResponse>),
        ("state-request", reprint::<StateRequest>),
        ("state-response", reprint::<StateResponse>),
        ("tc-config", reprint::<TcConfigUpdate>),
        ("tc-request-apply", reprint::<TcRequest>),
        ("tc-request-apply-config", reprint::<TcRequest>),
        ("tc-request-remove", reprint::<TcRequest>),
        ("tc-response-failure", reprint::<TcResponse>),
        ("tc-statistics", reprint::<TcStatisticsUpdate>),
    ];

    fn directory() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
    }

    fn fixture(name: &str) -> Value {
        let path = directory().join(name).with_extension("json");
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|err| panic!("cannot read {}: {err}", path.display()));
        serde_json::from_str(&text).unwrap()
    }

    /// Runs a check on each fixture.
    fn each(check: impl Fn(&str, &Value, Reprint)) {
        for (name, reprint) in FIXTURES {
            check(name, &fixture(name), *reprint);
        }
    }

    /// Calls `edit` on each nested value and then on the value itself.
    fn visit(value: &mut Value, edit: &mut impl FnMut(&mut Value)) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| visit(item, edit)),
            Value::Object(fields) => fields.values_mut().for_each(|field| visit(field, edit)),
            _ => {}
        }
        edit(value);
    }

    /// Returns whether an object is a message or a part of one, not the tag of an enum variant.
    fn is_struct(fields: &serde_json::Map<String, Value>) -> bool {
        fields.keys().all(|key| key.starts_with(char::is_lowercase))
    }

    #[test]
    fn each_file_is_checked() {
        let files: BTreeSet<_> = std::fs::read_dir(directory())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        let checked: BTreeSet<_> = FIXTURES
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect();
        assert_eq!(files, checked);
    }

    #[test]
    fn messages_print_back_equal() {
        each(|name, json, reprint| assert_eq!(&reprint(json).unwrap(), json, "{name}"));
    }

    #[test]
    fn unknown_fields_are_ignored() {
        each(|name, json, reprint| {
            let mut newer = json.clone();
            visit(&mut newer, &mut |value| {
                if let Some(fields) = value.as_object_mut().filter(|fields| is_struct(fields)) {
                    fields.insert("from_the_future".to_owned(), json!({"A": [1, null]}));
                }
            });
            assert_eq!(&reprint(&newer).unwrap(), json, "{name}");
        });
    }

    #[test]
    fn absent_options_are_read_as_null() {
        each(|name, json, reprint| {
            let mut short = json.clone();
            visit(&mut short, &mut |value| {
                if let Some(fields) = value.as_object_mut() {
                    fields.retain(|_, field| !field.is_null());
                }
            });
            assert_eq!(&reprint(&short).unwrap(), json, "{name}");
        });
    }

    #[test]
    fn a_float_is_read_from_an_integer() {
        each(|name, json, reprint| {
            let mut integers = json.clone();
            visit(&mut integers, &mut |value| {
                if let Some(integer) = value.as_f64().filter(|float| float.fract() == 0.0) {
                    *value = serde_json::from_str(&format!("{integer:.0}")).unwrap();
                }
            });
            assert_eq!(&reprint(&integers).unwrap(), json, "{name}");
        });
    }

    /// Fields with a rate. In JSON they may have a fraction when they are read.
    const RATES: [&str; 2] = ["rate_kbps", "rate_limit_kbps"];

    #[test]
    fn an_integer_is_not_read_from_a_float_except_rates() {
        each(|name, json, reprint| {
            let is_integer = |value: &Value| value.is_i64() || value.is_u64();
            let (mut integers, mut rates, mut accepted) = (0, 0, 0);
            visit(&mut json.clone(), &mut |value| {
                integers += usize::from(is_integer(value));
                let fields = RATES.iter().filter_map(|field| value.get(field));
                rates += fields.filter(|value| is_integer(value)).count();
            });
            for wrong in 0..integers {
                let mut nth = 0;
                let mut floats = json.clone();
                visit(&mut floats, &mut |value| {
                    if is_integer(value) {
                        if nth == wrong {
                            *value = json!(value.as_f64());
                        }
                        nth += 1;
                    }
                });
                match reprint(&floats) {
                    Ok(printed) => {
                        assert_eq!(&printed, json, "{name}");
                        accepted += 1;
                    }
                    Err(err) => {
                        assert!(err.to_string().contains("floating point"), "{name}: {err}");
                    }
                }
            }
            assert_eq!(accepted, rates, "{name}");
        });
    }

    #[test]
    fn messages_written_in_rust_print_as_the_examples() {
        for (name, message) in messages::all() {
            assert_eq!(message, fixture(name), "{name}");
        }
    }

    #[test]
    fn each_example_is_written_in_rust() {
        let written: Vec<_> = messages::all().into_iter().map(|(name, _)| name).collect();
        let examples: Vec<_> = FIXTURES
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| !name.starts_with("released-"))
            .collect();
        assert_eq!(written, examples);
    }

    /// Checks that these are messages of the type, and that they are equal after they are read and written.
    fn spelled<T: DeserializeOwned + Serialize>(messages: &[Value]) {
        for message in messages {
            assert_eq!(&reprint::<T>(message).unwrap(), message);
        }
    }

    #[test]
    fn enums_are_spelled_as_released() {
        let at = json!({"namespace": "a", "interface": "b"});
        let error = json!({"category": "Transient", "message": "m", "suggestion": "s",
            "step_index": 2, "operation": "o"});
        let mut listed = fixture("scenario-listed");
        let scenario = listed["Listed"]["scenarios"][0].take();
        let mut execution = fixture("execution-update")["execution"].take();
        execution["state"] = json!({"Failed": {"error": error}});
        spelled::<ScenarioRequest>(&[
            json!({"Add": scenario}),
            json!({"Remove": {"id": "x"}}),
            json!("List"),
            json!({"Get": {"id": "x"}}),
            json!({"Update": scenario}),
        ]);
        spelled::<ScenarioResponse>(&[
            json!({"Added": {"id": "x"}}),
            json!({"Removed": {"success": true}}),
            json!({"Retrieved": {"scenario": null}}),
            json!({"Retrieved": {"scenario": scenario}}),
            json!({"Updated": {"success": false}}),
            json!({"Error": {"error": error}}),
        ]);
        spelled::<ScenarioExecutionRequest>(&[
            json!({"Start": {"scenario_id": "x", "namespace": "a", "interface": "b",
                "loop_execution": true}}),
            json!({"Start": {"scenario_id": "x", "namespace": "a", "interface": "b",
                "loop_execution": false}}),
            json!({"Stop": at}),
            json!({"Pause": at}),
            json!({"Resume": at}),
            json!({"Status": at}),
            json!("ListActive"),
        ]);
        spelled::<ScenarioExecutionResponse>(&[
            json!({"Started": {"execution_id": "a/b", "estimated_duration_ms": 5}}),
            json!({"Stopped": {"success": true}}),
            json!({"Paused": {"success": true}}),
            json!({"Resumed": {"success": false}}),
            json!({"Status": {"execution": null}}),
            json!({"Status": {"execution": execution}}),
            json!({"ActiveExecutions": {"executions": [execution]}}),
            json!({"Error": {"error": error}}),
        ]);
        spelled::<tcgui_shared::scenario::ExecutionState>(&[
            json!("Running"),
            json!({"Paused": {"paused_at": 1}}),
            json!("Stopped"),
            json!("Completed"),
        ]);
        let categories = [
            "Transient",
            "Permanent",
            "Validation",
            "Permission",
            "Internal",
        ];
        spelled::<tcgui_shared::scenario::ErrorCategory>(&categories.map(Value::from));
        let types = [
            "Physical", "Virtual", "Veth", "Bridge", "Tun", "Tap", "Loopback",
        ];
        spelled::<tcgui_shared::interface::InterfaceType>(&types.map(Value::from));
        let kinds = [
            "Invalid",
            "NotFound",
            "Denied",
            "Busy",
            "Unsupported",
            "Internal",
        ];
        spelled::<ErrorKind>(&kinds.map(Value::from));
    }

    #[test]
    fn interface_events_are_spelled_as_released() {
        let interface = fixture("interface-list")["namespaces"][0]["interfaces"][0].take();
        let kinds = [
            "Added",
            "Removed",
            "StateChanged",
            "QdiscAdded",
            "QdiscRemoved",
        ];
        spelled::<InterfaceStateEvent>(&kinds.map(|kind| {
            json!({"namespace": "default", "interface": interface, "event_type": kind,
                "timestamp": 1, "backend_name": "edge1"})
        }));
    }

    /// Checks that a message without a field is read like the message with that field.
    fn defaulted<T: DeserializeOwned + Serialize>(mut message: Value, field: &str) {
        let full = message.clone();
        message.as_object_mut().unwrap().remove(field).unwrap();
        assert_eq!(reprint::<T>(&message).unwrap(), full, "{field}");
    }

    #[test]
    fn fields_with_a_default_may_be_absent() {
        let mut list = fixture("interface-list");
        let interface = list["namespaces"][1]["interfaces"][0].take();
        defaulted::<tcgui_shared::interface::NetworkInterface>(interface, "is_oper_up");
        let mut presets = fixture("preset-list");
        defaulted::<CustomPreset>(presets["presets"][0].take(), "description");
        let mut listed = fixture("scenario-listed");
        let scenario = listed["Listed"]["scenarios"][0].take();
        defaulted::<tcgui_shared::scenario::NetworkScenario>(scenario, "cleanup_on_failure");
        for field in ["loop_execution", "loop_iteration"] {
            let execution = fixture("execution-update")["execution"].take();
            defaulted::<tcgui_shared::scenario::ScenarioExecution>(execution, field);
        }
        let start = json!({"Start": {"scenario_id": "x", "namespace": "a", "interface": "b"}});
        assert_eq!(reprint::<ScenarioExecutionRequest>(&start).unwrap(), start);
    }

    #[test]
    fn a_loss_model_may_leave_out_what_tc_does() {
        let model = |model: Value| reprint::<LossModel>(&model).unwrap();
        assert_eq!(
            model(json!({"GilbertElliott": {"p": 1.0, "r": 9.0}})),
            json!({"GilbertElliott": {"p": 1.0, "r": 9.0, "bad_loss": 100.0, "good_loss": 0.0}})
        );
        assert_eq!(
            model(json!({"FourState": {"p13": 1.0, "p31": 9.0}})),
            json!({"FourState": {"p13": 1.0, "p31": 9.0, "p32": 0.0, "p23": 100.0, "p14": 0.0}})
        );
    }

    #[test]
    fn distributions_are_read_as_tc_spells_them() {
        for (tc, wire) in [
            ("normal", "Normal"),
            ("pareto", "Pareto"),
            ("paretonormal", "ParetoNormal"),
        ] {
            let read = reprint::<Distribution>(&json!(tc)).unwrap();
            assert_eq!(read, json!(wire));
        }
    }

    #[test]
    fn mandatory_fields_may_not_be_absent() {
        let mut preset = fixture("preset-list")["presets"][0].take();
        preset["reorder"]
            .as_object_mut()
            .unwrap()
            .remove("gap")
            .unwrap();
        let error = reprint::<CustomPreset>(&preset).unwrap_err().to_string();
        assert!(error.contains("missing field `gap`"), "{error}");
        let mut apply = fixture("tc-request-apply");
        let fields = apply["operation"]["Apply"].as_object_mut().unwrap();
        fields.remove("loss").unwrap();
        let error = reprint::<TcRequest>(&apply).unwrap_err().to_string();
        assert!(error.contains("missing field `loss`"), "{error}");
    }

    #[test]
    fn a_reason_of_a_newer_backend_is_read() {
        let code: ReasonCode = serde_json::from_value(json!("MadeUpTomorrow")).unwrap();
        assert_eq!(code, ReasonCode::Other);
    }

    #[test]
    fn failures_keep_the_released_code_and_add_a_kind() {
        for (kind, spelled) in [
            (ErrorKind::NotFound, "NotFound"),
            (ErrorKind::Denied, "Denied"),
        ] {
            ensure_failure(kind, spelled);
        }
    }

    fn ensure_failure(kind: ErrorKind, spelled: &str) {
        let expected = json!({"success": false, "message": "gone", "error_code": -1,
            "error_kind": spelled});
        let operation = tcgui_shared::control::InterfaceControlOperation::Enable;
        for reply in [
            json!(TcResponse::failure("gone", kind)),
            json!(InterfaceControlResponse::failure(operation, "gone", kind)),
            json!(DiagnosticsResponse::failure("gone", kind)),
        ] {
            for (field, value) in expected.as_object().unwrap() {
                assert_eq!(&reply[field], value, "{reply}");
            }
        }
        let diagnostics = json!(DiagnosticsResponse::failure("gone", kind));
        let link = json!({"is_up": false, "has_carrier": false, "mtu": 0});
        assert_eq!(diagnostics["results"]["link_status"], link);
    }
}
