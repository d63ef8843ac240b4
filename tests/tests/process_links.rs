//! Names that are symbolic links to the namespace of a process. They disappear with the process, and no descriptor of the daemon
//! keeps the namespace alive.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use anyhow::{Context, ensure};
    use nix::net::if_::if_nametoindex;
    use serde_json::json;
    use tcgui_tests::lab::Kind;
    use tcgui_tests::links::{self, ip};
    use tcgui_tests::measure::Times;
    use tcgui_tests::process::Companion;
    use tcgui_tests::scene::{SOON, Scene};
    use tcgui_tests::wait::{holds_for, wait_every, wait_for};
    use tcgui_tests::{lab_test, measure, netns};

    /// Time limit for a kernel notification about the end of a process. A sweep would take 30 s.
    const AT_ONCE: Duration = Duration::from_secs(1);

    /// Number of namespaces that end with their process.
    const ROUNDS: usize = 20;
    /// Number of sockets that the daemon's pools may add, which is less than one for each of the later rounds.
    const SPARE: usize = 4;

    fn switch(scene: &Scene, namespace: &str, ifname: &str) -> anyhow::Result<()> {
        for operation in ["Disable", "Enable"] {
            let request =
                json!({"namespace": namespace, "interface": ifname, "operation": operation});
            let (reply, _) = scene.client()?.ask("interface", &request)?;
            ensure!(reply["success"] == true, "{operation}: {reply}");
        }
        Ok(())
    }

    /// Measures the time from the end of a process until its name is not listed, and until the other end of its veth is deleted.
    fn ends(
        scene: &Scene,
        target: &Path,
        holder: Companion,
    ) -> anyhow::Result<(Duration, Duration)> {
        netns::ip_line("link add outer type veth peer name inner")?;
        netns::ip_line(&format!("link set inner netns {}", holder.pid()))?;
        symlink(target, netns::path("s"))?;
        links::attribute(scene, ("s", "inner"), "interface_type", "Veth")?;
        switch(scene, "s", "inner")?;
        let start = Instant::now();
        holder.kill()?;
        scene.wait_listed("s", false)?;
        let unlisted = start.elapsed();
        wait_every(
            Duration::from_micros(500),
            "the other end of the veth is deleted",
            SOON,
            || if_nametoindex("outer").is_ok(),
            |there| !there,
        )?;
        let gone = start.elapsed();
        fs::remove_file(netns::path("s"))?;
        Ok((unlisted, gone))
    }

    lab_test!(
        a_namespace_ends_with_its_process_even_after_its_link_was_switched,
        Kind::Alone,
        |scene| {
            scene.start()?;
            fs::create_dir_all(netns::DIR)?;
            let fds = || scene.daemon().and_then(|daemon| daemon.fds());
            let (mut unlisted, mut gone) = (Times::default(), Times::default());
            let mut settled = 0;
            for round in 0..ROUNDS {
                let holder = netns::holder()?;
                let direct = netns::of_process(holder.pid());
                let chained = Path::new("/run/chained");
                let target = if round % 2 == 0 {
                    &*direct
                } else {
                    symlink(&direct, chained)?;
                    chained
                };
                let (off_list, without_veth) = ends(scene, target, holder)?;
                unlisted.push(off_list);
                gone.push(without_veth);
                fs::remove_file(chained).ok();
                if round == ROUNDS / 2 {
                    settled = fds()?;
                }
            }
            wait_for("descriptors are returned", SOON, fds, |now| {
                now.as_ref().is_ok_and(|now| *now <= settled + SPARE)
            })??;
            measure::report(format!(
                "end of the process to list: {unlisted}; veth gone: {gone}"
            ))?;
            ensure!(unlisted.percentile(100)? < AT_ONCE, "{unlisted}");
            ensure!(gone.percentile(100)? < AT_ONCE, "{gone}");
            Ok(())
        }
    );

    lab_test!(two_sockets_inside_do_not_keep_a_namespace_alive, |scene| {
        scene.start_with(&["--no-namespace-ids"])?;
        fs::create_dir_all(netns::DIR)?;
        let holder = netns::holder()?;
        let target = netns::of_process(holder.pid());
        let (unlisted, gone) = ends(scene, &target, holder)?;
        ensure!(
            unlisted < AT_ONCE && gone < AT_ONCE,
            "{unlisted:?} {gone:?}"
        );
        Ok(())
    });

    lab_test!(
        a_link_that_is_replaced_is_followed_to_its_new_process,
        |scene| {
            scene.start()?;
            fs::create_dir_all(netns::DIR)?;
            let (first, second) = (netns::holder()?, netns::holder()?);
            let replace = |holder: &Companion| {
                symlink(netns::of_process(holder.pid()), netns::path("new"))?;
                fs::rename(netns::path("new"), netns::path("s")).context("replace the link")
            };
            replace(&first)?;
            scene.wait_listed("s", true)?;
            netns::ip_line(&format!(
                "link add outer type veth peer name inner netns {}",
                second.pid()
            ))?;
            replace(&second)?;
            links::attribute(scene, ("s", "inner"), "interface_type", "Veth")?;
            switch(scene, "s", "inner")?;
            first.kill()?;
            holds_for(
                "the name stays",
                Duration::from_millis(300),
                || scene.client().map(|client| client.state().named()),
                |named| named.as_ref().is_ok_and(|it| it.contains("s")),
            )?;
            second.kill()?;
            let start = Instant::now();
            scene.wait_listed("s", false)?;
            ensure!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
            links::gone(scene, "default", "outer")
        }
    );

    /// Returns the number of rtnetlink sockets of programs in a namespace (`/proc/net/netlink`).
    fn sockets_inside(namespace: &str) -> anyhow::Result<usize> {
        let table = ip(
            "default",
            &format!("netns exec {namespace} cat /proc/self/net/netlink"),
        )?;
        let rows = table.lines().skip(1).map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            (fields.next(), fields.next())
        });
        // Protocol 0 is rtnetlink. Port 0 is the kernel.
        let is_program =
            |row: &(Option<&str>, Option<&str>)| row.0 == Some("0") && row.1 != Some("0");
        Ok(rows.filter(is_program).count())
    }

    lab_test!(
        a_socket_inside_is_closed_ten_seconds_after_the_last_switch,
        |scene| {
            scene.start()?;
            netns::add("a")?;
            scene.wait_named(&["a"])?;
            switch(scene, "a", "lo")?;
            let start = Instant::now();
            holds_for(
                "the socket is kept for the next switch",
                Duration::from_millis(9_500),
                || sockets_inside("a"),
                |count| count.as_ref().is_ok_and(|count| *count == 1),
            )?;
            wait_for(
                "the socket is closed",
                SOON,
                || sockets_inside("a"),
                |count| count.as_ref().is_ok_and(|count| *count == 0),
            )??;
            let closed = start.elapsed();
            measure::report(format!("last switch to closed socket: {closed:?}"))?;
            ensure!(closed < Duration::from_secs(11), "{closed:?}");
            Ok(())
        }
    );
}
