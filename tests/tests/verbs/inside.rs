//! The verbs on a kernel with netem, compared with the state of the kernel.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tcgui_tests::lab::Kind;
use tcgui_tests::links::{attribute, ip};
use tcgui_tests::process::{self, run};
use tcgui_tests::random::Random;
use tcgui_tests::scene::{SOON, Scene};
use tcgui_tests::verbs::{line, verb};
use tcgui_tests::wait::{holds_for, patience, wait_for};
use tcgui_tests::{daemon, lab_test, measure, netns};

const FAR: (&str, &str) = ("blue", "far");

/// The root qdisc of `far`, as `tc` prints it.
fn root() -> anyhow::Result<String> {
    let listed = run(Command::new("tc").args(["-n", FAR.0, "qdisc", "show", "dev", FAR.1]))?;
    let root = listed.lines().find(|line| line.contains(" root "));
    Ok(root.unwrap_or_default().to_owned())
}

fn wait_root(text: &str, is_there: bool) -> anyhow::Result<()> {
    wait_for(
        &format!("{text} is at the root: {is_there}"),
        SOON,
        root,
        |root| {
            root.as_ref()
                .is_ok_and(|root| root.contains(text) == is_there)
        },
    )?
    .map(drop)
}

/// A daemon, and a veth from the host into the namespace `blue`.
fn started(scene: &mut Scene) -> anyhow::Result<()> {
    netns::add(FAR.0)?;
    netns::ip_line("link add near type veth peer name far netns blue")?;
    ip("default", "link set near up")?;
    ip(FAR.0, "link set far up")?;
    scene.start()?;
    attribute(scene, FAR, "is_up", true)
}

/// What `show` prints of `far`.
fn shown() -> anyhow::Result<Value> {
    let document = line("show blue/far --json")?.ends(0, &[])?.document()?;
    Ok(document["interfaces"][0].clone())
}

/// `run` with a command of the shell, which has begun. The command begins after the answer of the daemon. Before that, `run`
/// would report a daemon that has ended.
fn running_command(command: &str, options: &[&str]) -> anyhow::Result<Child> {
    let directory = tempfile::tempdir()?;
    let begun = directory.path().join("begun");
    let command = format!("touch {} && {command}", begun.display());
    let child = running(&[options, &["--", "sh", "-c", &command]].concat())?;
    wait_for("the command has begun", SOON, || begun.exists(), |it| *it)?;
    Ok(child)
}

/// `run` with a command, in the background.
fn running(args: &[&str]) -> anyhow::Result<Child> {
    // An emulated processor needs longer for each renewal too.
    let ttl = format!("{}s", 10 * patience());
    let has_ttl = args.contains(&"--ttl");
    let default: &[&str] = if has_ttl { &[] } else { &["--ttl", &ttl] };
    let child = process::bound_to_parent(daemon::binary()?)
        .args(["run", "blue/far", "--delay", "33ms"])
        .args(default)
        .args(args)
        // In the foreground of a terminal, SIGINT would not be passed on.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    child.context("start run")
}

lab_test!(
    #[ignore = "needs netem"]
    an_impairment_is_applied_shown_changed_and_cleared,
    |scene| {
        started(scene)?;
        let printed = line("apply blue/far --delay 100ms --jitter 10ms --loss 1% --limit 1250")?;
        let printed = printed.ends(0, &[])?;
        let expected = "blue/far: delay 100 ms ± 10 ms, loss 1 %, queue 1250 packets\n";
        ensure!(printed.out == expected, "{printed:?}");
        ensure!(root()?.contains("delay 100ms"), "{}", root()?);
        let state = scene.client()?.state();
        let seen = state.tc(FAR.0, FAR.1).context("frontends were not told")?;
        ensure!(seen["configuration"]["delay_ms"] == 100.0, "{seen}");
        let far = shown()?;
        ensure!(far["netem"]["jitter_ms"] == 10.0, "{far}");
        ensure!(far["set_by"]["kind"] == "client", "{far}");
        ensure!(
            far["since"].is_string() && far.get("expires_at").is_none(),
            "{far}"
        );

        line("apply blue/far --change --loss 2%")?.ends(0, &[])?;
        let far = shown()?;
        ensure!(
            far["netem"]["delay_ms"] == 100.0,
            "the delay is kept: {far}"
        );
        ensure!(far["netem"]["loss_percent"] == 2.0, "{far}");
        ensure!(far["netem"]["limit_packets"] == 1250, "{far}");
        line("apply blue/far --rate 10mbit")?.ends(0, &[])?;
        let far = shown()?;
        ensure!(
            far["netem"].get("delay_ms").is_none(),
            "what is not given is off: {far}"
        );

        let before = root()?;
        let dry = line("apply blue/far --delay 7ms --dry-run --json")?
            .ends(0, &[])?
            .document()?;
        ensure!(
            dry["dry_run"] == true && dry["results"][0]["netem"]["delay_ms"] == 7.0,
            "{dry}"
        );
        ensure!(root()? == before, "{}", root()?);
        line("apply blue/far --delay 1h --dry-run")?.ends(1, &["delay"])?;

        let cleared = line("clear blue/far")?.ends(0, &[])?;
        ensure!(
            cleared.out.contains("removed rate 10 Mbit/s"),
            "{cleared:?}"
        );
        let again = line("clear blue/far")?.ends(0, &[])?;
        ensure!(again.out == "blue/far: no impairment\n", "{again:?}");
        wait_root("netem", false)
    }
);

lab_test!(
    #[ignore = "needs netem"]
    an_impairment_ends_or_is_confirmed,
    |scene| {
        started(scene)?;
        // Two verbs have to run before the end.
        let ttl = 3 * patience().min(4);
        let printed = line(&format!("apply blue/far --delay 5ms --ttl {ttl}s"))?.ends(0, &[])?;
        ensure!(printed.out.contains("; ends at "), "{printed:?}");
        ensure!(shown()?["expires_at"].is_string(), "{}", shown()?);
        wait_root("netem", false)?;
        line("confirm blue/far")?.ends(4, &[])?;
        let printed = line("apply blue/far --delay 5ms --confirm-within 60s")?.ends(0, &[])?;
        ensure!(
            printed.out.contains("unless it is confirmed"),
            "{printed:?}"
        );
        line("confirm blue/far")?.ends(0, &[])?;
        ensure!(shown()?.get("confirm_by").is_none(), "{}", shown()?);
        let all = line("clear --all")?.ends(0, &[])?;
        ensure!(all.out.contains("blue/far: removed delay 5 ms"), "{all:?}");
        line("wait-for clear blue/far")?.ends(0, &[]).map(drop)
    }
);

lab_test!(
    #[ignore = "needs netem"]
    several_targets_and_patterns_are_applied_and_reported,
    |scene| {
        started(scene)?;
        line("apply blue/* near --delay 5ms")?.ends(0, &[])?;
        let lo = line("show blue/lo --json")?.ends(0, &[])?.document()?;
        ensure!(
            lo["interfaces"][0].get("netem").is_none(),
            "a pattern spares lo: {lo}"
        );
        let partly = line("apply blue/far blue/gone --delay 6ms --json")?.ends(7, &[])?;
        let document = partly.document()?;
        ensure!(document["results"][1]["error"]["status"] == 4, "{document}");
        line("apply nothing*/* --delay 6ms")?.ends(4, &["nothing*/*"])?;
        line("clear --all")?.ends(0, &[])?;
        run(Command::new("tc")
            .args(["-n", "blue", "qdisc", "add", "dev", "far"])
            .args(["root", "handle", "1:", "htb", "default", "1"]))?;
        line("apply blue/far --delay 5ms")?.ends(5, &["htb 1:", "--replace-foreign-qdiscs"])?;
        let delayed = std::thread::spawn(|| ip("blue", "link add late type veth peer name other"));
        line("apply blue/late --delay 5ms --wait 20s")?.ends(0, &[])?;
        delayed
            .join()
            .map_err(|_| anyhow::anyhow!("the thread has panicked"))??;
        ip("blue", "link del late").map(drop)
    }
);

lab_test!(
    #[ignore = "needs netem"]
    a_scenario_is_started_watched_and_stopped,
    |scene| {
        started(scene)?;
        let file = tempfile::NamedTempFile::new()?;
        let text = r#"{id: "two", name: "Two steps", description: "", steps: [
            {duration: "1s", description: "slow", tc_config: {delay: {base_ms: 5}}},
            {duration: "1s", description: "lossy", tc_config: {loss: {percentage: 5}}}]}"#;
        std::fs::write(file.path(), text)?;
        line(&format!("scenario add {}", file.path().display()))?.ends(0, &[])?;
        let waited = line("scenario start two blue/far --wait")?.ends(0, &[])?;
        ensure!(waited.out == "blue/far: completed\n", "{waited:?}");
        line("clear blue/far")?.ends(0, &[])?;
        line("scenario start two blue/far --loop")?.ends(0, &[])?;
        let status = line("scenario status --json")?.ends(0, &[])?.document()?;
        let scenario = &status["interfaces"][0]["scenario"];
        ensure!(
            scenario["id"] == "two" && scenario["steps"] == 2,
            "{status}"
        );
        line("scenario start two blue/far")?.ends(6, &["already running"])?;
        line("wait-for scenario blue/far --timeout 500ms")?.ends(6, &[])?;
        line("scenario pause blue/far")?.ends(0, &[])?;
        let status = line("scenario status")?.ends(0, &[])?;
        ensure!(status.out.contains("paused"), "{status:?}");
        line("scenario resume blue/far")?.ends(0, &[])?;
        line("scenario stop */*")?.ends(0, &[])?;
        wait_root("netem", false)
    }
);

lab_test!(
    #[ignore = "needs netem"]
    run_impairs_while_a_command_runs_and_restores_what_was_before,
    |scene| {
        started(scene)?;
        line("apply blue/far --delay 3ms")?.ends(0, &[])?;
        let inside = "tc -n blue qdisc show dev far; exit 9";
        let run = |more: &[&str]| {
            verb(&[&["run", "blue/far", "--delay", "33ms", "--"][..], more].concat())
        };
        let printed = run(&["sh", "-c", inside])?.ends(9, &[])?;
        ensure!(printed.out.contains("delay 33ms"), "{printed:?}");
        ensure!(root()?.contains("delay 3ms"), "{}", root()?);
        run(&["/no/such/command"])?.ends(127, &["/no/such/command"])?;
        run(&["/etc/passwd"])?.ends(126, &["/etc/passwd"])?;
        run(&["sh", "-c", "kill -TERM $$"])?.ends(128 + 15, &[])?;
        ensure!(root()?.contains("delay 3ms"), "{}", root()?);
        line("run blue/gone --delay 33ms -- true")?.ends(125, &["gone"])?;
        line("run blue/far blue/gone --delay 33ms -- true")?.ends(125, &["gone"])?;
        ensure!(
            root()?.contains("delay 3ms"),
            "nothing is left half: {}",
            root()?
        );
        line("clear blue/far")?.ends(0, &[]).map(drop)
    }
);

lab_test!(
    #[ignore = "needs netem"]
    a_nested_run_is_refused_and_names_the_holder,
    |scene| {
        started(scene)?;
        let mut outer = running(&["--", "sleep", "60"])?;
        wait_root("delay 33ms", true)?;
        ensure!(
            shown()?["set_by"]["name"].to_string().contains("sleep"),
            "{}",
            shown()?
        );
        line("run blue/far --delay 5ms -- true")?.ends(125, &["held by", "sleep"])?;
        ensure!(root()?.contains("delay 33ms"), "{}", root()?);
        process::signal(outer.id(), Signal::SIGTERM)?;
        let status = outer.wait()?;
        ensure!(
            status.code() == Some(128 + 15),
            "that of the command: {status}"
        );
        wait_root("netem", false)
    }
);

lab_test!(
    #[ignore = "needs netem"]
    signals_end_the_command_and_the_interface_is_restored,
    |scene| {
        started(scene)?;
        for signal in [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGQUIT,
            Signal::SIGUSR1,
        ] {
            let mut child = running_command("exec sleep 60", &[])?;
            process::signal(child.id(), signal)?;
            let status = child.wait()?;
            ensure!(
                status.code() == Some(128 + signal as i32),
                "{signal}: {status}"
            );
            ensure!(!root()?.contains("netem"), "{signal}: {}", root()?);
        }
        Ok(())
    }
);

lab_test!(
    #[ignore = "needs netem"]
    a_change_by_another_client_while_a_command_runs_stays,
    |scene| {
        started(scene)?;
        let mut child = running(&["--ttl", "5s", "--", "sleep", "8"])?;
        wait_root("delay 33ms", true)?;
        let request = json!({"namespace": "blue", "interface": "far",
            "operation": {"Apply": {"loss": 0.0, "delay_ms": 44.0}}});
        let (reply, _) = scene.client()?.ask("tc", &request)?;
        ensure!(reply["success"] == true, "{reply}");
        let status = child.wait()?;
        ensure!(status.success(), "{status}");
        ensure!(root()?.contains("delay 44ms"), "{}", root()?);
        line("clear blue/far")?.ends(0, &[]).map(drop)
    }
);

lab_test!(
    #[ignore = "needs netem"]
    run_goes_on_over_a_restart_of_the_daemon,
    |scene| {
        started(scene)?;
        let mut child = running_command("sleep 25", &["--ttl", "30s"])?;
        scene.take_daemon()?.crash()?;
        scene.start_daemon::<&str>(&[])?;
        holds_for(
            "it is still impaired",
            Duration::from_secs(5),
            root,
            |root| root.as_ref().is_ok_and(|root| root.contains("delay 33ms")),
        )?;
        let output = child.wait()?;
        ensure!(output.success(), "{output}");
        wait_root("netem", false)
    }
);

lab_test!(
    #[ignore = "needs netem"]
    nothing_is_left_after_run_was_killed_at_any_moment,
    |scene| {
        started(scene)?;
        line("apply blue/far --delay 3ms")?.ends(0, &[])?;
        let mut random = Random::new(7);
        for round in 0..12 {
            let mut child = running(&["--ttl", "1s", "--", "sleep", "60"])?;
            let pause = Duration::from_millis(u64::try_from(random.below(1500))?);
            let pause = pause * patience().min(3);
            holds_for("a pause", pause, || (), |()| true)?;
            child.kill()?;
            child.wait()?;
            wait_root("delay 3ms", true)
                .with_context(|| format!("round {round}, after {pause:?}"))?;
        }
        // The commands of killed runs go on, and end with this test.
        line("clear blue/far")?.ends(0, &[]).map(drop)
    }
);

lab_test!(
    #[ignore = "needs netem"]
    two_hundred_interfaces_are_impaired_at_once,
    Kind::Alone,
    |scene| {
        netns::add("lab1")?;
        for number in 0..100 {
            let pair = format!("link add v{number} type veth peer name w{number}");
            ip("lab1", &pair)?;
        }
        scene.start()?;
        scene.wait_for("all are listed", |state| {
            state.interface("lab1", "v99").is_some()
        })?;
        let begun = Instant::now();
        let printed = line("apply lab*/* --delay 5ms")?.ends(0, &[])?;
        let time = begun.elapsed();
        ensure!(printed.out.lines().count() == 200, "{printed:?}");
        measure::report(format!("apply to 200 interfaces: {time:.1?}"))?;
        // An emulated processor needs 20 s for the requests of a debug build.
        let limit = Duration::from_secs(if patience() > 1 { 60 } else { 2 });
        ensure!(time <= limit, "{time:?}");
        let state = line("show lab1/* --impaired --json")?
            .ends(0, &[])?
            .document()?;
        let count = state["interfaces"].as_array().map_or(0, Vec::len);
        ensure!(count == 200, "{count} are impaired");
        line("clear --all")?.ends(0, &[]).map(drop)
    }
);
