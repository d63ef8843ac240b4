//! Changes as released frontends make them, compared with the state of the kernel.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tcgui_tests::client::{Asked, Client, State};
use tcgui_tests::lab::Kind;
use tcgui_tests::links::{PROMPT, attribute, ip};
use tcgui_tests::scene::{SOON, Scene};
use tcgui_tests::wait::{holds_for, wait_for};
use tcgui_tests::{lab_test, links, measure, netns};

mod unnamed;

use crate::pair::{FAR, NEAR, pair, root, started_with_pair, tc};

/// Returns the Apply of a released frontend: every member is present, and features that are off are null.
fn apply(changes: &[(&str, Value)]) -> Value {
    let mut apply = json!({
        "loss": 0.0, "correlation": null, "delay_ms": null, "delay_jitter_ms": null,
        "delay_correlation": null, "duplicate_percent": null, "duplicate_correlation": null,
        "reorder_percent": null, "reorder_correlation": null, "reorder_gap": null,
        "corrupt_percent": null, "corrupt_correlation": null, "rate_limit_kbps": null,
    });
    for (member, value) in changes {
        apply[*member] = value.clone();
    }
    json!({ "Apply": apply })
}

fn request(namespace: &str, interface: &str, operation: &Value) -> Value {
    json!({"namespace": namespace, "interface": interface, "operation": operation})
}

fn ask(
    scene: &Scene,
    (namespace, interface): (&str, &str),
    operation: &Value,
) -> anyhow::Result<Value> {
    let request = request(namespace, interface, operation);
    Ok(scene.client()?.ask("tc", &request)?.0)
}

/// Expects success, and that the state in force was published before the reply.
fn change(scene: &Scene, at: (&str, &str), operation: &Value) -> anyhow::Result<Value> {
    let reply = ask(scene, at, operation)?;
    ensure!(
        reply["success"] == true && reply["error_code"].is_null(),
        "{reply}"
    );
    let state = scene.client()?.state();
    let shown = state.tc(at.0, at.1).context("nothing was published")?;
    ensure!(
        shown["configuration"] == reply["applied_config"],
        "published {shown}, answered {reply}"
    );
    ensure!(
        shown["has_tc"] == !reply["applied_config"].is_null(),
        "{shown}"
    );
    Ok(reply["applied_config"].clone())
}

fn refused(
    scene: &Scene,
    at: (&str, &str),
    operation: &Value,
    kind: &str,
    word: &str,
) -> anyhow::Result<()> {
    let reply = ask(scene, at, operation)?;
    ensure!(
        reply["success"] == false && reply["error_code"] == -1 && reply["error_kind"] == kind,
        "{reply}"
    );
    let message = reply["message"].as_str().unwrap_or_default();
    ensure!(message.contains(word), "no {word:?} in {message:?}");
    Ok(())
}

lab_test!(
    #[ignore = "needs netem"]
    each_slider_request_changes_the_netem_of_the_kernel,
    |scene| {
        started_with_pair(scene)?;
        for at in [NEAR, FAR] {
            let applied = change(
                scene,
                at,
                &apply(&[("delay_ms", json!(40.5)), ("loss", json!(1.5))]),
            )?;
            ensure!(
                applied["delay_ms"] == 40.5
                    && applied["loss"]
                        .as_f64()
                        .is_some_and(|loss| (loss - 1.5).abs() < 1e-6),
                "{applied}"
            );
            let qdisc = root(at)?;
            ensure!(
                qdisc.contains("delay 40.5ms") && qdisc.contains("loss 1.5%"),
                "{qdisc}"
            );
            attribute(scene, at, "has_tc_qdisc", true)?;
            // Features that are absent from the next request are off, including correlations.
            let all = [
                ("loss", json!(2.0)),
                ("correlation", json!(25.0)),
                ("delay_ms", json!(100.0)),
                ("delay_jitter_ms", json!(10.0)),
                ("delay_correlation", json!(30.0)),
                ("duplicate_percent", json!(1.0)),
                ("reorder_percent", json!(5.0)),
                ("reorder_gap", json!(3)),
                ("corrupt_percent", json!(0.5)),
                ("rate_limit_kbps", json!(2000)),
            ];
            change(scene, at, &apply(&all))?;
            let qdisc = root(at)?;
            for part in [
                "loss 2% 25%",
                "delay 100ms  10ms 30%",
                "duplicate 1%",
                "reorder 5%",
                "corrupt 0.5%",
                "gap 3",
            ] {
                ensure!(qdisc.contains(part), "no {part} in {qdisc}");
            }
            // The rate limit is a filter below the netem. The next change removes it.
            let filter =
                |listed: &str| listed.contains("tbf 7c80:") && listed.contains("rate 2Mbit");
            let listed = tc(at.0, &format!("qdisc show dev {}", at.1))?;
            ensure!(filter(&listed), "{listed}");
            change(scene, at, &apply(&[("loss", json!(2.0))]))?;
            let qdisc = root(at)?;
            ensure!(
                qdisc.contains("loss 2%") && !qdisc.contains("25%") && !qdisc.contains("delay"),
                "{qdisc}"
            );
            let listed = tc(at.0, &format!("qdisc show dev {}", at.1))?;
            ensure!(!listed.contains("tbf"), "{listed}");
            let applied = change(scene, at, &json!("Remove"))?;
            ensure!(applied.is_null(), "{applied}");
            ensure!(!root(at)?.contains("netem"));
            attribute(scene, at, "has_tc_qdisc", false)?;
            // A removal without a netem is no failure.
            change(scene, at, &json!("Remove"))?;
        }
        Ok(())
    }
);

lab_test!(
    #[ignore = "needs netem"]
    requests_that_only_frontends_send_are_accepted,
    |scene| {
        started_with_pair(scene)?;
        // Reordering alone: the delay that it needs is added, and the reply names it.
        let reply = ask(scene, FAR, &apply(&[("reorder_percent", json!(10.0))]))?;
        ensure!(reply["success"] == true, "{reply}");
        ensure!(
            reply["message"]
                .as_str()
                .is_some_and(|text| text.contains("1 ms")),
            "{reply}"
        );
        ensure!(reply["applied_config"]["delay_ms"] == 1.0, "{reply}");
        let qdisc = root(FAR)?;
        ensure!(
            qdisc.contains("reorder 10%") && qdisc.contains("delay 1ms"),
            "{qdisc}"
        );
        // Loss is off but keeps its correlation. No feature is on, so the netem is removed.
        let applied = change(scene, FAR, &apply(&[("correlation", json!(25.0))]))?;
        ensure!(applied.is_null(), "{applied}");
        // The structured form also removes the netem if features without a number are switched on.
        let off = json!({"enabled": false, "percentage": 0.0, "correlation": 0.0});
        change(scene, FAR, &apply(&[("loss", json!(2.0))]))?;
        let config = json!({
            "loss": {"enabled": true, "percentage": 0.0, "correlation": 25.0},
            "duplicate": off, "corrupt": off,
            "delay": {"enabled": false, "base_ms": 0.0, "jitter_ms": 0.0, "correlation": 0.0},
            "reorder": {"enabled": false, "percentage": 0.0, "correlation": 0.0, "gap": 5},
            "rate_limit": {"enabled": false, "rate_kbps": 1000},
        });
        let applied = change(scene, FAR, &json!({"ApplyConfig": {"config": config}}))?;
        ensure!(applied.is_null(), "{applied}");
        ensure!(!root(FAR)?.contains("netem"));
        // A rate with a fraction is published twice: rounded, and exactly.
        let applied = change(scene, FAR, &apply(&[("rate_limit_kbps", json!(100.5))]))?;
        ensure!(
            applied["rate_limit_kbps"] == json!(101) && applied["rate_limit_bps"] == json!(100_504),
            "{applied}"
        );
        // A correlation changes the share of lost packets, and the reply contains the real share.
        let correlated = apply(&[("loss", json!(2.0)), ("correlation", json!(25.0))]);
        let reply = ask(scene, FAR, &correlated)?;
        for text in [&reply["message"], &reply["applied_config"]["notes"][0]] {
            let text = text.as_str().unwrap_or_default();
            ensure!(text.contains("hits 0.0057"), "{reply}");
        }
        // A slow link gets a queue that does not drop packets by itself.
        let long = apply(&[
            ("delay_ms", json!(10_000.0)),
            ("delay_jitter_ms", json!(2000.0)),
        ]);
        change(scene, FAR, &long)?;
        let qdisc = root(FAR)?;
        ensure!(
            qdisc.contains("delay 10s  2s") && qdisc.contains("limit 200000"),
            "{qdisc}"
        );
        for (member, value) in [
            ("delay_ms", json!(10_001.0)),
            ("delay_ms", json!(-1.0)),
            ("loss", json!(101.0)),
            ("delay_jitter_ms", json!(5001.0)),
            ("duplicate_percent", json!(1e300)),
            ("corrupt_correlation", json!(-0.5)),
            ("reorder_gap", json!(2.5)),
            ("reorder_gap", json!("3")),
            ("limit", json!(-1)),
            ("rate_limit_kbps", json!(-1)),
            ("seed", json!(1e30)),
        ] {
            refused(scene, FAR, &apply(&[(member, value)]), "Invalid", member)?;
        }
        ensure!(root(FAR)? == qdisc, "a refused request changed something");
        Ok(())
    }
);

lab_test!(
    #[ignore = "needs netem"]
    a_burst_ends_with_the_last,
    |scene| {
        started_with_pair(scene)?;
        change(scene, FAR, &apply(&[("delay_ms", json!(1000.0))]))?;
        let client = scene.client()?;
        let before = client
            .state()
            .seen("tc/blue/far")
            .map_or(0, |seen| seen.count);
        let start = Instant::now();
        let asked: Vec<_> = (1..=200)
            .map(|ms| {
                let request = request("blue", "far", &apply(&[("delay_ms", json!(ms))]));
                client.begin(
                    "tcgui/default/query/tc",
                    Some(request.to_string().as_bytes()),
                )
            })
            .collect::<anyhow::Result<_>>()?;
        let replies: Vec<_> = asked
            .into_iter()
            .map(Asked::reply)
            .collect::<anyhow::Result<_>>()?;
        let elapsed = start.elapsed();
        for reply in &replies {
            ensure!(reply["success"] == true, "{reply}");
        }
        ensure!(root(FAR)?.contains("delay 200ms"), "{}", root(FAR)?);
        let state = client.state();
        let seen = state.seen("tc/blue/far").context("published")?;
        ensure!(
            seen.value["configuration"]["delay_ms"] == 200.0,
            "{:?}",
            seen.value
        );
        let published = seen.count - before;
        measure::report(format!(
            "200 applies in {elapsed:.1?}, {published} published"
        ))?;
        // The number depends on the speed of the client and of an Apply on this machine.
        ensure!(
            published < 200,
            "no request was replaced by a newer one: {published} configurations were in force"
        );
        Ok(())
    }
);

lab_test!(
    #[ignore = "needs netem"]
    changes_by_other_programs_are_published,
    |scene| {
        started_with_pair(scene)?;
        let shows = |what: &str, delay: Value| {
            links::prompt(scene, what, |state| {
                state
                    .tc("blue", "far")
                    .is_some_and(|it| it["configuration"]["delay_ms"] == delay)
            })
        };
        tc("blue", "qdisc add dev far root netem delay 30ms")?;
        shows("a netem made by hand", json!(30.0))?;
        attribute(scene, FAR, "has_tc_qdisc", true)?;
        tc("blue", "qdisc change dev far root netem delay 31ms")?;
        shows("a change by hand", json!(31.0))?;
        // A netem without children is taken over and belongs to the daemon from then on.
        change(scene, FAR, &apply(&[("delay_ms", json!(32.0))]))?;
        let handle = |qdisc: &str| qdisc.split_whitespace().nth(2).map(str::to_owned);
        let ours = handle(&root(FAR)?);
        change(scene, FAR, &apply(&[("delay_ms", json!(33.0))]))?;
        ensure!(handle(&root(FAR)?) == ours, "not changed in place");
        tc("blue", "qdisc change dev far root netem delay 34ms")?;
        shows("our netem changed by hand", json!(34.0))?;
        tc("blue", "qdisc del dev far root")?;
        links::prompt(scene, "a removal by hand", |state| {
            state
                .tc("blue", "far")
                .is_some_and(|it| it["has_tc"] == false && it["configuration"].is_null())
        })?;
        attribute(scene, FAR, "has_tc_qdisc", false)
    }
);

lab_test!(
    #[ignore = "needs netem"]
    qdiscs_of_other_programs_are_not_replaced,
    |scene| {
        started_with_pair(scene)?;
        let slow = apply(&[("delay_ms", json!(5.0))]);
        tc("blue", "qdisc add dev far root handle 1: htb default 1")?;
        refused(scene, FAR, &slow, "Denied", "htb 1:")?;
        ensure!(root(FAR)?.contains("htb 1:"), "the htb is gone");
        tc("blue", "qdisc del dev far root")?;
        tc("blue", "qdisc add dev far root handle 2: netem delay 1ms")?;
        tc(
            "blue",
            "qdisc add dev far parent 2:1 handle 3: tbf rate 1mbit burst 10kb latency 10ms",
        )?;
        refused(scene, FAR, &slow, "Denied", "tbf 3:")?;
        tc("blue", "qdisc del dev far root")?;
        // Default qdiscs of the kernel may be replaced, and return after a removal.
        let default = root(FAR)?;
        change(scene, FAR, &slow)?;
        change(scene, FAR, &json!("Remove"))?;
        ensure!(root(FAR)? == default, "{default} became {}", root(FAR)?);
        refused(scene, ("blue", "no-such"), &slow, "NotFound", "no-such")?;
        refused(scene, ("no-such", "far"), &slow, "NotFound", "no-such")
    }
);

lab_test!(
    #[ignore = "needs netem"]
    foreign_qdiscs_are_replaced_when_that_is_allowed,
    |scene| {
        pair("blue")?;
        tc("blue", "qdisc add dev far root handle 1: htb default 1")?;
        scene.start_with(&["--replace-foreign-qdiscs"])?;
        change(scene, FAR, &apply(&[("delay_ms", json!(5.0))]))?;
        ensure!(root(FAR)?.contains("netem"));
        Ok(())
    }
);

lab_test!(
    #[ignore = "needs netem"]
    an_impaired_namespace_dies_as_any_and_takes_its_publishers_along,
    |scene| {
        started_with_pair(scene)?;
        change(scene, FAR, &apply(&[("delay_ms", json!(5.0))]))?;
        let token = "tcgui/default/tc/blue/far/@adv/pub/**";
        let tokens = || scene.client().and_then(|client| client.tokens(token));
        wait_for("the publisher is there", SOON, tokens, |it| {
            it.as_ref().is_ok_and(|it| *it == 1)
        })?
        .context("its token")?;
        netns::del("blue")?;
        // The other end disappears with the namespace, because the daemon must not keep it alive.
        wait_for(
            "the veth is gone",
            PROMPT,
            || ip("default", "link show near"),
            Result::is_err,
        )
        .ok();
        ensure!(
            ip("default", "link show near").is_err(),
            "the namespace is kept alive"
        );
        wait_for("the publisher is gone", SOON, tokens, |it| {
            it.as_ref().is_ok_and(|it| *it == 0)
        })?
        .context("no token")?;
        // A new namespace with the same name starts without a netem.
        pair("blue")?;
        attribute(scene, FAR, "has_tc_qdisc", false)?;
        change(scene, FAR, &apply(&[("delay_ms", json!(6.0))])).map(drop)
    }
);

lab_test!(
    #[ignore = "needs netem"]
    an_impairment_stays_when_another_name_becomes_the_best,
    |scene| {
        started_with_pair(scene)?;
        netns::touch(&netns::path("other"))?;
        netns::bind(&netns::path("blue"), &netns::path("other"))?;
        scene.wait_named(&["blue", "other"])?;
        // The request uses an alias. The publication uses only the best name.
        let slow = apply(&[("delay_ms", json!(7.0))]);
        let reply = ask(scene, ("other", "far"), &slow)?;
        ensure!(reply["success"] == true, "{reply}");
        let state = scene.client()?.state();
        let shown = state.tc("blue", "far").context("nothing was published")?;
        ensure!(shown["configuration"]["delay_ms"] == 7.0, "{shown}");
        ensure!(state.tc("other", "far").is_none(), "published twice");
        let tokens = |name: &str| {
            let token = format!("tcgui/default/tc/{name}/far/@adv/pub/**");
            scene.client().and_then(|client| client.tokens(&token))
        };
        netns::del("blue")?;
        scene.wait_named(&["other"])?;
        attribute(scene, ("other", "far"), "has_tc_qdisc", true)?;
        scene.wait_for("its configuration", |state| {
            state
                .tc("other", "far")
                .is_some_and(|it| it["configuration"]["delay_ms"] == 7.0)
        })?;
        for (name, count) in [("blue", 0), ("other", 1)] {
            let look = || tokens(name);
            wait_for("publishers follow", SOON, look, |it| {
                it.as_ref().is_ok_and(|it| *it == count)
            })??;
        }
        ensure!(root(("other", "far"))?.contains("delay 7ms"), "it is gone");
        change(scene, ("other", "far"), &json!("Remove"))?;
        ensure!(!root(("other", "far"))?.contains("netem"), "it is there");
        // The namespace is not kept alive: the socket inside was closed with the last name.
        netns::del("other")?;
        scene.wait_named::<&str>(&[])?;
        wait_for(
            "the veth is gone",
            PROMPT,
            || ip("default", "link show near").is_err(),
            |gone| *gone,
        )
        .map(drop)
    }
);

lab_test!(
    #[ignore = "needs netem"]
    an_interface_deleted_before_the_apply_is_reported_as_a_failure,
    Kind::Lasting(Duration::from_secs(400)),
    |scene| {
        scene.start()?;
        for _ in 0..5 {
            pair("blue")?;
            attribute(scene, FAR, "is_up", true)?;
            let payload = request("blue", "far", &apply(&[("delay_ms", json!(5.0))])).to_string();
            let asked = scene
                .client()?
                .begin("tcgui/default/query/tc", Some(payload.as_bytes()))?;
            netns::del("blue")?;
            // The change was made before the deletion or not at all. The request is answered in both cases.
            let reply = asked.reply()?;
            ensure!(
                reply["success"] == true || reply["error_code"] == -1,
                "{reply}"
            );
            scene.wait_named::<&str>(&[])?;
        }
        Ok(())
    }
);

lab_test!(
    #[ignore = "needs netem"]
    later_frontends_get_the_configuration_in_force,
    |scene| {
        started_with_pair(scene)?;
        change(scene, FAR, &apply(&[("delay_ms", json!(5.0))]))?;
        let count = |client: &Client| {
            client
                .state()
                .seen("tc/blue/far")
                .map_or(0, |seen| seen.count)
        };
        let before = count(scene.client()?);
        let late = Client::open()?;
        late.wait_for("the late one sees it", SOON, |state| {
            state
                .tc("blue", "far")
                .is_some_and(|it| it["configuration"]["delay_ms"] == 5.0)
        })?;
        // The configuration is published again when the frontend has the list.
        scene.wait_for("it is repeated twice", |state| {
            state
                .seen("tc/blue/far")
                .is_some_and(|seen| seen.count >= before + 2)
        })?;
        late.close()
    }
);

/// Number of packets through the first interface: more than IPv6 sends by itself when an interface comes up.
const BEFORE: u64 = 200;

lab_test!(
    #[ignore = "needs netem"]
    counters_run_and_start_over,
    |scene| {
        started_with_pair(scene)?;
        ip("blue", "addr add 192.0.2.2/24 dev far")?;
        ip("default", "addr add 192.0.2.1/24 dev near")?;
        change(scene, FAR, &apply(&[("delay_ms", json!(1.0))]))?;
        // No program listens there. Each packet is answered with an ICMP message, which passes the netem.
        let socket = UdpSocket::bind("192.0.2.1:0")?;
        for _ in 0..BEFORE {
            socket.send_to(b"anybody?", "192.0.2.2:9")?;
        }
        let stats = |state: &State, what: &str, member: &str| {
            state
                .seen(what)
                .and_then(|seen| seen.value.pointer(member).and_then(Value::as_u64))
        };
        scene
            .client()?
            .wait_for("qdisc statistics", SOON, |state| {
                stats(state, "tc/stats/blue/far", "/stats_basic/packets").is_some_and(|it| it >= 3)
            })?;
        scene
            .client()?
            .wait_for("all of it is counted", SOON, |state| {
                stats(state, "bandwidth/blue/far", "/stats/rx_packets")
                    .is_some_and(|it| it >= BEFORE)
            })?;
        scene
            .client()?
            .wait_for("bandwidth of both ends", SOON, |state| {
                ["bandwidth/blue/far", "bandwidth/default/near"]
                    .iter()
                    .all(|key| stats(state, key, "/stats/tx_packets").is_some_and(|it| it >= 3))
            })?;
        // Namespace and interface are created again with the same names. The counters restart, which causes no rate.
        netns::del("blue")?;
        scene.wait_named::<&str>(&[])?;
        pair("blue")?;
        let fresh = scene
            .client()?
            .wait_for("counters of the new one", SOON * 2, |state| {
                stats(state, "bandwidth/blue/far", "/stats/rx_packets")
                    .is_some_and(|it| it < BEFORE)
            })?;
        let rate =
            &fresh.seen("bandwidth/blue/far").context("seen")?.value["stats"]["rx_bytes_per_sec"];
        ensure!(rate.as_f64().is_some_and(|rate| rate < 10_000.0), "{rate}");
        let counted = || {
            let state = scene.client().map(Client::state).ok()?;
            state.seen("tc/stats/blue/far").map(|seen| seen.count)
        };
        let last = counted();
        holds_for(
            "no statistics of a netem that is gone",
            Duration::from_secs(3),
            counted,
            |now| *now == last,
        )
    }
);
