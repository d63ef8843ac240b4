//! A thousand namespaces: created at once, idle, and created and deleted repeatedly.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use anyhow::ensure;
    use tcgui_tests::daemon::Footprint;
    use tcgui_tests::lab::Kind;
    use tcgui_tests::process::run;
    use tcgui_tests::scene::{SOON, Scene};
    use tcgui_tests::wait::{holds_for, wait_for};
    use tcgui_tests::{daemon, lab_test, measure, netns};

    const MANY: usize = 1000;

    /// Time limit for a thousand operations.
    const LONG: Duration = Duration::from_secs(30);

    fn names() -> Vec<String> {
        (0..MANY).map(|number| format!("n{number}")).collect()
    }

    /// Returns one value for an optimised build and another for a debug build.
    fn limit<T>(optimised: T, debug: T) -> anyhow::Result<T> {
        Ok(if daemon::is_optimised()? {
            optimised
        } else {
            debug
        })
    }

    fn add_all() -> anyhow::Result<()> {
        netns::add_burst(names())
    }

    fn del_all() -> anyhow::Result<()> {
        netns::del_burst(&names())
    }

    /// Returns the time to create or delete the namespaces, and the time from then until the list is correct.
    fn burst(
        scene: &Scene,
        what: &str,
        expected: usize,
        act: fn() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let client = scene.client()?;
        let before = client.state().lists();
        let start = Instant::now();
        act()?;
        let acted = start.elapsed();
        let state = client.wait_for(&format!("{expected} are listed"), LONG, |state| {
            state.named().len() == expected
        })?;
        let listed = start.elapsed();
        let late = listed - acted;
        let lists = state.lists() - before;
        measure::report(format!(
            "{MANY} × {what} in {acted:.1?}, listed {late:.1?} after the last, in {lists} lists"
        ))?;
        let allowed = limit(Duration::from_millis(500), Duration::from_secs(6))?;
        ensure!(late <= allowed, "listed {late:?} after the last one");
        // Ten lists may follow each other immediately, then 40 each second. Two more complete the earlier state.
        let most = 40.0 * listed.as_secs_f64() + 12.0;
        ensure!(
            u32::try_from(lists).is_ok_and(|lists| f64::from(lists) <= most),
            "{lists} lists in {listed:?}"
        );
        Ok(())
    }

    lab_test!(row_16_a_thousand_in_one_burst, Kind::Alone, |scene| {
        scene.start()?;
        burst(scene, "added", MANY, add_all)?;
        burst(scene, "deleted", 0, del_all)?;
        let missed: Vec<_> = names()
            .into_iter()
            .filter(|name| scene.comings_and_goings(name) != (1, 1))
            .collect();
        ensure!(missed.is_empty(), "not once there and gone: {missed:?}");
        Ok(())
    });

    /// Creates or deletes a thousand namespaces as fast as `ip` can.
    fn ip_batch(act: &str) -> anyhow::Result<()> {
        let batch = tempfile::NamedTempFile::new()?;
        let lines: Vec<_> = (names().iter())
            .map(|name| format!("netns {act} {name}\n"))
            .collect();
        fs::write(batch.path(), lines.concat())?;
        run(Command::new("ip").arg("-batch").arg(batch.path())).map(drop)
    }

    lab_test!(row_16_a_thousand_with_ip, Kind::Alone, |scene| {
        scene.start()?;
        burst(scene, "ip netns add", MANY, || ip_batch("add"))?;
        burst(scene, "ip netns del", 0, || ip_batch("del"))
    });

    const LARGEST: u64 = 60 * 1024 * 1024;

    /// Waits until the daemon has used no processor time for a period.
    fn wait_idle(scene: &Scene) -> anyhow::Result<()> {
        let daemon = scene.daemon()?;
        let mut last = (daemon.cpu_time()?, Instant::now());
        let look = || {
            let used = daemon.cpu_time().unwrap_or_default();
            if used != last.0 {
                last = (used, Instant::now());
            }
            last.1.elapsed()
        };
        let pause = Duration::from_millis(500);
        wait_for("the daemon is idle", LONG, look, |idle| *idle >= pause).map(drop)
    }

    /// Returns the processor time of the daemon with a thousand idle namespaces.
    fn idle_time(scene: &mut Scene, sweeps: &str, period: Duration) -> anyhow::Result<Duration> {
        // Exclude the readings of counters, whose cost is measured separately.
        scene.start_with(&["--sweep-interval", sweeps, "--bandwidth-interval", "1h"])?;
        add_all()?;
        let client = scene.client()?;
        client.wait_for("all are listed", LONG, |state| state.named().len() == MANY)?;
        // Wait for the remaining work of the burst.
        wait_idle(scene)?;
        let (lists, before) = (client.state().lists(), scene.daemon()?.cpu_time()?);
        let look = || client.state().lists();
        holds_for("no list is sent", period, look, |now| *now == lists)?;
        let used = scene.daemon()?.cpu_time()? - before;
        let resident = scene.daemon()?.rss()?;
        measure::report(format!(
            "idle with {MANY}, swept every {sweeps}: {used:?} of processor time in {period:?}, \
             {} KiB resident",
            resident / 1024
        ))?;
        ensure!(resident < LARGEST, "{resident} bytes resident");
        Ok(used)
    }

    lab_test!(
        a_thousand_use_no_processor_time_between_sweeps,
        Kind::Alone,
        |scene| {
            let period = Duration::from_secs(10);
            let used = idle_time(scene, "1h", period)?;
            let allowed = limit(period / 100, period / 50)?;
            ensure!(used < allowed, "{used:?}, allowed {allowed:?}");
            // Threads of the burst have ended. No thread or descriptor is kept for each namespace.
            scene.wait_calm()
        }
    );

    // The directory and the links are swept at least once each. With default intervals that takes two minutes.
    lab_test!(sweeping_a_thousand_costs_little, Kind::Alone, |scene| {
        let used = idle_time(scene, "4s", Duration::from_secs(16))?;
        let usual = Duration::from_secs(2 * 60);
        let allowed = limit(usual / 200, usual / 40)?;
        ensure!(
            used < allowed,
            "{used:?} for one sweep, allowed {allowed:?}"
        );
        Ok(())
    });

    fn weight(scene: &Scene) -> anyhow::Result<Footprint> {
        Footprint::of(scene.daemon()?)
    }

    /// Waits until the threads of the burst have ended and their memory was returned.
    fn settled(scene: &Scene) -> anyhow::Result<Footprint> {
        scene.wait_calm()?;
        let mut steady = None;
        let look = || weight(scene);
        wait_for("the memory is steady", SOON * 3, look, |now| {
            let Ok(now) = now else { return true };
            let (rss, since) = *steady.get_or_insert((now.rss, Instant::now()));
            if rss != now.rss {
                steady = None;
            }
            rss == now.rss && since.elapsed() > STEADY
        })?
    }

    /// Returns whether no value is more than 5 % (plus one) above the other.
    fn is_like(now: Footprint, first: Footprint) -> bool {
        let few = |now: usize, then: usize| now <= then + then / 20 + 1;
        few(now.fds, first.fds)
            && few(now.threads, first.threads)
            && now.rss <= first.rss + first.rss / 20
    }

    /// Longer than the time from the end of the last thread until memory is returned.
    const STEADY: Duration = Duration::from_secs(2);

    // The first round fills caches and pools. A leak shows in later rounds.
    lab_test!(
        thousands_come_and_go_and_leave_nothing,
        Kind::AloneFor(LONG * 10),
        |scene| {
            scene.start()?;
            let mut first = None;
            for round in 0..limit(10, 4)? {
                burst(scene, "added", MANY, add_all)?;
                burst(scene, "deleted", 0, del_all)?;
                let left = settled(scene)?;
                measure::report(format!("round {round}: {left:?}"))?;
                let first = *first.get_or_insert(left);
                wait_for(
                    &format!("no heavier than after the first round: {first:?}"),
                    SOON * 3,
                    || weight(scene),
                    |now| now.as_ref().is_ok_and(|now| is_like(*now, first)),
                )
                .map(drop)?;
            }
            Ok(())
        }
    );
}
