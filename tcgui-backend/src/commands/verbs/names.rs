//! Interfaces in the words of the documents.

use tcgui_backend::cli::target::target_text;
use tcgui_shared::interface::InterfaceType;
use tcgui_shared::state::{InterfaceState, ScenarioProgress, SetBy};

use super::documents::{InterfaceDocument, ScenarioProgressDocument, SetByDocument};
use super::impairment;
use super::times::rfc3339;

/// Returns the document of an interface.
pub(super) fn interface(state: &InterfaceState) -> InterfaceDocument {
    let netem = state.configuration.as_ref();
    InterfaceDocument {
        target: target_text(&state.namespace, &state.interface),
        namespace: state.namespace.clone(),
        namespace_aliases: state.namespace_aliases.clone(),
        interface: state.interface.clone(),
        interface_type: interface_type(state.interface_type).to_owned(),
        up: state.is_up,
        carrier: state.is_oper_up,
        netem: netem.map(|it| impairment::document(&it.netem)),
        unreadable: state.has_tc_qdisc && netem.is_none(),
        since: state.since.map(rfc3339),
        expires_at: state.expires_at.map(rfc3339),
        confirm_by: state.confirm_by.map(rfc3339),
        set_by: state.set_by.as_ref().and_then(set_by),
        scenario: state.scenario.as_ref().map(progress),
        stats: None,
    }
}

fn interface_type(kind: InterfaceType) -> &'static str {
    match kind {
        InterfaceType::Physical => "physical",
        InterfaceType::Virtual => "virtual",
        InterfaceType::Veth => "veth",
        InterfaceType::Bridge => "bridge",
        InterfaceType::Tun => "tun",
        InterfaceType::Tap => "tap",
        InterfaceType::Loopback => "loopback",
    }
}

fn set_by(set_by: &SetBy) -> Option<SetByDocument> {
    let (kind, name) = match set_by {
        SetBy::Client { name } => ("client", name.clone()),
        SetBy::Scenario { id } => ("scenario", Some(id.clone())),
        SetBy::OtherProgram => ("other_program", None),
        SetBy::Unknown => return None,
    };
    Some(SetByDocument {
        kind: kind.to_owned(),
        name,
    })
}

fn progress(scenario: &ScenarioProgress) -> ScenarioProgressDocument {
    ScenarioProgressDocument {
        id: scenario.id.clone(),
        step: scenario.step.map(|step| step + 1),
        steps: scenario.steps,
        description: scenario.description.clone(),
        paused: scenario.paused,
        pass: scenario.loop_iteration.saturating_add(1),
        progress_percent: scenario.progress_percent,
    }
}

/// Describes who set an impairment.
pub(super) fn who(interface: &InterfaceDocument) -> String {
    if let Some(scenario) = &interface.scenario {
        let step = match (scenario.step, scenario.steps) {
            (Some(step), Some(steps)) => format!(", step {step} of {steps}"),
            _ => String::new(),
        };
        let paused = if scenario.paused { ", paused" } else { "" };
        return format!("scenario {}{step}{paused}", scenario.id);
    }
    match &interface.set_by {
        None => String::new(),
        Some(SetByDocument { kind, name }) => match (kind.as_str(), name) {
            ("client", Some(name)) => name.clone(),
            ("client", None) => "a frontend".to_owned(),
            ("scenario", Some(id)) => format!("scenario {id}"),
            _ => "another program".to_owned(),
        },
    }
}

/// Returns an interface as it can be given as a target.
pub(super) fn target((namespace, interface): &(String, String)) -> String {
    target_text(namespace, interface)
}
