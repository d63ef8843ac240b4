//! Named namespaces as a frontend sees them: the rows of the watcher's table, on the wire.
//!
//! Numbers are the rows of that table. Propagation and limits are in `degraded.rs`, thousands of namespaces in `scale.rs`, costs
//! in `costs.rs`, random work in `torture.rs`. Cancellation is tested at the watcher.

#[cfg(test)]
mod tests {
    use std::ffi::{OsStr, OsString};
    use std::fs;
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use anyhow::{Context, ensure};
    use nix::sys::signal::Signal;
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    use nix::unistd::mkfifo;
    use serde_json::json;
    use tcgui_tests::client::{self, named};
    use tcgui_tests::lab::Kind;
    use tcgui_tests::measure::Times;
    use tcgui_tests::scene::{SOON, Scene};
    use tcgui_tests::wait::holds_for;
    use tcgui_tests::{lab_test, measure, names, netns};

    const FAST_SWEEP: [&str; 2] = ["--sweep-interval", "1s"];

    /// More than two sweeps of [`FAST_SWEEP`].
    const TWO_SWEEPS: Duration = Duration::from_millis(2500);

    fn stays_unlisted(scene: &Scene, names: &[&str], period: Duration) -> anyhow::Result<()> {
        let client = scene.client()?;
        holds_for(
            &format!("{names:?} are not listed"),
            period,
            || client.state().named(),
            |listed| names.iter().all(|name| !listed.contains(*name)),
        )
    }

    lab_test!(row_01_first_namespace_of_a_fresh_boot, |scene| {
        let (entered, result) = mpsc::channel();
        scene.start_watched::<&str>(&[], client::Options::default(), move |list| {
            if named(list).contains("a") {
                // The receiver takes only the first result.
                entered.send(netns::enter(OsStr::new("a"))).ok();
            }
        })?;
        netns::add("a")?;
        scene.wait_named(&["a"])?;
        result
            .recv_timeout(SOON)?
            .context("enter it when it was delivered")?;
        ensure!(scene.comings_and_goings("a") == (1, 0));
        Ok(())
    });

    lab_test!(row_02_directory_destroyed_again_and_again, |scene| {
        scene.start()?;
        for round in 0..50 {
            netns::add(format!("r{round}"))?;
            netns::clear()?;
        }
        netns::add("f")?;
        scene.wait_named(&["f"])
    });

    lab_test!(row_03_namespace_older_than_the_daemon, |scene| {
        netns::add("a")?;
        scene.start()?;
        scene.wait_named(&["a"])?;
        ensure!(scene.comings_and_goings("a") == (1, 0));
        Ok(())
    });

    const JUNK: [&str; 7] = ["file", "fifo", "dir", "socket", "device", "dangling", "uts"];

    fn scatter_junk() -> anyhow::Result<UnixListener> {
        netns::touch(&netns::path("file"))?;
        mkfifo(&netns::path("fifo"), Mode::S_IRWXU)?;
        fs::create_dir(netns::path("dir"))?;
        let socket = UnixListener::bind(netns::path("socket"))?;
        mknod(
            &netns::path("device"),
            SFlag::S_IFCHR,
            Mode::S_IRWXU,
            makedev(1, 3),
        )?;
        symlink("/nowhere", netns::path("dangling"))?;
        netns::touch(&netns::path("uts"))?;
        netns::bind(Path::new("/proc/self/ns/uts"), &netns::path("uts"))?;
        Ok(socket)
    }

    lab_test!(
        row_04_junk_is_neither_listed_nor_in_the_way,
        Kind::Alone,
        |scene| {
            scene.start_with(&FAST_SWEEP)?;
            netns::add("first")?;
            let _socket = scatter_junk()?;
            let mut answers = Times::default();
            for _ in 0..50 {
                answers.push(scene.ping()?);
            }
            measure::report(format!("answers beside junk: {answers}"))?;
            ensure!(
                answers.percentile(90)? < Duration::from_millis(100),
                "{answers}"
            );

            netns::add("second")?;
            scene.wait_named(&["first", "second"])?;
            stays_unlisted(scene, &JUNK, TWO_SWEEPS)?;
            ensure!(JUNK.iter().all(|name| !scene.was_ever_listed(name)));
            Ok(())
        }
    );

    // A daemon that only polls would need half a second on average, because the interval of pending entries grows to 1 s.
    lab_test!(row_05_bind_on_a_file_that_waited, Kind::Alone, |scene| {
        scene.start()?;
        netns::add("other")?;
        let mut times = Times::default();
        let mut holders = Vec::new();
        for name in ["y1", "y2", "y3", "y4", "y5"] {
            netns::touch(&netns::path(name))?;
            stays_unlisted(scene, &[name], Duration::from_secs(1))?;
            let holder = netns::holder()?;
            let start = Instant::now();
            netns::bind(&netns::of_process(holder.pid()), &netns::path(name))?;
            scene.wait_listed(name, true)?;
            times.push(start.elapsed());
            holders.push(holder);
        }
        measure::report(format!("bind to list: {times}"))?;
        ensure!(
            times.percentile(50)? < Duration::from_millis(200),
            "{times}"
        );
        Ok(())
    });

    lab_test!(row_06_unmounted_with_the_file_left, |scene| {
        scene.start()?;
        netns::add("a")?;
        netns::add("b")?;
        scene.wait_named(&["a", "b"])?;
        netns::detach(&netns::path("a"))?;
        scene.wait_named(&["b"])?;
        ensure!(netns::path("a").exists(), "the file went too");
        Ok(())
    });

    lab_test!(row_07_one_name_twenty_times, |scene| {
        scene.start()?;
        for _ in 0..20 {
            netns::add("a")?;
            scene.wait_listed("a", true)?;
            netns::del("a")?;
            scene.wait_listed("a", false)?;
        }
        let seen = scene.comings_and_goings("a");
        ensure!(seen == (20, 20), "{seen:?}");
        Ok(())
    });

    lab_test!(row_08_directory_covered_and_uncovered, |scene| {
        scene.start()?;
        netns::add("a")?;
        netns::add("b")?;
        scene.wait_named(&["a", "b"])?;
        netns::cover(Path::new(netns::DIR))?;
        scene.wait_named::<&str>(&[])?;
        netns::add("h")?;
        scene.wait_named(&["h"])?;
        netns::detach(Path::new(netns::DIR))?;
        scene.wait_named(&["a", "b"])?;
        netns::add("c")?;
        scene.wait_named(&["a", "b", "c"])
    });

    lab_test!(row_10_attached_namespace_outlives_its_process, |scene| {
        scene.start_with(&FAST_SWEEP)?;
        let holder = netns::holder()?;
        netns::attach("p", holder.pid())?;
        scene.wait_named(&["p"])?;
        holder.kill()?;
        let client = scene.client()?;
        let look = || client.state().named();
        holds_for("p stays", TWO_SWEEPS, look, |listed| listed.contains("p"))?;
        ensure!(scene.comings_and_goings("p") == (1, 0));
        Ok(())
    });

    lab_test!(row_11_symlink_to_a_process_that_ends, |scene| {
        scene.start_with(&FAST_SWEEP)?;
        let holder = netns::holder()?;
        netns::add("other")?;
        symlink(netns::of_process(holder.pid()), netns::path("s"))?;
        scene.wait_named(&["other", "s"])?;
        holder.kill()?;
        let start = Instant::now();
        scene.wait_named(&["other"])?;
        let gone = start.elapsed();
        ensure!(gone < TWO_SWEEPS, "gone only after {gone:?}");
        Ok(())
    });

    lab_test!(a_dead_namespace_is_not_listed_until_the_sweep, |scene| {
        scene.start()?;
        let holder = netns::holder()?;
        netns::add("other")?;
        symlink(netns::of_process(holder.pid()), netns::path("s"))?;
        scene.wait_named(&["other", "s"])?;
        holder.kill()?;
        let start = Instant::now();
        scene.wait_named(&["other"])?;
        measure::report(format!("death to list: {:?}", start.elapsed()))?;
        Ok(())
    });

    lab_test!(row_12_two_names_for_one_namespace, |scene| {
        scene.start()?;
        netns::add("a")?;
        netns::touch(&netns::path("b"))?;
        netns::bind(&netns::path("a"), &netns::path("b"))?;
        scene.wait_named(&["a", "b"])?;
        netns::del("a")?;
        scene.wait_named(&["b"])?;
        netns::enter(OsStr::new("b"))?;
        ensure!(scene.comings_and_goings("b") == (1, 0), "b blinked");

        netns::touch(&netns::path("c"))?;
        netns::bind(&netns::path("b"), &netns::path("c"))?;
        scene.wait_named(&["b", "c"])?;
        netns::detach(&netns::path("b"))?;
        scene.wait_named(&["c"])
    });

    fn odd_names() -> Vec<OsString> {
        let long = vec![b'n'; 255];
        let bytes: [&[u8]; 17] = [
            &long,
            b"\xff\xfe",
            b"half\xc3",
            b"new\nline",
            b".hid",
            b"sp ace",
            b"*",
            b"**",
            b"a#b",
            b"a?b",
            b"@x",
            b"%41$",
            b"back\\slash\\xff",
            b"default",
            b"container:web",
            b"netns:default",
            "grün".as_bytes(),
        ];
        bytes
            .into_iter()
            .map(|name| OsString::from_vec(name.to_vec()))
            .collect()
    }

    lab_test!(row_13_names_of_every_kind, |scene| {
        scene.start()?;
        let odd = odd_names();
        for name in &odd {
            netns::add(name)?;
        }
        scene.wait_named(&odd)?;
        // Requests must accept each published name.
        for name in &odd {
            let name = names::on_wire(name);
            let request = json!({"namespace": name, "interface": "lo", "operation": "Enable"});
            let (reply, _) = scene.client()?.ask("interface", &request)?;
            ensure!(reply["success"] == true, "{name:?}: {reply}");
            scene.wait_for(&format!("lo of {name:?} is up"), |state| {
                state
                    .interface(&name, "lo")
                    .is_some_and(|lo| lo["is_up"] == true)
            })?;
        }
        for name in &odd {
            netns::del(name)?;
        }
        scene.wait_named::<&str>(&[])
    });

    /// Causes more events in the watched directory than an inotify queue holds (16 384).
    fn flood() -> anyhow::Result<()> {
        for _ in 0..10_000 {
            netns::touch(&netns::path("flood"))?;
            fs::remove_file(netns::path("flood"))?;
        }
        Ok(())
    }

    lab_test!(row_14_more_events_than_the_queue_holds, |scene| {
        scene.start()?;
        netns::add("old")?;
        netns::add("stays")?;
        scene.wait_named(&["old", "stays"])?;
        scene.daemon()?.signal(Signal::SIGSTOP)?;
        flood()?;
        netns::add("new")?;
        netns::del("old")?;
        scene.daemon()?.signal(Signal::SIGCONT)?;
        scene.wait_named(&["new", "stays"])?;

        // A symlink changes no mount. Only the overflow event can reveal it before the sweep.
        let holder = netns::holder()?;
        scene.daemon()?.signal(Signal::SIGSTOP)?;
        flood()?;
        symlink(netns::of_process(holder.pid()), netns::path("link"))?;
        scene.daemon()?.signal(Signal::SIGCONT)?;
        scene.wait_named(&["link", "new", "stays"])
    });
}
