//! Link changes like those of administrators, and the resulting lists. Only for use in the lab.

use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use serde_json::Value;

use crate::client::State;
use crate::netns;
use crate::scene::{SOON, Scene};
use crate::wait::{holds_for, wait_every};

/// Time limit for changes that the kernel announces. It allows for a busy machine, but not for polling.
pub const PROMPT: Duration = Duration::from_secs(2);

/// Runs `ip` in the host's namespace (`default`) or a named one.
///
/// # Errors
///
/// When it fails.
pub fn ip(namespace: &str, line: &str) -> anyhow::Result<String> {
    match namespace {
        "default" => netns::ip_line(line),
        _ => netns::ip_line(&format!("-n {namespace} {line}")),
    }
}

/// Waits for a change that the kernel announces.
///
/// # Errors
///
/// When the change is not seen within [`PROMPT`].
pub fn prompt(
    scene: &Scene,
    what: &str,
    predicate: impl Fn(&State) -> bool,
) -> anyhow::Result<State> {
    scene.client()?.wait_for(what, PROMPT, predicate)
}

/// Waits until an attribute of an interface has a value.
///
/// # Errors
///
/// When that is not seen within [`PROMPT`].
pub fn attribute(
    scene: &Scene,
    (namespace, interface): (&str, &str),
    name: &str,
    value: impl Into<Value>,
) -> anyhow::Result<()> {
    let value = value.into();
    prompt(
        scene,
        &format!("{name} of {namespace}/{interface} is {value}"),
        |state| {
            state
                .interface(namespace, interface)
                .is_some_and(|it| it[name] == value)
        },
    )
    .map(drop)
}

/// Waits until an interface is no longer listed.
///
/// # Errors
///
/// When that is not seen within [`PROMPT`].
pub fn gone(scene: &Scene, namespace: &str, interface: &str) -> anyhow::Result<()> {
    prompt(
        scene,
        &format!("{namespace}/{interface} is not listed"),
        |state| state.interface(namespace, interface).is_none(),
    )
    .map(drop)
}

/// Creates, renames, switches and removes a veth pair. Every step must be listed.
///
/// # Errors
///
/// When a step is not seen within [`PROMPT`].
pub fn life_of_a_link(scene: &Scene, namespace: &str) -> anyhow::Result<()> {
    ip(namespace, "link add here type veth peer name there")?;
    attribute(scene, (namespace, "here"), "is_up", false)?;
    attribute(scene, (namespace, "there"), "interface_type", "Veth")?;
    ip(namespace, "link set here name renamed")?;
    attribute(scene, (namespace, "renamed"), "is_up", false)?;
    gone(scene, namespace, "here")?;
    ip(namespace, "link set renamed up")?;
    attribute(scene, (namespace, "renamed"), "is_up", true)?;
    ip(namespace, "link set renamed down")?;
    attribute(scene, (namespace, "renamed"), "is_up", false)?;
    ip(namespace, "link del renamed")?;
    gone(scene, namespace, "renamed")?;
    gone(scene, namespace, "there")
}

/// Pause between deletions. Otherwise the deletion of a namespace waits for that of the preceding one.
const QUIET: Duration = Duration::from_millis(20);

/// Measures the time from the start of `ip netns del` until the host's end of a veth pair is deleted.
///
/// # Errors
///
/// When the link is not deleted, or the list still contains it.
pub fn veth_dies(scene: Option<&Scene>) -> anyhow::Result<Duration> {
    netns::add("dying")?;
    netns::ip_line("link add outer type veth peer name inner netns dying")?;
    netns::ip_line("link set outer up")?;
    netns::ip_line("-n dying link set inner up")?;
    if let Some(scene) = scene {
        scene.wait_for("the daemon monitors the link inside", |state| {
            state
                .interface("dying", "inner")
                .is_some_and(|inner| inner["is_oper_up"] == true)
        })?;
    }
    holds_for(
        "the kernel is done with the one before",
        QUIET,
        || (),
        |()| true,
    )?;
    let start = Instant::now();
    netns::del("dying")?;
    wait_every(
        Duration::from_micros(500),
        "the host's end is deleted",
        SOON,
        || if_nametoindex("outer").is_ok(),
        |there| !there,
    )?;
    let gone = start.elapsed();
    if let Some(scene) = scene {
        scene.wait_for("both ends leave the list", |state| {
            state.named().is_empty() && state.interface("default", "outer").is_none()
        })?;
    }
    Ok(gone)
}
