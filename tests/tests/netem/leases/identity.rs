//! Links that are renamed, created again or in a lost namespace. Executions and leases follow the link, not its name.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::ensure;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tcgui_tests::client::Client;
use tcgui_tests::lab::Kind;
use tcgui_tests::links::{attribute, ip};
use tcgui_tests::process::{Companion, run};
use tcgui_tests::scene::{SOON, Scene};
use tcgui_tests::wait::{holds_for, patience, wait_for};
use tcgui_tests::{lab_test, netns};

use super::inside::{delay, delay_request, leases, restores, short_ms};
use crate::pair::{FAR, root, started_with_pair};

const LONG: Kind = Kind::Lasting(Duration::from_secs(400));

/// Stores a scenario that alternates between delays of 40 ms and 80 ms.
pub(crate) fn add_scenario(scene: &Scene) -> anyhow::Result<()> {
    let off = json!({"enabled": false, "percentage": 0.0, "correlation": 0.0});
    let step = |ms: f64| {
        json!({
            "duration_ms": 700,
            "description": "",
            "tc_config": {
                "loss": off, "duplicate": off, "corrupt": off,
                "delay": {"enabled": true, "base_ms": ms, "jitter_ms": 0.0, "correlation": 0.0},
                "reorder": {"enabled": false, "percentage": 0.0, "correlation": 0.0, "gap": 5},
                "rate_limit": {"enabled": false, "rate_kbps": 1000},
            },
        })
    };
    let request = json!({"Add": {
        "id": "turns", "name": "turns", "description": "", "steps": [step(40.0), step(80.0)],
        "loop_scenario": true, "created_at": 0, "modified_at": 0, "cleanup_on_failure": true,
        "metadata": {"tags": [], "author": null, "version": "1.0", "duration_ms": 0},
    }});
    let reply = scene.client()?.ask("scenario", &request)?.0;
    ensure!(reply["Added"]["id"] == "turns", "{reply}");
    Ok(())
}

pub(crate) fn execution(scene: &Scene, request: &Value) -> anyhow::Result<Value> {
    Ok(scene.client()?.ask("scenario/execution", request)?.0)
}

pub(crate) fn start(scene: &Scene, (namespace, interface): (&str, &str)) -> anyhow::Result<Value> {
    execution(
        scene,
        &json!({"Start": {
            "scenario_id": "turns", "namespace": namespace, "interface": interface,
        }}),
    )
}

pub(crate) fn stop(scene: &Scene, (namespace, interface): (&str, &str)) -> anyhow::Result<Value> {
    execution(
        scene,
        &json!({"Stop": {"namespace": namespace, "interface": interface}}),
    )
}

fn started(scene: &Scene) -> anyhow::Result<()> {
    let reply = start(scene, FAR)?;
    ensure!(reply["Started"].is_object(), "{reply}");
    root_has(FAR, "delay 40ms", true)
}

/// Waits until the root qdisc of an interface contains the text, or does not.
fn root_has(at: (&str, &str), text: &str, there: bool) -> anyhow::Result<()> {
    let what = format!("{text} is at {at:?}: {there}");
    let is = |root: &anyhow::Result<String>| {
        root.as_ref().is_ok_and(|root| root.contains(text) == there)
    };
    wait_for(&what, SOON, || root(at), is)?.map(drop)
}

/// Checks that the root stays without a netem for some steps of the scenario.
fn stays_clean(at: (&str, &str)) -> anyhow::Result<()> {
    let period = Duration::from_secs(3) * patience().min(2);
    holds_for(
        "it stays clean",
        period,
        || root(at),
        |root| root.as_ref().is_ok_and(|root| !root.contains("netem")),
    )
}

fn no_lease_is_left() -> anyhow::Result<()> {
    wait_for("no lease is left", SOON, leases, |left| *left == 0).map(drop)
}

/// Keys and their samples, in order of arrival.
type Samples = Mutex<Vec<(String, Value)>>;

/// Records every sample under a key of this backend.
fn record(client: &Client, keys: &str) -> anyhow::Result<Arc<Samples>> {
    use zenoh::Wait;
    let heard = Arc::new(Samples::default());
    let sink = Arc::clone(&heard);
    client
        .session()
        .declare_subscriber(format!("tcgui/default/{keys}"))
        .callback(move |sample| {
            let value = serde_json::from_slice(&sample.payload().to_bytes());
            let key = sample.key_expr().to_string();
            sink.lock().unwrap().push((key, value.unwrap_or_default()));
        })
        .background()
        .wait()
        .map_err(|error| anyhow::anyhow!(error))?;
    Ok(heard)
}

/// Returns the last sample of each key.
fn last(heard: &Samples) -> BTreeMap<String, Value> {
    heard.lock().unwrap().iter().cloned().collect()
}

/// Creates a veth pair whose far end can be created again with the same name, index and address.
fn remade_pair(namespace: &str) -> anyhow::Result<()> {
    netns::ip_line(&format!(
        "link add near index 70 type veth peer name far index 71 address 02:00:00:00:00:71 netns {namespace}"
    ))?;
    ip("default", "link set near up")?;
    ip(namespace, "link set far up").map(drop)
}

fn remake() -> anyhow::Result<()> {
    ip("blue", "link del far")?;
    remade_pair("blue")
}

lab_test!(
    #[ignore = "needs netem"]
    a_scenario_and_a_lease_follow_their_link_to_another_name,
    LONG,
    |scene| {
        started_with_pair(scene)?;
        add_scenario(scene)?;
        let heard = record(scene.client()?, "tc/**")?;
        let executions = record(scene.client()?, "scenario/execution/**")?;
        started(scene)?;
        for line in [
            "link set far down",
            "link set far name far2",
            "link set far2 up",
            "link add far type veth peer name other",
        ] {
            ip("blue", line)?;
        }
        let at = |key: &str| format!("tcgui/default/{key}");
        let state = |key: &str| last(&executions)[&at(key)]["execution"]["state"].clone();
        wait_for(
            "it is published under the new name",
            SOON,
            || last(&executions),
            |all| all.contains_key(&at("scenario/execution/blue/far2")),
        )?;
        ensure!(
            state("scenario/execution/blue/far") == "Stopped",
            "under the old name"
        );
        ensure!(
            state("scenario/execution/blue/far2") == "Running",
            "under the new name"
        );
        let far2 = ("blue", "far2");
        wait_for(
            "tc is published under the new name",
            SOON,
            || last(&heard),
            |all| {
                all.get(&at("tc/blue/far2"))
                    .is_some_and(|it| it["has_tc"] == true)
                    && all
                        .get(&at("tc/blue/far"))
                        .is_some_and(|it| it["has_tc"] == false)
            },
        )?;
        let ends = heard
            .lock()
            .unwrap()
            .iter()
            .filter(|(key, value)| *key == at("tc/blue/far") && value["has_tc"] == false)
            .count();
        ensure!(ends == 1, "said {ends} times");
        for key in ["tc/blue/far", "scenario/execution/blue/far"] {
            let token = format!("{}/@adv/pub/**", at(key));
            let tokens = || scene.client().and_then(|client| client.tokens(&token));
            wait_for("the old key is taken back", SOON, tokens, |it| {
                it.as_ref().is_ok_and(|it| *it == 0)
            })??;
        }
        // Another link has the name now.
        attribute(scene, FAR, "is_up", false)?;
        let reply = stop(scene, FAR)?;
        ensure!(reply == json!({"Stopped": {"success": false}}), "{reply}");
        for delay in ["delay 80ms", "delay 40ms", "delay 80ms"] {
            root_has(far2, delay, true)?;
        }
        ensure!(!root(FAR)?.contains("netem"), "{}", root(FAR)?);
        let reply = stop(scene, far2)?;
        ensure!(reply == json!({"Stopped": {"success": true}}), "{reply}");
        root_has(far2, "netem", false)?;
        no_lease_is_left()?;
        // A lease ends on its link, whatever name the link has.
        delay(scene, far2, 50, &json!({ "ttl_ms": short_ms() }))?;
        ip("blue", "link set far2 down")?;
        ip("blue", "link set far2 name far3")?;
        root_has(("blue", "far3"), "netem", false)?;
        no_lease_is_left()?;
        netns::clear()
    }
);

lab_test!(
    #[ignore = "needs netem"]
    another_link_with_the_same_name_and_index_is_left_alone,
    LONG,
    |scene| {
        netns::add("blue")?;
        remade_pair("blue")?;
        scene.start()?;
        attribute(scene, FAR, "is_up", true)?;
        add_scenario(scene)?;
        for is_stopped in [false, true] {
            started(scene)?;
            if is_stopped {
                scene.daemon()?.signal(Signal::SIGSTOP)?;
            }
            remake()?;
            if is_stopped {
                // A step is due during this time, and must not be carried out.
                let period = Duration::from_secs(1);
                holds_for(
                    "it is clean",
                    period,
                    || root(FAR),
                    |root| root.as_ref().is_ok_and(|root| !root.contains("netem")),
                )?;
                scene.daemon()?.signal(Signal::SIGCONT)?;
            }
            scene.wait_for("the scenario has failed", |state| {
                let seen = state.seen("scenario/execution/blue/far");
                seen.is_some_and(|it| it.value["execution"]["state"]["Failed"].is_object())
            })?;
            root_has(FAR, "netem", false)?;
            stays_clean(FAR)?;
            no_lease_is_left()?;
        }
        delay(scene, FAR, 50, &json!({"ttl_ms": 600_000}))?;
        remake()?;
        no_lease_is_left()?;
        ensure!(!root(FAR)?.contains("netem"), "{}", root(FAR)?);
        scene.wait_for("it is published", |state| {
            state
                .tc("blue", "far")
                .is_some_and(|it| it["has_tc"] == false)
        })?;
        netns::clear()
    }
);

lab_test!(
    #[ignore = "needs netem"]
    after_a_restart_a_netem_is_known_by_its_handle_and_values,
    LONG,
    |scene| {
        netns::add("blue")?;
        remade_pair("blue")?;
        scene.start()?;
        attribute(scene, FAR, "is_up", true)?;
        let short = json!({ "ttl_ms": short_ms() });
        delay(scene, FAR, 50, &short)?;
        scene.take_daemon()?.crash()?;
        ip("blue", "link set far address 02:00:00:00:00:99")?;
        scene.start_daemon::<&str>(&[])?;
        root_has(FAR, "netem", false)?;
        no_lease_is_left()?;
        // Another link, with the netem of another program.
        delay(scene, FAR, 50, &short)?;
        scene.take_daemon()?.crash()?;
        remake()?;
        let tc = "-n blue qdisc add dev far root handle 5: netem delay 50ms";
        run(Command::new("tc").args(tc.split_whitespace()))?;
        scene.start_daemon::<&str>(&[])?;
        no_lease_is_left()?;
        ensure!(root(FAR)?.contains("netem 5:"), "{}", root(FAR)?);
        netns::clear()
    }
);

/// A process that stays in a namespace whose name is removed.
fn inhabitant(namespace: &str) -> anyhow::Result<Companion> {
    let line = format!("netns exec {namespace} sleep 1000");
    let companion = Companion::start(Command::new("ip").args(line.split_whitespace()))?;
    let files = || std::fs::metadata(netns::of_process(companion.pid())).ok();
    let here = std::fs::metadata("/proc/self/ns/net")?;
    use std::os::unix::fs::MetadataExt;
    wait_for("it is inside", SOON, files, |it| {
        it.as_ref().is_some_and(|it| it.ino() != here.ino())
    })?;
    Ok(companion)
}

/// Returns the root qdisc of the far end in the namespace of a process.
fn root_beside(companion: &Companion) -> anyhow::Result<String> {
    let target = format!("--target={}", companion.pid());
    run(Command::new("nsenter").args([&target, "--net", "tc", "qdisc", "show", "dev", "far"]))
}

fn is_clean_beside(companion: &Companion) -> anyhow::Result<()> {
    let is_clean =
        |root: &anyhow::Result<String>| root.as_ref().is_ok_and(|root| !root.contains("netem"));
    wait_for("it is restored", SOON, || root_beside(companion), is_clean)?.map(drop)
}

lab_test!(
    #[ignore = "needs netem"]
    a_namespace_is_restored_before_its_last_name_is_forgotten,
    LONG,
    |scene| {
        started_with_pair(scene)?;
        add_scenario(scene)?;
        let inside = inhabitant("blue")?;
        let long = json!({"ttl_ms": 600_000});
        delay(scene, FAR, 50, &long)?;
        netns::del("blue")?;
        is_clean_beside(&inside)?;
        no_lease_is_left()?;
        // The same for a scenario.
        netns::attach("blue", inside.pid())?;
        attribute(scene, FAR, "is_up", true)?;
        started(scene)?;
        netns::del("blue")?;
        is_clean_beside(&inside)?;
        no_lease_is_left()?;
        let period = Duration::from_secs(2);
        holds_for(
            "it stays clean",
            period,
            || root_beside(&inside),
            |root| root.as_ref().is_ok_and(|root| !root.contains("netem")),
        )?;
        // The name is removed while no daemon runs. Later the namespace gets another name.
        netns::attach("blue", inside.pid())?;
        attribute(scene, FAR, "is_up", true)?;
        delay(scene, FAR, 50, &json!({ "ttl_ms": short_ms() }))?;
        scene.take_daemon()?.crash()?;
        netns::del("blue")?;
        netns::attach("green", inside.pid())?;
        scene.start_daemon::<&str>(&[])?;
        is_clean_beside(&inside)?;
        no_lease_is_left()?;
        // The same with the command `restore`.
        attribute(scene, ("green", "far"), "is_up", true)?;
        delay(scene, ("green", "far"), 50, &long)?;
        scene.take_daemon()?.crash()?;
        netns::del("green")?;
        netns::attach("red", inside.pid())?;
        restores(&["restore", "--all"], "restored")?;
        is_clean_beside(&inside)?;
        no_lease_is_left()?;
        netns::clear()?;
        inside.kill()
    }
);

lab_test!(
    #[ignore = "needs netem"]
    an_altname_is_refused_by_name,
    |scene| {
        started_with_pair(scene)?;
        for altname in ["uplink", "a-name-of-twenty-two-b"] {
            ip(
                "blue",
                &format!("link property add dev far altname {altname}"),
            )?;
            let refusal = || {
                let request = delay_request(("blue", altname), 40, &Value::Null);
                let reply = scene.client()?.ask("tc", &request)?.0;
                Ok::<_, anyhow::Error>(reply.to_string())
            };
            wait_for("it names the interface", SOON, refusal, |reply| {
                let says = |reply: &String| reply.contains("altname of the interface far");
                reply.as_ref().is_ok_and(says)
            })??;
        }
        netns::clear()
    }
);
