//! Leases that end, and configurations that are restored or left unchanged.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tcgui_tests::daemon;
use tcgui_tests::links::attribute;
use tcgui_tests::process::{bound_to_parent, run};
use tcgui_tests::scene::{SOON, Scene};
use tcgui_tests::wait::{holds_for, patience, wait_for};
use tcgui_tests::{lab_test, netns};

use crate::pair::{FAR, pair, root, started_with_pair, tc};

const STATE: &str = "/var/lib/tcgui";

/// Returns the lifetime in ms of a change that ends during a test. The commands of the test must run before the end.
pub(crate) fn short_ms() -> u64 {
    1500 * u64::from(patience().min(3))
}

/// Requests a delay in ms. `more` contains further members of the request.
pub(crate) fn delay_request((namespace, interface): (&str, &str), ms: u64, more: &Value) -> Value {
    let operation = match ms {
        0 => json!("Remove"),
        _ => json!({ "Apply": {"loss": 0.0, "delay_ms": ms} }),
    };
    let mut request = json!({
        "namespace": namespace, "interface": interface, "operation": operation,
    });
    if let (Some(request), Some(more)) = (request.as_object_mut(), more.as_object()) {
        request.extend(more.clone());
    }
    request
}

/// Expects success.
pub(crate) fn delay(
    scene: &Scene,
    at: (&str, &str),
    ms: u64,
    more: &Value,
) -> anyhow::Result<Value> {
    let (reply, _) = scene.client()?.ask("tc", &delay_request(at, ms, more))?;
    ensure!(reply["success"] == true, "{reply}");
    Ok(reply)
}

fn refused(scene: &Scene, more: &Value, kind: &str, word: &str) -> anyhow::Result<()> {
    let (reply, _) = scene.client()?.ask("tc", &delay_request(FAR, 77, more))?;
    ensure!(
        reply["success"] == false && reply["error_kind"] == kind,
        "{reply}"
    );
    let message = reply["message"].as_str().unwrap_or_default();
    ensure!(message.contains(word), "no {word:?} in {message:?}");
    Ok(())
}

/// Waits until the root qdisc contains the text, or does not.
fn wait_root(text: &str, there: bool) -> anyhow::Result<String> {
    wait_for(
        &format!("{text} is there: {there}"),
        SOON,
        || root(FAR),
        |root| root.as_ref().is_ok_and(|root| root.contains(text) == there),
    )?
}

/// Checks that the root contains the text until after the end of a short lifetime.
fn wait_out(text: &str) -> anyhow::Result<()> {
    let period = Duration::from_millis(short_ms() + 500);
    holds_for(
        &format!("{text} stays"),
        period,
        || root(FAR),
        |root| root.as_ref().is_ok_and(|root| root.contains(text)),
    )
}

/// Returns the number of leases on disk.
pub(crate) fn leases() -> usize {
    let listed = fs::read_dir(Path::new(STATE).join("leases"));
    let names = listed.into_iter().flatten().flatten();
    names
        .filter(|entry| entry.path().extension() == Some(OsStr::new("json")))
        .count()
}

fn restore(args: &[&str]) -> anyhow::Result<Output> {
    let mut command = bound_to_parent(daemon::binary()?);
    let output = command.args(args).output();
    output.context("start the daemon's binary")
}

pub(crate) fn restores(args: &[&str], words: &str) -> anyhow::Result<()> {
    let output = restore(args)?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && text.contains(words),
        "no {words:?}: {output:?}"
    );
    Ok(())
}

lab_test!(
    #[ignore = "needs netem"]
    a_time_to_live_ends,
    |scene| {
        started_with_pair(scene)?;
        let short = json!({ "ttl_ms": short_ms() });
        let reply = delay(scene, FAR, 40, &short)?;
        ensure!(reply["expires_at"].is_u64(), "{reply}");
        ensure!(root(FAR)?.contains("delay 40ms"), "{}", root(FAR)?);
        ensure!(leases() == 1, "no lease on disk");
        wait_root("netem", false)?;
        scene.wait_for("the end is published", |state| {
            state
                .tc("blue", "far")
                .is_some_and(|it| it["has_tc"] == false)
        })?;
        ensure!(leases() == 0, "the lease is left on disk");
        // The netem of the administrator is restored with its handle.
        tc("blue", "qdisc add dev far root handle 5: netem delay 30ms")?;
        delay(scene, FAR, 41, &short)?;
        wait_root("netem 5: root", true)?;
        ensure!(root(FAR)?.contains("delay 30ms"), "{}", root(FAR)?);
        // A change without an end is restored after one with an end.
        delay(scene, FAR, 42, &Value::Null)?;
        delay(scene, FAR, 43, &short)?;
        wait_root("delay 42ms", true)?;
        // A change without an end that replaces one with an end stays.
        delay(scene, FAR, 44, &short)?;
        let reply = delay(scene, FAR, 45, &Value::Null)?;
        ensure!(
            reply["expires_at"].is_null() && leases() == 0,
            "{reply}, {} leases",
            leases()
        );
        wait_out("delay 45ms")?;
        delay(scene, FAR, 0, &Value::Null).map(drop)
    }
);

fn scenario(scene: &Scene, request: &Value) -> anyhow::Result<Value> {
    Ok(scene.client()?.ask("scenario/execution", request)?.0)
}

lab_test!(
    #[ignore = "needs netem"]
    a_time_to_live_continues_after_a_scenario,
    |scene| {
        started_with_pair(scene)?;
        let far = json!({"namespace": FAR.0, "interface": FAR.1});
        let mut start = far.clone();
        start["scenario_id"] = json!("mobile-degradation");
        for is_over in [false, true] {
            delay(scene, FAR, 40, &json!({ "ttl_ms": short_ms() }))?;
            let reply = scenario(scene, &json!({ "Start": start }))?;
            ensure!(reply["Started"].is_object(), "{reply}");
            wait_root("delay 5ms", true)?;
            if is_over {
                // The lease does not end while the scenario runs.
                wait_out("delay 5ms")?;
            }
            let reply = scenario(scene, &json!({ "Stop": far }))?;
            ensure!(reply["Stopped"]["success"] == true, "{reply}");
            wait_root("netem", false)?;
            wait_for("no lease is left", SOON, leases, |left| *left == 0)?;
        }
        Ok(())
    }
);

lab_test!(
    #[ignore = "needs netem"]
    a_confirmation_keeps,
    |scene| {
        started_with_pair(scene)?;
        let confirm = json!({"operation": "Confirm"});
        let within = json!({ "confirm_within_ms": short_ms() });
        refused(scene, &confirm, "NotFound", "confirm")?;
        delay(scene, FAR, 40, &within)?;
        wait_root("netem", false)?;
        delay(scene, FAR, 41, &within)?;
        delay(scene, FAR, 41, &confirm)?;
        ensure!(leases() == 0, "the lease is left on disk");
        wait_out("delay 41ms")?;
        refused(scene, &json!({"ttl_ms": 0}), "Invalid", "ttl_ms")?;
        delay(scene, FAR, 0, &Value::Null).map(drop)
    }
);

lab_test!(
    #[ignore = "needs netem"]
    a_lease_is_found_by_the_way_that_is_left,
    |scene| {
        let holder = netns::holder()?;
        netns::attach("blue", holder.pid())?;
        netns::ip_line("link add near type veth peer name far netns blue")?;
        symlink(netns::of_process(holder.pid()), netns::path("link"))?;
        scene.start()?;
        scene.wait_named(&["blue", "link"])?;
        attribute(scene, FAR, "is_up", false)?;
        delay(scene, FAR, 40, &json!({ "ttl_ms": 4 * short_ms() }))?;
        ensure!(leases() == 1, "no lease on disk");
        scene.take_daemon()?.crash()?;
        // The lease was made under the name that was seen first. Next time only the symbolic link exists.
        netns::del("blue")?;
        let left = ("link", "far");
        ensure!(root(left)?.contains("delay 40ms"), "{}", root(left)?);
        scene.start_daemon::<&str>(&[])?;
        scene.wait_named(&["link"])?;
        wait_for(
            "it ends",
            SOON,
            || root(left),
            |root| root.as_ref().is_ok_and(|root| !root.contains("netem")),
        )??;
        wait_for("no lease is left on disk", SOON, leases, |left| *left == 0).map(drop)
    }
);

lab_test!(
    #[ignore = "needs netem"]
    a_lease_does_not_restore_over_the_change_of_another_program,
    |scene| {
        started_with_pair(scene)?;
        let short = json!({ "ttl_ms": short_ms() });
        delay(scene, FAR, 40, &short)?;
        tc("blue", "qdisc change dev far root netem delay 50ms")?;
        wait_out("delay 50ms")?;
        let said = || scene.daemon().map(|daemon| daemon.stderr());
        wait_for("it is said", SOON, said, |log| {
            log.as_ref()
                .is_ok_and(|log| log.contains("somebody has changed"))
        })??;
        // A new namespace with the same name is another namespace.
        delay(scene, FAR, 41, &short)?;
        netns::del("blue")?;
        scene.wait_named::<&str>(&[])?;
        pair("blue")?;
        tc("blue", "qdisc add dev far root netem delay 41ms")?;
        wait_out("delay 41ms")?;
        netns::del("blue")
    }
);

lab_test!(
    #[ignore = "needs netem"]
    restored_by_hand,
    |scene| {
        started_with_pair(scene)?;
        let output = restore(&["restore"])?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(1) && text.contains("another tcgui-backend"),
            "{output:?}"
        );
        delay(scene, FAR, 40, &json!({ "ttl_ms": short_ms() }))?;
        scene.take_daemon()?.crash()?;
        // No daemon runs that could end it.
        wait_out("delay 40ms")?;
        restores(&["restore"], "far in blue: restored")?;
        ensure!(!root(FAR)?.contains("netem"), "{}", root(FAR)?);
        scene.start_daemon::<&str>(&[])?;
        attribute(scene, FAR, "is_up", true)?;
        delay(scene, FAR, 41, &json!({"ttl_ms": 600_000}))?;
        // An orderly stop does not end the lease. The command `restore` can end all leases.
        scene.take_daemon()?.stop()?;
        restores(&["restore"], "kept, it has not ended")?;
        ensure!(root(FAR)?.contains("delay 41ms"), "{}", root(FAR)?);
        restores(
            &["--state-dir", STATE, "restore", "--all"],
            "far in blue: restored",
        )?;
        ensure!(!root(FAR)?.contains("netem"), "{}", root(FAR)?);
        netns::clear()
    }
);

/// Changes the only lease on disk.
fn edit_lease(edit: impl FnOnce(&mut Value)) -> anyhow::Result<()> {
    let mut files = fs::read_dir(Path::new(STATE).join("leases"))?;
    let file = files.next().context("no lease")??.path();
    let mut lease: Value = serde_json::from_slice(&fs::read(&file)?)?;
    edit(&mut lease);
    Ok(fs::write(&file, lease.to_string())?)
}

lab_test!(
    #[ignore = "needs netem"]
    at_the_start_it_counts_whose_it_was,
    |scene| {
        started_with_pair(scene)?;
        let long = json!({"ttl_ms": 600_000});
        delay(scene, FAR, 40, &long)?;
        scene.take_daemon()?.crash()?;
        edit_lease(|it| it["lease"]["owner"] = json!({"scenario": {"id": "gone"}}))?;
        scene.start_daemon::<&str>(&[])?;
        wait_root("netem", false)?;
        // A lease of another boot restores nothing.
        delay(scene, FAR, 41, &json!({ "ttl_ms": short_ms() }))?;
        scene.take_daemon()?.crash()?;
        edit_lease(|it| it["boot_id"] = json!("another"))?;
        scene.start_daemon::<&str>(&[])?;
        ensure!(leases() == 0, "a lease of another boot is left");
        wait_out("delay 41ms")?;
        // An unreadable lease is kept for the administrator, and does not block other leases.
        delay(scene, FAR, 42, &long)?;
        scene.take_daemon()?.crash()?;
        edit_lease(|it| it["lease"] = json!("unreadable"))?;
        scene.start_daemon::<&str>(&[])?;
        let log = scene.daemon()?.stderr();
        ensure!(log.contains("set aside"), "{log}");
        ensure!(root(FAR)?.contains("delay 42ms"), "{}", root(FAR)?);
        attribute(scene, FAR, "is_up", true)?;
        delay(scene, FAR, 0, &long).map(drop)
    }
);

/// Fills the file system of the state directory.
fn fill() -> anyhow::Result<()> {
    let full = fs::write(Path::new(STATE).join("filler"), vec![0; 1 << 20]);
    ensure!(full.is_err(), "the disk is larger than expected");
    Ok(())
}

fn mount(line: &str) -> anyhow::Result<()> {
    run(Command::new("mount").args(line.split_whitespace())).map(drop)
}

lab_test!(
    #[ignore = "needs netem"]
    a_full_or_read_only_disk_does_no_harm,
    |scene| {
        fs::create_dir(STATE)?;
        mount(&format!("-t tmpfs -o mode=700,size=64k tmpfs {STATE}"))?;
        started_with_pair(scene)?;
        let short = json!({ "ttl_ms": short_ms() });
        delay(scene, FAR, 40, &short)?;
        fill()?;
        // The lease in force continues unchanged and ends.
        refused(scene, &short, "Internal", "No space left")?;
        ensure!(root(FAR)?.contains("delay 40ms"), "{}", root(FAR)?);
        wait_root("netem", false)?;
        delay(scene, FAR, 41, &Value::Null)?;
        // The removed lease has freed some room.
        fill()?;
        refused(scene, &short, "Internal", "lease")?;
        ensure!(root(FAR)?.contains("delay 41ms"), "{}", root(FAR)?);
        fs::remove_file(Path::new(STATE).join("filler"))?;
        delay(scene, FAR, 42, &short)?;
        mount(&format!("-o remount,ro {STATE}"))?;
        refused(scene, &short, "Internal", "Read-only")?;
        wait_root("delay 41ms", true)?;
        delay(scene, FAR, 0, &Value::Null)?;
        // Start a daemon on the read-only file system: the lease there has already ended, and new leases are refused.
        scene.take_daemon()?.crash()?;
        scene.start_daemon::<&str>(&[])?;
        attribute(scene, FAR, "is_up", true)?;
        delay(scene, FAR, 43, &Value::Null)?;
        refused(scene, &short, "Internal", "Read-only")?;
        delay(scene, FAR, 0, &Value::Null)?;
        let log = scene.daemon()?.stderr();
        ensure!(log.contains("leases cannot be written"), "{log}");
        Ok(())
    }
);

lab_test!(
    #[ignore = "needs netem"]
    changes_without_a_lease_work_without_a_state_directory,
    |scene| {
        pair("blue")?;
        fs::write("/var/lib/file", "")?;
        scene.start_with(&["--state-dir", "/var/lib/file/state"])?;
        attribute(scene, FAR, "is_up", true)?;
        delay(scene, FAR, 40, &Value::Null)?;
        refused(scene, &json!({"ttl_ms": 1000}), "Internal", "state")?;
        ensure!(root(FAR)?.contains("delay 40ms"), "{}", root(FAR)?);
        let log = scene.daemon()?.stderr();
        let said = log.matches("no leases").count();
        ensure!(said == 1, "said {said} times: {log}");
        delay(scene, FAR, 0, &Value::Null).map(drop)
    }
);

lab_test!(
    #[ignore = "needs netem"]
    a_default_time_to_live,
    |scene| {
        pair("blue")?;
        scene.start_with(&["--default-ttl", "1s"])?;
        attribute(scene, FAR, "is_up", true)?;
        delay(scene, FAR, 40, &Value::Null)?;
        wait_root("netem", false)?;
        let log = scene.daemon()?.stderr();
        log.contains("lease ended")
            .then_some(())
            .context("not said")
    }
);

/// Starts the daemon again with options that forbid every change of the pair.
fn restart_stricter(scene: &mut Scene, options: &[&str]) -> anyhow::Result<()> {
    scene.take_daemon()?.crash()?;
    scene.start_daemon(options)?;
    attribute(scene, FAR, "is_up", true).map(drop)
}

lab_test!(
    #[ignore = "needs netem"]
    options_that_forbid_changes_let_leases_end,
    |scene| {
        started_with_pair(scene)?;
        for options in [
            &["--read-only"][..],
            &["--protect", "blue/far"],
            &["--allow", "other/*"],
        ] {
            delay(scene, FAR, 40, &json!({ "ttl_ms": short_ms() }))?;
            restart_stricter(scene, options)?;
            // The change cannot be confirmed, so it ends.
            let confirm = json!({"namespace": FAR.0, "interface": FAR.1, "operation": "Confirm"});
            let (reply, _) = scene.client()?.ask("tc", &confirm)?;
            ensure!(reply["error_kind"] == "Denied", "{reply}");
            wait_root("netem", false)?;
            refused(scene, &Value::Null, "Denied", options[0])?;
            ensure!(!root(FAR)?.contains("netem"), "{}", root(FAR)?);
            scene.take_daemon()?.crash()?;
            scene.start_daemon::<&str>(&[])?;
            attribute(scene, FAR, "is_up", true)?;
        }
        Ok(())
    }
);

lab_test!(
    #[ignore = "needs netem"]
    a_refused_request_publishes_the_state_in_force,
    |scene| {
        started_with_pair(scene)?;
        delay(scene, FAR, 40, &Value::Null)?;
        restart_stricter(scene, &["--protect", "blue/far"])?;
        let count = |state: &tcgui_tests::client::State| {
            state.seen("tc/blue/far").map_or(0, |seen| seen.count)
        };
        scene.wait_for("what is there is published", |state| {
            state
                .tc("blue", "far")
                .is_some_and(|tc| tc["has_tc"] == true)
        })?;
        let before = count(&scene.client()?.state());
        refused(scene, &Value::Null, "Denied", "--protect blue/far")?;
        let state = scene.wait_for("it is published again", |state| count(state) > before)?;
        let shown = state.tc("blue", "far").context("it was there")?;
        ensure!(shown["configuration"]["delay_ms"] == 40.0, "{shown}");
        tc("blue", "qdisc del dev far root").map(drop)
    }
);

lab_test!(
    #[ignore = "needs netem"]
    a_restart_restores_after_a_panic_in_a_decision,
    |scene| {
        scene.wrap_daemon(&["env", "TCGUI_TEST_FAIL_DECISION=fatal"]);
        started_with_pair(scene)?;
        delay(scene, FAR, 40, &json!({"ttl_ms": 600_000}))?;
        netns::add("fatal")?;
        let status = scene.take_daemon()?.wait(SOON)?;
        ensure!(status.code() == Some(1), "{status}");
        ensure!(root(FAR)?.contains("delay 40ms"), "{}", root(FAR)?);
        ensure!(leases() == 1, "no lease on disk");
        // A lease of a scenario ends with the daemon that ran it.
        edit_lease(|it| it["lease"]["owner"] = json!({"scenario": {"id": "gone"}}))?;
        scene.wrap_daemon(&[]);
        scene.start_daemon::<&str>(&[])?;
        wait_root("netem", false)?;
        wait_for("no lease is left on disk", SOON, leases, |left| *left == 0).map(drop)
    }
);
