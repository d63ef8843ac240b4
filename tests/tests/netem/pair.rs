//! A pair of interfaces that tests impair, and the qdiscs of the kernel as `tc` prints them.

use std::process::Command;

use tcgui_tests::links::{attribute, ip};
use tcgui_tests::netns;
use tcgui_tests::process::run;
use tcgui_tests::scene::Scene;

/// The end of the veth in the namespace of the host.
pub(crate) const NEAR: (&str, &str) = ("default", "near");
/// The end in the namespace `blue`.
pub(crate) const FAR: (&str, &str) = ("blue", "far");

/// Runs `tc` in the namespace of the host (`default`) or in a named one.
pub(crate) fn tc(namespace: &str, line: &str) -> anyhow::Result<String> {
    let mut command = Command::new("tc");
    if namespace != "default" {
        command.args(["-n", namespace]);
    }
    run(command.args(line.split_whitespace()))
}

/// Returns the root qdisc of an interface, as `tc` prints it.
pub(crate) fn root((namespace, interface): (&str, &str)) -> anyhow::Result<String> {
    let listed = tc(namespace, &format!("qdisc show dev {interface}"))?;
    let root = listed.lines().find(|line| line.contains(" root "));
    Ok(root.unwrap_or_default().to_owned())
}

/// Makes a veth from the host into a new namespace, both ends up: `near` and `far`.
pub(crate) fn pair(namespace: &str) -> anyhow::Result<()> {
    netns::add(namespace)?;
    netns::ip_line(&format!(
        "link add near type veth peer name far netns {namespace}"
    ))?;
    ip("default", "link set near up")?;
    ip(namespace, "link set far up")?;
    Ok(())
}

/// Makes the pair, starts the daemon and waits until it lists the far end.
pub(crate) fn started_with_pair(scene: &mut Scene) -> anyhow::Result<()> {
    pair("blue")?;
    scene.start()?;
    attribute(scene, FAR, "is_up", true)
}
