//! The cost of the daemon for other programs: processor time while its directory is read, and delays of deleted namespaces.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use anyhow::ensure;
    use tcgui_tests::lab::Kind;
    use tcgui_tests::links::veth_dies;
    use tcgui_tests::measure::Times;
    use tcgui_tests::scene::Scene;
    use tcgui_tests::wait::at_rate;
    use tcgui_tests::{lab_test, measure, netns};

    const WATCHED: Duration = Duration::from_secs(10);

    /// Percent of one core. A build without optimisation may use three times as much.
    const ALLOWED: u128 = if cfg!(debug_assertions) { 3 } else { 1 };

    // Row 17. Every `ls` causes inotify events, and so does each scan of the daemon.
    lab_test!(
        row_17_looking_at_the_directory_costs_nothing,
        Kind::Alone,
        |scene| {
            for number in 0..50 {
                netns::add(format!("n{number}"))?;
            }
            scene.start()?;
            scene.wait_for("all are listed", |state| state.named().len() == 50)?;
            let lists = scene.client()?.state().lists();
            let before = scene.daemon()?.cpu_time()?;
            let looks = at_rate(200, WATCHED, || {
                let count = fs::read_dir(netns::DIR)?.count();
                ensure!(count == 50, "{count} entries");
                Ok(())
            })?;
            let used = scene.daemon()?.cpu_time()? - before;
            measure::report(format!(
                "{used:?} of processor time during {looks} looks in {WATCHED:?}"
            ))?;
            ensure!(
                looks > 1000,
                "this machine is too busy to look often enough: {looks}"
            );
            ensure!(
                used.as_millis() * 100 <= WATCHED.as_millis() * ALLOWED,
                "{used:?}"
            );
            ensure!(scene.client()?.state().lists() == lists, "lists were sent");
            Ok(())
        }
    );

    /// Median time that a busy kernel must need without the daemon. With less the test proves nothing.
    const BUSY_FLOOR: Duration = Duration::from_millis(30);

    /// Maximum time, independent of the kernel.
    const LIMIT: Duration = Duration::from_millis(150);

    fn many(count: usize, times: &mut Times, scene: Option<&Scene>) -> anyhow::Result<()> {
        for _ in 0..count {
            times.push(veth_dies(scene)?);
        }
        Ok(())
    }

    // Row 18. The floor is measured before and after, because the load of the machine may change.
    lab_test!(
        row_18_a_monitored_namespace_dies_as_fast_as_any,
        Kind::Alone,
        |scene| {
            let mut floor = Times::default();
            let mut monitored = Times::default();
            many(15, &mut floor, None)?;
            scene.start()?;
            many(30, &mut monitored, Some(scene))?;
            scene.take_daemon()?.stop()?;
            many(15, &mut floor, None)?;
            measure::report(format!(
                "veth gone without the daemon: {floor}; with it: {monitored}"
            ))?;
            let allowed = (floor.percentile(90)? * 2).clamp(BUSY_FLOOR, LIMIT);
            ensure!(
                monitored.percentile(90)? <= allowed,
                "{monitored}; allowed {allowed:?}"
            );
            Ok(())
        }
    );
}
