//! Named namespaces if kernel notifications or resources are missing.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use anyhow::ensure;
    use nix::sys::signal::Signal;
    use serde_json::json;
    use tcgui_tests::daemon::Daemon;
    use tcgui_tests::doorbells::{Limit, NO_MOUNTS, give_mounts};
    use tcgui_tests::fuse::Hung;
    use tcgui_tests::lab::Kind;
    use tcgui_tests::links::{self, life_of_a_link};
    use tcgui_tests::measure::Times;
    use tcgui_tests::process::{Companion, run};
    use tcgui_tests::scene::Scene;
    use tcgui_tests::wait::{holds_for, wait_for};
    use tcgui_tests::{lab_test, measure, netns};

    /// Time limit for retries whose interval doubles up to a minute.
    const LONG: Duration = Duration::from_secs(60);

    /// Returns the lines of the daemon's log with this level and word.
    fn said(scene: &Scene, level: &str, word: &str) -> Vec<String> {
        let log = scene
            .daemon()
            .map(|daemon| daemon.stderr())
            .unwrap_or_default();
        let says = |line: &&str| line.contains(level) && line.to_lowercase().contains(word);
        log.lines().filter(says).map(str::to_owned).collect()
    }

    const WARNED: &str = " WARN ";

    fn warnings(scene: &Scene, word: &str) -> Vec<String> {
        said(scene, WARNED, word)
    }

    lab_test!(row_09_mounts_that_propagate, |scene| {
        run(Command::new("mount").args(["--make-shared", "/run"]))?;
        scene.wrap_daemon(&["unshare", "-m", "--propagation", "slave"]);
        scene.start()?;
        netns::add("a")?;
        scene.wait_named(&["a"])?;
        netns::del("a")?;
        scene.wait_named::<&str>(&[])?;
        let warnings = warnings(scene, "propagat");
        ensure!(warnings.is_empty(), "{warnings:?}");
        Ok(())
    });

    lab_test!(row_09_mounts_that_do_not_propagate, |scene| {
        netns::add("old")?;
        scene.wrap_daemon(&["unshare", "-m", "--propagation", "private"]);
        scene.start()?;
        scene.wait_named(&["old"])?;
        netns::add("a")?;
        netns::add("b")?;
        wait_for(
            "a warning",
            LONG,
            || warnings(scene, "propagat"),
            |lines| !lines.is_empty(),
        )?;
        holds_for(
            "one warning, and nothing is listed that cannot be used",
            Duration::from_secs(3),
            || {
                (
                    warnings(scene, "propagat").len(),
                    scene.was_ever_listed("a"),
                )
            },
            |state| *state == (1, false),
        )?;
        // The daemon lists the namespace `old` for ever, because its removal does not propagate. The final check would fail.
        scene.take_daemon()?.stop().map(drop)
    });

    /// The names of the doorbells in the daemon's log.
    const INSTANCE: &str = "inotify instance";
    const PARENT: &str = "inotify watch on the parent";
    const DIRECTORY: &str = "inotify watch on the netns directory";
    const MOUNTS: &str = "mount table";

    /// Checks that exactly these doorbells were logged as missing, once each, and that each was logged as restored `back` times.
    fn ensure_said(scene: &Scene, lost: &[&str], back: usize) -> anyhow::Result<()> {
        for doorbell in [INSTANCE, PARENT, DIRECTORY, MOUNTS] {
            let once = usize::from(lost.contains(&doorbell));
            let gone = said(scene, WARNED, doorbell);
            ensure!(gone.len() == once, "{doorbell} lost: {gone:#?}");
            let again = said(scene, " INFO ", doorbell);
            ensure!(again.len() == once * back, "{doorbell} back: {again:#?}");
        }
        Ok(())
    }

    /// Waits until all lost doorbells are logged as restored, and checks that they work.
    fn ensure_returns(scene: &mut Scene, lost: &[&str], holder: &Companion) -> anyhow::Result<()> {
        wait_for(
            "all that was lost is back",
            LONG,
            || ensure_said(scene, lost, 1),
            Result::is_ok,
        )??;
        // Only inotify reports the first change, and only the mount table reports the second.
        let mut times = Times::default();
        for _ in 0..3 {
            times.push(symlink_to_list(scene, holder)?);
            times.push(unmount_to_list(scene, holder)?);
        }
        measure::report(format!("with all doorbells back: {times}"))?;
        ensure!(times.percentile(100)? < AT_ONCE, "{times}");
        ensure_said(scene, lost, 1)?;
        // The watcher has opened new descriptors.
        scene.accept_footprint()
    }

    /// Much more than the time with all doorbells, and less than [`SLOW_SWEEP`].
    const AT_ONCE: Duration = Duration::from_secs(1);

    /// Much more than the time with the remaining doorbell.
    const SLOW_SWEEP: [&str; 2] = ["--degraded-sweep-interval", "3s"];

    /// Returns the time until a symlink, which changes no mount, is listed.
    fn symlink_to_list(scene: &Scene, holder: &Companion) -> anyhow::Result<Duration> {
        symlink(netns::of_process(holder.pid()), netns::path("link"))?;
        let start = Instant::now();
        scene.client()?.wait_for("link is listed", LONG, |state| {
            state.named().contains("link")
        })?;
        let listed = start.elapsed();
        fs::remove_file(netns::path("link"))?;
        scene
            .client()?
            .wait_for("the link is removed", LONG, |state| {
                !state.named().contains("link")
            })?;
        Ok(listed)
    }

    /// Returns the time until a name disappears whose file stays. inotify does not report that change.
    fn unmount_to_list(scene: &Scene, holder: &Companion) -> anyhow::Result<Duration> {
        let path = netns::path("left");
        netns::touch(&path)?;
        netns::bind(&netns::of_process(holder.pid()), &path)?;
        scene.wait_listed("left", true)?;
        netns::detach(&path)?;
        let start = Instant::now();
        scene.wait_listed("left", false)?;
        let gone = start.elapsed();
        fs::remove_file(path)?;
        Ok(gone)
    }

    fn without_inotify(scene: &mut Scene, limit: &str, lost: &[&str]) -> anyhow::Result<()> {
        let limit = Limit::zero(limit)?;
        scene.start_with(&SLOW_SWEEP)?;
        netns::add("a")?;
        scene.wait_named(&["a"])?;
        netns::add("b")?;
        netns::del("a")?;
        scene.wait_named(&["b"])?;
        let holder = netns::holder()?;
        symlink_to_list(scene, &holder)?;
        ensure_said(scene, lost, 0)?;
        limit.raise()?;
        ensure_returns(scene, lost, &holder)
    }

    lab_test!(row_15_no_inotify_instances, Kind::OwnLimits, |scene| {
        without_inotify(scene, "max_inotify_instances", &[INSTANCE])
    });

    lab_test!(row_15_no_inotify_watches, Kind::OwnLimits, |scene| {
        without_inotify(scene, "max_inotify_watches", &[PARENT, DIRECTORY])
    });

    lab_test!(no_mount_table, |scene| {
        scene.wrap_daemon(&NO_MOUNTS);
        scene.start_with(&SLOW_SWEEP)?;
        for _ in 0..3 {
            netns::add("a")?;
            scene.wait_named(&["a"])?;
            netns::del("a")?;
            scene.wait_named::<&str>(&[])?;
        }
        // Only a sweep can detect that the file stays without its namespace.
        netns::add("b")?;
        scene.wait_named(&["b"])?;
        netns::detach(&netns::path("b"))?;
        scene.wait_named::<&str>(&[])?;
        ensure_said(scene, &[MOUNTS], 0)?;
        give_mounts(scene.daemon()?.pid())?;
        let holder = netns::holder()?;
        ensure_returns(scene, &[MOUNTS], &holder)
    });

    /// One sweep of a daemon without notifications (1 s by default), plus the delays of a busy machine.
    const ONE_SWEEP: Duration = Duration::from_millis(1200 + 500);

    lab_test!(neither_inotify_nor_mount_table, Kind::OwnLimits, |scene| {
        let limit = Limit::zero("max_inotify_instances")?;
        scene.wrap_daemon(&NO_MOUNTS);
        scene.start()?;
        let mut times = Times::default();
        for _ in 0..5 {
            for listed in [true, false] {
                if listed {
                    netns::add("a")?;
                } else {
                    netns::del("a")?;
                }
                let start = Instant::now();
                scene.wait_listed("a", listed)?;
                times.push(start.elapsed());
            }
        }
        measure::report(format!("swept only: {times}"))?;
        ensure!(times.percentile(100)? < ONE_SWEEP, "{times}");
        let lost = [INSTANCE, MOUNTS];
        ensure_said(scene, &lost, 0)?;
        limit.raise()?;
        give_mounts(scene.daemon()?.pid())?;
        let holder = netns::holder()?;
        ensure_returns(scene, &lost, &holder)
    });

    lab_test!(netns_directory_is_created_on_demand, |scene| {
        let directory = Path::new(netns::DIR);
        scene.start()?;
        ensure!(!directory.exists(), "created without the option");
        scene.take_daemon()?.stop()?;
        for _ in 0..2 {
            // The second time the directory already exists.
            scene.start_daemon(&["--create-netns-dir"])?;
            ensure!(directory.is_dir(), "not created");
            netns::add("a")?;
            scene.wait_named(&["a"])?;
            netns::del("a")?;
            scene.wait_named::<&str>(&[])?;
            scene.take_daemon()?.stop()?;
        }
        scene.start_daemon::<&str>(&[])
    });

    const NO_IDS: [&str; 1] = ["--no-namespace-ids"];

    lab_test!(links_are_followed_without_namespace_ids, |scene| {
        netns::add("old")?;
        scene.start_with(&NO_IDS)?;
        netns::add("new")?;
        scene.wait_named(&["new", "old"])?;
        for namespace in ["default", "old", "new"] {
            life_of_a_link(scene, namespace)?;
        }
        netns::ip_line("-n old link add moves type veth peer name stays")?;
        netns::ip_line("-n old link set moves netns new")?;
        links::attribute(scene, ("new", "moves"), "namespace", "new")?;
        links::gone(scene, "old", "moves")
    });

    lab_test!(namespaces_die_without_namespace_ids, Kind::Alone, |scene| {
        scene.start_with(&NO_IDS)?;
        let fds = || scene.daemon().and_then(|daemon| daemon.fds());
        let before = fds()?;
        let mut times = Times::default();
        for _ in 0..10 {
            times.push(links::veth_dies(Some(scene))?);
        }
        measure::report(format!("veth gone, with sockets inside: {times}"))?;
        ensure!(times.percentile(100)? < Duration::from_secs(1), "{times}");
        for number in 0..20 {
            netns::add(format!("n{number}"))?;
        }
        scene.wait_for("all are listed", |state| state.named().len() == 20)?;
        let inside = fds()?;
        ensure!(
            inside >= before + 40,
            "two sockets each: {before} → {inside}"
        );
        netns::clear()?;
        wait_for("descriptors are returned", links::PROMPT, fds, |now| {
            now.as_ref().is_ok_and(|now| *now <= before + 4)
        })
        .map(drop)
    });

    /// Checks that a link change and an explanation are answered, and that SIGTERM ends the daemon in time.
    fn serves_and_stops(scene: &mut Scene, entry: &str) -> anyhow::Result<()> {
        scene.ping()?;
        for operation in ["Disable", "Enable"] {
            let request = json!({"namespace": "there", "interface": "lo", "operation": operation});
            let (reply, _) = scene.client()?.ask("interface", &request)?;
            ensure!(reply["success"] == true, "{reply}");
        }
        let (reply, _) = scene
            .client()?
            .ask("explain", &json!({ "namespace": entry }))?;
        ensure!(reply["success"] == true, "{reply}");
        let status = scene.take_daemon()?.stop()?;
        ensure!(status.success(), "{status}");
        Ok(())
    }

    lab_test!(an_entry_that_hangs_does_not_hide_other_entries, |scene| {
        netns::add("there")?;
        scene.start()?;
        scene.wait_named(&["there"])?;
        netns::touch(&netns::path("hung"))?;
        let hung = Hung::mount(&netns::path("hung"))?;
        netns::add("later")?;
        scene.wait_named(&["later", "there"])?;
        // A sweep does not wait for it either.
        scene.daemon()?.signal(Signal::SIGHUP)?;
        netns::del("later")?;
        scene.wait_named(&["there"])?;
        serves_and_stops(scene, "hung")?;
        scene.start_daemon::<&str>(&[])?;
        scene.wait_named(&["there"])?;
        drop(hung);
        Ok(())
    });

    lab_test!(
        a_link_to_a_file_system_that_hangs_blocks_no_request,
        |scene| {
            netns::add("there")?;
            scene.start()?;
            scene.wait_named(&["there"])?;
            let directory = Path::new("/run/hung");
            fs::create_dir(directory)?;
            let hung = Hung::mount(directory)?;
            symlink(directory.join("netns"), netns::path("link"))?;
            // The dump of the links blocks. Known namespaces are still served.
            scene.ping()?;
            serves_and_stops(scene, "there")?;
            // A new daemon blocks in its first scan, but can be stopped.
            let daemon = Daemon::start::<&str>(&[], &[])?;
            wait_for(
                "the daemon logs the directory",
                LONG,
                || daemon.stderr(),
                |log| log.contains("netns directory"),
            )?;
            let status = daemon.stop()?;
            ensure!(status.success(), "{status}");
            drop(hung);
            Ok(())
        }
    );
}
