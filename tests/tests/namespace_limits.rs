//! Named namespaces under hard conditions: no propagation, no inotify, a thousand at once.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use anyhow::{Context, ensure};
    use tcgui_tests::lab::Kind;
    use tcgui_tests::process::{Companion, run};
    use tcgui_tests::scene::Scene;
    use tcgui_tests::wait::{holds_for, wait_for};
    use tcgui_tests::{lab_test, measure, netns};

    /// For a thousand of anything.
    const LONG: Duration = Duration::from_secs(30);

    /// Lines of the daemon's log that warn and hold this word.
    fn warnings(scene: &Scene, word: &str) -> Vec<String> {
        let log = scene
            .daemon()
            .map(|daemon| daemon.stderr())
            .unwrap_or_default();
        let warns = |line: &&str| line.contains(" WARN ") && line.to_lowercase().contains(word);
        log.lines().filter(warns).map(str::to_owned).collect()
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
        // It sees the old one for ever, which the check at the end cannot know.
        scene.take_daemon()?.stop().map(drop)
    });

    /// Far more than it takes with inotify.
    const SLOW_SWEEP: [&str; 2] = ["--degraded-sweep-interval", "3s"];

    /// Lost doorbells are tried again with a pause that doubles.
    const RETRIED: Duration = Duration::from_secs(60);

    /// Each lost doorbell is said once: the instance, or the watch on either directory.
    fn ensure_said_once(scene: &Scene) -> anyhow::Result<()> {
        let lines = warnings(scene, "inotify");
        ensure!(!lines.is_empty(), "the loss of inotify is not logged");
        for doorbell in ["instance", "parent", "netns directory"] {
            let count = lines.iter().filter(|line| line.contains(doorbell)).count();
            ensure!(count <= 1, "{count} lines about the {doorbell}: {lines:#?}");
        }
        ensure!(lines.len() <= 2, "{lines:#?}");
        Ok(())
    }

    /// How long a symlink, which changes no mount, needs to be listed.
    fn symlink_to_list(scene: &Scene, holder: &Companion) -> anyhow::Result<Duration> {
        symlink(netns::of_process(holder.pid()), netns::path("link"))?;
        let start = Instant::now();
        scene.client()?.wait_for("link is listed", LONG, |state| {
            state.named().contains("link")
        })?;
        let listed = start.elapsed();
        fs::remove_file(netns::path("link"))?;
        scene.client()?.wait_for("link is gone", LONG, |state| {
            !state.named().contains("link")
        })?;
        Ok(listed)
    }

    fn without_inotify(scene: &mut Scene, limit: &str) -> anyhow::Result<()> {
        let limit = Path::new("/proc/sys/user").join(limit);
        let usual = fs::read(&limit)?;
        fs::write(&limit, "0").with_context(|| format!("write {}", limit.display()))?;
        scene.start_with(&SLOW_SWEEP)?;
        netns::add("a")?;
        scene.wait_named(&["a"])?;
        netns::add("b")?;
        netns::del("a")?;
        scene.wait_named(&["b"])?;
        let holder = netns::holder()?;
        symlink_to_list(scene, &holder)?;
        ensure_said_once(scene)?;

        fs::write(&limit, usual)?;
        let mut prompt = 0;
        wait_for(
            "inotify works again: three symlinks in a row are listed at once",
            RETRIED,
            || {
                let listed = symlink_to_list(scene, &holder);
                let fast = listed
                    .as_ref()
                    .is_ok_and(|listed| *listed < Duration::from_secs(1));
                prompt = if fast { prompt + 1 } else { 0 };
                (prompt, listed)
            },
            |(prompt, _)| *prompt == 3,
        )
        .map(drop)?;
        ensure_said_once(scene)?;
        // The watcher's own descriptors are new.
        scene.accept_footprint()
    }

    lab_test!(row_15_no_inotify_instances, Kind::OwnLimits, |scene| {
        without_inotify(scene, "max_inotify_instances")
    });

    lab_test!(row_15_no_inotify_watches, Kind::OwnLimits, |scene| {
        without_inotify(scene, "max_inotify_watches")
    });

    const MANY: usize = 1000;

    /// Makes and removes a thousand namespaces as fast as `ip` can.
    fn thousand(scene: &Scene) -> anyhow::Result<()> {
        for (act, expected) in [("add", MANY), ("del", 0)] {
            let batch = tempfile::NamedTempFile::new()?;
            let lines: Vec<_> = (0..MANY)
                .map(|number| format!("netns {act} n{number}"))
                .collect();
            fs::write(batch.path(), lines.join("\n") + "\n")?;
            let start = Instant::now();
            run(Command::new("ip").arg("-batch").arg(batch.path()))?;
            let made = start.elapsed();
            scene
                .client()?
                .wait_for(&format!("{expected} are listed"), LONG, |state| {
                    state.named().len() == expected
                })?;
            let listed = start.elapsed();
            measure::report(format!(
                "{MANY} × {act}: ip {made:.1?}, listed after {listed:.1?}"
            ))?;
        }
        Ok(())
    }

    // What leaks shows in the second thousand; the first one fills caches.
    lab_test!(
        row_16_a_thousand_namespaces_leave_nothing,
        Kind::Alone,
        |scene| {
            scene.start()?;
            thousand(scene)?;
            let first = scene.daemon()?.rss()?;
            thousand(scene)?;
            let second = scene.daemon()?.rss()?;
            measure::report(format!(
                "resident: {} KiB, then {} KiB",
                first / 1024,
                second / 1024
            ))?;
            ensure!(second < first + first / 5, "{first} grew to {second}");
            Ok(())
        }
    );
}
