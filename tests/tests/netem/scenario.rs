//! Scenarios from start to end, as frontends see them and as they affect packets.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};
use tcgui_tests::client::{Client, State};
use tcgui_tests::lab::Kind;
use tcgui_tests::links::{attribute, ip};
use tcgui_tests::process::run;
use tcgui_tests::scene::{SOON, Scene};
use tcgui_tests::wait::{patience, wait_for};
use tcgui_tests::{lab_test, measure, netns};

use crate::pair::{self, FAR};

const KEY: &str = "scenario/execution/blue/far";

/// Returns the root qdisc of the far end, as `tc` prints it.
fn root() -> anyhow::Result<String> {
    pair::root(FAR)
}

fn far_has(part: &str) -> anyhow::Result<()> {
    wait_for(part, SOON, root, |it| {
        it.as_ref().is_ok_and(|it| it.contains(part))
    })?
    .map(drop)
}

fn far_is_clean() -> anyhow::Result<()> {
    let qdisc = root()?;
    ensure!(!qdisc.contains("netem"), "{qdisc}");
    Ok(())
}

/// Makes the pair, with addresses at both ends.
fn pair_with_addresses() -> anyhow::Result<()> {
    pair::pair("blue")?;
    ip("default", "addr add 192.0.2.1/24 dev near")?;
    ip("blue", "addr add 192.0.2.2/24 dev far").map(drop)
}

fn started_with_pair(scene: &mut Scene) -> anyhow::Result<()> {
    pair_with_addresses()?;
    scene.start_with(&["--state-dir", "/run/tcgui-state"])?;
    attribute(scene, FAR, "is_up", true)
}

/// Returns a step with a delay. With 0 every feature is off.
fn step(delay_ms: f64, duration_ms: u64) -> Value {
    let off = json!({"enabled": false, "percentage": 0.0, "correlation": 0.0});
    json!({
        "duration_ms": duration_ms,
        "description": format!("{delay_ms} ms"),
        "tc_config": {
            "loss": off, "duplicate": off, "corrupt": off,
            "delay": {"enabled": delay_ms > 0.0, "base_ms": delay_ms, "jitter_ms": 0.0,
                "correlation": 0.0},
            "reorder": {"enabled": false, "percentage": 0.0, "correlation": 0.0, "gap": 5},
            "rate_limit": {"enabled": false, "rate_kbps": 1000},
        },
    })
}

fn add(scene: &Scene, id: &str, steps: &[Value]) -> anyhow::Result<()> {
    let request = json!({"Add": {
        "id": id, "name": id, "description": "", "steps": steps, "loop_scenario": false,
        "created_at": 0, "modified_at": 0, "cleanup_on_failure": true,
        "metadata": {"tags": [], "author": null, "version": "1.0", "duration_ms": 0},
    }});
    let reply = scene.client()?.ask("scenario", &request)?.0;
    ensure!(reply["Added"]["id"] == id, "{reply}");
    Ok(())
}

fn execution(scene: &Scene, request: &Value) -> anyhow::Result<Value> {
    Ok(scene.client()?.ask("scenario/execution", request)?.0)
}

/// The request of a released frontend.
fn start(scene: &Scene, id: &str, looped: bool) -> anyhow::Result<Value> {
    execution(
        scene,
        &json!({"Start": {"scenario_id": id, "namespace": "blue", "interface": "far",
            "loop_execution": looped}}),
    )
}

fn on_far(scene: &Scene, what: &str) -> anyhow::Result<Value> {
    let mut request = json!({});
    request[what] = json!({"namespace": "blue", "interface": "far"});
    execution(scene, &request)
}

fn shown(state: &State) -> &Value {
    state.seen(KEY).map_or(&Value::Null, |seen| &seen.value)
}

/// Waits until the newest update satisfies the predicate on its `execution`, and returns that.
fn sees(scene: &Scene, what: &str, predicate: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let state = scene
        .client()?
        .wait_for(what, SOON, |state| predicate(&shown(state)["execution"]))?;
    Ok(shown(&state)["execution"].clone())
}

/// Records every update of the far end in order of arrival, as a second frontend receives them.
fn record(client: &Client) -> anyhow::Result<Arc<Mutex<Vec<Value>>>> {
    use zenoh::Wait;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&heard);
    client
        .session()
        .declare_subscriber(format!("tcgui/default/{KEY}"))
        .callback(move |sample| {
            let value = serde_json::from_slice(&sample.payload().to_bytes());
            sink.lock().unwrap().push(value.unwrap_or_default());
        })
        .background()
        .wait()
        .map_err(|error| anyhow::anyhow!(error))?;
    Ok(heard)
}

/// Returns the round-trip time through the far end. No program listens there, so the reply is an ICMP message.
fn round_trip() -> anyhow::Result<Duration> {
    let socket = UdpSocket::bind("192.0.2.1:0")?;
    socket.connect("192.0.2.2:9")?;
    socket.set_read_timeout(Some(SOON * 2))?;
    let begin = Instant::now();
    socket.send(b"anybody?")?;
    let answer = socket.recv(&mut [0; 16]).map_err(|err| err.kind());
    ensure!(answer == Err(ErrorKind::ConnectionRefused), "{answer:?}");
    Ok(begin.elapsed())
}

lab_test!(
    #[ignore = "needs netem"]
    a_scenario_from_start_to_end,
    Kind::Lasting(Duration::from_secs(300)),
    |scene| {
        started_with_pair(scene)?;
        // A reply that waits in a netem is lost at the end of the step.
        let times = [2500, 1500, 2500].map(|ms| ms * u64::from(patience().min(3)));
        let whole: u64 = times.iter().sum();
        let steps = [300.0, 0.0, 600.0].into_iter().zip(times);
        let steps: Vec<_> = steps.map(|(delay, time)| step(delay, time)).collect();
        add(scene, "three", &steps)?;
        let heard = record(scene.client()?)?;
        let begin = Instant::now();
        let reply = start(scene, "three", false)?;
        ensure!(
            reply["Started"] == json!({"execution_id": "blue/far", "estimated_duration_ms": whole}),
            "{reply}"
        );
        let again = start(scene, "three", false)?;
        ensure!(
            again["Error"]["error"]["category"] == "Permanent"
                && again["Error"]["error"]["suggestion"].is_string(),
            "{again}"
        );
        far_has("delay 300ms")?;
        let slow = round_trip()?;
        ensure!(slow >= Duration::from_millis(300), "{slow:?}");
        sees(scene, "the second step is in force", |it| {
            it["current_step"] == 1 && it["stats"]["tc_operations"] == 2
        })?;
        // A step without a feature has no netem, not an empty one, and frontends are notified.
        far_is_clean()?;
        scene.wait_for("no configuration", |state| {
            state
                .tc("blue", "far")
                .is_some_and(|it| it["has_tc"] == false && it["configuration"].is_null())
        })?;
        far_has("delay 600ms")?;
        let slower = round_trip()?;
        ensure!(slower >= Duration::from_millis(600), "{slower:?}");
        let done = sees(scene, "it is complete", |it| it["state"] == "Completed")?;
        let elapsed = begin.elapsed();
        measure::report(format!(
            "a scenario of {whole} ms was complete after {elapsed:.1?}; answers took {slow:.0?} and {slower:.0?}"
        ))?;
        ensure!(elapsed >= Duration::from_millis(whole), "{elapsed:?}");
        ensure!(
            done["stats"]["progress_percent"] == 100.0 && done["stats"]["steps_completed"] == 3,
            "{done}"
        );
        ensure!(root()?.contains("delay 600ms"), "the last step stays");
        let heard = heard.lock().unwrap().clone();
        let times: Vec<_> = heard.iter().map(|it| it["timestamp"].as_u64()).collect();
        ensure!(times.is_sorted(), "{times:?}");
        let ends = |it: &&Value| it["execution"]["state"] == "Completed";
        ensure!(
            heard.iter().filter(ends).count() == 1 && heard.last().is_some_and(|it| ends(&it)),
            "{heard:?}"
        );
        let active = execution(scene, &json!("ListActive"))?;
        ensure!(
            active["ActiveExecutions"]["executions"] == json!([]),
            "{active}"
        );
        // The publisher is removed, and with it the sample that later frontends would get.
        let token = format!("tcgui/default/{KEY}/@adv/pub/**");
        let tokens = || scene.client().and_then(|client| client.tokens(&token));
        ensure!(tokens()? == 1, "it stays for a while");
        wait_for("the publisher is gone", SOON * 4, tokens, |it| {
            it.as_ref().is_ok_and(|it| *it == 0)
        })?
        .map(drop)
    }
);

lab_test!(
    #[ignore = "needs netem"]
    paused_resumed_and_stopped,
    Kind::Lasting(Duration::from_secs(300)),
    |scene| {
        started_with_pair(scene)?;
        // The earlier configuration of an administrator is restored, with its seeds.
        run(Command::new("tc").args([
            "-n", "blue", "qdisc", "add", "dev", "far", "root", "netem", "delay", "7ms", "2ms",
            "loss", "1%", "limit", "777",
        ]))?;
        add(scene, "two", &[step(40.0, 3000), step(80.0, 3000)])?;
        for what in ["Stop", "Pause", "Resume", "Status"] {
            let reply = on_far(scene, what)?;
            let nothing = [
                json!({"Stopped": {"success": false}}),
                json!({"Paused": {"success": false}}),
                json!({"Resumed": {"success": false}}),
                json!({"Status": {"execution": null}}),
            ];
            ensure!(nothing.contains(&reply), "{reply}");
        }
        start(scene, "two", true)?;
        far_has("delay 40ms")?;
        let reply = on_far(scene, "Pause")?;
        ensure!(reply["Paused"]["success"] == true, "{reply}");
        let paused = sees(scene, "it is paused", |it| {
            it["state"]["Paused"].is_object()
        })?;
        let status = on_far(scene, "Status")?;
        ensure!(status["Status"]["execution"] == paused, "{status}");
        // A frontend that connects now gets it.
        let late = Client::open()?;
        late.wait_for("the late one sees it", SOON, |state| {
            shown(state)["execution"]["state"]["Paused"].is_object()
        })?;
        late.close()?;
        tcgui_tests::wait::holds_for("the step is held", Duration::from_secs(4), root, |it| {
            it.as_ref().is_ok_and(|it| it.contains("delay 40ms"))
        })?;
        let reply = on_far(scene, "Resume")?;
        ensure!(reply["Resumed"]["success"] == true, "{reply}");
        far_has("delay 80ms")?;
        sees(scene, "the second pass", |it| {
            it["loop_iteration"] == 1 && it["state"] == "Running"
        })?;
        let begin = Instant::now();
        let reply = on_far(scene, "Stop")?;
        measure::report(format!("stopped and restored in {:.1?}", begin.elapsed()))?;
        ensure!(reply["Stopped"]["success"] == true, "{reply}");
        let qdisc = root()?;
        for part in ["delay 7ms", "2ms", "loss 1%", "limit 777"] {
            ensure!(qdisc.contains(part), "no {part} in {qdisc}");
        }
        sees(scene, "it is stopped", |it| it["state"] == "Stopped")?;
        scene
            .wait_for("what was there is published", |state| {
                state
                    .tc("blue", "far")
                    .is_some_and(|it| it["configuration"]["delay_ms"] == 7.0)
            })
            .map(drop)
    }
);

lab_test!(
    #[ignore = "needs netem"]
    a_request_or_a_deletion_ends_a_scenario_early,
    Kind::Lasting(Duration::from_secs(300)),
    |scene| {
        started_with_pair(scene)?;
        add(scene, "long", &[step(50.0, 600_000)])?;
        // The qdisc of another program makes the start fail, as it does for an Apply.
        let tc = |line: &str| {
            let line = line.split_whitespace();
            run(Command::new("tc").args(["-n", "blue"]).args(line))
        };
        tc("qdisc add dev far root handle 1: htb default 1")?;
        let reply = start(scene, "long", false)?;
        let message = reply["Error"]["error"]["message"].as_str();
        ensure!(message.is_some_and(|it| it.contains("htb 1:")), "{reply}");
        tc("qdisc del dev far root")?;
        // A scenario cannot start on an unknown interface.
        let reply = execution(
            scene,
            &json!({"Start": {"scenario_id": "long", "namespace": "blue", "interface": "no-such"}}),
        )?;
        ensure!(
            reply["Error"]["error"]["category"] == "Permanent",
            "{reply}"
        );
        // A slider of a frontend stops the scenario, and its netem stays.
        start(scene, "long", false)?;
        far_has("delay 50ms")?;
        let apply = json!({"namespace": "blue", "interface": "far", "operation": {"Apply": {
            "loss": 0.0, "correlation": null, "delay_ms": 20.0, "delay_jitter_ms": null,
            "delay_correlation": null, "duplicate_percent": null, "duplicate_correlation": null,
            "reorder_percent": null, "reorder_correlation": null, "reorder_gap": null,
            "corrupt_percent": null, "corrupt_correlation": null, "rate_limit_kbps": null,
        }}});
        let reply = scene.client()?.ask("tc", &apply)?.0;
        let message = reply["message"].as_str();
        ensure!(
            reply["success"] == true && message.is_some_and(|it| it.contains("\"long\"")),
            "{reply}"
        );
        sees(scene, "it is stopped", |it| it["state"] == "Stopped")?;
        ensure!(root()?.contains("delay 20ms"), "{}", root()?);
        // The namespace is deleted and created again with the same name. The new one gets no netem.
        start(scene, "long", false)?;
        far_has("delay 50ms")?;
        netns::del("blue")?;
        sees(scene, "it has failed", |it| {
            it["state"]["Failed"].is_object()
        })?;
        pair_with_addresses()?;
        attribute(scene, FAR, "is_up", true)?;
        let status = on_far(scene, "Status")?;
        ensure!(status["Status"]["execution"].is_null(), "{status}");
        far_is_clean()?;
        // Only the interface is deleted.
        start(scene, "long", false)?;
        far_has("delay 50ms")?;
        ip("blue", "link del far")?;
        let failed = sees(scene, "it has failed again", |it| {
            it["state"]["Failed"].is_object()
        })?;
        ensure!(
            failed["state"]["Failed"]["error"]["category"] == "Permanent",
            "{failed}"
        );
        Ok(())
    }
);

lab_test!(
    #[ignore = "needs netem"]
    the_end_of_the_daemon_restores_or_keeps,
    Kind::Lasting(Duration::from_secs(300)),
    |scene| {
        pair_with_addresses()?;
        for keep in [false, true] {
            let options: &[&str] = if keep { &["--keep-on-exit"] } else { &[] };
            let options = [&["--state-dir", "/run/tcgui-state"], options].concat();
            if keep {
                scene.start_daemon(&options)?;
            } else {
                scene.start_with(&options)?;
                add(scene, "long", &[step(50.0, 600_000)])?;
            }
            attribute(scene, FAR, "is_up", true)?;
            start(scene, "long", false)?;
            far_has("delay 50ms")?;
            let mut daemon = scene.take_daemon()?;
            daemon.signal(nix::sys::signal::Signal::SIGTERM)?;
            daemon.wait(SOON * 2)?;
            sees(scene, "it is stopped", |it| it["state"] == "Stopped")?;
            ensure!(root()?.contains("netem") == keep, "{}", root()?);
        }
        Ok(())
    }
);
