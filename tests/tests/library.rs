//! Presets and scenarios as frontends see them: shipped, from files, and stored over the bus.

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::ffi::OsStr;
    use std::fs;
    use std::path::Path;
    use std::process::Command;
    use std::time::Duration;

    use anyhow::{Context, ensure};
    use nix::sys::signal::Signal;
    use serde_json::{Value, json};
    use tcgui_tests::client::array;
    use tcgui_tests::daemon;
    use tcgui_tests::doorbells::Limit;
    use tcgui_tests::lab::Kind;
    use tcgui_tests::lab_test;
    use tcgui_tests::process::run;
    use tcgui_tests::scene::{SOON, Scene};
    use tcgui_tests::wait::{holds_for, wait_for};

    const SHIPPED_PRESETS: [&str; 7] = [
        "satellite-link",
        "cellular-network",
        "poor-wifi",
        "wan-link",
        "unreliable-connection",
        "high-latency-low-bandwidth",
        "test-all",
    ];

    const SHIPPED_SCENARIOS: [&str; 6] = [
        "mobile-degradation",
        "network-congestion",
        "intermittent-connectivity",
        "quality-degradation",
        "load-testing",
        "fast-degradation",
    ];

    fn ask(scene: &Scene, request: &Value) -> anyhow::Result<Value> {
        Ok(scene.client()?.ask("scenario", request)?.0)
    }

    fn listed(scene: &Scene) -> anyhow::Result<Value> {
        let mut reply = ask(scene, &json!("List"))?;
        ensure!(reply["Listed"].is_object(), "{reply}");
        Ok(reply["Listed"].take())
    }

    fn ids(list: &Value, member: &str) -> Vec<String> {
        let id = |entry: &Value| entry["id"].as_str().map(str::to_owned);
        array(list, member).filter_map(id).collect()
    }

    fn name_of(list: &Value, id: &str) -> Option<String> {
        let scenario = array(list, "scenarios").find(|scenario| scenario["id"] == id)?;
        scenario["name"].as_str().map(str::to_owned)
    }

    /// Lists repeatedly until the predicate holds.
    fn wait_list(scene: &Scene, what: &str, is: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let look = || listed(scene);
        wait_for(what, SOON, look, |list| list.as_ref().is_ok_and(&is))?
    }

    fn file(id: &str, name: &str) -> String {
        format!(
            "{{ id: '{id}', name: '{name}',\n  steps: [ {{ duration: '2s', description: 'x' }} ] }}"
        )
    }

    /// Returns a scenario in wire format, in which all fields are mandatory.
    fn wire(id: &str, name: &str, duration_ms: u64) -> Value {
        let share = json!({"enabled": false, "percentage": 0.0, "correlation": 0.0});
        let config = json!({
            "loss": {"enabled": true, "percentage": 12.5, "correlation": 0.0},
            "delay": {"enabled": false, "base_ms": 0.0, "jitter_ms": 0.0, "correlation": 0.0},
            "duplicate": share, "corrupt": share,
            "reorder": {"enabled": false, "percentage": 0.0, "correlation": 0.0, "gap": 5},
            "rate_limit": {"enabled": false, "rate_kbps": 1000},
        });
        json!({
            "id": id, "name": name, "description": "", "loop_scenario": false,
            "created_at": 0, "modified_at": 0, "cleanup_on_failure": true,
            "metadata": {"tags": ["t"], "author": null, "version": "1.0", "duration_ms": 0},
            "steps": [{"duration_ms": duration_ms, "tc_config": config, "description": "only"}],
        })
    }

    lab_test!(shipped_presets_and_scenarios_are_listed, |scene| {
        scene.start()?;
        let list = listed(scene)?;
        ensure!(ids(&list, "scenarios") == SHIPPED_SCENARIOS, "{list}");
        ensure!(list["load_errors"] == json!([]), "{list}");
        for scenario in array(&list, "scenarios") {
            ensure!(scenario["metadata"]["version"] == "1.0", "{scenario}");
            let duration: Option<u64> = array(scenario, "steps")
                .map(|step| step["duration_ms"].as_u64())
                .sum();
            ensure!(
                duration.is_some() && scenario["metadata"]["duration_ms"].as_u64() == duration,
                "{scenario}"
            );
        }
        let state = scene.wait_for("presets are published", |state| state.presets().is_some())?;
        let presets = state.presets().context("no presets")?;
        ensure!(ids(presets, "presets") == SHIPPED_PRESETS, "{presets}");
        let satellite = &presets["presets"][0];
        ensure!(satellite["rate_limit"]["rate_kbps"] == 2000, "{satellite}");
        ensure!(satellite["delay"]["base_ms"] == 500.0, "{satellite}");
        // Frontends that do not know loss models apply this loss. Its mean is that of the model.
        ensure!(satellite["loss"]["percentage"] == 1.0, "{satellite}");
        ensure!(satellite["loss"]["correlation"] == 0.0, "{satellite}");
        ensure!(!satellite["loss_model"].is_null(), "{satellite}");
        Ok(())
    });

    lab_test!(files_are_added_and_removed_while_the_daemon_runs, |scene| {
        let root = tempfile::tempdir()?;
        let (scenarios, presets) = (root.path().join("s"), root.path().join("deep/p"));
        let options = [
            OsStr::new("--scenario-dir"),
            scenarios.as_os_str(),
            OsStr::new("--preset-dir"),
            presets.as_os_str(),
        ];
        scene.start_with(&options)?;
        fs::create_dir(&scenarios)?;
        let path = scenarios.join("mine.json5");
        fs::write(&path, file("mine", "first"))?;
        wait_list(scene, "the file is listed", |list| {
            name_of(list, "mine").is_some()
        })?;

        fs::write(
            &path,
            "{ id: 'mine', name: 'second',\n  steps: [ { duration: '0s' } ] }",
        )?;
        let list = wait_list(scene, "the error is listed", |list| {
            list["load_errors"] != json!([])
        })?;
        ensure!(name_of(&list, "mine").as_deref() == Some("first"), "{list}");
        let error = &list["load_errors"][0];
        ensure!(
            error["file_path"] == path.to_string_lossy().as_ref(),
            "{error}"
        );
        let message = error["error"]["message"].as_str().unwrap_or_default();
        ensure!(message.starts_with("line 2, column 12: "), "{error}");
        ensure!(error["error"]["category"] == "Validation", "{error}");
        let told = || Ok(scene.daemon()?.stderr().contains("line 2, column 12"));
        wait_for(
            "the log reports it too",
            SOON,
            told,
            |told: &anyhow::Result<_>| matches!(told, Ok(true)),
        )??;

        fs::create_dir_all(&presets)?;
        let preset = "{ id: 'mine', name: 'Mine', rate_limit: { rate: '10mbit' } }";
        fs::write(presets.join("mine.json5"), preset)?;
        let state = scene.wait_for("the preset is published", |state| {
            let presets = state.presets().map(|list| ids(list, "presets"));
            presets.is_some_and(|ids| ids.last().is_some_and(|id| id == "mine"))
        })?;
        let presets = state.presets().context("no presets")?;
        let rate = &presets["presets"][7]["rate_limit"]["rate_kbps"];
        ensure!(*rate == 10_000, "{presets}");

        fs::remove_file(&path)?;
        wait_list(scene, "the entry of the file is removed", |list| {
            name_of(list, "mine").is_none() && list["load_errors"] == json!([])
        })?;
        Ok(())
    });

    lab_test!(sighup_reads_changes_that_no_watch_reports, |scene| {
        let root = tempfile::tempdir()?;
        let hidden = tempfile::tempdir()?;
        fs::write(hidden.path().join("x.json5"), file("x", "mounted"))?;
        scene.start_with(&[OsStr::new("--scenario-dir"), root.path().as_os_str()])?;
        let mount = |scene: &Scene| {
            // The daemon runs in the mount namespace of the test.
            let pid = scene.daemon()?.pid().to_string();
            run(Command::new("nsenter")
                .args(["-m", "-t", &pid, "mount", "--bind"])
                .args([hidden.path(), root.path()]))
        };
        mount(scene)?;
        scene.daemon()?.signal(Signal::SIGHUP)?;
        wait_list(scene, "what was mounted is listed", |list| {
            name_of(list, "x").as_deref() == Some("mounted")
        })?;
        run(Command::new("umount").arg(root.path()))?;
        Ok(())
    });

    fn readings(scene: &Scene) -> anyhow::Result<usize> {
        Ok(scene.daemon()?.stderr().matches("files read").count())
    }

    /// Checks that the daemon is idle. Reading files and placing watches cause events, which must not cause another read.
    fn ensure_idle(scene: &Scene) -> anyhow::Result<()> {
        let before = Cell::new(readings(scene)?);
        let look = || {
            let now = readings(scene).unwrap_or(usize::MAX);
            now == before.replace(now)
        };
        let settled = || {
            holds_for("nothing is read", Duration::from_secs(1), look, |same| {
                *same
            })
        };
        wait_for("the library is idle", SOON, settled, Result::is_ok)?
    }

    lab_test!(nothing_is_read_while_nothing_changes, |scene| {
        let root = tempfile::tempdir()?;
        let directory = root.path().join("s");
        let options = [
            OsStr::new("--verbose"),
            OsStr::new("--scenario-dir"),
            directory.as_os_str(),
        ];
        scene.start_with(&options)?;
        ensure_idle(scene)?;
        for round in 0..3 {
            fs::create_dir(&directory)?;
            fs::write(directory.join("x.json5"), file("x", &round.to_string()))?;
            wait_list(scene, "the file is listed", |list| {
                name_of(list, "x") == Some(round.to_string())
            })?;
            fs::remove_dir_all(&directory)?;
            wait_list(scene, "the entry of the file is removed", |list| {
                name_of(list, "x").is_none()
            })?;
        }
        ensure_idle(scene)?;
        let count = readings(scene)?;
        ensure!((6..=40).contains(&count), "{count} readings of six changes");
        Ok(())
    });

    lab_test!(
        without_watches_files_are_read_on_sighup,
        Kind::OwnLimits,
        |scene| {
            let root = tempfile::tempdir()?;
            let _watches = Limit::zero("max_inotify_instances")?;
            let options = [
                OsStr::new("--verbose"),
                OsStr::new("--scenario-dir"),
                root.path().as_os_str(),
            ];
            scene.start_with(&options)?;
            ensure!(
                scene.daemon()?.stderr().contains("files are not watched"),
                "nothing is logged"
            );
            ensure_idle(scene)?;
            fs::write(root.path().join("x.json5"), file("x", "x"))?;
            scene.daemon()?.signal(Signal::SIGHUP)?;
            wait_list(scene, "the file is listed", |list| {
                name_of(list, "x").is_some()
            })?;
            ensure_idle(scene)
        }
    );

    lab_test!(stored_scenarios_are_kept_across_a_restart, |scene| {
        let state = tempfile::tempdir()?;
        let options = [OsStr::new("--state-dir"), state.path().as_os_str()];
        scene.start_with(&options)?;
        let reply = ask(scene, &json!({"Add": wire("kept", "first", 1500)}))?;
        ensure!(reply == json!({"Added": {"id": "kept"}}), "{reply}");
        let reply = ask(scene, &json!({"Add": wire("kept", "again", 1500)}))?;
        ensure!(
            reply["Error"]["error"]["category"] == "Permanent",
            "{reply}"
        );
        let restart = |scene: &mut Scene| {
            scene.take_daemon()?.crash()?;
            scene.wait_for("the token is removed", |state| !state.alive())?;
            scene.start_daemon(&options)
        };
        restart(scene)?;
        let reply = ask(scene, &json!({"Get": {"id": "kept"}}))?;
        let kept = &reply["Retrieved"]["scenario"];
        ensure!(kept["name"] == "first", "{reply}");
        ensure!(kept["metadata"]["duration_ms"] == 1500, "{reply}");
        let loss = &kept["steps"][0]["tc_config"]["loss"]["percentage"];
        ensure!(*loss == 12.5, "{reply}");

        let reply = ask(scene, &json!({"Update": wire("kept", "second", 2500)}))?;
        ensure!(reply == json!({"Updated": {"success": true}}), "{reply}");
        restart(scene)?;
        ensure!(
            name_of(&listed(scene)?, "kept").as_deref() == Some("second"),
            "not updated"
        );
        let reply = ask(scene, &json!({"Remove": {"id": "kept"}}))?;
        ensure!(reply == json!({"Removed": {"success": true}}), "{reply}");
        let reply = ask(scene, &json!({"Remove": {"id": "kept"}}))?;
        ensure!(reply == json!({"Removed": {"success": false}}), "{reply}");
        restart(scene)?;
        ensure!(name_of(&listed(scene)?, "kept").is_none(), "not removed");
        Ok(())
    });

    lab_test!(invalid_scenarios_are_not_stored, |scene| {
        let state = tempfile::tempdir()?;
        scene.start_with(&[OsStr::new("--state-dir"), state.path().as_os_str()])?;
        let mut range = wire("x", "x", 1000);
        range["steps"][0]["tc_config"]["loss"]["percentage"] = json!(101);
        let mut empty = wire("x", "x", 1000);
        empty["steps"] = json!([]);
        let wrong = [
            (wire("../../x", "x", 1000), json!(null)),
            (wire("tcgui/*", "x", 1000), json!(null)),
            (wire("", "x", 1000), json!(null)),
            (wire("x", "x", 0), json!(0)),
            (range, json!(0)),
            (empty, json!(null)),
        ];
        for (scenario, step) in wrong {
            for request in ["Add", "Update"] {
                let reply = ask(scene, &json!({request: scenario}))?;
                let error = &reply["Error"]["error"];
                ensure!(error["category"] == "Validation", "{reply}");
                ensure!(error["step_index"] == step, "{reply}");
            }
        }
        ensure!(
            !state.path().join("default").exists(),
            "something was written"
        );
        Ok(())
    });

    /// Mounts a tmpfs over the directory, for the daemon that is started later.
    fn mount_tmpfs(directory: &Path, options: &str) -> anyhow::Result<()> {
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(directory))
        .map(drop)
    }

    lab_test!(
        an_unwritable_state_directory_only_prevents_storing,
        |scene| {
            for (options, category) in [
                ("mode=700,ro", "Permission"),
                ("mode=700,size=4k", "Transient"),
            ] {
                let state = tempfile::tempdir()?;
                mount_tmpfs(state.path(), options)?;
                let arguments = [OsStr::new("--state-dir"), state.path().as_os_str()];
                match scene.daemon().is_ok() {
                    true => {
                        scene.take_daemon()?.stop()?;
                        scene.start_daemon(&arguments)?;
                    }
                    false => scene.start_with(&arguments)?,
                }
                let mut large = wire("large", "large", 1000);
                large["description"] = json!("x".repeat(4000));
                large["steps"] = json!(vec![large["steps"][0].clone(); 20]);
                let reply = ask(scene, &json!({"Add": large}))?;
                let error = &reply["Error"]["error"];
                ensure!(error["category"] == category, "{options}: {reply}");
                let message = error["message"].as_str().unwrap_or_default();
                ensure!(message.starts_with("cannot "), "{options}: {reply}");
                let list = listed(scene)?;
                ensure!(ids(&list, "scenarios") == SHIPPED_SCENARIOS, "{list}");
                run(Command::new("umount").arg("-l").arg(state.path()))?;
            }
            Ok(())
        }
    );

    lab_test!(check_reports_the_same_errors_as_the_daemon, |_| {
        let root = tempfile::tempdir()?;
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::write(&path, text).map(|()| path)
        };
        let preset = write(
            "p.json5",
            "{ id: 'line', name: 'Line', delay: { base_ms: 3 } }",
        )?;
        let steps = "[{ duration: '1s', description: '', preset: 'line' }]";
        let scenario = write(
            "s.json5",
            &format!("{{ id: 'x', name: 'x', steps: {steps} }}"),
        )?;
        let bad = write("bad.json5", "{\n  id: 'x', name: 'x',\n  los: {},\n}")?;
        let check = |files: &[&Path]| {
            let files = files.iter().map(|path| path.as_os_str());
            let args: Vec<_> = [OsStr::new("check")].into_iter().chain(files).collect();
            let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
            fs::set_permissions(
                root.path(),
                std::os::unix::fs::PermissionsExt::from_mode(0o755),
            )?;
            daemon::run(&nobody, &args, Duration::from_secs(10))
        };
        let output = check(&[&scenario, &preset])?;
        let text = String::from_utf8(output.stdout)?;
        ensure!(output.status.code() == Some(0), "{text}");
        ensure!(text.contains("s.json5: scenario \"x\", 1 step\n"), "{text}");
        ensure!(text.contains("p.json5: preset \"line\"\n"), "{text}");
        let output = check(&[&scenario, &bad])?;
        let text = String::from_utf8(output.stdout)?;
        ensure!(output.status.code() == Some(1), "{text}");
        ensure!(
            text.contains("bad.json5:3:3: error: los: unknown field"),
            "{text}"
        );
        ensure!(text.contains("s.json5:1:"), "{text}");
        ensure!(text.contains("there is no preset \"line\""), "{text}");
        // Without files, the command checks the configuration of the daemon.
        let output = check(&[])?;
        let text = String::from_utf8(output.stdout)?;
        ensure!(output.status.code() == Some(0), "{text}");
        ensure!(text.contains("configuration"), "{text}");
        Ok(())
    });
}
