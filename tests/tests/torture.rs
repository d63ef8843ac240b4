//! Row 20 of the namespace watcher: random work on `/run/netns`; what is listed must be what is.
//!
//! The work comes from a seed, which is reported; `TCGUI_TORTURE_SEED` repeats it.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::time::{Duration, Instant, SystemTime};

    use anyhow::{Context, bail};
    use tcgui_tests::client::Client;
    use tcgui_tests::process::Companion;
    use tcgui_tests::wait::{holds_for, wait_for};
    use tcgui_tests::{lab_test, measure, names, netns};

    const SEED: &str = "TCGUI_TORTURE_SEED";

    const ROUNDS: usize = 10;

    const ROUND: Duration = Duration::from_secs(2);

    /// Far below the 30 s of the sweep: the doorbells must have been enough.
    const SETTLED: Duration = Duration::from_secs(8);

    const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

    /// SplitMix64: every seed is a good one.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }

        fn below(&mut self, limit: u64) -> u64 {
            self.next() % limit
        }

        fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
            let length = u64::try_from(from.len()).unwrap();
            &from[usize::try_from(self.below(length)).unwrap()]
        }
    }

    fn seed() -> anyhow::Result<u64> {
        match std::env::var(SEED) {
            Ok(seed) => seed
                .parse()
                .with_context(|| format!("{SEED} is not a number: {seed}")),
            Err(_) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
                Ok(u64::from(now.subsec_nanos()) ^ now.as_secs())
            }
        }
    }

    /// One random act. Many of them fail, as they should: the name is taken, busy or missing.
    fn act(random: &mut Random, holders: &[Companion]) -> (String, anyhow::Result<()>) {
        let name = *random.pick(&NAMES);
        let other = *random.pick(&NAMES);
        let path = netns::path(name);
        let directory = Path::new(netns::DIR);
        let held = netns::of_process(random.pick(holders).pid());
        let (what, result) = match random.below(100) {
            0..30 => ("add", netns::add(name)),
            30..45 => ("del", netns::del(name)),
            45..53 => ("bind", netns::bind(&held, &path).map_err(Into::into)),
            53..61 => ("umount", netns::detach(&path).map_err(Into::into)),
            61..69 => ("touch", netns::touch(&path)),
            69..77 => ("rm", fs::remove_file(&path).map_err(Into::into)),
            77..82 => ("symlink", symlink(&held, &path).map_err(Into::into)),
            82..90 => (
                "rename",
                fs::rename(&path, netns::path(other)).map_err(Into::into),
            ),
            90..93 => ("cover", netns::cover(directory).map_err(Into::into)),
            93..97 => ("uncover", netns::detach(directory).map_err(Into::into)),
            97..99 => ("rm -rf", fs::remove_dir_all(directory).map_err(Into::into)),
            _ => ("clear", netns::clear()),
        };
        (format!("{what} {name} {other}"), result)
    }

    fn reality() -> anyhow::Result<BTreeSet<String>> {
        Ok(netns::reality()?
            .iter()
            .map(|name| names::on_wire(name))
            .collect())
    }

    /// Waits until the list is right, and returns how many namespaces there are.
    fn settle(client: &Client) -> anyhow::Result<usize> {
        let expected = reality()?;
        let listed = || client.state().named();
        let is_right = |listed: &BTreeSet<String>| *listed == expected;
        wait_for("listed is real", SETTLED, listed, is_right)
            .with_context(|| format!("real: {expected:?}"))?;
        holds_for("it stays so", Duration::from_millis(300), listed, is_right)?;
        Ok(expected.len())
    }

    lab_test!(row_20_random_work_from_a_seed, |scene| {
        let seed = seed()?;
        let mut random = Random(seed);
        let holders = (0..4)
            .map(|_| netns::holder())
            .collect::<anyhow::Result<Vec<_>>>()?;
        scene.start()?;
        let mut log = Vec::new();
        let mut counts = Vec::new();
        for round in 0..ROUNDS {
            let start = Instant::now();
            while start.elapsed() < ROUND {
                let (what, result) = act(&mut random, &holders);
                let outcome = result.map_or_else(|error| format!("{error:#}"), |()| "done".into());
                log.push(format!("{what}: {outcome}"));
            }
            match settle(scene.client()?) {
                Ok(count) => counts.push(count),
                Err(error) => {
                    let tail = log[log.len().saturating_sub(60)..].join("\n");
                    bail!("{error:#}; {SEED}={seed}, round {round}, last acts:\n{tail}");
                }
            }
        }
        let lists = scene.client()?.state().lists();
        let acts = log.len();
        measure::report(format!(
            "{SEED}={seed}: {acts} acts, {lists} lists, left {counts:?}"
        ))?;
        Ok(())
    });
}
