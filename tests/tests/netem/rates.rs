//! Rate limits of other programs and of earlier versions, and the sizes that follow the MTU and the speed of a link.

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tcgui_tests::lab::Kind;
use tcgui_tests::links::{attribute, ip};
use tcgui_tests::scene::{SOON, Scene};
use tcgui_tests::wait::wait_for;
use tcgui_tests::{lab_test, links};

use std::time::Duration;

use crate::leases::{restores, short_ms};
use crate::pair::{FAR, pair, started_with_pair, tc};

/// Returns all qdiscs of the far end, as `tc` prints them.
fn far() -> anyhow::Result<String> {
    tc(FAR.0, "qdisc show dev far")
}

fn apply(at: (&str, &str), flat: &Value, more: &Value) -> Value {
    let mut request = json!({
        "namespace": at.0, "interface": at.1, "operation": {"Apply": flat},
    });
    if let (Some(request), Some(more)) = (request.as_object_mut(), more.as_object()) {
        request.extend(more.clone());
    }
    request
}

/// Expects success.
fn ask(scene: &Scene, queryable: &str, request: &Value) -> anyhow::Result<Value> {
    let reply = scene.client()?.ask(queryable, request)?.0;
    let text = reply.to_string();
    ensure!(
        !text.contains("\"success\":false") && reply["Error"].is_null(),
        "{reply}"
    );
    Ok(reply)
}

fn scenario() -> Value {
    let off = json!({"enabled": false, "percentage": 0.0, "correlation": 0.0});
    json!({"Add": {
        "id": "slow", "name": "slow", "description": "", "loop_scenario": false,
        "created_at": 0, "modified_at": 0, "cleanup_on_failure": true,
        "metadata": {"tags": [], "author": null, "version": "1.0", "duration_ms": 0},
        "steps": [{"duration_ms": 600_000, "description": "", "tc_config": {
            "loss": off, "duplicate": off, "corrupt": off,
            "delay": {"enabled": false, "base_ms": 0.0, "jitter_ms": 0.0, "correlation": 0.0},
            "reorder": {"enabled": false, "percentage": 0.0, "correlation": 0.0, "gap": 5},
            "rate_limit": {"enabled": true, "rate_kbps": 2000},
        }}],
    }})
}

/// Waits until the far end has a filter with 2 Mbit/s.
fn taken_over() -> anyhow::Result<()> {
    wait_for("the filter is there", SOON, far, |listed| {
        listed
            .as_ref()
            .is_ok_and(|it| it.contains("tbf 7c80:") && it.contains("rate 2Mbit"))
    })?
    .map(drop)
}

/// Waits until the netem of before is there again, with its handle and its own rate, and nothing below it.
fn back(handle: &str) -> anyhow::Result<()> {
    let root = format!("netem {handle} root");
    wait_for(&format!("{root} is back"), SOON, far, |listed| {
        listed.as_ref().is_ok_and(|it| {
            it.contains(&root)
                && it.contains("delay 20ms")
                && it.contains("rate 512Kbit")
                && !it.contains("tbf")
        })
    })?
    .map(drop)
}

lab_test!(
    #[ignore = "needs netem"]
    a_netem_with_its_own_rate_is_read_taken_over_and_restored,
    Kind::Lasting(Duration::from_secs(400)),
    |scene| {
        started_with_pair(scene)?;
        ask(scene, "scenario", &scenario())?;
        let fast = json!({"loss": 0.0, "rate_limit_kbps": 2000});
        // One of another program, and one that an earlier version of the daemon has left.
        for handle in ["5:", "7c60:"] {
            tc(
                "blue",
                &format!("qdisc add dev far root handle {handle} netem delay 20ms rate 512kbit"),
            )?;
            links::prompt(scene, "its rate is published", |state| {
                state
                    .tc("blue", "far")
                    .is_some_and(|it| it["configuration"]["rate_limit_kbps"] == 512)
            })?;
            // A scenario that is stopped.
            let target = json!({"namespace": "blue", "interface": "far"});
            ask(
                scene,
                "scenario/execution",
                &json!({"Start": {"scenario_id": "slow", "namespace": "blue", "interface": "far"}}),
            )?;
            taken_over()?;
            ask(scene, "scenario/execution", &json!({ "Stop": target }))?;
            // It is restored before the reply.
            ensure!(!far()?.contains("tbf"), "{}", far()?);
            back(handle)?;
            // A lease that ends.
            let short = json!({ "ttl_ms": short_ms() });
            ask(scene, "tc", &apply(FAR, &fast, &short))?;
            taken_over()?;
            back(handle)?;
            // A crash of the daemon, and the command `restore`.
            let long = json!({"ttl_ms": 600_000});
            ask(scene, "tc", &apply(FAR, &fast, &long))?;
            taken_over()?;
            scene.take_daemon()?.crash()?;
            restores(&["restore", "--all"], "far in blue: restored")?;
            back(handle)?;
            scene.start_daemon::<&str>(&[])?;
            attribute(scene, FAR, "is_up", true)?;
            // A change without an end stays.
            ask(scene, "tc", &apply(FAR, &fast, &Value::Null))?;
            taken_over()?;
            ask(
                scene,
                "tc",
                &json!({"namespace": "blue", "interface": "far", "operation": "Remove"}),
            )?;
        }
        Ok(())
    }
);

/// Waits until a filter lets so many bytes pass at once.
fn burst(what: &str, fits: impl Fn(u32) -> bool) -> anyhow::Result<()> {
    let burst = || -> anyhow::Result<u32> {
        let listed = far()?;
        let (_, rest) = listed.split_once(" burst ").context("no filter")?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Ok(digits.parse()?)
    };
    wait_for(what, SOON, burst, |burst| {
        burst.as_ref().is_ok_and(|bytes| fits(*bytes))
    })?
    .map(drop)
}

lab_test!(
    #[ignore = "needs netem"]
    sizes_follow_the_mtu_and_the_speed_of_the_link,
    |scene| {
        pair("blue")?;
        // A bridge has the speed of its fastest port: none, then the 10 Gbit/s of a veth.
        ip("default", "link add br0 type bridge")?;
        ip("default", "link set br0 up")?;
        scene.start()?;
        attribute(scene, FAR, "is_up", true)?;
        let bridge = ("default", "br0");
        attribute(scene, bridge, "is_up", true)?;
        let delay = json!({"loss": 0.0, "delay_ms": 1.0});
        ask(scene, "tc", &apply(bridge, &delay, &Value::Null))?;
        let root = || tc("default", "qdisc show dev br0");
        let is = |limit: &str, it: &anyhow::Result<String>| {
            it.as_ref()
                .is_ok_and(|it| it.contains("netem 7c60:") && it.contains(limit))
        };
        ensure!(is("limit 1954 ", &root()), "{}", root()?);
        ip("default", "link set near master br0")?;
        wait_for("the limit for 10 Gbit/s", SOON, root, |it| {
            is("limit 19532 ", it)
        })??;
        // What is in force is published.
        links::prompt(scene, "the limit is published", |state| {
            state
                .tc("default", "br0")
                .is_some_and(|it| it["configuration"]["limit"] == 19_532)
        })?;
        // The MTU in both directions.
        let slow = json!({"loss": 0.0, "rate_limit_kbps": 512});
        ask(scene, "tc", &apply(FAR, &slow, &Value::Null))?;
        burst("for frames of 1 518 bytes", |bytes| {
            (1_700..2_000).contains(&bytes)
        })?;
        ip("blue", "link set far mtu 9000")?;
        burst("for frames of 9 018 bytes", |bytes| bytes > 9_000)?;
        ip("blue", "link set far mtu 1500")?;
        burst("for frames of 1 518 bytes again", |bytes| bytes < 2_000)?;
        ip("default", "link del br0").map(drop)
    }
);
