//! Namespaces that only processes hold, as a frontend sees them.
//!
//! Most tests run in a network namespace in which new processes are *not* announced, because the kernel announces them only in
//! the initial one. Therefore namespaces are found by sweeps, by the ends of processes, and by the kernel's messages about
//! namespace ids. Tests with netem are in `netem/`, module `unnamed`.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ffi::{OsStr, OsString};
    use std::net::TcpListener;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::time::Duration;

    use anyhow::{Context, ensure};
    use nix::net::if_::if_nametoindex;
    use serde_json::json;
    use tcgui_tests::client::{self, State, array, monotonic_ns};
    use tcgui_tests::frontend::Route;
    use tcgui_tests::lab::Kind;
    use tcgui_tests::links::attribute;
    use tcgui_tests::measure::Times;
    use tcgui_tests::process::{Companion, bound_to_parent};
    use tcgui_tests::scene::{SOON, Scene};
    use tcgui_tests::unnamed::{self, Record, Restless, namespace_of, title};
    use tcgui_tests::wait::{holds_for, wait_every, wait_for};
    use tcgui_tests::{lab_test, measure, names, netns};

    const SHOWN: &str = "--process-namespaces";
    /// Sweep intervals so long that no sweep runs during a test.
    const UNSWEPT: [&str; 4] = [
        "--degraded-sweep-interval",
        "60s",
        "--sweep-interval",
        "60s",
    ];

    fn is_title(state: &State, name: &str) -> bool {
        state.namespace(name).is_some()
    }

    fn listed(scene: &Scene, name: &str, listed: bool) -> anyhow::Result<State> {
        scene.wait_for(&format!("{name} is an entry: {listed}"), |state| {
            is_title(state, name) == listed
        })
    }

    /// Returns the display names of namespaces that only processes hold.
    fn unnamed(state: &State) -> BTreeSet<String> {
        let names = state.list().into_iter();
        names
            .flat_map(|list| array(list, "namespaces"))
            .filter_map(|namespace| namespace["name"].as_str())
            .filter(|name| name.starts_with("pid:"))
            .map(str::to_owned)
            .collect()
    }

    fn switch_lo_on(scene: &Scene, name: &str) -> anyhow::Result<()> {
        attribute(scene, (name, "lo"), "is_up", false)?;
        let request = json!({"namespace": name, "interface": "lo", "operation": "Enable"});
        let (reply, _) = scene.client()?.ask("interface", &request)?;
        ensure!(reply["success"] == true, "{name}: {reply}");
        attribute(scene, (name, "lo"), "is_up", true)
    }

    /// Starts the daemon, and a client that records every list.
    fn start(scene: &mut Scene, options: &[&str]) -> anyhow::Result<Record> {
        let record = Record::default();
        let sink = record.clone();
        scene.start_watched(options, client::Options::default(), move |list| {
            sink.take(list);
        })?;
        Ok(record)
    }

    lab_test!(
        a_process_is_an_entry_as_long_as_it_lives,
        Kind::OwnProcesses,
        |scene| {
            let old = netns::holder()?;
            scene.start_with(&[SHOWN])?;
            listed(scene, &title(&old, "sleep"), true)?;
            let young = netns::holder()?;
            let name = title(&young, "sleep");
            let state = listed(scene, &name, true)?;
            let entry = state.namespace(&name).context("it is an entry")?;
            ensure!(entry["namespace_type"] == "Traditional", "{entry}");
            ensure!(entry["aliases"].is_null(), "{entry}");
            switch_lo_on(scene, &name)?;
            unnamed::inside(&young, "ip link add some type veth peer name other")?;
            attribute(scene, (&name, "some"), "is_up", false)?;
            young.kill()?;
            listed(scene, &name, false)?;
            let left = unnamed(&scene.client()?.state());
            ensure!(left == BTreeSet::from([title(&old, "sleep")]), "{left:?}");
            old.kill()?;
            scene
                .wait_for("none is left", |state| unnamed(state).is_empty())
                .map(drop)
        }
    );

    lab_test!(
        processes_are_not_listed_by_default,
        Kind::OwnProcesses,
        |scene| {
            scene.start_with(&["--degraded-sweep-interval", "200ms"])?;
            let holder = netns::holder()?;
            // The kernel sends a message about it, which is no reason to list it either.
            let line = format!(
                "link add near type veth peer name far netns {}",
                holder.pid()
            );
            netns::ip_line(&line)?;
            attribute(scene, ("default", "near"), "is_up", false)?;
            let client = scene.client()?;
            let look = || unnamed(&client.state());
            holds_for("none is listed", Duration::from_secs(2), look, |names| {
                names.is_empty()
            })?;
            holder.kill()
        }
    );

    lab_test!(
        the_entry_stays_while_names_are_added_and_removed,
        Kind::OwnProcesses,
        |scene| {
            let record = start(scene, &[SHOWN])?;
            let holder = netns::holder()?;
            let own = title(&holder, "sleep");
            listed(scene, &own, true)?;
            switch_lo_on(scene, &own)?;
            let first = record.len();
            for name in ["blue", "green"] {
                netns::attach(name, holder.pid())?;
                let state = listed(scene, name, true)?;
                let entry = state.namespace(name).context("it is an entry")?;
                ensure!(entry["aliases"] == json!([own]), "{entry}");
                ensure!(!is_title(&state, &own), "listed twice");
                // The known links stay known.
                attribute(scene, (name, "lo"), "is_up", true)?;
                netns::del(name)?;
                let state = listed(scene, &own, true)?;
                ensure!(!is_title(&state, name), "{name} is still there");
                let entry = state.namespace(&own).context("it is an entry")?;
                ensure!(entry["aliases"].is_null(), "{entry}");
                attribute(scene, (&own, "lo"), "is_up", true)?;
            }
            let lists = record.len() - first;
            let without = record.without(first, &[&own]);
            measure::report(format!("{without} of {lists} lists were without it"))?;
            ensure!(without == 0, "it was missing in {without} of {lists} lists");
            holder.kill()?;
            listed(scene, &own, false).map(drop)
        }
    );

    lab_test!(the_name_outlives_the_process, Kind::OwnProcesses, |scene| {
        let record = start(scene, &[SHOWN])?;
        netns::add("blue")?;
        scene.wait_named(&["blue"])?;
        let line = ["netns", "exec", "blue", "sleep", "infinity"];
        let first = record.len();
        let guest = Companion::start(bound_to_parent("ip").args(line))?;
        let own = title(&guest, "sleep");
        scene.wait_for("the process is an alias", |state| {
            state
                .namespace("blue")
                .is_some_and(|entry| entry["aliases"] == json!([own]))
        })?;
        guest.kill()?;
        scene.wait_for("the alias is removed", |state| {
            state
                .namespace("blue")
                .is_some_and(|entry| entry["aliases"].is_null())
        })?;
        let without = record.without(first, &["blue"]);
        ensure!(without == 0, "it was missing in {without} lists");
        Ok(())
    });

    lab_test!(the_next_oldest_takes_over, Kind::OwnProcesses, |scene| {
        let record = start(scene, &[SHOWN])?;
        let eldest = netns::holder()?;
        let mut name = title(&eldest, "sleep");
        listed(scene, &name, true)?;
        switch_lo_on(scene, &name)?;
        let mut eldest = eldest;
        for round in 0..5 {
            let next = unnamed::beside(&eldest)?;
            if round % 2 == 0 {
                // Wait until the namespace is known. In the other rounds the daemon must search for it.
                let client = scene.client()?;
                let look = || is_title(&client.state(), &name);
                let period = Duration::from_millis(1500);
                holds_for("the older one names it", period, look, |it| *it)?;
            }
            let first = record.len();
            eldest.kill()?;
            let heir = title(&next, "sleep");
            listed(scene, &heir, true)?;
            let without = record.without(first, &[&name, &heir]);
            ensure!(without == 0, "it was missing in {without} lists");
            attribute(scene, (&heir, "lo"), "is_up", true)?;
            (eldest, name) = (next, heir);
        }
        eldest.kill()?;
        listed(scene, &name, false).map(drop)
    });

    /// Measures the time from the start of `ip link set … netns` until the list has the namespace with the link.
    fn move_a_link(scene: &Scene, name: &str, process: &Companion) -> anyhow::Result<Duration> {
        netns::ip_line("link add near type veth peer name far")?;
        quiet()?;
        let start = monotonic_ns()?;
        netns::ip_line(&format!("link set far netns {}", process.pid()))?;
        let state = listed(scene, name, true)?;
        let seen = state.seen("interfaces/list").context("it is listed")?;
        attribute(scene, (name, "far"), "interface_type", "Veth")?;
        Ok(Duration::from_nanos(seen.at_ns.saturating_sub(start)))
    }

    lab_test!(
        a_silent_namespace_is_an_entry_when_a_link_moves_there,
        Kind::OwnProcesses,
        |scene| {
            start(scene, &[&[SHOWN][..], &UNSWEPT].concat())?;
            let (mut times, mut gone) = (Times::default(), Times::default());
            for round in 0..20 {
                let restless = Restless::start()?;
                restless.rouse()?;
                let name = title(restless.process(), "perl");
                if round == 0 {
                    // Check that nothing reveals the namespace, otherwise this would measure something else.
                    let client = scene.client()?;
                    let look = || is_title(&client.state(), &name);
                    let period = Duration::from_secs(2);
                    holds_for("the namespace is not listed", period, look, |it| !*it)?;
                }
                times.push(move_a_link(scene, &name, restless.process())?);
                quiet()?;
                drop(restless);
                let ended = monotonic_ns()?;
                let state = listed(scene, &name, false)?;
                let seen = state.seen("interfaces/list").context("it is listed")?;
                gone.push(Duration::from_nanos(seen.at_ns.saturating_sub(ended)));
                let there = || if_nametoindex("near").is_ok();
                wait_for("the link is deleted with it", SOON, there, |it| !*it)?;
            }
            for (what, times) in [("link moved", times), ("process ended", gone)] {
                let p99 = times.percentile(99)?;
                measure::report(format!("{what} to list: {times}, p99 {p99:.1?}"))?;
                let p50 = times.percentile(50)?;
                ensure!(p50 < Duration::from_millis(200), "{what}: {times}");
            }
            Ok(())
        }
    );

    lab_test!(
        a_moved_tap_reveals_a_silent_namespace,
        Kind::OwnProcesses,
        |scene| {
            start(scene, &[&[SHOWN][..], &UNSWEPT].concat())?;
            for _ in 0..3 {
                let restless = Restless::start()?;
                restless.rouse()?;
                let name = title(restless.process(), "perl");
                netns::ip_line("tuntap add far mode tap")?;
                quiet()?;
                netns::ip_line(&format!("link set far netns {}", restless.process().pid()))?;
                listed(scene, &name, true)?;
                attribute(scene, (&name, "far"), "interface_type", "Tap")?;
                drop(restless);
                listed(scene, &name, false)?;
            }
            Ok(())
        }
    );

    fn odd_programs() -> Vec<OsString> {
        let bytes: [&[u8]; 13] = [
            b"a)b",
            b"((",
            b") S 1 2 (",
            b"new\nline",
            b"sp ace",
            b"fifteen bytes!!",
            b"more than fifteen bytes",
            b"\xff\xfe",
            b"back\\slash\\xff",
            b"*?#$%@",
            b"(default",
            // The kernel truncates this name within a character.
            "ääääääää".as_bytes(),
            "grün".as_bytes(),
        ];
        bytes
            .into_iter()
            .map(|name| OsString::from_vec(name.to_vec()))
            .collect()
    }

    lab_test!(programs_of_any_name, Kind::OwnProcesses, |scene| {
        scene.start_with(&[SHOWN])?;
        for program in odd_programs() {
            let holder = unnamed::called(&program)?;
            let kept = &program.as_bytes()[..program.len().min(15)];
            let name = title(&holder, &names::on_wire(OsStr::from_bytes(kept)));
            listed(scene, &name, true)?;
            // Requests must accept each published name.
            switch_lo_on(scene, &name)?;
            let shown = unnamed(&scene.client()?.state());
            ensure!(shown == BTreeSet::from([name.clone()]), "{shown:?}");
            holder.kill()?;
            listed(scene, &name, false)?;
        }
        Ok(())
    });

    /// Creates a namespace with a veth and one process, and ends the process. Returns how long the link outlives it.
    fn link_outlives(scene: Option<&Scene>) -> anyhow::Result<Duration> {
        let holder = netns::holder()?;
        let line = format!(
            "link add near type veth peer name far netns {}",
            holder.pid()
        );
        netns::ip_line(&line)?;
        let name = title(&holder, "sleep");
        if let Some(scene) = scene {
            attribute(scene, (&name, "far"), "is_up", false)?;
        }
        quiet()?;
        holder.kill()?;
        let start = monotonic_ns()?;
        let there = || if_nametoindex("near").is_ok();
        wait_every(
            Duration::from_micros(500),
            "the link is deleted",
            SOON,
            there,
            |it| !*it,
        )?;
        let outlived = Duration::from_nanos(monotonic_ns()? - start);
        if let Some(scene) = scene {
            listed(scene, &name, false)?;
        }
        Ok(outlived)
    }

    lab_test!(
        the_daemon_does_not_keep_a_namespace_whose_process_ends,
        Kind::OwnProcesses,
        |scene| {
            let (mut alone, mut seen) = (Times::default(), Times::default());
            for _ in 0..10 {
                alone.push(link_outlives(None)?);
            }
            scene.start_with(&[SHOWN])?;
            for _ in 0..10 {
                seen.push(link_outlives(Some(scene))?);
            }
            measure::report(format!(
                "a link outlives the namespace's process: {seen}; without the daemon: {alone}"
            ))?;
            ensure!(seen.percentile(100)? < Duration::from_secs(1), "{seen}");
            Ok(())
        }
    );

    /// Waits for a quiet moment. Lists within some 30 ms delay each other and the deletion of namespaces.
    fn quiet() -> anyhow::Result<()> {
        let period = Duration::from_millis(100);
        holds_for("nothing happens", period, || (), |()| true)
    }

    /// Number of measurements.
    const ROUNDS: usize = 100;

    /// Starts a process, and returns it with the first time at which it was in another namespace.
    fn unshared() -> anyhow::Result<(Companion, u64)> {
        let home = namespace_of(std::process::id())?;
        let mut command = bound_to_parent("unshare");
        let process = Companion::start(command.args(["--net", "sleep", "infinity"]))?;
        wait_every(
            Duration::from_micros(20),
            "a process is elsewhere",
            SOON,
            || namespace_of(process.pid()).ok(),
            |now| now.as_ref().is_some_and(|now| *now != home),
        )?;
        Ok((process, monotonic_ns()?))
    }

    fn until(record: &Record, first: usize, name: &str, listed: bool) -> anyhow::Result<u64> {
        wait_every(
            Duration::from_millis(1),
            &format!("{name} is in a list: {listed}"),
            SOON,
            || record.first(first, name, listed),
            Option::is_some,
        )?
        .context("it was in a list")
    }

    lab_test!(
        announced_processes_are_entries_at_once,
        Kind::Announced,
        |scene| {
            // Use a free port, because a daemon of the machine may use the default one.
            let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            let endpoint = format!("tcp/{free}");
            let record = Record::default();
            let sink = record.clone();
            let options = client::Options::default().route(Route::peer(&endpoint));
            scene.start_watched(
                &[
                    SHOWN,
                    "--no-containers",
                    "--no-multicast",
                    "--zenoh-listen",
                    &endpoint,
                ],
                options,
                move |list| sink.take(list),
            )?;
            let (mut added, mut removed) = (Times::default(), Times::default());
            for _ in 0..ROUNDS {
                quiet()?;
                let first = record.len();
                let (process, away) = unshared()?;
                let name = title(&process, "sleep");
                let at = until(&record, first, &name, true)?;
                added.push(Duration::from_nanos(at.saturating_sub(away)));
                quiet()?;
                let first = record.len();
                process.kill()?;
                let ended = monotonic_ns()?;
                let at = until(&record, first, &name, false)?;
                removed.push(Duration::from_nanos(at.saturating_sub(ended)));
            }
            for (what, times) in [("added", &added), ("removed", &removed)] {
                let p99 = times.percentile(99)?;
                measure::report(format!("process {what} to list: {times}, p99 {p99:.1?}"))?;
            }
            let log = scene.daemon()?.stderr();
            ensure!(
                !log.contains("not announced"),
                "the kernel does not announce processes: {log}"
            );
            for times in [added, removed] {
                ensure!(
                    times.percentile(50)? < Duration::from_millis(200),
                    "{times}"
                );
            }
            // Namespaces of other programs on this machine would count as a leak.
            scene.take_daemon()?.stop().map(drop)
        }
    );
}
