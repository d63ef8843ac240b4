//! The path of the netns directory, of which each part may be replaced while the daemon runs.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use anyhow::ensure;
    use tcgui_tests::lab::Kind;
    use tcgui_tests::measure::Times;
    use tcgui_tests::process::Companion;
    use tcgui_tests::scene::Scene;
    use tcgui_tests::{lab_test, measure, netns};

    /// Time limit for a notification. A sweep would take 30 s.
    const AT_ONCE: Duration = Duration::from_secs(1);

    const OPTIONS: [&str; 2] = ["--netns-dir", "/run/lab/current/netns"];

    /// Creates `/run/lab/VERSION/netns` with a name for the namespace of a process.
    fn version(name: &str, holder: &Companion) -> anyhow::Result<()> {
        let directory = Path::new("/run/lab").join(name).join("netns");
        fs::create_dir_all(&directory)?;
        let path = directory.join(name);
        netns::touch(&path)?;
        Ok(netns::bind(&netns::of_process(holder.pid()), &path)?)
    }

    /// Makes `/run/lab/current` refer to a version, atomically.
    fn switch(version: &str) -> anyhow::Result<()> {
        symlink(version, "/run/lab/new")?;
        Ok(fs::rename("/run/lab/new", "/run/lab/current")?)
    }

    /// Runs an action, and returns the time until exactly this name is listed.
    fn until_listed(
        scene: &Scene,
        name: &str,
        work: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Duration> {
        let start = Instant::now();
        work()?;
        scene.wait_named(&[name])?;
        Ok(start.elapsed())
    }

    /// Removes everything, so that nothing is listed at the end.
    fn clear(names: &[&str]) -> anyhow::Result<()> {
        for name in names {
            netns::detach(&Path::new("/run/lab").join(name).join("netns").join(name))?;
        }
        Ok(fs::remove_dir_all("/run/lab")?)
    }

    lab_test!(
        a_changed_link_in_the_path_is_listed_at_once,
        Kind::Alone,
        |scene| {
            let (first, second) = (netns::holder()?, netns::holder()?);
            version("v1", &first)?;
            version("v2", &second)?;
            switch("v1")?;
            scene.start_with(&OPTIONS)?;
            scene.wait_named(&["v1"])?;
            let mut times = Times::default();
            for _ in 0..10 {
                for name in ["v2", "v1"] {
                    times.push(until_listed(scene, name, || switch(name))?);
                }
            }
            measure::report(format!("link in the path replaced, to list: {times}"))?;
            ensure!(times.percentile(100)? < AT_ONCE, "{times}");
            // Requests for namespaces under the new path succeed.
            let request =
                serde_json::json!({"namespace": "v1", "interface": "lo", "operation": "Enable"});
            let (reply, _) = scene.client()?.ask("interface", &request)?;
            ensure!(reply["success"] == true, "{reply}");
            clear(&["v1", "v2"])
        }
    );

    lab_test!(
        a_directory_in_the_path_that_is_renamed_or_covered,
        |scene| {
            let (first, second) = (netns::holder()?, netns::holder()?);
            fs::create_dir("/run/lab")?;
            // At first only the beginning of the path exists.
            scene.start_with(&OPTIONS)?;
            let mut times = Times::default();
            let begin = || {
                version("v1", &first)?;
                switch("v1")
            };
            times.push(until_listed(scene, "v1", begin)?);
            // Another directory replaces one in the middle of the path.
            version("v2", &second)?;
            let exchange = || {
                fs::rename("/run/lab/v1", "/run/lab/old")?;
                Ok(fs::rename("/run/lab/v2", "/run/lab/v1")?)
            };
            times.push(until_listed(scene, "v2", exchange)?);
            let exchange_again = || {
                fs::rename("/run/lab/v1", "/run/lab/v2")?;
                Ok(fs::rename("/run/lab/old", "/run/lab/v1")?)
            };
            times.push(until_listed(scene, "v1", exchange_again)?);
            // A file system is mounted over a part of the path, and unmounted.
            let cover = || {
                netns::cover(Path::new("/run/lab"))?;
                version("v3", &second)?;
                switch("v3")
            };
            times.push(until_listed(scene, "v3", cover)?);
            let uncover = || Ok(netns::detach(Path::new("/run/lab"))?);
            times.push(until_listed(scene, "v1", uncover)?);
            // The watches are on the current directories.
            times.push(until_listed(scene, "v2", || switch("v2"))?);
            measure::report(format!("directory in the path replaced, to list: {times}"))?;
            ensure!(times.percentile(100)? < AT_ONCE, "{times}");
            clear(&["v1", "v2"])
        }
    );
}
