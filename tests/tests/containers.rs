//! Containers of real engines as a frontend sees them: listed promptly with their metadata, removed with their process, and
//! nothing else.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::path::Path;
    use std::sync::mpsc::Receiver;
    use std::time::Duration;

    use anyhow::{Context, bail, ensure};
    use nix::sys::signal::Signal;
    use serde_json::{Value, json};
    use tcgui_tests::containers::{SOON, Seen, Shown, View, in_netns_of, really};
    use tcgui_tests::daemon::{self, Footprint};
    use tcgui_tests::engines::{Engine, Event, Kind as Which, Tap};
    use tcgui_tests::lab::Kind;
    use tcgui_tests::links::{attribute, prompt};
    use tcgui_tests::measure::Times;
    use tcgui_tests::scene::Scene;
    use tcgui_tests::wait::{holds_for, patience, wait_for};
    use tcgui_tests::{lab_test, measure, netns, process};

    /// Period during which an unwanted event would occur.
    const A_WHILE: Duration = Duration::from_millis(500);

    const NO_OPTIONS: [&str; 0] = [];

    /// Starts the daemon without options, and a client.
    fn start(scene: &mut Scene) -> anyhow::Result<View> {
        View::start(scene, &NO_OPTIONS)
    }

    /// Returns a property of a container, as reported by the engine's command line.
    fn inspect(engine: &Engine, name: &str, what: &str) -> anyhow::Result<String> {
        let said = engine.run(&["inspect", "-f", what, name])?;
        Ok(said.trim().to_owned())
    }

    /// Waits until a container is listed with the interfaces of its namespace. Checks the other fields against the engine.
    fn check(engine: &Engine, name: &str, view: &View) -> anyhow::Result<Shown> {
        let inside = really(engine.pid_of(name)?)?;
        let what = format!("{name} is listed with {inside:?}");
        let has = |it: &Option<Shown>| it.as_ref().is_some_and(|it| it.interfaces == inside);
        let look = || view.shown().remove(name);
        let shown = wait_for(&what, SOON, look, has)?.context("it is listed")?;
        // A container that joined another one's namespace is listed under the name of the owner.
        let owner = shown.name.strip_prefix("container:");
        let owner = owner.with_context(|| format!("{shown:?}"))?;
        let id = inspect(engine, owner, "{{.Id}}")?;
        ensure!(
            id.starts_with(&shown.short_id) && shown.short_id.len() == 12,
            "{id}: {shown:?}"
        );
        ensure!(shown.image.contains("tiny"), "{shown:?}");
        Ok(shown)
    }

    fn stays(view: &View, what: &str) -> anyhow::Result<()> {
        let before = view.history();
        holds_for(what, A_WHILE, || view.history(), |now| *now == before)
    }

    /// Returns how often a container was removed from the list.
    fn goings(view: &View, name: &str) -> usize {
        let history = view.history();
        let goes = |seen: &&Seen| matches!(seen, Seen::Removed(gone, _) if gone == name);
        history.iter().filter(goes).count()
    }

    fn was_ever_listed(view: &View, name: &str) -> bool {
        let history = view.history();
        let comes = |seen: &Seen| matches!(seen, Seen::Added(come, _) if come == name);
        history.iter().any(comes)
    }

    fn aliases<S: Into<String>>(names: impl IntoIterator<Item = S>) -> BTreeSet<String> {
        names.into_iter().map(Into::into).collect()
    }

    /// Runs the daemon's command line and returns its JSON lines.
    fn command(args: &[&str]) -> anyhow::Result<Vec<Value>> {
        let args: Vec<_> = args.iter().map(OsStr::new).collect();
        let output = daemon::run(&[], &args, SOON)?;
        let text = String::from_utf8(output.stdout)?;
        let lines = text.lines().map(serde_json::from_str);
        Ok(lines.collect::<Result<_, _>>()?)
    }

    /// Returns the daemon's explanation of a name.
    fn explained(name: &str) -> anyhow::Result<Value> {
        let mut answer = command(&["explain", "--json", "--", name])?;
        let answer = answer.pop().context("no explanation")?;
        ensure!(answer["backend"] == "default", "{answer}");
        Ok(answer)
    }

    /// Checks that explanations by each name agree with the list.
    fn is_explained(scene: &Scene, shown: &Shown) -> anyhow::Result<()> {
        for name in shown.names() {
            let answer = explained(name)?;
            ensure!(answer["listed"] == true, "{name}: {answer}");
            ensure!(answer["reasons"][0]["code"] == "Listed", "{name}: {answer}");
            let others = shown.names().filter(|other| *other != name);
            let said = answer["aliases"].as_array().into_iter().flatten();
            let said = aliases(said.filter_map(Value::as_str));
            ensure!(said == aliases(others), "{name}: {answer}");
            let interfaces = answer["interfaces"].as_array().into_iter().flatten();
            let interfaces = aliases(interfaces.filter_map(Value::as_str));
            ensure!(shown.interfaces.keys().eq(&interfaces), "{name}: {answer}");
        }
        let state = scene.client()?.state();
        let listed = state.namespace(&shown.name).context("it is listed")?;
        let lines = command(&["namespaces", "--json"])?;
        let line = json!({"event": "present", "backend": "default", "namespace": listed});
        ensure!(lines.contains(&line), "no {line} in {lines:?}");
        Ok(())
    }

    fn is_not_listed(name: &str, reason: &str) -> anyhow::Result<()> {
        let answer = explained(name)?;
        ensure!(answer["listed"] == false, "{answer}");
        ensure!(answer["reasons"][0]["code"] == reason, "{answer}");
        Ok(())
    }

    /// Switches a link like a frontend, and checks the result in the list and in the container.
    fn switch(scene: &Scene, at: (&str, &str), engine: &Engine, up: bool) -> anyhow::Result<()> {
        let (name, interface) = at;
        let namespace = format!("container:{name}");
        let operation = if up { "Enable" } else { "Disable" };
        let request =
            json!({"namespace": namespace, "interface": interface, "operation": operation});
        let (reply, _) = scene.client()?.ask("interface", &request)?;
        ensure!(
            reply["success"] == true && reply["new_state"] == up,
            "{reply}"
        );
        attribute(scene, (&namespace, interface), "is_up", up)?;
        ensure!(is_up(engine, at)? == up, "{at:?} is not as it is listed");
        Ok(())
    }

    fn is_up(engine: &Engine, (name, interface): (&str, &str)) -> anyhow::Result<bool> {
        let link = ["ip", "-o", "link", "show", "dev", interface];
        let said = in_netns_of(engine.pid_of(name)?, &link)?;
        Ok(said.contains(",UP") || said.contains("<UP"))
    }

    /// Checks that all operations for named namespaces work on a container with `eth0`, by each of its names.
    fn works(scene: &Scene, engine: &Engine, name: &str) -> anyhow::Result<()> {
        let namespace = format!("container:{name}");
        let gateway = in_netns_of(engine.pid_of(name)?, &["ip", "route", "show", "default"])?;
        let gateway = gateway.split(' ').nth(2).context("it has no gateway")?;
        let ask = json!({
            "namespace": namespace, "interface": "eth0", "target": null, "timeout_ms": 2000,
        });
        let (reply, _) = scene.client()?.ask("diagnostics", &ask)?;
        let connectivity = &reply["results"]["connectivity"];
        ensure!(
            reply["success"] == true && connectivity["target"] == gateway,
            "{gateway}: {reply}"
        );
        ensure!(connectivity["reachable"] == true, "{reply}");
        prompt(scene, "its traffic is counted", |state| {
            state.seen(&format!("bandwidth/{namespace}/eth0")).is_some()
        })?;
        switch(scene, (name, "eth0"), engine, false)?;
        switch(scene, (name, "eth0"), engine, true)
    }

    lab_test!(
        docker_containers_are_listed_as_they_are,
        Kind::Engines,
        |scene| {
            let view = start(scene)?;
            let docker = Engine::start(Which::Docker)?;
            docker.start_container("alone", &["--network", "none"])?;
            docker.start_container("bridged", &[])?;
            docker.run(&["network", "create", "users"])?;
            docker.start_container("user", &["--network", "users"])?;
            let host = view.host();
            docker.start_container("host", &["--network", "host"])?;
            docker.start_container("guest", &["--network", "container:alone"])?;
            view.wait_names(&["alone", "bridged", "guest", "user"])?;
            ensure!(view.host() == host, "{host:?} {:?}", view.host());
            is_not_listed("container:host", "NoContainer")?;
            let alone = check(&docker, "alone", &view)?;
            ensure!(alone.interfaces.keys().eq(["lo"]), "{alone:?}");
            ensure!(alone.aliases == aliases(["container:guest"]), "{alone:?}");
            ensure!(alone == check(&docker, "guest", &view)?, "they are one");
            is_explained(scene, &alone)?;
            for name in ["bridged", "user"] {
                let shown = check(&docker, name, &view)?;
                ensure!(shown.name == format!("container:{name}"), "{shown:?}");
                ensure!(shown.aliases.is_empty(), "{shown:?}");
                ensure!(shown.runtime == "Docker", "{shown:?}");
                ensure!(shown.interfaces.keys().eq(["eth0", "lo"]), "{shown:?}");
                works(scene, &docker, name)?;
                is_explained(scene, &shown)?;
            }

            docker.run(&["pause", "user"])?;
            docker.run(&["exec", "alone", "sleep", "0"])?;
            docker.run(&["unpause", "user"])?;
            stays(&view, "pausing and executing change no namespace")?;
            docker.run(&["network", "connect", "users", "bridged"])?;
            let connected = check(&docker, "bridged", &view)?;
            ensure!(connected.interfaces.contains_key("eth1"), "{connected:?}");
            docker_containers_change(scene, &docker, &view)?;
            ensure!(!was_ever_listed(&view, "host"), "the host is no container");
            docker.remove(&["host", "renamed", "bridged"])?;
            view.wait_names(&[])?;
            view.ensure_always(1, |it| it.names().any(|name| name == "container:guest"))?;
            docker.stop()
        }
    );

    /// Renames, restarts, kills and stops containers.
    fn docker_containers_change(scene: &Scene, docker: &Engine, view: &View) -> anyhow::Result<()> {
        docker.run(&["rename", "user", "renamed"])?;
        view.wait_names(&["alone", "bridged", "guest", "renamed"])?;
        let before = check(docker, "renamed", view)?;
        is_explained(scene, &before)?;
        is_not_listed("container:user", "NoContainer")?;
        restart(scene, docker, "renamed", view)?;
        docker.run(&["kill", "alone"])?;
        // The guest still holds the namespace, so the namespace has its name now.
        view.wait_names(&["bridged", "guest", "renamed"])?;
        let guest = check(docker, "guest", view)?;
        ensure!(
            guest.name == "container:guest" && guest.aliases.is_empty(),
            "{guest:?}"
        );
        docker.run(&["stop", "-t", "0", "bridged"])?;
        docker.remove(&["guest", "alone"])?;
        view.wait_names(&["renamed"]).map(drop)
    }

    /// Checks that a restarted container is a new one: it was removed and added, and no change of the old one remains.
    fn restart(scene: &Scene, engine: &Engine, name: &str, view: &View) -> anyhow::Result<()> {
        let at = (name, "eth0");
        switch(scene, at, engine, false)?;
        let gone = goings(view, name);
        engine.run(&["restart", "-t", "0", name])?;
        let went = || goings(view, name);
        wait_for("it has gone", SOON, went, |now| *now == gone + 1)?;
        check(engine, name, view)?;
        let namespace = format!("container:{name}");
        attribute(scene, (&namespace, "eth0"), "is_up", true)?;
        ensure!(is_up(engine, at)?, "it is down as the old one was");
        Ok(())
    }

    lab_test!(
        docker_may_hang_stop_and_start_again,
        Kind::Engines,
        |scene| {
            let docker = Engine::start(Which::Docker)?;
            docker.start_container("early", &["--network", "none"])?;
            let view = start(scene)?;
            view.wait_names(&["early"])?;
            check(&docker, "early", &view)?;
            docker.start_container("other", &["--network", "none"])?;
            view.wait_names(&["early", "other"])?;

            let early = docker.pid_of("early")?;
            docker.signal(Signal::SIGSTOP)?;
            process::signal(early, Signal::SIGKILL)?;
            view.wait_names(&["other"])?;
            docker.signal(Signal::SIGCONT)?;
            docker.run(&["start", "early"])?;
            view.wait_names(&["early", "other"])?;

            docker.stop()?;
            view.wait_names(&[])?;
            let docker = Engine::start(Which::Docker)?;
            docker.run(&["start", "other"])?;
            view.wait_names(&["other"])?;
            check(&docker, "other", &view)?;
            docker.remove(&["other", "early"])?;
            view.wait_names(&[])?;
            view.ensure_always(1, |it| it.name == "container:early")?;
            docker.stop()
        }
    );

    lab_test!(
        containers_that_outlive_docker_are_the_same_afterwards,
        Kind::Engines,
        |scene| {
            let options = ["--live-restore"];
            let docker = Engine::start_with(Which::Docker, &options)?;
            let view = start(scene)?;
            for name in ["stays", "ends"] {
                docker.start_container(name, &["--network", "none"])?;
            }
            view.wait_names(&["ends", "stays"])?;
            let (told, ends) = (view.history().len(), docker.pid_of("ends")?);
            docker.stop()?;
            stays(&view, "containers outlive the engine")?;
            process::signal(ends, Signal::SIGKILL)?;
            view.wait_names(&["stays"])?;
            let docker = Engine::start_with(Which::Docker, &options)?;
            docker.start_container("new", &["--network", "none"])?;
            view.wait_names(&["new", "stays"])?;
            check(&docker, "stays", &view)?;
            ensure!(view.history().len() == told + 2, "{:?}", view.history());
            docker.remove(&["new", "stays", "ends"])?;
            view.wait_names(&[])?;
            docker.stop()
        }
    );

    /// Returns whether Podman created this name of a namespace.
    fn is_podmans(name: &str) -> bool {
        name.starts_with("netns-")
    }

    lab_test!(
        podman_containers_are_listed_as_they_are,
        Kind::Engines,
        |scene| {
            let view = start(scene)?;
            let podman = Engine::start(Which::Podman)?;
            podman.start_container("alone", &["--network", "none"])?;
            podman.start_container("bridged", &[])?;
            let host = view.host();
            podman.start_container("host", &["--network", "host"])?;
            podman.start_container("guest", &["--network", "container:alone"])?;
            view.wait_names(&["alone", "bridged", "guest"])?;
            ensure!(view.host() == host, "{host:?} {:?}", view.host());
            let alone = check(&podman, "alone", &view)?;
            ensure!(alone == check(&podman, "guest", &view)?, "they are one");
            ensure!(alone.runtime == "Podman", "{alone:?}");
            ensure!(alone.aliases.contains("container:guest"), "{alone:?}");
            is_explained(scene, &alone)?;
            // One namespace with two names. The other one is an entry of the directory.
            let bridged = check(&podman, "bridged", &view)?;
            ensure!(bridged.interfaces.keys().eq(["eth0", "lo"]), "{bridged:?}");
            let entries = netns::entries()?;
            let [alias] = &Vec::from_iter(&bridged.aliases)[..] else {
                bail!("one other name: {bridged:?}");
            };
            ensure!(is_podmans(alias), "{bridged:?}");
            ensure!(
                entries.iter().any(|it| it == OsStr::new(alias)),
                "{entries:?}"
            );
            is_explained(scene, &bridged)?;
            works(scene, &podman, "bridged")?;
            podman_containers_change(scene, &podman, &view)?;

            // Podman's containers run without the service.
            let killed = podman.pid_of("bridged")?;
            podman.stop()?;
            stays(&view, "containers outlive the service")?;
            process::signal(killed, Signal::SIGKILL)?;
            view.wait_names(&["alone", "renamed"])?;
            let podman = Engine::start(Which::Podman)?;
            podman.run(&["start", "bridged"])?;
            view.wait_names(&["alone", "bridged", "renamed"])?;
            check(&podman, "bridged", &view)?;
            podman.run(&["kill", "bridged"])?;
            view.wait_names(&["alone", "renamed"])?;
            // Podman requires that guests are removed first.
            podman.remove(&["renamed"])?;
            podman.remove(&["alone", "bridged", "host"])?;
            view.wait_names(&[])?;
            ensure!(!was_ever_listed(&view, "host"), "the host is no container");
            podman.stop()
        }
    );

    fn podman_containers_change(scene: &Scene, podman: &Engine, view: &View) -> anyhow::Result<()> {
        podman.run(&["pause", "alone"])?;
        podman.run(&["unpause", "alone"])?;
        stays(view, "pausing changes no namespace")?;
        podman.run(&["rename", "guest", "renamed"])?;
        view.wait_names(&["alone", "bridged", "renamed"])?;
        restart(scene, podman, "bridged", view)
    }

    lab_test!(
        podmans_own_name_is_never_an_entry_beside_the_container,
        Kind::Engines,
        |scene| {
            let view = start(scene)?;
            let podman = Engine::start(Which::Podman)?;
            for number in 0..8 {
                let name = format!("b{number}");
                podman.start_container(&name, &[])?;
                let shown = check(&podman, &name, &view)?;
                ensure!(shown.aliases.iter().all(|it| is_podmans(it)), "{shown:?}");
                podman.remove(&[&name])?;
                view.wait_names(&[])?;
                scene.wait_named(&NO_OPTIONS)?;
            }
            // There is one container at a time.
            let belongs = |it: &Shown| it.name != "default";
            view.ensure_always(1, belongs)?;
            podman.stop()
        }
    );

    /// Delays between events of the engine and the lists that show them.
    #[derive(Default)]
    struct Cycles {
        shown: Times,
        gone: Times,
        /// How long before the event of the engine the end was listed.
        ahead: Times,
    }

    /// A network without setup cost, so that many containers start in a short time.
    const NONE: &[&str] = &["--network", "none"];

    /// Starts and removes containers one by one.
    fn cycle(
        engine: &Engine,
        view: &View,
        events: &Receiver<Event>,
        (count, network): (usize, &[&str]),
    ) -> anyhow::Result<Cycles> {
        let already = view.history().len();
        for number in 0..count {
            let name = format!("c{number}");
            engine.start_container(&name, network)?;
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
                    // The list may arrive before the event, because the kernel is faster than the engine.
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

    /// Maximum delay until the client has the container with its interfaces.
    const LIMIT: Duration = Duration::from_millis(50);

    fn within_limit(what: &str, times: &Times) -> anyhow::Result<()> {
        // With fewer than a hundred values the 99th percentile is the maximum, which another program may have caused.
        let judged = if times.len() < 100 { 90 } else { 99 };
        let (p50, late) = (times.percentile(50)?, times.percentile(judged)?);
        measure::report(format!("{what}: {times}, p{judged} {late:.1?}"))?;
        ensure!(
            late <= LIMIT * patience(),
            "{what}: p50 {p50:?} p{judged} {late:?}"
        );
        Ok(())
    }

    /// Maximum growth of memory in bytes.
    const MEMORY: u64 = 1024 * 1024;
    /// Idle threads end after 10 s.
    const CALM: Duration = Duration::from_secs(15);

    /// Waits until the daemon holds no more than before. Otherwise reports the difference.
    fn nothing_grew(what: &str, scene: &Scene, before: Footprint) -> anyhow::Result<()> {
        let daemon = scene.daemon()?;
        let busy = Footprint::of(daemon)?.cpu - before.cpu;
        let grew = |now: &anyhow::Result<Footprint>| {
            now.as_ref().is_ok_and(|now| {
                now.fds <= before.fds
                    && now.threads <= before.threads + 2
                    && now.rss <= before.rss + MEMORY
            })
        };
        let look = || Footprint::of(daemon);
        let after = wait_for("nothing grew", CALM, look, grew);
        let after = after.with_context(|| format!("{what}: before {before:?}"))??;
        measure::report(format!(
            "{what}: before {before:?}, after {after:?}, {busy:?} of processor time"
        ))?;
        Ok(())
    }

    lab_test!(
        a_hundred_docker_containers_are_fast_and_leave_nothing,
        Kind::Engines,
        |scene| {
            let view = start(scene)?;
            let docker = Engine::start(Which::Docker)?;
            let bridged = cycle(&docker, &view, &docker.events()?, (20, &[]))?;
            check_cycles("docker, bridged", &bridged)?;
            let before = Footprint::of(scene.daemon()?)?;
            let cycles = cycle(&docker, &view, &docker.events()?, (100, NONE))?;
            nothing_grew("docker", scene, before)?;
            check_cycles("docker", &cycles)?;
            docker.stop()
        }
    );

    // Without a journal, Podman polls its own events file every 250 ms. Its subscribers wait equally long.
    lab_test!(podman_containers_are_fast, Kind::Engines, |scene| {
        let podman = Engine::start(Which::Podman)?;
        let view = start(scene)?;
        let first = cycle(&podman, &view, &podman.events()?, (10, NONE))?;
        within_limit("podman, first ten", &first.shown)?;
        let before = Footprint::of(scene.daemon()?)?;
        let cycles = cycle(&podman, &view, &podman.events()?, (50, NONE))?;
        nothing_grew("podman", scene, before)?;
        check_cycles("podman", &cycles)?;
        podman.stop()
    });

    // Without the file, the daemon depends on the socket. The measured time begins when the engine sends the event.
    lab_test!(
        podman_containers_are_fast_without_its_file,
        Kind::Engines,
        |scene| {
            let podman = Engine::start(Which::Podman)?;
            let tap = Tap::start(Which::Podman)?;
            chown(tap.socket(), Some(1000), None)?;
            let options = [OsStr::new("--container-socket"), tap.socket().as_os_str()];
            let view = View::start(scene, &options)?;
            let cycles = cycle(&podman, &view, tap.events(), (20, NONE))?;
            check_cycles("podman without its file", &cycles)?;
            podman.stop()
        }
    );

    // The socket of the proxy does not belong to root, so Podman's events file is not read.
    lab_test!(
        a_container_whose_start_was_not_reported_is_found,
        Kind::Engines,
        |scene| {
            let podman = Engine::start(Which::Podman)?;
            let tap = Tap::start(Which::Podman)?;
            chown(tap.socket(), Some(1000), None)?;
            let socket = tap.socket().as_os_str();
            let interval = ["--sweep-interval", "1s"].map(OsStr::new);
            let options = [OsStr::new("--container-socket"), socket];
            let view = View::start(scene, &[options, interval].concat())?;
            podman.start_container("reported", NONE)?;
            view.wait_names(&["reported"])?;
            tap.lose_events();
            podman.start_container("lost", NONE)?;
            view.wait_names(&["lost", "reported"])?;
            check(&podman, "lost", &view)?;
            podman.run(&["rename", "lost", "renamed"])?;
            view.wait_names(&["renamed", "reported"])?;
            podman.remove(&["reported", "renamed"])?;
            view.wait_names(&[])?;
            podman.stop()
        }
    );

    /// The packaged unit.
    const UNIT: &str = include_str!("../../tcgui-backend/assets/packaging/tcgui-backend.service");

    /// Returns a program that executes the daemon with the capabilities of the packaged unit and these groups.
    fn as_unit(groups: &'static str) -> anyhow::Result<&'static [&'static str]> {
        let set = UNIT
            .lines()
            .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
            .context("the unit bounds the capabilities")?;
        let set = set.replace("CAP_", "+").replace(' ', ",").to_lowercase();
        let set: &'static str = format!("--bounding-set=-all,{set}").leak();
        let wrapper = vec!["setpriv", groups, set, "--no-new-privs", "--"];
        Ok(wrapper.leak())
    }

    lab_test!(
        the_packaged_unit_uses_the_socket_of_a_user_by_its_group,
        Kind::Engines,
        |scene| {
            let podman = Engine::start(Which::Podman)?;
            let tap = Tap::start(Which::Podman)?;
            // As created by systemd for the user 1000: other users cannot enter the directory.
            let socket = Path::new("/run/user/1000/podman.sock");
            let directory = socket.parent().context("it has a directory")?;
            fs::create_dir_all(directory)?;
            fs::rename(tap.socket(), socket)?;
            for (path, mode) in [(directory, 0o700), (socket, 0o660)] {
                chown(path, Some(1000), Some(1000))?;
                fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
            }
            podman.start_container("web", NONE)?;
            let options = [OsStr::new("--container-socket"), socket.as_os_str()];

            scene.wrap_daemon(as_unit("--clear-groups")?);
            let view = View::start(scene, &options)?;
            stays(&view, "the socket is closed to the daemon")?;
            ensure!(view.history().is_empty(), "{:?}", view.history());
            scene.take_daemon()?.stop()?;

            scene.wrap_daemon(as_unit("--groups=1000")?);
            let view = View::start(scene, &options)?;
            view.wait_names(&["web"])?;
            check(&podman, "web", &view)?;
            podman.remove(&["web"])?;
            view.wait_names(&[])?;
            podman.stop()
        }
    );

    /// Period in which the idle cost is measured.
    const IDLE: Duration = Duration::from_secs(2);

    /// Returns the resource usage of an idle daemon, and its processor time in the period.
    fn idle(scene: &mut Scene, options: &[&str]) -> anyhow::Result<(Footprint, Duration)> {
        scene.start_with(options)?;
        scene.wait_for("it is at work", |state| state.health().is_some())?;
        let before = Footprint::of(scene.daemon()?)?;
        holds_for("time passes", IDLE, || (), |()| true)?;
        let after = Footprint::of(scene.daemon()?)?;
        scene.take_daemon()?.stop()?;
        Ok((after, after.cpu - before.cpu))
    }

    lab_test!(without_an_engine_nothing_is_done, Kind::Engines, |scene| {
        let (off, used_off) = idle(scene, &["--no-containers"])?;
        let (on, used_on) = idle(scene, &NO_OPTIONS)?;
        measure::report(format!(
            "--no-containers: {off:?}, {used_off:?} in {IDLE:?}; without an engine: {on:?}, {used_on:?}"
        ))?;
        // The watches of the socket directories need an inotify descriptor, and a thread that sleeps in epoll until inotify or an
        // eventfd wakes it. Thread pools vary by one.
        ensure!(on.fds <= off.fds + 3, "{off:?} {on:?}");
        ensure!(on.threads <= off.threads + 2, "{off:?} {on:?}");
        ensure!(on.rss <= off.rss + MEMORY, "{off:?} {on:?}");
        // The resolution of processor time is 10 ms.
        ensure!(
            used_on <= used_off + Duration::from_millis(20),
            "{used_on:?}"
        );
        scene.start()
    });

    lab_test!(disabled_containers_are_not_listed, Kind::Engines, |scene| {
        let podman = Engine::start(Which::Podman)?;
        let view = View::start(scene, &["--no-containers"])?;
        podman.start_container("web", &["--network", "none"])?;
        stays(&view, "containers are disabled")?;
        ensure!(view.history().is_empty(), "{:?}", view.history());
        is_not_listed("container:web", "NoContainer")?;
        podman.remove(&["web"])?;
        podman.stop()
    });
}
