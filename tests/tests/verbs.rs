//! The verbs that talk to a running daemon: outputs, exit statuses, daemons that misbehave.
//!
//! What needs netem is in [`inside`] and runs through `scripts/with-netem.sh`.

#[cfg(test)]
#[path = "verbs/inside.rs"]
mod inside;

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::process::{Command, Stdio};
    use std::sync::{Mutex, PoisonError};
    use std::time::{Duration, Instant};

    use anyhow::{Context, anyhow, ensure};
    use serde_json::{Value, json};
    use tcgui_tests::daemon::{self, Daemon};
    use tcgui_tests::frontend::Route;
    use tcgui_tests::lab::Kind;
    use tcgui_tests::links::{attribute, ip};
    use tcgui_tests::measure::Times;
    use tcgui_tests::netem_kernel::{LIMIT, run_ignored};
    use tcgui_tests::random::Random;
    use tcgui_tests::scene::{SOON, Scene};
    use tcgui_tests::verbs::{line, verb, verb_as};
    use tcgui_tests::wait::holds_for;
    use tcgui_tests::{lab_test, measure, netns};
    use zenoh::liveliness::LivelinessToken;
    use zenoh::query::{Query, Queryable};
    use zenoh::{Session, Wait};

    const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

    #[test]
    fn verbs_impair_interfaces() {
        run_ignored("inside::", LIMIT).unwrap();
    }

    /// A daemon with the namespace `lab` and the interface `v0` in it.
    fn started(scene: &mut Scene) -> anyhow::Result<()> {
        netns::add("lab")?;
        ip("lab", "link add v0 type veth peer name v1")?;
        scene.start()?;
        attribute(scene, ("lab", "v0"), "is_up", false)
    }

    /// The names of the interfaces in a document.
    fn targets(document: &Value) -> Vec<&str> {
        let all = document["interfaces"].as_array().into_iter().flatten();
        all.filter_map(|it| it["target"].as_str()).collect()
    }

    lab_test!(without_a_daemon_each_verb_ends_with_3, |_| {
        for args in [
            "show",
            "apply lo --delay 10ms",
            "clear lo",
            "confirm lo",
            "up lo",
            "down lo",
            "diagnose lo",
            "scenario list",
            "preset list",
            "backends",
            "wait-for interface lo",
        ] {
            let printed = line(args)?.ends(3, &["no daemon answers", "systemctl start"])?;
            ensure!(printed.out.is_empty(), "{printed:?}");
        }
        line("run lo --delay 10ms -- true")?.ends(125, &["no daemon answers"])?;
        Ok(())
    });

    lab_test!(wrong_command_lines_end_with_2, |_| {
        for (args, word) in [
            ("apply lo --delay 100", "the units are us, ms, s"),
            ("apply lo --rate 10", "the units are bit, kbit"),
            ("apply lo --loss 1", "the unit is %"),
            ("apply lo --loss 101%", "from 0% to 100%"),
            ("apply lo --gap 5", "--reorder"),
            (
                "apply lo --loss 1% --loss-model gemodel:1%,2%",
                "cannot be used with",
            ),
            ("apply --delay 10ms", "TARGET"),
            ("apply lab/ --delay 10ms", "NAMESPACE/INTERFACE"),
            ("apply lo", "name at least one parameter"),
            ("clear", "TARGET"),
            ("clear lo --all", "cannot be used with"),
            ("show --format yaml", "ndjson"),
            ("show --connect nowhere", "--connect"),
            ("show --timeout 5", "has no unit"),
            ("run lo --delay 10ms", "COMMAND"),
            ("wait-for", "namespace"),
            ("apply lo --file /no/such/file", "cannot read the file"),
        ] {
            line(args)?.ends(2, &[word])?;
        }
        Ok(())
    });

    lab_test!(interfaces_are_shown_as_a_table_and_as_json, |scene| {
        started(scene)?;
        let table = line("show")?.ends(0, &[])?;
        ensure!(table.out.starts_with("INTERFACE"), "{table:?}");
        ensure!(table.out.contains("lab/v0"), "{table:?}");
        ensure!(
            !table.out.contains('\u{1b}'),
            "no colours in a pipe: {table:?}"
        );
        let document = line("show lab/* --json")?.ends(0, &[])?.document()?;
        let mut names = targets(&document);
        names.sort_unstable();
        ensure!(names == ["lab/lo", "lab/v0", "lab/v1"], "{document}");
        let interfaces = document["interfaces"].as_array().into_iter().flatten();
        let mut interfaces = interfaces.filter(|it| it["interface"] == "v0");
        let v0 = interfaces.next().context("no v0")?;
        ensure!(v0["type"] == "veth" && v0["up"] == false, "{v0}");
        for absent in ["netem", "unreadable", "expires_at", "set_by", "scenario"] {
            ensure!(v0.get(absent).is_none(), "{absent} is not set: {v0}");
        }
        let lines = line("show lab/* --format ndjson")?.ends(0, &[])?;
        ensure!(lines.lines()?.len() == 3, "{lines:?}");
        let none = line("show --impaired --json")?.ends(0, &[])?.document()?;
        ensure!(none["interfaces"] == json!([]), "{none}");
        let one = line("show v9")?.ends(4, &["v9", "show"])?;
        ensure!(one.out.is_empty(), "{one:?}");
        let some = line("show lab/v0 v9")?.ends(7, &["v9"])?;
        ensure!(some.out.contains("lab/v0"), "{some:?}");
        Ok(())
    });

    lab_test!(links_are_switched_and_frontends_see_it, |scene| {
        started(scene)?;
        let up = line("up lab/v0 lab/v1")?.ends(0, &[])?;
        ensure!(up.out == "lab/v0: up\nlab/v1: up\n", "{up:?}");
        attribute(scene, ("lab", "v0"), "is_up", true)?;
        line("down lab/v*")?.ends(0, &[])?;
        attribute(scene, ("lab", "v0"), "is_up", false)?;
        line("down lab/v9")?.ends(4, &["v9"])?;
        let partly = line("up lab/v0 lab/v9 --json")?.ends(7, &[])?;
        let document = partly.document()?;
        ensure!(document["results"][0]["ok"] == true, "{document}");
        ensure!(document["results"][1]["error"]["status"] == 4, "{document}");
        line("down lo")?.ends(5, &["lo"])?;
        Ok(())
    });

    lab_test!(options_of_the_daemon_deny_changes, |scene| {
        netns::add("lab")?;
        scene.start_with(&["--read-only"])?;
        scene.wait_named(&["lab"])?;
        line("up lab/lo")?.ends(5, &["--read-only"])?;
        line("apply lab/lo --delay 10ms")?.ends(5, &["--read-only"])?;
        Ok(())
    });

    lab_test!(several_daemons_need_a_choice, |scene| {
        scene.start()?;
        let second = [
            "--name",
            "lab2",
            "--zenoh-mode",
            "client",
            "--zenoh-connect",
            "tcp/127.0.0.1:7447",
            "--state-dir",
            "/var/lib/lab2",
        ];
        let second = Daemon::start(&[], &second)?;
        scene
            .client()?
            .wait_for("the second daemon is present", SOON * 2, |state| {
                state.of("lab2").alive() && state.of("lab2").lists() > 0
            })?;
        line("show")?.ends(2, &["default, lab2", "--backend"])?;
        let document = line("show --backend lab2 --json")?
            .ends(0, &[])?
            .document()?;
        ensure!(document["backend"] == "lab2", "{document}");
        let document = line("backends --json")?.ends(0, &[])?.document()?;
        let names: Vec<_> = document["backends"]
            .as_array()
            .context("backends")?
            .iter()
            .collect();
        ensure!(names.len() == 2 && names[1]["name"] == "lab2", "{document}");
        ensure!(names[0]["version"].is_string(), "{document}");
        line("show --backend lab3")?.ends(3, &["lab3", "default, lab2"])?;
        second.stop().map(drop)
    });

    lab_test!(conditions_are_waited_for, |scene| {
        netns::add("lab")?;
        scene.start()?;
        scene.wait_named(&["lab"])?;
        line("wait-for namespace lab")?.ends(0, &[])?;
        line("wait-for clear lab/lo")?.ends(0, &[])?;
        line("wait-for scenario lab/lo")?.ends(0, &[])?;
        line("wait-for interface lab/v0 --timeout 200ms")?.ends(6, &["200ms", "lab/v0"])?;
        let begun = Instant::now();
        let adding = std::thread::spawn(|| {
            holds_for("a pause", Duration::from_millis(300), || (), |()| true)?;
            ip("lab", "link add v0 type veth peer name v1").map(drop)
        });
        line("wait-for interface lab/v0 --timeout 20s")?.ends(0, &[])?;
        ensure!(
            begun.elapsed() >= Duration::from_millis(300),
            "it was not there before"
        );
        adding
            .join()
            .map_err(|_| anyhow!("the thread has panicked"))??;
        ip("lab", "link del v0").map(drop)
    });

    lab_test!(waiting_goes_on_over_a_restart_of_the_daemon, |scene| {
        scene.start()?;
        let args = ["wait-for", "namespace", "lab", "--timeout", "60s"];
        let mut waiting = Daemon::start(&[], &args)?;
        holds_for("it waits", Duration::from_secs(2), || (), |()| true)?;
        waiting.ensure_alive()?;
        scene.take_daemon()?.crash()?;
        scene.start_daemon::<&str>(&[])?;
        netns::add("lab")?;
        let status = waiting.wait(SOON * 2)?;
        ensure!(status.success(), "{status}: {}", waiting.stderr());
        Ok(())
    });

    lab_test!(presets_and_scenarios_are_listed_and_stored, |scene| {
        scene.start()?;
        let presets = line("preset list --json")?.ends(0, &[])?.document()?;
        let all = presets["presets"].as_array().context("presets")?;
        ensure!(
            all.iter().any(|it| it["id"] == "satellite-link"),
            "{presets}"
        );
        line("preset show satellite-link")?.ends(0, &[])?;
        line("preset show no-such-preset")?.ends(4, &["preset list"])?;
        line("apply lo --preset no-such-preset")?.ends(4, &["preset list"])?;
        let file = tempfile::NamedTempFile::new()?;
        let text = r#"{id: "two-steps", name: "Two steps", description: "", steps: [
            {duration: "1s", description: "slow", tc_config: {delay: {base_ms: 5}}},
            {duration: "1s", description: "lossy", tc_config: {loss: {percentage: 5}}}]}"#;
        std::fs::write(file.path(), text)?;
        let path = file.path().to_str().context("a path")?;
        line(&format!("scenario add {path}"))?.ends(0, &["two-steps"])?;
        line(&format!("scenario add {path}"))?.ends(1, &["two-steps"])?;
        line(&format!("scenario add {path} --replace"))?.ends(0, &[])?;
        let shown = line("scenario show two-steps --json")?
            .ends(0, &[])?
            .document()?;
        let steps = &shown["scenarios"][0]["steps"];
        ensure!(steps[0]["netem"]["delay_ms"] == 5.0, "{shown}");
        ensure!(steps[1]["netem"]["loss_percent"] == 5.0, "{shown}");
        line("scenario remove two-steps")?.ends(0, &[])?;
        line("scenario show two-steps")?.ends(4, &["scenario list"])?;
        line("scenario remove two-steps")?.ends(4, &[])?;
        line("scenario start no-such-scenario lo")?.ends(4, &["scenario list"])?;
        line("scenario stop lo")?.ends(4, &["scenario status"])?;
        line("scenario status --json")?.ends(0, &[])?.document()?;
        std::fs::write(file.path(), "{id: 7}")?;
        line(&format!("scenario add {path}"))?.ends(2, &[path])?;
        Ok(())
    });

    lab_test!(odd_names_are_targets_and_print_nothing_dangerous, |scene| {
        let names: [&[u8]; 3] = [b"my lab", b"a*b", b"x\xff\x1b[2J"];
        for name in names {
            netns::add(OsStr::from_bytes(name))?;
        }
        scene.start()?;
        scene.wait_named(&names.map(OsStr::from_bytes))?;
        let table = line("show")?.ends(0, &[])?;
        ensure!(!table.out.contains('\u{1b}'), "{table:?}");
        verb(&["up", "my lab/lo"])?.ends(0, &[])?;
        verb(&["up", "a%2Ab/lo"])?.ends(0, &[])?;
        let odd = verb(&[OsStr::new("up"), OsStr::from_bytes(b"x\xff\x1b[2J/lo")])?.ends(0, &[])?;
        ensure!(!odd.out.contains('\u{1b}'), "{odd:?}");
        let document = line("show --json")?.ends(0, &[])?.document()?;
        for target in targets(&document) {
            verb(&["show", target])?.ends(0, &[])?;
        }
        Ok(())
    });

    lab_test!(any_user_may_ask, |scene| {
        scene.start()?;
        let printed = verb_as(&NOBODY, &["show"])?.ends(0, &[])?;
        ensure!(printed.out.contains("default/lo"), "{printed:?}");
        Ok(())
    });

    lab_test!(a_reader_that_has_gone_is_no_failure, |scene| {
        scene.start()?;
        for args in [
            "show",
            "show --json",
            "show --watch",
            "preset list",
            "completions bash",
        ] {
            let mut child = Command::new(daemon::binary()?)
                .args(args.split(' '))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            drop(child.stdout.take());
            if args.ends_with("--watch") {
                // It prints again only if something changes.
                ip("default", "link add v0 type veth peer name v1")?;
            }
            let output = child.wait_with_output()?;
            let err = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{args}: {}: {err}", output.status);
            ensure!(!err.contains("panicked"), "{args}: {err}");
        }
        ip("default", "link del v0").map(drop)
    });

    lab_test!(completions_and_manual_pages_are_written, |_| {
        for shell in ["bash", "zsh", "fish"] {
            let printed = line(&format!("completions {shell}"))?.ends(0, &[])?;
            ensure!(printed.out.contains("wait-for"), "{shell}");
        }
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("man");
        verb(&[OsStr::new("man"), path.as_os_str()])?.ends(0, &[])?;
        ensure!(
            path.join("tcgui-backend-apply.1").is_file(),
            "no page for apply"
        );
        Ok(())
    });

    lab_test!(every_help_begins_with_a_verb_and_has_an_example, |_| {
        for verb in [
            "apply", "clear", "confirm", "up", "down", "show", "diagnose", "scenario", "preset",
            "run", "wait-for", "backends",
        ] {
            let printed = line(&format!("{verb} --help"))?.ends(0, &[])?;
            ensure!(printed.out.contains("Example"), "{verb}: {}", printed.out);
            let first = printed.out.split_whitespace().next().unwrap_or_default();
            ensure!(first.starts_with(char::is_uppercase), "{verb}: {first}");
        }
        Ok(())
    });

    /// From start to exit, at the median; a build without optimisation gets three times as much.
    const SHOW_LIMIT: Duration = if cfg!(debug_assertions) {
        Duration::from_millis(450)
    } else {
        Duration::from_millis(150)
    };

    lab_test!(showing_fifty_interfaces_is_quick, Kind::Alone, |scene| {
        netns::add("lab")?;
        for number in 0..25 {
            let pair = format!("link add v{number} type veth peer name w{number}");
            ip("lab", &pair)?;
        }
        scene.start()?;
        scene.wait_for("all are listed", |state| {
            state.interface("lab", "v24").is_some()
        })?;
        let mut times = Times::default();
        for _ in 0..20 {
            let begun = Instant::now();
            let output = Command::new(daemon::binary()?).arg("show").output()?;
            times.push(begun.elapsed());
            ensure!(output.status.success(), "{output:?}");
            let lines = String::from_utf8_lossy(&output.stdout).lines().count();
            ensure!(lines > 50, "{output:?}");
        }
        measure::report(format!("show on 51 interfaces: {times}"))?;
        let median = times.percentile(50)?;
        ensure!(median <= SHOW_LIMIT, "{median:?}");
        Ok(())
    });

    /// A daemon on the bus that answers every query with these bytes, or never.
    struct Impostor {
        _queryable: Queryable<()>,
        _token: LivelinessToken,
        _session: Session,
    }

    fn impostor(answer: Option<Vec<u8>>) -> anyhow::Result<Impostor> {
        let failed = |err: zenoh::Error| anyhow!(err);
        let session = Route::router("tcp/127.0.0.1:7447").open()?;
        let token = session.liveliness().declare_token("tcgui/fake/health");
        let token = token.wait().map_err(failed)?;
        let unanswered = Mutex::new(Vec::new());
        let answer = move |query: Query| match &answer {
            Some(bytes) => {
                let key = query.key_expr().clone();
                query.reply(key, bytes.clone()).wait().ok();
            }
            // A query that is dropped is at its end.
            None => unanswered
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(query),
        };
        let queryable = session
            .declare_queryable("tcgui/fake/query/**")
            .callback(answer);
        Ok(Impostor {
            _queryable: queryable.wait().map_err(failed)?,
            _token: token,
            _session: session,
        })
    }

    const ASKING: [&str; 5] = [
        "show",
        "apply eth0 --delay 10ms",
        "up eth0",
        "scenario list",
        "diagnose eth0",
    ];

    lab_test!(an_answer_that_is_garbage_is_a_failure, |_| {
        for bytes in [b"\xff\x00{".to_vec(), b"[]".to_vec(), vec![b'['; 10 << 20]] {
            let _impostor = impostor(Some(bytes))?;
            for args in ASKING {
                line(args)?.ends(1, &["answer"])?;
            }
        }
        Ok(())
    });

    lab_test!(a_daemon_that_ends_before_its_answer_ends_the_verb, |_| {
        let impostor = impostor(None)?;
        let mut waiting = Daemon::start(&[], &["show", "--timeout", "60s"])?;
        holds_for("it waits", Duration::from_secs(1), || (), |()| true)?;
        waiting.ensure_alive()?;
        drop(impostor);
        let status = waiting.wait(SOON)?;
        let err = waiting.stderr();
        ensure!(status.code() == Some(3), "{status}: {err}");
        ensure!(err.contains("it has ended"), "{err}");
        Ok(())
    });

    lab_test!(a_verb_ends_if_the_daemon_is_killed_at_any_moment, |scene| {
        started(scene)?;
        let mut random = Random::new(11);
        for round in 0..8 {
            let args = ["up", "lab/v0", "lab/v1", "--timeout", "3s"];
            let mut verb = Daemon::start(&[], &args)?;
            let pause = Duration::from_millis(u64::try_from(random.below(80))?);
            holds_for("a pause", pause, || (), |()| true)?;
            scene.take_daemon()?.crash()?;
            let status = verb.wait(SOON * 2)?;
            let (out, err) = (verb.stdout(), verb.stderr());
            // Done before, not reached or without an answer; or so for one of the two.
            let is_expected = [0, 3, 6, 7].map(Some).contains(&status.code());
            let is_explained = status.success() || !err.is_empty();
            ensure!(
                is_expected && is_explained && !err.contains("panicked"),
                "round {round} after {pause:?}: {status}: {out}{err}"
            );
            scene.start_daemon::<&str>(&[])?;
        }
        Ok(())
    });

    lab_test!(an_answer_that_never_comes_ends_with_6, |_| {
        let _impostor = impostor(None)?;
        for args in ASKING {
            line(&format!("{args} --timeout 500ms"))?.ends(6, &["within 500ms", "--timeout"])?;
        }
        line("run eth0 --delay 10ms --timeout 500ms -- true")?.ends(125, &["within 500ms"])?;
        Ok(())
    });
}
