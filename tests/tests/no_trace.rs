//! The daemon must leave nothing in the tables of namespace ids.
//!
//! The same sequence of changes is carried out without and with the daemon. The output of iproute2 must be equal at every step:
//! `ip netns list`, `ip netns list-id` in every namespace, and whether `ip netns set` succeeds.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ffi::{OsStr, OsString};
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output};
    use std::time::Duration;

    use anyhow::ensure;
    use nix::net::if_::if_nametoindex;
    use tcgui_tests::client::{State, array};
    use tcgui_tests::daemon::{self, Daemon};
    use tcgui_tests::doorbells::Limit;
    use tcgui_tests::lab::Kind;
    use tcgui_tests::links::{attribute, gone, ip, life_of_a_link};
    use tcgui_tests::process::run;
    use tcgui_tests::scene::{SOON, Scene};
    use tcgui_tests::wait::{holds_for, patience, wait_every, wait_for};
    use tcgui_tests::{lab_test, netns};

    /// Time limit for a command of the daemon. It takes milliseconds, and a hundred times as long on an emulated processor.
    const COMMAND: Duration = Duration::from_secs(20);

    /// Time for the daemon's own activity: dumps after events, and readings of counters.
    const SETTLED: Duration = Duration::from_millis(700);

    /// Options with which counters are read within [`SETTLED`], except on an emulated processor, which would do nothing else.
    fn often() -> &'static [&'static str] {
        match patience() {
            1 => &["--bandwidth-interval", "200ms"],
            _ => &[],
        }
    }

    /// The output of iproute2 at each step.
    #[derive(Debug, Default)]
    struct Record(Vec<(String, String)>);

    impl Record {
        fn note(&mut self, step: &str, said: String) {
            self.0.push((step.to_owned(), said));
        }

        /// Records all tables of namespace ids.
        fn tables(&mut self, step: &str) -> anyhow::Result<()> {
            holds_for("the daemon settles", SETTLED, || (), |()| true)?;
            self.note(step, tables()?);
            Ok(())
        }

        /// Records whether an id can be assigned.
        fn set(&mut self, name: &str, id: u32) {
            let said = netns::ip_line(&format!("netns set {name} {id}"))
                .map_or_else(|err| err.to_string(), |_| "done".to_owned());
            self.note(&format!("ip netns set {name} {id}"), said);
        }
    }

    /// Returns the sorted lines of a command, because names are listed in directory order.
    fn lines(text: &str) -> String {
        let mut lines: Vec<_> = text.lines().map(str::trim_end).collect();
        lines.sort_unstable();
        lines.join("\n")
    }

    fn tables() -> anyhow::Result<String> {
        let list = lines(&netns::ip_line("netns list")?);
        let ids = lines(&netns::ip_line("netns list-id")?);
        let mut text = format!("ip netns list:\n{list}\nip netns list-id:\n{ids}\n");
        for name in netns::entries()?.into_iter().collect::<BTreeSet<_>>() {
            let ids = ids_inside(&netns::path(&name))?;
            text += &format!("in {}:\n{ids}\n", name.display());
        }
        Ok(text)
    }

    fn ids_inside(netns: &Path) -> anyhow::Result<String> {
        inside(netns, "ip netns list-id").map(|ids| lines(&ids))
    }

    /// Runs a command in a namespace without the mounts of `ip netns exec`.
    fn inside(netns: &std::path::Path, line: &str) -> anyhow::Result<String> {
        let mut enter = OsString::from("--net=");
        enter.push(netns);
        run(Command::new("nsenter")
            .arg(enter)
            .args(line.split_whitespace()))
    }

    /// Creates three namespaces, and two veth pairs between the first two.
    fn build() -> anyhow::Result<()> {
        for name in ["a", "b", "c"] {
            netns::add(name)?;
        }
        ip("a", "link add v0 type veth peer name v1 netns b")?;
        ip("b", "link add w0 type veth peer name w1")?;
        ip("b", "link set w1 netns a").map(drop)
    }

    /// Creates a veth pair from the host to the third namespace, for which the host has no id. The far end was moved there
    /// through another namespace, and the kernel has not announced the near end since. Reading the near end from the host's
    /// namespace, as `ip link` does, would assign an id.
    fn connect_host() -> anyhow::Result<()> {
        ip("default", "link add h0 type veth peer name h1")?;
        ip("default", "link set h1 netns a")?;
        ip("a", "link set h1 netns c").map(drop)
    }

    /// Switches a link. If there is a daemon, it must list the change promptly.
    fn switch(scene: Option<&Scene>, (netns, link): (&str, &str), up: bool) -> anyhow::Result<()> {
        let switch = if up { "up" } else { "down" };
        ip(netns, &format!("link set {link} {switch}"))?;
        match scene {
            Some(scene) => attribute(scene, (netns, link), "is_up", up),
            None => Ok(()),
        }
    }

    /// The changes while the daemon runs.
    fn live(scene: Option<&Scene>, record: &mut Record) -> anyhow::Result<()> {
        record.tables("the daemon runs")?;
        connect_host()?;
        if let Some(scene) = scene {
            attribute(scene, ("default", "h0"), "is_up", false)?;
            attribute(scene, ("c", "h1"), "is_up", false)?;
        }
        record.tables("a link of the host has a distant end")?;
        // Only a has an id, which the kernel assigned.
        record.set("b", 42);
        record.set("b", 43);
        record.set("a", 5);
        record.set("c", 7);
        record.tables("ids are chosen")?;
        for link in [("default", "h0"), ("c", "h1"), ("a", "v0"), ("b", "v1")] {
            switch(scene, link, true)?;
        }
        if let Some(scene) = scene {
            for link in [("default", "h0"), ("c", "h1"), ("a", "v0"), ("b", "v1")] {
                attribute(scene, link, "is_oper_up", true)?;
            }
        }
        record.tables("links are up")?;
        netns::add("d")?;
        ip("d", "link add x0 type veth peer name x1 netns b")?;
        if let Some(scene) = scene {
            attribute(scene, ("d", "x0"), "is_up", false)?;
            attribute(scene, ("b", "x1"), "is_up", false)?;
        }
        record.tables("a namespace is new")?;
        record.set("d", 9);
        ip("b", "link set w0 netns c")?;
        if let Some(scene) = scene {
            attribute(scene, ("c", "w0"), "is_up", false)?;
            gone(scene, "b", "w0")?;
        }
        record.tables("a link has moved")?;
        netns::del("d")?;
        if let Some(scene) = scene {
            scene.wait_listed("d", false)?;
            gone(scene, "b", "x1")?;
        }
        wait_for(
            "the id of a dead namespace is free",
            SOON,
            || netns::ip_line("netns list-id"),
            |ids| ids.as_ref().is_ok_and(|ids| !ids.contains("nsid 9")),
        )??;
        record.tables("a namespace is gone")?;
        netns::add("e")
    }

    /// The changes after the daemon has ended.
    fn after(record: &mut Record) -> anyhow::Result<()> {
        record.tables("the daemon has ended")?;
        record.set("e", 11);
        record.tables("an id is chosen after the daemon")
    }

    /// Removes everything, and waits until the kernel has removed it.
    fn clear() -> anyhow::Result<()> {
        netns::clear()?;
        wait_for(
            "no namespace has an id, and only the loopback is left",
            SOON,
            || -> anyhow::Result<_> {
                let ids = netns::ip_line("netns list-id")?;
                Ok((ids, netns::ip_line("-br link")?.lines().count()))
            },
            |left| {
                left.as_ref()
                    .is_ok_and(|(ids, links)| ids.is_empty() && *links == 1)
            },
        )?
        .map(drop)
    }

    fn ensure_equal(without: &Record, with: &Record) -> anyhow::Result<()> {
        ensure!(without.0.len() == with.0.len(), "{without:?}\n{with:?}");
        for ((step, expected), (_, found)) in without.0.iter().zip(&with.0) {
            ensure!(
                expected == found,
                "{step}: without the daemon\n{expected}\nwith the daemon\n{found}"
            );
        }
        Ok(())
    }

    fn ids_are_as_without_the_daemon(scene: &mut Scene, options: &[&str]) -> anyhow::Result<()> {
        let mut without = Record::default();
        build()?;
        without.tables("before the daemon")?;
        live(None, &mut without)?;
        after(&mut without)?;
        clear()?;

        let mut with = Record::default();
        build()?;
        with.tables("before the daemon")?;
        scene.start_with(&[often(), options].concat())?;
        scene.wait_named(&["a", "b", "c"])?;
        for link in [("a", "v0"), ("b", "v1"), ("a", "w1"), ("b", "w0")] {
            attribute(scene, link, "is_up", false)?;
        }
        live(Some(scene), &mut with)?;
        scene.wait_listed("e", true)?;
        let listed = scene
            .client()?
            .state()
            .list()
            .map_or(0, |list| array(list, "namespaces").count());
        ensure!(listed == 5, "{listed} namespaces, not the host, a, b, c, e");
        scene.take_daemon()?.stop()?;
        after(&mut with)?;
        ensure_equal(&without, &with)
    }

    lab_test!(namespace_ids_are_as_without_the_daemon, |scene| {
        ids_are_as_without_the_daemon(scene, &[])
    });

    lab_test!(
        namespace_ids_are_as_without_the_daemon_when_processes_are_looked_at,
        Kind::OwnProcesses,
        |scene| {
            let options = ["--process-namespaces", "--degraded-sweep-interval", "200ms"];
            ids_are_as_without_the_daemon(scene, &options)
        }
    );

    /// Commands with a word that they must print about the links of [`build`] and [`connect_host`].
    const LOOKS: [(&str, &str); 3] = [
        ("namespaces", "h0"),
        ("explain a", "v0"),
        ("explain default", "h0"),
    ];

    /// Runs a command of the program.
    fn command(options: &[&str], line: &str) -> anyhow::Result<Output> {
        let words = options.iter().copied().chain(line.split_whitespace());
        let args: Vec<_> = words.map(OsStr::new).collect();
        daemon::run(&[], &args, COMMAND)
    }

    fn ensure_says(options: &[&str], line: &str, expected: &str) -> anyhow::Result<()> {
        let output = command(options, line)?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() && said.contains(expected),
            "{line}: {output:?}"
        );
        Ok(())
    }

    fn ensure_unchanged(what: &str, before: &str) -> anyhow::Result<()> {
        let now = tables()?;
        ensure!(now == before, "{what}: before\n{before}\nnow\n{now}");
        Ok(())
    }

    lab_test!(commands_that_look_without_a_daemon_leave_no_ids, |_| {
        build()?;
        connect_host()?;
        let before = tables()?;
        for (line, expected) in LOOKS {
            ensure_says(&[], line, expected)?;
            ensure_unchanged(line, &before)?;
        }
        Ok(())
    });

    // Zenoh lists the interfaces of the host once in each process, for multicast scouting or the first TCP connection. This
    // assigns ids, as in every such program. Here neither is used.
    lab_test!(links_older_than_the_daemon_get_no_ids_by_it, |_| {
        const ENDPOINT: &str = "unixsock-stream//run/bus";
        build()?;
        connect_host()?;
        let before = tables()?;
        let listen = ["--no-multicast", "--zenoh-listen", ENDPOINT];
        let daemon = Daemon::start(&[], &[often(), &listen].concat())?;
        let connect = ["--zenoh-connect", ENDPOINT];
        wait_for(
            "the daemon answers",
            SOON,
            || command(&connect, "namespaces"),
            |said| {
                let said = said.as_ref().map(|output| &output.stderr[..]);
                said.is_ok_and(|err| !String::from_utf8_lossy(err).contains("without one"))
            },
        )??;
        for (line, expected) in LOOKS {
            ensure_says(&connect, line, expected)?;
        }
        holds_for("counters are read", SETTLED, || (), |()| true)?;
        ensure_unchanged("the daemon runs", &before)?;
        let status = daemon.stop()?;
        ensure!(status.success(), "{status}");
        ensure_unchanged("the daemon has ended", &before)
    });

    /// Returns a path to the daemon's observer namespace, which contains no process.
    fn observer_of(pid: u32) -> anyhow::Result<PathBuf> {
        let here = fs::metadata("/proc/self/ns/net")?;
        let look = || -> anyhow::Result<Option<PathBuf>> {
            let mut found = None;
            for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
                let path = entry?.path();
                let is_netns = fs::read_link(&path)
                    .is_ok_and(|link| link.as_os_str().as_encoded_bytes().starts_with(b"net:["));
                if is_netns && fs::metadata(&path).is_ok_and(|it| it.ino() != here.ino()) {
                    found = Some(path);
                }
            }
            Ok(found)
        };
        let found = wait_for("the daemon has an observer", SOON, look, |found| {
            found.as_ref().is_ok_and(Option::is_some)
        })??;
        found.ok_or_else(|| anyhow::anyhow!("no observer"))
    }

    /// Returns the names of all listed namespaces.
    fn all_names(state: &State) -> BTreeSet<String> {
        let list = state.list().into_iter();
        let namespaces = list.flat_map(|list| array(list, "namespaces"));
        namespaces
            .filter_map(|namespace| namespace["name"].as_str())
            .map(str::to_owned)
            .collect()
    }

    lab_test!(
        the_observer_is_never_listed_and_ends_with_the_daemon,
        Kind::OwnProcesses,
        |scene| {
            let options = ["--process-namespaces", "--degraded-sweep-interval", "200ms"];
            scene.start_with(&options)?;
            netns::add("a")?;
            scene.wait_named(&["a"])?;
            let observer = observer_of(scene.daemon()?.pid())?;
            // The host and a namespace assign an id to the observer namespace.
            let here = std::process::id();
            for (name, target) in [("out", here.to_string()), ("in-a", "a".to_owned())] {
                let peer = format!("type veth peer name {name} netns {target}");
                inside(&observer, &format!("ip link add of-{name} {peer}"))?;
            }
            attribute(scene, ("default", "out"), "is_up", false)?;
            attribute(scene, ("a", "in-a"), "is_up", false)?;
            // Its links do not disturb the daemon: changes and deletions are still seen.
            life_of_a_link(scene, "a")?;
            life_of_a_link(scene, "default")?;
            netns::add("b")?;
            scene.wait_named(&["a", "b"])?;
            netns::del("b")?;
            scene.wait_named(&["a"])?;
            let client = scene.client()?;
            let expected = BTreeSet::from(["a", "default"].map(str::to_owned));
            holds_for(
                "the observer is not listed",
                Duration::from_secs(2),
                || all_names(&client.state()),
                |names| *names == expected,
            )?;
            scene.take_daemon()?.crash()?;
            wait_every(
                Duration::from_millis(5),
                "the observer and its links are removed",
                SOON,
                || if_nametoindex("out").is_ok(),
                |there| !there,
            )
            .map(drop)
        }
    );

    lab_test!(
        namespaces_are_entered_if_no_observer_can_be_made,
        Kind::OwnLimits,
        |scene| {
            netns::add("old")?;
            let limit = Limit::zero("max_net_namespaces")?;
            scene.start()?;
            let log = scene.daemon()?.stderr();
            let warnings = log.lines().filter(|line| line.contains(" WARN "));
            let warned = warnings
                .filter(|line| line.contains("entering namespaces instead"))
                .count();
            ensure!(warned == 1, "{warned} warnings: {log}");
            scene.wait_named(&["old"])?;
            life_of_a_link(scene, "old")?;
            life_of_a_link(scene, "default")?;
            limit.raise()
        }
    );
}
