//! The bus as a released frontend uses it: discovery, late joining, loss, control of links.

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use anyhow::{Context, ensure};
    use serde_json::{Value, json};
    use tcgui_tests::client::{self, Client, State, array, monotonic_ns};
    use tcgui_tests::daemon::Daemon;
    use tcgui_tests::lab::Kind;
    use tcgui_tests::scene::{SOON, Scene};
    use tcgui_tests::{lab_test, measure, netns};

    const PROMPT: Duration = Duration::from_secs(2);

    lab_test!(the_first_list_is_published_at_once, Kind::Alone, |scene| {
        netns::add("blue")?;
        scene.start()?;
        let now = (monotonic_ns()?, scene.daemon()?.started().elapsed());
        let state = scene.client()?.state();
        let arrival = state.seen("interfaces/list").context("no list")?.at_ns;
        let first = now.1 - Duration::from_nanos(now.0 - arrival);
        measure::report(format!(
            "start of the daemon to the first list: {first:.1?}"
        ))?;
        ensure!(first < PROMPT, "{first:?}");
        ensure!(
            state.named().contains("blue"),
            "the first list lacks blue: {state:?}"
        );
        Ok(())
    });

    lab_test!(list_has_the_released_form, |scene| {
        scene.start_with(&["--name", "default"])?;
        netns::add("blue")?;
        scene.wait_named(&["blue"])?;
        let state = scene.client()?.state();
        let list = state.list().context("no list")?;
        ensure!(list["backend_name"] == "default", "{list}");
        ensure!(list["timestamp"].as_u64().is_some_and(is_now), "{list}");
        let blue = state.namespace("blue").context("blue is not listed")?;
        // Loopback has a carrier even if it is down. Released backends report the same.
        let lo = json!({
            "name": "lo", "index": 1, "namespace": "blue", "is_up": false, "is_oper_up": true,
            "has_tc_qdisc": false, "interface_type": "Loopback",
        });
        let expected = json!({
            "name": "blue", "id": null, "is_active": true, "namespace_type": "Traditional",
            "interfaces": [lo],
        });
        ensure!(*blue == expected, "{blue}");
        Ok(())
    });

    fn is_now(seconds: u64) -> bool {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .is_ok_and(|now| now.as_secs().abs_diff(seconds) <= 10)
    }

    lab_test!(health_contains_identity_and_counts, |scene| {
        netns::add("blue")?;
        scene.start()?;
        netns::add("red")?;
        netns::ip_line("link add near type veth peer name far netns red")?;
        let state = scene.wait_for("health counts what is there", |state| {
            state.health().is_some_and(|health| {
                health["namespace_count"] == 3 && health["interface_count"] == 5
            })
        })?;
        let health = state.health().context("no health")?;
        let metadata = &health["metadata"];
        let hostname = nix::unistd::gethostname()?;
        ensure!(health["backend_name"] == "default", "{health}");
        ensure!(
            health["status"]
                .as_str()
                .is_some_and(|status| !status.is_empty()),
            "{health}"
        );
        ensure!(health["timestamp"].as_u64().is_some_and(is_now), "{health}");
        ensure!(metadata["version"] == env!("CARGO_PKG_VERSION"), "{health}");
        ensure!(
            metadata["hostname"] == hostname.to_string_lossy().as_ref(),
            "{health}"
        );
        ensure!(
            metadata["started_at"].as_u64().is_some_and(is_now),
            "{health}"
        );
        let capabilities: Vec<_> = array(metadata, "capabilities").collect();
        ensure!(
            capabilities.contains(&&json!("interface_control")),
            "{health}"
        );
        Ok(())
    });

    lab_test!(a_late_client_gets_the_current_state_at_once, |scene| {
        scene.start()?;
        netns::add("blue")?;
        scene.wait_named(&["blue"])?;
        let early = scene.client()?.state();
        let late = Client::open()?;
        let state = late.wait_for("the late client has everything", PROMPT, |state| {
            state.alive()
                && state.list().is_some()
                && state.health().is_some()
                && state.presets().is_some()
        })?;
        ensure!(state.list() == early.list(), "{state:?} is not {early:?}");
        ensure!(state.lists() == 1, "{} lists", state.lists());
        let presets = state.presets().context("no presets")?;
        ensure!(presets["presets"].is_array(), "{presets}");

        netns::add("red")?;
        for client in [&late, scene.client()?] {
            client.wait_for("both clients see a change", SOON, |state| {
                state.named().contains("red")
            })?;
        }
        late.close()
    });

    lab_test!(the_backend_has_the_configured_name, |scene| {
        let options = client::Options::default().backend("edge-1_ü");
        scene.start_watched(&["--name", "edge-1_ü"], options, |_| ())?;
        let state = scene.client()?.state();
        ensure!(
            state
                .list()
                .is_some_and(|list| list["backend_name"] == "edge-1_ü"),
            "{state:?}"
        );
        let foreign: Vec<_> = state
            .keys()
            .filter(|key| !key.contains("/edge-1_ü/"))
            .collect();
        ensure!(foreign.is_empty(), "{foreign:?}");
        Ok(())
    });

    lab_test!(a_second_backend_joins_through_the_first, |scene| {
        scene.start()?;
        let through = ["--name", "lab2", "--zenoh-mode", "client"];
        let endpoint = ["--zenoh-connect", "tcp/127.0.0.1:7447"];
        let mut second = Daemon::start(&[], &[through.as_slice(), &endpoint].concat())?;
        let both = |what: &str, is: &dyn Fn(&State) -> bool| {
            scene.wait_for(what, |state| is(state) && is(&state.of("lab2")))
        };
        both("both are there", &|state| {
            state.alive() && state.list().is_some() && state.health().is_some()
        })?;
        netns::add("blue")?;
        both("both list it", &|state| state.named().contains("blue"))?;
        let client = scene.client()?;
        let enable = json!({"namespace": "blue", "interface": "lo", "operation": "Enable"});
        for (what, request) in [("scenario", json!("List")), ("interface", enable)] {
            let key = format!("tcgui/lab2/query/{what}");
            let (reply, _) = client.query(&key, Some(request.to_string().as_bytes()))?;
            let good = reply["Listed"].is_object() || reply["success"] == true;
            ensure!(good, "{reply}");
        }
        both("both list what the second one did", &|state| {
            state
                .interface("blue", "lo")
                .is_some_and(|lo| lo["is_up"] == true)
        })?;
        second.ensure_alive()?;
        second.stop()?;
        scene.wait_for("only the second one is removed", |state| {
            state.alive() && !state.of("lab2").alive()
        })?;
        Ok(())
    });

    lab_test!(presence_ends_with_an_orderly_stop, |scene| {
        scene.start()?;
        let status = scene.take_daemon()?.stop()?;
        ensure!(status.code() == Some(0), "{status}");
        scene
            .client()?
            .wait_for("the token is removed", PROMPT, |state| !state.alive())
            .map(drop)
    });

    lab_test!(crash_and_restart_publish_the_current_state, |scene| {
        scene.start()?;
        netns::add("before")?;
        netns::add("stays")?;
        scene.wait_named(&["before", "stays"])?;
        scene.take_daemon()?.crash()?;
        scene.wait_for("the token is removed", |state| !state.alive())?;
        netns::del("before")?;
        netns::add("meanwhile")?;
        scene.start_daemon::<&str>(&[])?;
        scene.wait_named(&["meanwhile", "stays"])?;
        netns::add("after")?;
        scene.wait_named(&["after", "meanwhile", "stays"])
    });

    lab_test!(scenarios_are_listed, |scene| {
        scene.start()?;
        let (reply, _) = scene.client()?.ask("scenario", &json!("List"))?;
        ensure!(reply["Listed"]["scenarios"].is_array(), "{reply}");
        ensure!(reply["Listed"]["load_errors"].is_array(), "{reply}");
        Ok(())
    });

    fn control(scene: &Scene, at: (&str, &str), operation: &str) -> anyhow::Result<Value> {
        let (namespace, interface) = at;
        let request =
            json!({"namespace": namespace, "interface": interface, "operation": operation});
        Ok(scene.client()?.ask("interface", &request)?.0)
    }

    /// Switches a link, and waits for the list with the new state.
    fn switch(scene: &Scene, at: (&str, &str), up: bool) -> anyhow::Result<()> {
        let reply = control(scene, at, if up { "Enable" } else { "Disable" })?;
        ensure!(
            reply["success"] == true && reply["new_state"] == up,
            "{reply}"
        );
        ensure!(reply["error_code"].is_null(), "{reply}");
        ensure!(reply["message"].is_string(), "{reply}");
        let is = |state: &State| {
            state
                .interface(at.0, at.1)
                .is_some_and(|it| it["is_up"] == up)
        };
        scene
            .client()?
            .wait_for("the list follows the reply", PROMPT, is)
            .map(drop)
    }

    lab_test!(links_are_switched_on_request, |scene| {
        netns::add("blue")?;
        netns::ip_line("link add near type veth peer name far netns blue")?;
        scene.start()?;
        for at in [("default", "near"), ("blue", "far")] {
            // A repeated operation is not an error.
            for up in [true, true, false, false, true] {
                switch(scene, at, up)?;
            }
        }
        scene.wait_for("the carrier is there", |state| {
            state
                .interface("blue", "far")
                .is_some_and(|far| far["is_oper_up"] == true)
        })?;
        let state = netns::ip_line("-n blue -br link show far")?;
        ensure!(state.contains("UP"), "{state}");
        Ok(())
    });

    lab_test!(a_missing_interface_is_not_switched, |scene| {
        netns::add("blue")?;
        scene.start()?;
        scene.wait_named(&["blue"])?;
        let nowhere = [
            ("grey", "lo"),
            ("blue", "eth0"),
            ("default", "eth0"),
            ("", ""),
            ("blue", ""),
        ];
        for at in nowhere {
            for (operation, assumed) in [("Enable", false), ("Disable", true)] {
                let reply = control(scene, at, operation)?;
                ensure!(
                    reply["success"] == false && reply["error_code"] == -1,
                    "{at:?}: {reply}"
                );
                ensure!(reply["new_state"] == assumed, "{at:?}: {reply}");
            }
        }
        // The interface is deleted between the list and the request.
        netns::del("blue")?;
        let reply = control(scene, ("blue", "lo"), "Enable")?;
        ensure!(
            reply["success"] == false && reply["error_code"] == -1,
            "{reply}"
        );
        Ok(())
    });
}
