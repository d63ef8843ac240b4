//! Requests that must be refused: changes without the exact key, and changes that the operator forbids.

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::time::Duration;

    use anyhow::{Context, anyhow, ensure};
    use serde_json::{Value, json};
    use tcgui_tests::client::Client;
    use tcgui_tests::links::{attribute, ip};
    use tcgui_tests::scene::{SOON, Scene};
    use tcgui_tests::wait::{holds_for, wait_for};
    use tcgui_tests::{daemon, lab_test, netns};
    use zenoh::Wait;
    use zenoh::query::ConsolidationMode;

    const NEAR: (&str, &str) = ("default", "near");
    const FAR: (&str, &str) = ("blue", "far");

    /// Long enough to see a change that must not be made.
    const A_WHILE: Duration = Duration::from_millis(300);

    /// The keys of queries that can change something.
    const CHANGING: [&str; 4] = ["tc", "interface", "scenario", "scenario/execution"];

    /// Creates a veth pair between the host and a namespace, both ends up.
    fn pair() -> anyhow::Result<()> {
        netns::add("blue")?;
        netns::ip_line("link add near type veth peer name far netns blue")?;
        for (namespace, interface) in [NEAR, FAR] {
            ip(namespace, &format!("link set {interface} up"))?;
        }
        Ok(())
    }

    fn started_with_pair(scene: &mut Scene, options: &[&str]) -> anyhow::Result<()> {
        pair()?;
        scene.start_with(options)?;
        attribute(scene, NEAR, "is_up", true)?;
        attribute(scene, FAR, "is_up", true)
    }

    fn is_up((namespace, interface): (&str, &str)) -> anyhow::Result<bool> {
        let shown = ip(namespace, &format!("link show dev {interface}"))?;
        let (_, flags) = shown.split_once('<').context("no flags")?;
        let (flags, _) = flags.split_once('>').context("no flags")?;
        Ok(flags.split(',').any(|flag| flag == "UP"))
    }

    fn stays_up(at: (&str, &str)) -> anyhow::Result<()> {
        holds_for(
            &format!("{at:?} stays up"),
            A_WHILE,
            || is_up(at),
            |up| up.as_ref().is_ok_and(|up| *up),
        )
        .map(drop)
    }

    fn switch_request((namespace, interface): (&str, &str), operation: &str) -> Value {
        json!({"namespace": namespace, "interface": interface, "operation": operation})
    }

    fn apply_request((namespace, interface): (&str, &str)) -> Value {
        json!({"namespace": namespace, "interface": interface,
            "operation": {"Apply": {"loss": 0.0, "delay_ms": 10.0}}})
    }

    fn start_request((namespace, interface): (&str, &str)) -> Value {
        json!({"Start": {"scenario_id": "mobile-to-intermittent", "namespace": namespace,
            "interface": interface, "loop_execution": false}})
    }

    fn scenario() -> Value {
        let off = json!({"enabled": false, "percentage": 0.0, "correlation": 0.0});
        json!({
            "id": "planted", "name": "planted", "description": "",
            "steps": [{"duration_ms": 1000, "description": "", "tc_config": {
                "loss": {"enabled": true, "percentage": 100.0, "correlation": 0.0},
                "delay": {"enabled": false, "base_ms": 0.0, "jitter_ms": 0.0, "correlation": 0.0},
                "duplicate": off, "reorder":
                    {"enabled": false, "percentage": 0.0, "correlation": 0.0, "gap": 5},
                "corrupt": off, "rate_limit": {"enabled": false, "rate_kbps": 1000},
            }}],
            "loop_scenario": false, "created_at": 0, "modified_at": 0,
            "metadata": {"tags": [], "author": null, "version": "1.0", "duration_ms": 1000},
            "cleanup_on_failure": true,
        })
    }

    fn ask(scene: &Scene, what: &str, request: &Value) -> anyhow::Result<Value> {
        Ok(scene.client()?.ask(what, request)?.0)
    }

    /// Checks that a request is refused and that the message names the option.
    fn denied(scene: &Scene, what: &str, request: &Value, option: &str) -> anyhow::Result<()> {
        let reply = ask(scene, what, request)?;
        let (kind, message) = match what {
            "scenario" | "scenario/execution" => {
                let error = &reply["Error"]["error"];
                (error["category"] == "Permission", &error["message"])
            }
            _ => {
                let failed = reply["success"] == false && reply["error_code"] == -1;
                (failed && reply["error_kind"] == "Denied", &reply["message"])
            }
        };
        let message = message.as_str().unwrap_or_default();
        ensure!(
            kind && message.contains(option),
            "{what} {request}: {reply}"
        );
        Ok(())
    }

    /// Returns all replies to a query on any key expression, with their keys.
    fn replies(
        client: &Client,
        key: &str,
        request: &Value,
    ) -> anyhow::Result<Vec<(String, Value)>> {
        let query = client
            .session()
            .get(key)
            .payload(request.to_string())
            .consolidation(ConsolidationMode::None)
            .timeout(SOON)
            .wait();
        let handler = query.map_err(|error| anyhow!(error).context(format!("ask {key}")))?;
        let mut all = Vec::new();
        for reply in handler.iter() {
            let sample = reply
                .result()
                .map_err(|error| anyhow!("{key}: {error:?}"))?;
            let value = serde_json::from_slice(&sample.payload().to_bytes())?;
            all.push((sample.key_expr().to_string(), value));
        }
        Ok(all)
    }

    fn is_failure(reply: &Value) -> bool {
        reply["success"] == false || reply["Error"].is_object()
    }

    lab_test!(a_change_needs_the_exact_key, |scene| {
        started_with_pair(scene, &[])?;
        for (what, request) in [
            ("interface", switch_request(FAR, "Disable")),
            ("interface", switch_request(NEAR, "Disable")),
            ("tc", apply_request(FAR)),
            ("scenario", json!({"Add": scenario()})),
            ("scenario/execution", start_request(FAR)),
        ] {
            let exact = format!("tcgui/default/query/{what}");
            for key in [
                "tcgui/**",
                "**",
                "tcgui/*/query/**",
                "tcgui/default/**",
                "*/default/query/**",
                &format!("tcgui/*/query/{what}"),
                &format!("tcgui/default/*/{what}"),
                &format!("tcgui/def$*/query/{what}"),
                &format!("tcgui/**/{what}"),
            ] {
                let replies = replies(scene.client()?, key, &request)?;
                for (key, reply) in &replies {
                    let query = key.strip_prefix("tcgui/default/query/");
                    let changes = query.is_some_and(|query| CHANGING.contains(&query));
                    ensure!(!changes || is_failure(reply), "{key}: {reply}");
                }
                let said = replies.iter().any(|(at, reply)| {
                    let text = reply.to_string();
                    *at == exact && text.contains("exactly the key") && text.contains(&exact)
                });
                ensure!(said, "{key} did not say why {what} is refused: {replies:?}");
            }
        }
        stays_up(FAR)?;
        stays_up(NEAR)?;
        let listed = ask(scene, "scenario", &json!("List"))?;
        ensure!(!listed.to_string().contains("planted"), "{listed}");
        // Read requests still work.
        let list = replies(scene.client()?, "tcgui/*/query/scenario", &json!("List"))?;
        ensure!(
            list.len() == 1 && list[0].1["Listed"].is_object(),
            "{list:?}"
        );
        let active = replies(
            scene.client()?,
            "tcgui/*/query/scenario/execution",
            &json!("ListActive"),
        )?;
        ensure!(active[0].1["ActiveExecutions"].is_object(), "{active:?}");
        let reply = ask(scene, "interface", &switch_request(FAR, "Disable"))?;
        ensure!(reply["success"] == true, "{reply}");
        attribute(scene, FAR, "is_up", false)
    });

    lab_test!(forged_messages_change_nothing, |scene| {
        started_with_pair(scene, &[])?;
        let client = scene.client()?;
        let down = switch_request(FAR, "Disable");
        for backend in ["other", "Default", "default-", "defaul", "@"] {
            let key = format!("tcgui/{backend}/query/interface");
            let answered = replies(client, &key, &down)?;
            ensure!(answered.is_empty(), "{key}: {answered:?}");
        }
        for key in ["query/interface", "query/tc", "interfaces/list", "health"] {
            let put = client
                .session()
                .put(format!("tcgui/default/{key}"), down.to_string());
            put.wait().map_err(|error| anyhow!(error).context(key))?;
        }
        let padded = format!("{down}{}", " ".repeat(64 * 1024));
        let (reply, _) = client.ask_raw("interface", Some(padded.as_bytes()))?;
        ensure!(is_failure(&reply), "{reply}");
        stays_up(FAR)
    });

    lab_test!(protected_interfaces_cannot_be_changed, |scene| {
        started_with_pair(scene, &["--protect", "default/ne*", "--protect", "blue/lo"])?;
        let option = "--protect default/ne*";
        for operation in ["Enable", "Disable"] {
            denied(scene, "interface", &switch_request(NEAR, operation), option)?;
        }
        denied(scene, "tc", &apply_request(NEAR), option)?;
        denied(scene, "tc", &switch_request(NEAR, "Remove"), option)?;
        denied(scene, "tc", &switch_request(NEAR, "Confirm"), option)?;
        denied(scene, "scenario/execution", &start_request(NEAR), option)?;
        let loopback = switch_request(("blue", "lo"), "Enable");
        denied(scene, "interface", &loopback, "--protect blue/lo")?;
        stays_up(NEAR)?;
        let reply = ask(scene, "interface", &switch_request(FAR, "Disable"))?;
        ensure!(reply["success"] == true, "{reply}");
        Ok(())
    });

    lab_test!(only_allowed_interfaces_are_changed, |scene| {
        started_with_pair(
            scene,
            &["--allow", "blu*/*", "--allow", "x/y", "--protect", "*/lo"],
        )?;
        let option = "--allow blu*/*, x/y";
        denied(scene, "interface", &switch_request(NEAR, "Disable"), option)?;
        denied(scene, "tc", &apply_request(NEAR), option)?;
        denied(scene, "scenario/execution", &start_request(NEAR), option)?;
        let loopback = switch_request(("blue", "lo"), "Enable");
        denied(scene, "interface", &loopback, "--protect */lo")?;
        stays_up(NEAR)?;
        let reply = ask(scene, "interface", &switch_request(FAR, "Disable"))?;
        ensure!(reply["success"] == true, "{reply}");
        // Stored scenarios do not concern an interface.
        let reply = ask(scene, "scenario", &json!({"Add": scenario()}))?;
        ensure!(reply["Added"]["id"] == "planted", "{reply}");
        Ok(())
    });

    lab_test!(read_only_refuses_every_change, |scene| {
        started_with_pair(scene, &["--read-only", "--protect", "none"])?;
        let at = |action: &str| json!({action: {"namespace": "blue", "interface": "far"}});
        for (what, request) in [
            ("interface", switch_request(FAR, "Enable")),
            ("interface", switch_request(FAR, "Disable")),
            ("tc", apply_request(FAR)),
            ("tc", switch_request(FAR, "Remove")),
            ("tc", switch_request(FAR, "Confirm")),
            // An interface that does not exist gets the same reply.
            ("tc", apply_request(("grey", "eth0"))),
            ("scenario", json!({"Add": scenario()})),
            ("scenario", json!({"Update": scenario()})),
            ("scenario", json!({"Remove": {"id": "planted"}})),
            ("scenario/execution", start_request(FAR)),
            ("scenario/execution", at("Stop")),
            ("scenario/execution", at("Pause")),
            ("scenario/execution", at("Resume")),
        ] {
            denied(scene, what, &request, "--read-only")?;
        }
        stays_up(FAR)?;
        for (what, request, member) in [
            ("scenario", json!("List"), "Listed"),
            ("scenario", json!({"Get": {"id": "planted"}}), "Retrieved"),
            ("scenario/execution", at("Status"), "Status"),
            (
                "scenario/execution",
                json!("ListActive"),
                "ActiveExecutions",
            ),
        ] {
            let reply = ask(scene, what, &request)?;
            ensure!(reply[member].is_object(), "{reply}");
        }
        let check = json!({"namespace": "blue", "interface": "far", "target": null,
            "timeout_ms": 500});
        let reply = ask(scene, "diagnostics", &check)?;
        ensure!(reply["success"] == true, "{reply}");
        let log = scene.daemon()?.stderr();
        ensure!(log.contains("--read-only --protect none"), "{log}");
        Ok(())
    });

    lab_test!(a_refusal_publishes_the_actual_configuration, |scene| {
        started_with_pair(scene, &["--protect", "default/near"])?;
        let before = scene.client()?.state();
        ensure!(before.tc("default", "near").is_none(), "{before:?}");
        let refuse = "--protect default/near";
        denied(scene, "tc", &apply_request(NEAR), refuse)?;
        // The publication makes frontends that show the refused value reset it.
        let state = scene.wait_for("the configuration is published", |state| {
            state.tc("default", "near").is_some()
        })?;
        let shown = state.tc("default", "near").context("it was there")?;
        ensure!(
            shown["has_tc"] == false && shown["configuration"].is_null(),
            "{shown}"
        );
        denied(scene, "tc", &apply_request(NEAR), refuse)?;
        scene.wait_for("it is published each time", |state| {
            state
                .seen("tc/default/near")
                .is_some_and(|seen| seen.count == 2)
        })?;
        // An interface that was never impaired has no publisher.
        let tokens = scene.client()?.tokens("tcgui/default/tc/**/@adv/pub/**")?;
        ensure!(tokens == 0, "{tokens} publishers are left");

        let lists = scene.client()?.state().lists();
        denied(scene, "interface", &switch_request(NEAR, "Disable"), refuse)?;
        scene
            .wait_for("the list is published again", |state| state.lists() > lists)
            .map(drop)
    });

    lab_test!(
        the_links_through_which_the_host_is_reached_cannot_be_disabled,
        |scene| {
            pair()?;
            ip("default", "address add 192.0.2.1/24 dev near")?;
            ip("default", "-6 address add 2001:db8::1/64 dev near nodad")?;
            ip("blue", "address add 192.0.2.2/24 dev far")?;
            ip("blue", "route add default via 192.0.2.1")?;
            // Another name of the host's namespace.
            netns::attach("host", std::process::id())?;
            scene.start()?;
            attribute(scene, NEAR, "is_up", true)?;
            scene.wait_listed("host", true)?;
            let option = "--protect none";
            for namespace in ["default", "host"] {
                let loopback = (namespace, "lo");
                denied(
                    scene,
                    "interface",
                    &switch_request(loopback, "Disable"),
                    option,
                )?;
                let reply = ask(scene, "tc", &apply_request(loopback))?;
                ensure!(reply["error_kind"] != "Denied", "{reply}");
                ask(scene, "tc", &switch_request(loopback, "Remove"))?;
            }
            stays_up(("default", "lo"))?;
            let down = switch_request(NEAR, "Disable");
            for route in [
                "route add default via 192.0.2.2",
                "-6 route add default via 2001:db8::2",
                "route add default dev near table 100",
            ] {
                ip("default", route)?;
                let lists = scene.client()?.state().lists();
                denied(scene, "interface", &down, option)?;
                scene.wait_for("the list is published again", |state| state.lists() > lists)?;
                stays_up(NEAR)?;
                let reply = ask(scene, "interface", &switch_request(NEAR, "Enable"))?;
                ensure!(reply["success"] == true, "{reply}");
                ip("default", &route.replace(" add ", " del "))?;
            }
            // Other namespaces are not affected.
            for interface in ["lo", "far"] {
                let reply = ask(
                    scene,
                    "interface",
                    &switch_request(("blue", interface), "Disable"),
                )?;
                ensure!(reply["success"] == true, "{reply}");
            }
            let reply = ask(scene, "interface", &down)?;
            ensure!(reply["success"] == true, "{reply}");
            wait_for(
                "it is down",
                SOON,
                || is_up(NEAR),
                |up| matches!(up, Ok(false)),
            )??;
            netns::detach(&netns::path("host"))?;
            std::fs::remove_file(netns::path("host"))?;
            scene.wait_listed("host", false)
        }
    );

    lab_test!(protecting_none_permits_to_switch_them_off, |scene| {
        pair()?;
        ip("default", "address add 192.0.2.1/24 dev near")?;
        ip("default", "route add default via 192.0.2.2")?;
        scene.start_with(&["--protect", "none"])?;
        attribute(scene, NEAR, "is_up", true)?;
        let reply = ask(scene, "interface", &switch_request(NEAR, "Disable"))?;
        ensure!(reply["success"] == true, "{reply}");
        attribute(scene, NEAR, "is_up", false)
    });

    lab_test!(patterns_that_match_nothing_are_usage_errors, |_| {
        for (option, value) in [
            ("--allow", "eth0"),
            ("--allow", "none"),
            ("--protect", "default/"),
            ("--protect", "/eth0"),
            ("--protect", "pid:x/lo"),
        ] {
            let args = [OsStr::new(option), OsStr::new(value)];
            let output = daemon::run(&[], &args, SOON)?;
            let text = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.code() == Some(2), "{output:?}");
            ensure!(text.contains(option) && text.contains(value), "{text}");
        }
        Ok(())
    });
}
