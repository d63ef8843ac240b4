//! Row 20 of the namespace watcher: random changes of `/run/netns`. The list must match the actual namespaces.
//!
//! `scripts/torture.sh` sets these variables from its options:
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `TCGUI_TORTURE_SEEDS` | number of seeds | 10 |
//! | `TCGUI_TORTURE_SECONDS` | duration for each seed | 10 |
//! | `TCGUI_TORTURE_SEED` | use only this seed | random seeds |
//!
//! The actions depend only on the seed, not on their outcome or on time. If a list is wrong, the test repeats fewer and fewer
//! actions to find the shortest failing sequence.

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::Path;
    use std::time::{Duration, Instant};

    use anyhow::{Context, bail};
    use nix::sys::signal::Signal;
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use serde_json::Value;
    use tcgui_tests::client::array;
    use tcgui_tests::lab::Kind;
    use tcgui_tests::process::Companion;
    use tcgui_tests::random::{self, Random};
    use tcgui_tests::scene::Scene;
    use tcgui_tests::wait::wait_for;
    use tcgui_tests::{lab_test, measure, names, netns};

    /// Much less than the 30 s of the sweep, so that the doorbells must suffice.
    const SETTLED: Duration = Duration::from_secs(8);

    const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

    const HOLDERS: usize = 4;

    /// The actions with their percentages.
    const ACTS: [(usize, Deed); 16] = [
        (22, Deed::Add),
        (14, Deed::Del),
        (5, Deed::Attach),
        (8, Deed::Bind),
        (8, Deed::Umount),
        (8, Deed::Touch),
        (8, Deed::Rm),
        (4, Deed::Mkfifo),
        (5, Deed::Symlink),
        (7, Deed::Rename),
        (2, Deed::Cover),
        (3, Deed::Uncover),
        (1, Deed::RmDir),
        (1, Deed::Clear),
        (2, Deed::Stop),
        (2, Deed::Continue),
    ];

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Deed {
        Add,
        Del,
        Attach,
        Bind,
        Umount,
        Touch,
        Rm,
        Mkfifo,
        Symlink,
        Rename,
        Cover,
        Uncover,
        RmDir,
        Clear,
        Stop,
        Continue,
        Settle,
    }

    /// One action. The kind decides which of the fields are used.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Act {
        deed: Deed,
        name: &'static str,
        other: &'static str,
        holder: usize,
    }

    /// Returns the endless sequence of actions for a seed.
    fn work(seed: u64) -> impl Iterator<Item = Act> {
        let mut random = Random::new(seed);
        std::iter::repeat_with(move || {
            let name = random.pick(&NAMES);
            let other = random.pick(&NAMES);
            let holder = random.below(HOLDERS);
            let settles = random.below(250) == 0;
            let mut part = random.below(100);
            let chosen = ACTS.iter().find(|(parts, _)| {
                let here = part < *parts;
                part = part.saturating_sub(*parts);
                here
            });
            let deed = chosen.map_or(Deed::Clear, |(_, deed)| *deed);
            Act {
                deed: if settles { Deed::Settle } else { deed },
                name,
                other,
                holder,
            }
        })
    }

    /// Carries out an action. Many fail, as expected: the name exists, is busy or is missing.
    fn perform(act: Act, holders: &[Companion], scene: &Scene) -> anyhow::Result<()> {
        let path = netns::path(act.name);
        let directory = Path::new(netns::DIR);
        let pid = holders[act.holder].pid();
        let held = netns::of_process(pid);
        match act.deed {
            Deed::Add => netns::add(act.name),
            Deed::Del => netns::del(act.name),
            Deed::Attach => netns::attach(act.name, pid),
            Deed::Bind => Ok(netns::bind(&held, &path)?),
            Deed::Umount => Ok(netns::detach(&path)?),
            Deed::Touch => netns::touch(&path),
            Deed::Rm => Ok(fs::remove_file(&path)?),
            Deed::Mkfifo => Ok(mkfifo(&path, Mode::S_IRWXU)?),
            Deed::Symlink => Ok(symlink(&held, &path)?),
            Deed::Rename => Ok(fs::rename(&path, netns::path(act.other))?),
            Deed::Cover => Ok(netns::cover(directory)?),
            Deed::Uncover => Ok(netns::detach(directory)?),
            Deed::RmDir => Ok(fs::remove_dir_all(directory)?),
            Deed::Clear => netns::clear(),
            Deed::Stop => scene.daemon()?.signal(Signal::SIGSTOP),
            Deed::Continue | Deed::Settle => scene.daemon()?.signal(Signal::SIGCONT),
        }
    }

    /// The sorted names of each namespace.
    type Picture = BTreeSet<Vec<String>>;

    fn reality() -> anyhow::Result<Picture> {
        let mut all = BTreeMap::<u64, Vec<String>>::new();
        for name in netns::reality()? {
            let inode = fs::metadata(netns::path(&name))?.ino();
            all.entry(inode).or_default().push(names::on_wire(&name));
        }
        Ok(all.into_values().collect())
    }

    fn listed(list: Option<&Value>) -> Picture {
        let texts = |netns: &Value| {
            let names = [&netns["name"]].into_iter().chain(array(netns, "aliases"));
            let names: Vec<_> = names.filter_map(Value::as_str).map(str::to_owned).collect();
            (names[..] != ["default"]).then_some(names)
        };
        let all = list.into_iter().flat_map(|list| array(list, "namespaces"));
        all.filter_map(texts).collect()
    }

    /// Time after which no list is under way. A list that is under way could be correct by chance.
    const STAYS: Duration = Duration::from_millis(300);

    /// Waits until the list is correct and stays correct.
    fn settle(scene: &Scene) -> anyhow::Result<()> {
        scene.daemon()?.signal(Signal::SIGCONT)?;
        let client = scene.client()?;
        let expected = reality()?;
        let mut right_since = None;
        let look = || {
            let listed = listed(client.state().list());
            let since = right_since.take().unwrap_or_else(Instant::now);
            right_since = (listed == expected).then_some(since);
            (right_since.map(|since| since.elapsed()), listed)
        };
        let stays = |(right, _): &(Option<Duration>, _)| right.is_some_and(|it| it >= STAYS);
        wait_for("listed is real", SETTLED, look, stays)
            .map(drop)
            .with_context(|| format!("real: {expected:?}"))
    }

    /// The number of actions, and the error that followed.
    #[derive(Debug)]
    struct Outcome {
        done: usize,
        verdict: anyhow::Result<()>,
    }

    /// Carries out the first actions of a seed until a number or a time is reached.
    fn torture(scene: &Scene, seed: u64, most: usize, period: Duration) -> anyhow::Result<Outcome> {
        let holders = (0..HOLDERS)
            .map(|_| netns::holder())
            .collect::<anyhow::Result<Vec<_>>>()?;
        let start = Instant::now();
        let mut done = 0;
        for act in work(seed).take(most) {
            if start.elapsed() >= period {
                break;
            }
            // An action may fail.
            perform(act, &holders, scene).ok();
            done += 1;
            if act.deed == Deed::Settle
                && let verdict @ Err(_) = settle(scene)
            {
                return Ok(Outcome { done, verdict });
            }
        }
        let verdict = settle(scene);
        Ok(Outcome { done, verdict })
    }

    /// Number of repetitions in the search for the shortest failing sequence.
    const REPEATED: usize = 8;

    /// Returns the smallest number that fails in the given trials. `None` if `most` did not fail.
    fn shortest(
        most: usize,
        trials: usize,
        mut fails: impl FnMut(usize) -> anyhow::Result<bool>,
    ) -> anyhow::Result<Option<usize>> {
        if !fails(most)? {
            return Ok(None);
        }
        let (mut good, mut bad) = (0_usize, most);
        for _ in 1..trials {
            let middle = good.midpoint(bad);
            if middle == good {
                break;
            }
            if fails(middle)? {
                bad = middle;
            } else {
                good = middle;
            }
        }
        Ok(Some(bad))
    }

    /// Finds the shortest failing sequence. Each trial has a new daemon and an empty directory.
    fn explain(scene: &mut Scene, seed: u64, done: usize) -> anyhow::Result<String> {
        let least = shortest(done, REPEATED, |count| {
            scene.take_daemon()?.crash()?;
            netns::clear()?;
            scene.start_daemon::<&str>(&[])?;
            let outcome = torture(scene, seed, count, Duration::MAX)?;
            Ok(outcome.verdict.is_err())
        })?;
        Ok(match least {
            None => format!("the same {done} acts did not fail again"),
            Some(least) => {
                let last = work(seed).take(least).skip(least.saturating_sub(60));
                let last: Vec<_> = last.map(|act| format!("{act:?}")).collect();
                let last = last.join("\n");
                format!("{least} acts suffice; the last of them:\n{last}")
            }
        })
    }

    fn seconds() -> anyhow::Result<Duration> {
        let seconds = random::number("TCGUI_TORTURE_SECONDS")?.unwrap_or(10);
        Ok(Duration::from_secs(seconds))
    }

    fn seeds() -> anyhow::Result<Vec<u64>> {
        if let Some(seed) = random::number("TCGUI_TORTURE_SEED")? {
            return Ok(vec![seed]);
        }
        let first = random::any_seed()?;
        let count = random::number("TCGUI_TORTURE_SEEDS")?.unwrap_or(10);
        Ok((0..count).map(|number| first + number).collect())
    }

    /// Time limit for the actions and for the analysis of one failure.
    fn budget() -> Kind {
        let each = seconds().unwrap_or_default() * 2 + SETTLED;
        let seeds = seeds().map_or(1, |seeds| seeds.len()) + REPEATED;
        Kind::Lasting(each * u32::try_from(seeds).unwrap_or(u32::MAX))
    }

    /// Runs one half of the seeds. Both halves run at the same time.
    fn lane(scene: &mut Scene, lane: usize) -> anyhow::Result<()> {
        let period = seconds()?;
        scene.start()?;
        for seed in seeds()?.into_iter().skip(lane).step_by(2) {
            let before = scene.client()?.state().lists();
            let Outcome { done, verdict } = torture(scene, seed, usize::MAX, period)?;
            let lists = scene.client()?.state().lists() - before;
            measure::report(format!("seed {seed}: {done} acts, {lists} lists"))?;
            if let Err(error) = verdict {
                let log = scene.daemon()?.stderr();
                let explained = explain(scene, seed, done);
                let explained = explained.unwrap_or_else(|error| format!("not repeated: {error}"));
                bail!(
                    "{error:#}\nTCGUI_TORTURE_SEED={seed}, {done} acts; {explained}\nlog:\n{log}"
                );
            }
            netns::clear()?;
        }
        Ok(())
    }

    lab_test!(row_20_random_work_of_even_seeds, budget(), |scene| lane(
        scene, 0
    ));

    lab_test!(row_20_random_work_of_odd_seeds, budget(), |scene| lane(
        scene, 1
    ));

    #[test]
    fn work_depends_on_the_seed_alone() {
        let first: Vec<_> = work(7).take(10_000).collect();
        let again: Vec<_> = work(7).take(10_000).collect();
        assert_eq!(first, again);
        let other: Vec<_> = work(8).take(10_000).collect();
        assert_ne!(first, other);
        let parts: usize = ACTS.iter().map(|(parts, _)| parts).sum();
        assert_eq!(parts, 100);
        let settles = first.iter().filter(|act| act.deed == Deed::Settle);
        assert!((20..60).contains(&settles.count()));
        for (_, deed) in ACTS {
            assert!(first.iter().any(|act| act.deed == deed), "no {deed:?}");
        }
    }

    #[test]
    fn shortest_failing_work_is_found() {
        let mut trials = 0;
        let found = shortest(1000, 20, |count| {
            trials += 1;
            Ok(count >= 137)
        });
        assert_eq!(found.unwrap(), Some(137));
        assert!(trials <= 12, "{trials}");
        assert_eq!(shortest(1000, 3, |_| Ok(true)).unwrap(), Some(250));
        assert_eq!(shortest(1000, 20, |_| Ok(false)).unwrap(), None);
    }
}
