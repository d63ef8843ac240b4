//! Tests of named namespaces, repeated with a namespace that only a process holds.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::net::if_::if_nametoindex;
use serde_json::{Value, json};
use tcgui_tests::client::State;
use tcgui_tests::lab::Kind;
use tcgui_tests::lab_test;
use tcgui_tests::links::{attribute, ip};
use tcgui_tests::netns;
use tcgui_tests::process::Companion;
use tcgui_tests::scene::{SOON, Scene};
use tcgui_tests::unnamed::{inside, title};
use tcgui_tests::wait::{patience, wait_for};

/// Time for a sweep of `/proc`. A sweep takes half a second on an emulated processor, and then the daemon waits for 40 s,
/// because it spends 1.25 % of a processor on sweeps.
const SWEEP: Duration = Duration::from_secs(15);

/// The directory for leases.
const LEASES: &str = "/var/lib/tcgui/leases";

fn root(process: &Companion) -> anyhow::Result<String> {
    let listed = inside(process, "tc qdisc show dev far")?;
    let root = listed.lines().find(|line| line.contains(" root "));
    Ok(root.unwrap_or_default().to_owned())
}

fn wait_root(process: &Companion, text: &str, there: bool) -> anyhow::Result<()> {
    wait_for(
        &format!("{text} is there: {there}"),
        SOON,
        || root(process),
        |root| root.as_ref().is_ok_and(|root| root.contains(text) == there),
    )?
    .map(drop)
}

/// A veth from here, both ends up, to a process in a namespace of its own.
fn pair() -> anyhow::Result<Companion> {
    let holder = netns::holder()?;
    let pid = holder.pid();
    netns::ip_line(&format!(
        "link add near type veth peer name far netns {pid}"
    ))?;
    ip("default", "addr add 192.0.2.1/24 dev near")?;
    ip("default", "link set near up")?;
    inside(&holder, "ip addr add 192.0.2.2/24 dev far")?;
    inside(&holder, "ip link set far up")?;
    Ok(holder)
}

fn delay(scene: &Scene, name: &str, ms: u64, more: &Value) -> anyhow::Result<()> {
    let mut request = json!({"namespace": name, "interface": "far",
        "operation": {"Apply": {"loss": 0.0, "delay_ms": ms}}});
    if let (Some(request), Some(more)) = (request.as_object_mut(), more.as_object()) {
        request.extend(more.clone());
    }
    let (reply, _) = scene.client()?.ask("tc", &request)?;
    ensure!(reply["success"] == true, "{reply}");
    let state = scene.client()?.state();
    let shown = state.tc(name, "far").context("published under its name")?;
    ensure!(
        shown["configuration"]["delay_ms"].as_f64() == Some(f64::from(u32::try_from(ms)?)),
        "{shown}"
    );
    Ok(())
}

fn leases() -> usize {
    let files = fs::read_dir(LEASES).into_iter().flatten().flatten();
    files
        .filter(|file| file.path().extension().is_some_and(|it| it == "json"))
        .count()
}

fn packets(state: &State, key: &str, member: &str) -> Option<u64> {
    state.seen(key)?.value.pointer(member)?.as_u64()
}

fn scenario_runs_and_is_taken_back(
    scene: &Scene,
    name: &str,
    holder: &Companion,
) -> anyhow::Result<()> {
    let off = json!({"enabled": false, "percentage": 0.0, "correlation": 0.0});
    let step = json!({"duration_ms": 600_000, "description": "slow", "tc_config": {
        "loss": off, "duplicate": off, "corrupt": off,
        "delay": {"enabled": true, "base_ms": 50.0, "jitter_ms": 0.0, "correlation": 0.0},
        "reorder": {"enabled": false, "percentage": 0.0, "correlation": 0.0, "gap": 5},
        "rate_limit": {"enabled": false, "rate_kbps": 1000},
    }});
    let add = json!({"Add": {
        "id": "slow", "name": "slow", "description": "", "steps": [step], "loop_scenario": false,
        "created_at": 0, "modified_at": 0, "cleanup_on_failure": true,
        "metadata": {"tags": [], "author": null, "version": "1.0", "duration_ms": 0},
    }});
    let client = scene.client()?;
    let (reply, _) = client.ask("scenario", &add)?;
    ensure!(reply["Added"]["id"] == "slow", "{reply}");
    let start = json!({"Start": {"scenario_id": "slow", "namespace": name, "interface": "far",
        "loop_execution": false}});
    let (reply, _) = client.ask("scenario/execution", &start)?;
    ensure!(reply["Started"].is_object(), "{reply}");
    wait_root(holder, "delay 50ms", true)?;
    let key = format!("scenario/execution/{name}/far");
    let runs = |state: &State| {
        let seen = state.seen(&key);
        seen.is_some_and(|seen| seen.value["execution"]["state"] == "Running")
    };
    scene.wait_for("it runs under the namespace's name", runs)?;
    let stop = json!({"Stop": {"namespace": name, "interface": "far"}});
    let (reply, _) = client.ask("scenario/execution", &stop)?;
    ensure!(reply["Stopped"]["success"] == true, "{reply}");
    wait_root(holder, "netem", false)
}

fn statistics_and_diagnostics(scene: &Scene, name: &str) -> anyhow::Result<()> {
    let ask = json!({"namespace": name, "interface": "far", "target": "192.0.2.1",
        "timeout_ms": 3000});
    let (reply, _) = scene.client()?.ask("diagnostics", &ask)?;
    ensure!(reply["success"] == true, "{reply}");
    // The echoes of the diagnosis left through the netem.
    for (key, member) in [
        (format!("tc/stats/{name}/far"), "/stats_basic/packets"),
        (format!("bandwidth/{name}/far"), "/stats/tx_packets"),
    ] {
        scene.wait_for(&key, |state| {
            packets(state, &key, member).is_some_and(|it| it >= 3)
        })?;
    }
    Ok(())
}

lab_test!(
    #[ignore = "needs netem"]
    a_namespace_that_only_a_process_holds_is_impaired_like_others,
    Kind::Lasting(Duration::from_secs(400)),
    |scene| {
        scene.start_with(&["--process-namespaces"])?;
        let holder = pair()?;
        let name = title(&holder, "sleep");
        // Where the kernel does not announce processes, only a sweep finds this one.
        scene
            .client()?
            .wait_for("the process is found", SWEEP, |state| {
                state.namespace(&name).is_some()
            })?;
        attribute(scene, (&name, "far"), "is_up", true)?;
        delay(scene, &name, 40, &json!({}))?;
        wait_root(&holder, "delay 40ms", true)?;
        statistics_and_diagnostics(scene, &name)?;
        delay(
            scene,
            &name,
            60,
            &json!({"ttl_ms": 2000 * patience().min(10)}),
        )?;
        wait_root(&holder, "delay 60ms", true)?;
        ensure!(leases() > 0, "no lease is kept");
        wait_root(&holder, "delay 60ms", false)?;
        let request = json!({"namespace": name, "interface": "far", "operation": "Remove"});
        scene.client()?.ask("tc", &request)?;
        scenario_runs_and_is_taken_back(scene, &name, &holder)?;
        // `tc` in the tests above is also a process of the namespace. After the holder, the daemon may report one that ended
        // since the last sweep, and only the next sweep shows that none is left.
        dies_impaired(scene, &name, holder, SWEEP)
    }
);

lab_test!(
    #[ignore = "needs netem"]
    a_linked_name_disappears_with_its_process_while_it_is_impaired,
    Kind::Lasting(Duration::from_secs(400)),
    |scene| {
        scene.start()?;
        fs::create_dir_all(netns::DIR)?;
        let holder = pair()?;
        symlink(netns::of_process(holder.pid()), netns::path("s"))?;
        attribute(scene, ("s", "far"), "is_up", true)?;
        dies_impaired(scene, "s", holder, Duration::from_secs(1))
    }
);

/// Ends the process while its link is under a lease, and checks that the namespace is not kept alive.
fn dies_impaired(
    scene: &Scene,
    name: &str,
    holder: Companion,
    limit: Duration,
) -> anyhow::Result<()> {
    delay(scene, name, 70, &json!({"ttl_ms": 600_000}))?;
    ensure!(leases() > 0, "no lease is kept");
    holder.kill()?;
    // The other end disappears with the namespace, unless the daemon keeps it alive.
    let there = || if_nametoindex("near").is_ok();
    wait_for("the veth is gone", limit, there, |it| !*it)?;
    scene.wait_for("the entry is gone", |state| state.namespace(name).is_none())?;
    // As for a removed name, the daemon restores the interface before it releases the namespace.
    wait_for("no lease is left", SOON, leases, |it| *it == 0)?;
    let token = format!("tcgui/default/tc/{name}/far/@adv/pub/**");
    let tokens = || scene.client().and_then(|client| client.tokens(&token));
    wait_for("the publisher is gone", SOON * 10, tokens, |it| {
        it.as_ref().is_ok_and(|it| *it == 0)
    })?
    .map(drop)
}
