//! `explain` and `namespaces`: commands for an operator who misses a namespace.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;
    use std::process::Command;
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use anyhow::{Context, anyhow, ensure};
    use serde_json::{Value, json};
    use tcgui_tests::daemon::{self, Daemon};
    use tcgui_tests::doorbells::Limit;
    use tcgui_tests::engines::{Engine, Kind as Which};
    use tcgui_tests::frontend::Route;
    use tcgui_tests::lab::Kind;
    use tcgui_tests::links::attribute;
    use tcgui_tests::process::run;
    use tcgui_tests::scene::{SOON, Scene};
    use tcgui_tests::wait::wait_for;
    use tcgui_tests::{lab_test, netns};
    use zenoh::liveliness::LivelinessToken;
    use zenoh::query::{Query, Queryable};
    use zenoh::{Session, Wait};

    /// Time limit for a command, which normally takes milliseconds.
    const DEADLINE: Duration = Duration::from_secs(10);
    const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

    /// The output of a command.
    #[derive(Debug)]
    struct Answer {
        status: Option<i32>,
        out: String,
        err: String,
    }

    fn command_as(privileges: &[&str], args: &[&str]) -> anyhow::Result<Answer> {
        let args: Vec<_> = args.iter().map(OsStr::new).collect();
        let output = daemon::run(privileges, &args, DEADLINE)?;
        let answer = Answer {
            status: output.status.code(),
            out: String::from_utf8(output.stdout)?,
            err: String::from_utf8(output.stderr)?,
        };
        ensure!(!answer.err.contains("panicked"), "{answer:?}");
        Ok(answer)
    }

    fn command(args: &[&str]) -> anyhow::Result<Answer> {
        command_as(&[], args)
    }

    /// Returns the explanation of a name, and checks the exit status.
    fn explained(name: &str) -> anyhow::Result<Value> {
        explained_with(&[], name)
    }

    fn explained_with(options: &[&str], name: &str) -> anyhow::Result<Value> {
        let answer = command(&[options, &["explain", "--json", "--", name]].concat())?;
        let value: Value =
            serde_json::from_str(&answer.out).with_context(|| format!("{answer:?}"))?;
        let expected = if value["listed"] == true { 0 } else { 1 };
        ensure!(answer.status == Some(expected), "{answer:?}");
        Ok(value)
    }

    fn first_code(explanation: &Value) -> &str {
        explanation["reasons"][0]["code"].as_str().unwrap_or("")
    }

    fn has_code(explanation: &Value, code: &str) -> bool {
        let reasons = explanation["reasons"].as_array();
        reasons.is_some_and(|all| all.iter().any(|reason| reason["code"] == code))
    }

    /// Returns the time since the last notification of a doorbell in ms.
    fn rang(explanation: &Value, name: &str) -> Option<u64> {
        let doorbells = explanation["doorbells"].as_array()?;
        let found = doorbells
            .iter()
            .find(|bell| bell["name"].as_str().is_some_and(|it| it.contains(name)))?;
        found["rang_ms_ago"].as_u64()
    }

    /// Creates one entry of each kind in the directory.
    fn furnish() -> anyhow::Result<()> {
        netns::add("lab")?;
        let file = netns::path("placeholder");
        fs::write(&file, "")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o000))?;
        fs::write(netns::path("text"), "not a namespace")?;
        fs::create_dir(netns::path("dir"))?;
        run(Command::new("mkfifo").arg(netns::path("fifo")))?;
        symlink("/proc/self/ns/uts", netns::path("uts"))?;
        symlink("/nowhere/at/all", netns::path("dangling"))?;
        symlink("/dev/zero", netns::path("device"))?;
        Ok(())
    }

    const KINDS: [(&str, &str); 13] = [
        ("default", "Listed"),
        ("lab", "Listed"),
        ("placeholder", "Placeholder"),
        ("text", "NotANamespace"),
        ("dir", "NotANamespace"),
        ("fifo", "NotANamespace"),
        ("uts", "OtherType"),
        ("dangling", "DanglingLink"),
        ("device", "NotANamespace"),
        ("missing", "NoEntry"),
        ("container:web", "NoContainer"),
        ("pid:999999999(sleep)", "NoProcess"),
        ("../../etc/passwd", "InvalidName"),
    ];

    fn each_kind_is_explained(backend: &Value) -> anyhow::Result<()> {
        for (name, code) in KINDS {
            let explanation = explained(name)?;
            ensure!(first_code(&explanation) == code, "{name}: {explanation}");
            ensure!(
                code == "InvalidName" || explanation["backend"] == *backend,
                "{name}: {explanation}"
            );
        }
        let lab = explained("lab")?;
        ensure!(lab["interfaces"] == json!(["lo"]), "{lab}");
        ensure!(lab["entry"]["file_system"] == "nsfs", "{lab}");
        let mount = lab["entry"]["mount"].as_str().unwrap_or_default();
        ensure!(mount.contains("/run/netns/lab"), "{lab}");
        ensure!(lab["missing_capabilities"] == json!([]), "{lab}");
        Ok(())
    }

    lab_test!(without_a_daemon_explain_scans_the_host_itself, |_| {
        let nothing = explained("lab")?;
        ensure!(first_code(&nothing) == "NoDirectory", "{nothing}");
        furnish()?;
        each_kind_is_explained(&Value::Null)?;
        let answer = command(&["explain", "lab"])?;
        ensure!(answer.err.contains("looking without one"), "{answer:?}");
        ensure!(answer.out.starts_with("lab: listed"), "{answer:?}");
        Ok(())
    });

    lab_test!(
        without_a_daemon_engines_and_processes_are_queried,
        Kind::Engines,
        |_| {
            let docker = Engine::start(Which::Docker)?;
            docker.start_container("web", &["--network", "none"])?;
            let process = format!("pid:{}(sleep)", docker.pid_of("web")?);
            let other = process.replace("sleep", "slept");
            for (options, name, code) in [
                (&[][..], "container:web", "Listed"),
                (&["--process-namespaces"], &process, "Listed"),
                (&["--process-namespaces"], &other, "NoProcess"),
                (&[], &process, "NoProcess"),
                (&["--no-containers"], "container:web", "NoContainer"),
            ] {
                let explanation = explained_with(options, name)?;
                ensure!(
                    first_code(&explanation) == code,
                    "{options:?}: {explanation}"
                );
                ensure!(explanation["backend"].is_null(), "{explanation}");
                let seen = if code == "Listed" {
                    json!(["lo"])
                } else {
                    Value::Null
                };
                ensure!(explanation["interfaces"] == seen, "{explanation}");
            }
            docker.remove(&["web"])?;
            let explanation = explained("container:web")?;
            ensure!(first_code(&explanation) == "NoContainer", "{explanation}");
            docker.stop()
        }
    );

    lab_test!(a_running_daemon_is_queried, |scene| {
        scene.start()?;
        furnish()?;
        scene.wait_named(&["lab"])?;
        // Cause a link event, so that each doorbell has reported something.
        netns::ip_line("-n lab link set lo up")?;
        attribute(scene, ("lab", "lo"), "is_up", true)?;
        each_kind_is_explained(&json!("default"))?;
        let answer = command(&["explain", "lab"])?;
        ensure!(answer.err.is_empty(), "{answer:?}");
        ensure!(
            answer.out.contains("by the daemon \"default\""),
            "{answer:?}"
        );
        let lab = explained("lab")?;
        for bell in [
            "parent",
            "netns directory",
            "mount table",
            "sweep",
            "netlink",
        ] {
            let ago = rang(&lab, bell).with_context(|| format!("no {bell} in {lab}"))?;
            ensure!(ago < 60_000, "{bell}: {lab}");
        }
        symlink("/run/netns/lab", netns::path("alias"))?;
        scene.wait_named(&["lab", "alias"])?;
        let alias = explained("alias")?;
        ensure!(first_code(&alias) == "Listed", "{alias}");
        let stranger = command(&["explain", "--backend", "other", "lab"])?;
        ensure!(stranger.err.contains("there is default"), "{stranger:?}");
        fs::remove_dir(netns::path("dir"))?;
        Ok(())
    });

    lab_test!(invalid_explain_requests_get_an_error_reply, |scene| {
        scene.start()?;
        let client = scene.client()?;
        let (answer, _) = client.ask_raw("explain", None)?;
        ensure!(answer["success"] == false, "{answer}");
        ensure!(answer["error_kind"] == "Invalid", "{answer}");
        let (answer, _) = client.ask("explain", &json!({"namespace": "a/b"}))?;
        ensure!(
            first_code(&answer["explanation"]) == "InvalidName",
            "{answer}"
        );
        let long = "x".repeat(4000);
        let (answer, _) = client.ask("explain", &json!({ "namespace": long }))?;
        ensure!(
            first_code(&answer["explanation"]) == "InvalidName",
            "{answer}"
        );
        Ok(())
    });

    lab_test!(many_concurrent_explain_requests_are_all_answered, |scene| {
        scene.start()?;
        netns::add("lab")?;
        scene.wait_named(&["lab"])?;
        let client = scene.client()?;
        let question = json!({"namespace": "lab"}).to_string();
        let key = "tcgui/default/query/explain";
        let asked: Vec<_> = (0..200)
            .map(|_| client.begin(key, Some(question.as_bytes())))
            .collect::<Result<_, _>>()?;
        let mut explained = 0;
        for asked in asked {
            let answer = asked.reply()?;
            let busy = answer["error_kind"] == "Busy";
            ensure!(busy || answer["success"] == true, "{answer}");
            explained += usize::from(!busy);
        }
        ensure!(explained > 0, "nothing was explained");
        scene.ping().map(drop)
    });

    lab_test!(a_missing_doorbell_is_reported, Kind::OwnLimits, |scene| {
        let limit = Limit::zero("max_inotify_instances")?;
        scene.start()?;
        netns::add("lab")?;
        scene.wait_named(&["lab"])?;
        let lab = explained("lab")?;
        ensure!(first_code(&lab) == "Listed", "{lab}");
        ensure!(has_code(&lab, "DoorbellMissing"), "{lab}");
        let shown = lab["limits"].to_string();
        ensure!(shown.contains("user.max_inotify_instances"), "{lab}");
        limit.raise()
    });

    lab_test!(mounts_that_do_not_propagate_are_suspected, |scene| {
        scene.wrap_daemon(&["unshare", "-m", "--propagation", "private"]);
        scene.start()?;
        netns::add("lab")?;
        let why = wait_for(
            "the daemon has noticed the file",
            SOON,
            || explained("lab"),
            |why| {
                why.as_ref()
                    .is_ok_and(|why| first_code(why) == "Placeholder")
            },
        )??;
        ensure!(has_code(&why, "NotPropagated"), "{why}");
        ensure!(why["propagation"] == "private", "{why}");
        netns::del("lab")
    });

    lab_test!(missing_privileges_are_reported, |_| {
        netns::add("lab")?;
        let answer = command_as(&NOBODY, &["explain", "lab"])?;
        ensure!(answer.out.contains("CAP_NET_ADMIN"), "{answer:?}");
        ensure!(answer.out.contains("network namespace"), "{answer:?}");
        ensure!(answer.status == Some(1), "{answer:?}");
        let answer = command_as(&NOBODY, &["namespaces"])?;
        ensure!(answer.status == Some(0), "{answer:?}");
        ensure!(answer.out.contains("lab"), "{answer:?}");
        Ok(())
    });

    /// Returns the events of `namespaces --json` so far: event, namespace, interface names.
    fn events(text: &str) -> anyhow::Result<Vec<(String, String, BTreeSet<String>)>> {
        let words = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        let event = |line: &str| {
            let line: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            let namespace = &line["namespace"];
            let interfaces = namespace["interfaces"].as_array().into_iter().flatten();
            let interfaces = interfaces.map(|it| words(&it["name"])).collect();
            Ok((words(&line["event"]), words(&namespace["name"]), interfaces))
        };
        complete.lines().map(event).collect()
    }

    fn wait_event(
        watch: &Daemon,
        event: &str,
        name: &str,
        interface: Option<&str>,
    ) -> anyhow::Result<()> {
        let seen = |events: &anyhow::Result<Vec<(String, String, BTreeSet<String>)>>| {
            events.as_ref().is_ok_and(|events| {
                events.iter().any(|(kind, netns, interfaces)| {
                    let has = interface.is_none_or(|it| interfaces.contains(it));
                    kind == event && netns == name && has
                })
            })
        };
        let what = format!("{event} {name} {interface:?}");
        wait_for(&what, SOON, || events(&watch.stdout()), seen)?.map(drop)
    }

    /// Checks the events of added and removed namespaces. The namespace `old` exists before the start.
    fn expect_that_a_watch_reports_changes() -> anyhow::Result<()> {
        let mut watch = Daemon::start(&[], &["namespaces", "--watch", "--json"])?;
        wait_event(&watch, "present", "default", Some("lo"))?;
        wait_event(&watch, "present", "old", Some("lo"))?;
        netns::add("new")?;
        wait_event(&watch, "added", "new", Some("lo"))?;
        netns::ip_line("-n new link add d0 type dummy")
            .or_else(|_| netns::ip_line("-n new link add d0 type veth peer name d1"))?;
        wait_event(&watch, "changed", "new", Some("d0"))?;
        netns::del("new")?;
        wait_event(&watch, "removed", "new", None)?;
        watch.ensure_alive()
    }

    lab_test!(namespaces_are_followed_through_the_daemon, |scene| {
        scene.start()?;
        netns::add("old")?;
        scene.wait_named(&["old"])?;
        expect_that_a_watch_reports_changes()
    });

    lab_test!(namespaces_are_followed_without_a_daemon, |_| {
        netns::add("old")?;
        expect_that_a_watch_reports_changes()
    });

    lab_test!(a_daemon_that_ends_removes_its_list, |scene| {
        scene.start()?;
        let watch = Daemon::start(&[], &["namespaces", "--watch", "--json"])?;
        wait_event(&watch, "present", "default", Some("lo"))?;
        scene.take_daemon()?.stop()?;
        wait_event(&watch, "removed", "default", None)?;
        scene.start_daemon::<&str>(&[])?;
        wait_event(&watch, "added", "default", Some("lo"))
    });

    /// A backend whose replies the test controls.
    struct Impostor {
        session: Session,
        _token: LivelinessToken,
    }

    impl Impostor {
        fn appear() -> anyhow::Result<Self> {
            let session = Route::router("tcp/127.0.0.1:7447").open()?;
            let token = session.liveliness().declare_token("tcgui/default/health");
            let token = token.wait().map_err(|err| anyhow!(err))?;
            Ok(Self {
                session,
                _token: token,
            })
        }

        /// Replies to every query with this payload.
        fn answers(&self, payload: Vec<u8>) -> anyhow::Result<Queryable<()>> {
            let key = "tcgui/default/query/explain";
            let answer = move |query: Query| {
                // The client may have timed out.
                query.reply(key, payload.clone()).wait().ok();
            };
            let declared = self.session.declare_queryable(key).callback(answer).wait();
            declared.map_err(|err| anyhow!(err))
        }
    }

    lab_test!(a_daemon_that_lies_or_hangs_blocks_no_command, |_| {
        netns::add("lab")?;
        let impostor = Impostor::appear()?;
        let older = command(&["explain", "lab"])?;
        ensure!(older.status == Some(0), "{older:?}");
        ensure!(older.err.contains("does not answer"), "{older:?}");
        let mute = command(&["namespaces"])?;
        ensure!(mute.status == Some(2), "{mute:?}");
        ensure!(mute.err.contains("sent no list"), "{mute:?}");

        let held = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&held);
        let hangs = impostor
            .session
            .declare_queryable("tcgui/default/query/explain")
            .callback(move |query| keep.lock().unwrap().push(query))
            .wait()
            .map_err(|err| anyhow!(err))?;
        let begun = Instant::now();
        let answer = command(&["explain", "lab"])?;
        ensure!(answer.status == Some(0), "{answer:?}");
        ensure!(answer.err.contains("does not answer"), "{answer:?}");
        ensure!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        drop(hangs);

        let lies = impostor.answers(b"\xff{".to_vec())?;
        let answer = command(&["explain", "lab"])?;
        ensure!(answer.status == Some(2), "{answer:?}");
        ensure!(answer.err.contains("not understood"), "{answer:?}");
        drop(lies);

        let evil = "\u{1b}[2J\u{7}".repeat(1_000_000);
        let failure =
            json!({"success": false, "message": evil, "explanation": null, "error_code": -1});
        let floods = impostor.answers(failure.to_string().into_bytes())?;
        let answer = command(&["explain", "lab"])?;
        ensure!(answer.status == Some(2), "status {:?}", answer.status);
        ensure!(
            !answer.err.contains('\u{1b}'),
            "escape sequences reach the terminal"
        );
        drop(floods);
        Ok(())
    });

    fn table_has(scene: &Scene, words: &[&str]) -> anyhow::Result<()> {
        let answer = command(&["namespaces"])?;
        ensure!(
            answer.status == Some(0) && answer.err.is_empty(),
            "{answer:?}"
        );
        for word in words {
            ensure!(answer.out.contains(word), "no {word} in {answer:?}");
        }
        scene.ping().map(drop)
    }

    lab_test!(namespaces_prints_a_table, |scene| {
        scene.start()?;
        netns::add("lab")?;
        scene.wait_named(&["lab"])?;
        table_has(scene, &["BACKEND", "default  lab        named  lo(down)"])?;
        let lines = command(&["namespaces", "--json"])?;
        let expected = scene.client()?.state();
        let expected = expected.namespace("lab").context("it is listed")?;
        let line = lines.out.lines().find(|line| line.contains("\"lab\""));
        let line: Value = serde_json::from_str(line.context("no line about it")?)?;
        ensure!(
            line == json!({"event": "present", "backend": "default", "namespace": expected}),
            "{line}"
        );
        let none = command(&["namespaces", "--backend", "other"])?;
        ensure!(none.err.contains("no daemon named \"other\""), "{none:?}");
        Ok(())
    });

    lab_test!(invalid_arguments_end_with_2, |_| {
        for args in [
            &["explain"][..],
            &["explain", "--connect", "nonsense", "lab"],
            &["explain", "--backend", "a/b", "lab"],
            &["namespaces", "--backend", "*"],
            &["namespaces", "--connect", "tcp/:1"],
        ] {
            let answer = command(args)?;
            ensure!(answer.status == Some(2), "{args:?}: {answer:?}");
            ensure!(!answer.err.is_empty(), "{args:?}: {answer:?}");
        }
        let file = tempfile::NamedTempFile::new()?;
        let path = file.path().to_string_lossy().into_owned();
        let answer = command(&["namespaces", "--netns-dir", &path])?;
        ensure!(answer.status == Some(2), "{answer:?}");
        let answer = command(&["explain", "--netns-dir", &path, "lab"])?;
        ensure!(answer.status == Some(1), "{answer:?}");
        ensure!(answer.out.contains("is no directory"), "{answer:?}");
        ensure!(Path::new(&path).is_file(), "it was touched");
        Ok(())
    });

    lab_test!(help_contains_examples, |_| {
        for (command_name, words) in [
            ("explain", ["container:web", "Exit status", "--json"]),
            ("namespaces", ["--watch", "Exit status", "jq"]),
        ] {
            let answer = command(&[command_name, "--help"])?;
            for word in words {
                ensure!(answer.out.contains(word), "{command_name}: no {word}");
            }
        }
        Ok(())
    });
}
