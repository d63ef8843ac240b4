//! Containers of real engines: shown at once with what they are, gone with their process, and nothing else.

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::sync::mpsc::Receiver;
    use std::time::{Duration, Instant};

    use anyhow::{Context, bail, ensure};
    use nix::sys::signal::Signal;
    use tcgui_tests::containers::{SOON, Seen, Shown, View};
    use tcgui_tests::engines::{Engine, Event, Kind as Which, Tap};
    use tcgui_tests::lab::Kind;
    use tcgui_tests::measure::Times;
    use tcgui_tests::wait::{holds_for, patience, wait_for};
    use tcgui_tests::{lab_test, measure, netns, process};

    /// Long enough for what must not happen to happen.
    const A_WHILE: Duration = Duration::from_millis(500);

    fn inode_of(pid: u32) -> anyhow::Result<u64> {
        Ok(fs::metadata(netns::of_process(pid))?.ino())
    }

    /// Checks a shown container against its engine and the kernel.
    fn check(
        engine: &Engine,
        name: &str,
        shown: &BTreeMap<String, Shown>,
    ) -> anyhow::Result<Shown> {
        let shown = shown
            .get(name)
            .with_context(|| format!("{name}: {shown:?}"))?;
        let pid = engine.pid_of(name)?;
        ensure!(shown.pid == pid, "{name} is process {pid}: {shown:?}");
        ensure!(shown.inode == inode_of(pid)?, "{name}: {shown:?}");
        let id = engine.run(&["inspect", "-f", "{{.Id}}", name])?;
        ensure!(
            id.starts_with(&shown.short_id) && shown.short_id.len() == 12,
            "{id}: {shown:?}"
        );
        ensure!(shown.image.contains("tiny"), "{shown:?}");
        Ok(shown.clone())
    }

    fn stays(view: &View, what: &str) -> anyhow::Result<()> {
        let before = view.shown();
        holds_for(what, A_WHILE, || view.shown(), |shown| *shown == before)
    }

    lab_test!(
        docker_containers_are_shown_as_they_are,
        Kind::Engines,
        |_| {
            let view = View::start()?;
            let docker = Engine::start(Which::Docker)?;
            docker.start_container("host", &["--network", "host"])?;
            docker.start_container("alone", &["--network", "none"])?;
            docker.start_container("bridged", &[])?;
            docker.run(&["network", "create", "users"])?;
            docker.start_container("user", &["--network", "users"])?;
            docker.start_container("guest", &["--network", "container:alone"])?;
            let shown = view.wait_names(&["alone", "bridged", "guest", "user"])?;
            let alone = check(&docker, "alone", &shown)?;
            let guest = check(&docker, "guest", &shown)?;
            ensure!(
                alone.inode == guest.inode && alone.pid != guest.pid,
                "{shown:?}"
            );
            ensure!(alone.runtime == "Docker", "{alone:?}");
            for name in ["bridged", "user"] {
                check(&docker, name, &shown)?;
            }

            docker.run(&["pause", "user"])?;
            docker.run(&["network", "connect", "users", "bridged"])?;
            docker.run(&["exec", "alone", "sleep", "0"])?;
            docker.run(&["unpause", "user"])?;
            stays(
                &view,
                "pausing, connecting and executing change no namespace",
            )?;
            ensure!(view.shown() == shown, "{:?}", view.shown());

            docker.run(&["rename", "user", "renamed"])?;
            let shown = view.wait_names(&["alone", "bridged", "guest", "renamed"])?;
            let before = check(&docker, "renamed", &shown)?;
            docker.run(&["restart", "-t", "0", "renamed"])?;
            let restarted = |shown: &BTreeMap<String, Shown>| {
                shown.get("renamed").is_some_and(|it| it.pid != before.pid)
            };
            let shown = wait_for("it is another one", SOON, || view.shown(), restarted)?;
            check(&docker, "renamed", &shown)?;
            docker.run(&["kill", "alone"])?;
            view.wait_names(&["bridged", "guest", "renamed"])?;
            docker.run(&["stop", "-t", "0", "bridged"])?;
            docker.remove(&["guest", "alone"])?;
            view.wait_names(&["renamed"])?;
            let host = |seen: &Seen| matches!(seen, Seen::Added(name, _) if name == "host");
            ensure!(!view.history().iter().any(host), "the host is no container");
            docker.remove(&["host", "renamed", "bridged"])?;
            view.wait_names(&[])?;
            docker.stop()
        }
    );

    lab_test!(docker_may_hang_stop_and_start_again, Kind::Engines, |_| {
        let docker = Engine::start(Which::Docker)?;
        docker.start_container("early", &["--network", "none"])?;
        let view = View::start()?;
        let shown = view.wait_names(&["early"])?;
        let early = check(&docker, "early", &shown)?;
        docker.start_container("other", &["--network", "none"])?;
        view.wait_names(&["early", "other"])?;

        docker.signal(Signal::SIGSTOP)?;
        process::signal(early.pid, Signal::SIGKILL)?;
        view.wait_names(&["other"])?;
        docker.signal(Signal::SIGCONT)?;
        docker.run(&["start", "early"])?;
        view.wait_names(&["early", "other"])?;

        docker.stop()?;
        view.wait_names(&[])?;
        let docker = Engine::start(Which::Docker)?;
        docker.run(&["start", "other"])?;
        let shown = view.wait_names(&["other"])?;
        check(&docker, "other", &shown)?;
        docker.remove(&["other", "early"])?;
        view.wait_names(&[])?;
        docker.stop()
    });

    lab_test!(
        containers_that_outlive_docker_are_the_same_afterwards,
        Kind::Engines,
        |_| {
            let options = ["--live-restore"];
            let docker = Engine::start_with(Which::Docker, &options)?;
            let view = View::start()?;
            for name in ["stays", "ends"] {
                docker.start_container(name, &["--network", "none"])?;
            }
            let shown = view.wait_names(&["ends", "stays"])?;
            let told = view.history().len();
            docker.stop()?;
            stays(&view, "containers outlive the engine")?;
            process::signal(shown["ends"].pid, Signal::SIGKILL)?;
            view.wait_names(&["stays"])?;
            let docker = Engine::start_with(Which::Docker, &options)?;
            docker.start_container("new", &["--network", "none"])?;
            let shown = view.wait_names(&["new", "stays"])?;
            check(&docker, "stays", &shown)?;
            ensure!(view.history().len() == told + 2, "{:?}", view.history());
            docker.remove(&["new", "stays", "ends"])?;
            view.wait_names(&[])?;
            docker.stop()
        }
    );

    lab_test!(
        podman_containers_are_shown_as_they_are,
        Kind::Engines,
        |_| {
            let view = View::start()?;
            let podman = Engine::start(Which::Podman)?;
            podman.start_container("host", &["--network", "host"])?;
            podman.start_container("alone", &["--network", "none"])?;
            podman.start_container("bridged", &[])?;
            podman.start_container("guest", &["--network", "container:alone"])?;
            let shown = view.wait_names(&["alone", "bridged", "guest"])?;
            let alone = check(&podman, "alone", &shown)?;
            let guest = check(&podman, "guest", &shown)?;
            ensure!(
                alone.inode == guest.inode && alone.runtime == "Podman",
                "{shown:?}"
            );
            // One namespace, two names: the other one is an entry of the directory.
            let bridged = check(&podman, "bridged", &shown)?;
            let named =
                |name| fs::metadata(netns::path(name)).is_ok_and(|it| it.ino() == bridged.inode);
            ensure!(
                netns::entries()?.iter().any(named),
                "{:?}",
                netns::entries()?
            );

            podman.run(&["pause", "alone"])?;
            podman.run(&["unpause", "alone"])?;
            stays(&view, "pausing changes no namespace")?;
            podman.run(&["rename", "guest", "renamed"])?;
            view.wait_names(&["alone", "bridged", "renamed"])?;
            podman.run(&["restart", "-t", "0", "bridged"])?;
            let restarted = |shown: &BTreeMap<String, Shown>| {
                shown.get("bridged").is_some_and(|it| it.pid != bridged.pid)
            };
            let shown = wait_for("it is another one", SOON, || view.shown(), restarted)?;
            check(&podman, "bridged", &shown)?;

            // Its containers run without it.
            podman.stop()?;
            stays(&view, "containers outlive the service")?;
            process::signal(shown["bridged"].pid, Signal::SIGKILL)?;
            view.wait_names(&["alone", "renamed"])?;
            let podman = Engine::start(Which::Podman)?;
            podman.run(&["start", "bridged"])?;
            let shown = view.wait_names(&["alone", "bridged", "renamed"])?;
            check(&podman, "bridged", &shown)?;
            podman.run(&["kill", "bridged"])?;
            view.wait_names(&["alone", "renamed"])?;
            // Guests first: Podman insists.
            podman.remove(&["renamed"])?;
            podman.remove(&["alone", "bridged", "host"])?;
            view.wait_names(&[])?;
            podman.stop()
        }
    );

    /// How long after events of the engine containers were shown and gone.
    #[derive(Default)]
    struct Cycles {
        shown: Times,
        gone: Times,
        /// By how much the end was known before the engine told it.
        ahead: Times,
    }

    /// Starts and removes containers one by one.
    fn cycle(
        engine: &Engine,
        view: &View,
        events: &Receiver<Event>,
        count: usize,
    ) -> anyhow::Result<Cycles> {
        let already = view.history().len();
        for number in 0..count {
            let name = format!("c{number}");
            engine.start_container(&name, &["--network", "none"])?;
            view.wait_names(&[&name])?;
            engine.remove(&[&name])?;
            view.wait_names(&[])?;
        }
        let history = view.history().split_off(already);
        ensure!(history.len() == 2 * count, "each once: {history:?}");
        let mut cycles = Cycles::default();
        let mut history = history.into_iter();
        for number in 0..count {
            let name = format!("c{number}");
            let start = event(events, &name, "start")?.at;
            let die = event(events, &name, "die")?.at;
            match (history.next(), history.next()) {
                (Some(Seen::Added(added, at)), Some(Seen::Removed(removed, end))) => {
                    ensure!(added == name && removed == name, "{added} {removed} {name}");
                    // Before the event: the kernel was faster than the engine.
                    cycles.shown.push(at.saturating_sub(start));
                    cycles.gone.push(end.saturating_sub(die));
                    cycles.ahead.push(die.saturating_sub(end));
                }
                other => bail!("{name}: {other:?}"),
            }
        }
        Ok(cycles)
    }

    fn check_cycles(what: &str, cycles: &Cycles) -> anyhow::Result<()> {
        measure::report(format!(
            "{what}: end known before the event: {}",
            cycles.ahead
        ))?;
        within_limit(&format!("{what}: start event to container"), &cycles.shown)?;
        within_limit(&format!("{what}: die event to no container"), &cycles.gone)
    }

    fn event(events: &Receiver<Event>, name: &str, action: &str) -> anyhow::Result<Event> {
        loop {
            let event = events
                .recv_timeout(SOON)
                .context("an event of the engine")?;
            if event.name == name && event.action == action {
                return Ok(event);
            }
        }
    }

    /// At the client, with its interfaces, it may be 50 ms.
    const LIMIT: Duration = Duration::from_millis(50);

    fn within_limit(what: &str, times: &Times) -> anyhow::Result<()> {
        let (p50, p99) = (times.percentile(50)?, times.percentile(99)?);
        measure::report(format!("{what}: {times}, p99 {p99:.1?}"))?;
        ensure!(p99 <= LIMIT * patience(), "{what}: p50 {p50:?} p99 {p99:?}");
        Ok(())
    }

    lab_test!(
        a_hundred_docker_containers_are_fast_and_leave_nothing,
        Kind::Engines,
        |_| {
            let view = View::start()?;
            let idle = view.footprint()?;
            let begun = Instant::now();
            let busy = || view.footprint().map(|now| now.cpu - idle.cpu);
            holds_for("no engine: no work", A_WHILE * 4, busy, |used| {
                used.as_ref().is_ok_and(|used| used.as_millis() <= 10)
            })?;
            measure::report(format!(
                "{:?} of processor time in {:?} without an engine",
                busy()?,
                begun.elapsed()
            ))?;
            let docker = Engine::start(Which::Docker)?;
            let events = docker.events()?;
            cycle(&docker, &view, &events, 10)?;
            let before = view.footprint()?;
            let cycles = cycle(&docker, &view, &docker.events()?, 100)?;
            let after = view.footprint()?;
            measure::report(format!("before {before:?}, after {after:?}"))?;
            check_cycles("docker", &cycles)?;
            ensure!(after.fds <= before.fds, "{before:?} {after:?}");
            ensure!(after.threads <= before.threads + 2, "{before:?} {after:?}");
            ensure!(
                after.rss_kib <= before.rss_kib + 1024,
                "{before:?} {after:?}"
            );
            docker.stop()
        }
    );

    // Podman looks at its own file of events every 250 ms, where it has no journal, and so long do its
    // subscribers wait.
    lab_test!(podman_containers_are_fast, Kind::Engines, |_| {
        let podman = Engine::start(Which::Podman)?;
        let view = View::start()?;
        let before = cycle(&podman, &view, &podman.events()?, 10)?;
        within_limit("podman, first ten", &before.shown)?;
        let footprint = view.footprint()?;
        let cycles = cycle(&podman, &view, &podman.events()?, 50)?;
        let after = view.footprint()?;
        measure::report(format!("before {footprint:?}, after {after:?}"))?;
        check_cycles("podman", &cycles)?;
        ensure!(after.fds <= footprint.fds, "{footprint:?} {after:?}");
        podman.stop()
    });

    // Without the file, what the socket says has to do; what counts begins when the engine hands it over.
    lab_test!(
        podman_containers_are_fast_without_its_file,
        Kind::Engines,
        |_| {
            let podman = Engine::start(Which::Podman)?;
            let tap = Tap::start(Which::Podman)?;
            std::os::unix::fs::chown(tap.socket(), Some(1000), None)?;
            let view = View::start_at(&[tap.socket()])?;
            let cycles = cycle(&podman, &view, tap.events(), 20)?;
            check_cycles("podman without its file", &cycles)?;
            podman.stop()
        }
    );
}
