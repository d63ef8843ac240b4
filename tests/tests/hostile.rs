//! Requests that no released frontend sends. Each gets exactly one failure, and the daemon keeps working.

#[cfg(test)]
mod tests {
    use anyhow::{Context, ensure};
    use serde_json::{Value, json};
    use tcgui_tests::random::{self, Random};
    use tcgui_tests::scene::Scene;
    use tcgui_tests::{lab_test, measure, netns};

    const CONTROLS: [&str; 3] = ["tc", "interface", "diagnostics"];

    const SCENARIOS: [&str; 2] = ["scenario", "scenario/execution"];

    const CATEGORIES: [&str; 5] = [
        "Transient",
        "Permanent",
        "Validation",
        "Permission",
        "Internal",
    ];

    /// One byte more than the maximum length of a request (64 KiB).
    const TOO_LONG: usize = 64 * 1024 + 1;

    /// Checks that a reply is a failure in the form that released frontends parse.
    fn ensure_failure(what: &str, reply: &Value) -> anyhow::Result<()> {
        if SCENARIOS.contains(&what) {
            let error = &reply["Error"]["error"];
            let category = error["category"].as_str().unwrap_or_default();
            ensure!(CATEGORIES.contains(&category), "category: {reply}");
            ensure!(
                error["message"]
                    .as_str()
                    .is_some_and(|text| !text.is_empty()),
                "{reply}"
            );
            return Ok(());
        }
        ensure!(
            reply["success"] == false && reply["error_code"] == -1,
            "{reply}"
        );
        ensure!(
            reply["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{reply}"
        );
        match what {
            "tc" => ensure!(reply["applied_config"].is_null(), "{reply}"),
            "interface" => ensure!(reply["new_state"].is_boolean(), "{reply}"),
            _ => {
                let link = &reply["results"]["link_status"];
                ensure!(
                    link["is_up"].is_boolean() && link["has_carrier"].is_boolean(),
                    "{reply}"
                );
                ensure!(link["mtu"].is_u64(), "{reply}");
            }
        }
        Ok(())
    }

    fn expect_failure(scene: &Scene, what: &str, payload: Option<&[u8]>) -> anyhow::Result<()> {
        let shown = payload
            .map(|payload| String::from_utf8_lossy(&payload[..payload.len().min(80)]).into_owned());
        scene
            .client()?
            .ask_raw(what, payload)
            .and_then(|(reply, _)| ensure_failure(what, &reply))
            .map_err(|error| error.context(format!("{what} asked with {shown:?}")))
    }

    lab_test!(malformed_requests_get_a_failure_reply, |scene| {
        scene.start()?;
        let long = vec![b' '; TOO_LONG];
        let long_string = json!("x".repeat(TOO_LONG)).to_string();
        let deep = "[".repeat(10_000);
        let payloads: [&[u8]; 14] = [
            b"",
            b"{",
            b"null",
            b"[]",
            b"42",
            b"\"Nonsense\"",
            b"{}",
            b"{\"namespace\":7,\"interface\":[],\"operation\":null}",
            b"{\"namespace\":\"default\",\"interface\":\"lo\",\"operation\":\"Explode\"}",
            b"{\"Start\":{\"scenario_id\":1}}",
            b"\xff\xfe\x00",
            &long,
            long_string.as_bytes(),
            deep.as_bytes(),
        ];
        for what in CONTROLS.into_iter().chain(SCENARIOS) {
            expect_failure(scene, what, None)?;
            for payload in payloads {
                expect_failure(scene, what, Some(payload))?;
            }
        }
        Ok(())
    });

    lab_test!(too_long_requests_get_a_failure_reply, |scene| {
        scene.start()?;
        let padding = " ".repeat(TOO_LONG);
        for operation in [json!("Enable"), json!("Remove")] {
            let request =
                json!({"namespace": "default", "interface": "lo", "operation": operation});
            let what = if operation == "Remove" {
                "tc"
            } else {
                "interface"
            };
            expect_failure(scene, what, Some(format!("{request}{padding}").as_bytes()))?;
        }
        expect_failure(
            scene,
            "scenario",
            Some(format!("\"List\"{padding}").as_bytes()),
        )
    });

    fn apply() -> Value {
        json!({"Apply": {
            "loss": 0.0, "correlation": null, "delay_ms": 10.0, "delay_jitter_ms": null,
            "delay_correlation": null, "duplicate_percent": null, "duplicate_correlation": null,
            "reorder_percent": null, "reorder_correlation": null, "reorder_gap": null,
            "corrupt_percent": null, "corrupt_correlation": null, "rate_limit_kbps": null,
        }})
    }

    fn requests(namespace: &str, interface: &str) -> [(&'static str, Value); 4] {
        let at = |operation: Value| json!({"namespace": namespace, "interface": interface, "operation": operation});
        let start = json!({"Start": {
            "scenario_id": "no-such", "namespace": namespace, "interface": interface,
            "loop_execution": false,
        }});
        let ask = json!({
            "namespace": namespace, "interface": interface, "target": null, "timeout_ms": 500,
        });
        [
            ("tc", at(apply())),
            ("interface", at(json!("Enable"))),
            ("diagnostics", ask),
            ("scenario/execution", start),
        ]
    }

    lab_test!(invalid_names_get_a_failure_reply, |scene| {
        netns::add("blue")?;
        scene.start()?;
        let long = "n".repeat(300);
        let names = [
            "",
            "/",
            ".",
            "..",
            "../..",
            "/etc/passwd",
            "blue/../blue",
            "*",
            "**",
            "a*b",
            "$*",
            "\\",
            "blue\\",
            "\\x",
            "\\xZZ",
            "\\x41",
            "a\u{0}b",
            "@",
            "#?",
            "netns:",
            "netns:grey",
            "container:",
            "container:grey",
            "pid:",
            "pid:0",
            "pid:-1",
            "pid:self",
            &long,
        ];
        for name in names {
            for (what, request) in requests(name, "lo")
                .into_iter()
                .chain(requests("blue", name))
            {
                expect_failure(scene, what, Some(request.to_string().as_bytes()))?;
            }
        }
        // The requests have neither hidden nor added a namespace.
        scene.wait_named(&["blue"])
    });

    lab_test!(unknown_objects_get_a_failure_reply, |scene| {
        scene.start()?;
        for (what, request) in requests("default", "no-such") {
            expect_failure(scene, what, Some(request.to_string().as_bytes()))?;
        }
        let remove = json!({"Remove": {"id": "no-such"}}).to_string();
        let reply = scene
            .client()?
            .ask_raw("scenario", Some(remove.as_bytes()))?
            .0;
        ensure!(
            reply["Removed"]["success"] == false || reply["Error"].is_object(),
            "{reply}"
        );
        Ok(())
    });

    /// Checks that a reply has the form of its key, whether it is a failure or not.
    fn ensure_reply(what: &str, reply: &Value) -> anyhow::Result<()> {
        let good = match what {
            "scenario" | "scenario/execution" => {
                let variants = reply.as_object().map(|reply| reply.len());
                variants == Some(1) && reply["Error"].is_null()
            }
            _ => reply["success"] == true && reply["message"].is_string(),
        };
        if good {
            return Ok(());
        }
        ensure_failure(what, reply)
    }

    /// Memory in bytes that the daemon may keep for requests.
    const KEPT: u64 = 16 * 1024 * 1024;

    /// Number of random bytes for each key.
    const FUZZ: usize = 1_000_000;
    /// Number of queries for each key: ten thousand over the five keys.
    const QUERIES: usize = 2000;

    /// Returns random bytes, or a valid request that was truncated or modified or both.
    fn fuzz(random: &mut Random, valid: &[Vec<u8>]) -> Vec<u8> {
        if random.below(3) > 0 {
            // Short and long payloads are equally frequent.
            let most = 1 << random.below(17);
            let length = random.below(most).min(TOO_LONG);
            return random.bytes(length);
        }
        let mut request = valid[random.below(valid.len())].clone();
        if random.below(2) == 0 {
            request.truncate(random.below(request.len()));
        }
        for _ in 0..random.below(4) {
            if !request.is_empty() {
                let at = random.below(request.len());
                request[at] = random.bytes(1)[0];
            }
        }
        request
    }

    fn valid_requests(what: &str) -> Vec<Vec<u8>> {
        let mut requests: Vec<_> = requests("default", "lo")
            .into_iter()
            .filter(|(kind, _)| *kind == what)
            .map(|(_, request)| request.to_string().into_bytes())
            .collect();
        requests.push(b"\"List\"".to_vec());
        requests
    }

    lab_test!(every_payload_gets_exactly_one_reply, |scene| {
        let seed = random::number("TCGUI_FUZZ_SEED")?.map_or_else(random::any_seed, Ok)?;
        scene.start()?;
        let before = scene.daemon()?.rss()?;
        let mut random = Random::new(seed);
        let mut count = 0;
        for what in CONTROLS.into_iter().chain(SCENARIOS) {
            let valid = valid_requests(what);
            let (mut sent, mut asked) = (0, 0);
            while sent < FUZZ || asked < QUERIES {
                let payload = fuzz(&mut random, &valid);
                scene
                    .client()?
                    .ask_raw(what, Some(&payload))
                    .and_then(|(reply, _)| ensure_reply(what, &reply))
                    .with_context(|| format!("TCGUI_FUZZ_SEED={seed}, query {count}: {what}"))?;
                sent += payload.len();
                asked += 1;
                count += 1;
            }
        }
        let after = scene.daemon()?.rss()?;
        measure::report(format!(
            "TCGUI_FUZZ_SEED={seed}: {count} queries; resident: {} KiB, then {} KiB",
            before / 1024,
            after / 1024
        ))?;
        ensure!(after < before + KEPT, "{before} grew to {after} bytes");
        Ok(())
    });
}
