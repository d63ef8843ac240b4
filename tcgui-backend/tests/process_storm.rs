//! How soon namespaces of processes are known, and what following processes costs while many short ones come
//! and go. In a program of its own: what is counted is all the processor time that it uses.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use nix::sys::resource::{UsageWho, getrusage};
    use tcgui_backend::held::{HeldEvent, Holder};
    use tcgui_backend::processes::{ProcessesConfig, open};
    use tokio::sync::mpsc;
    use tokio::time::timeout;
    use tokio_util::sync::CancellationToken;

    const SOON: Duration = Duration::from_secs(10);
    const STORM: Duration = Duration::from_secs(8);
    /// Thousandths of a processor in the long run; a build without optimisation gets some more.
    const ALLOWED: u128 = if cfg!(debug_assertions) { 30 } else { 20 };

    /// A shell that makes processes until it is killed.
    struct Shell(Child);

    impl Shell {
        fn run(script: &str) -> Self {
            let mut command = Command::new("setpriv");
            let command = command.args(["--pdeathsig", "KILL", "--", "sh", "-c", script]);
            Self(command.spawn().unwrap())
        }
    }

    impl Drop for Shell {
        fn drop(&mut self) {
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }

    fn cpu_time() -> Duration {
        let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
        let times = [usage.user_time(), usage.system_time()];
        let micros = times.map(|time| time.tv_sec() * 1_000_000 + time.tv_usec());
        Duration::from_micros(micros.iter().sum::<i64>().try_into().unwrap())
    }

    /// Returns how many processes were made since boot.
    fn processes() -> u64 {
        let stat = fs::read_to_string("/proc/stat").unwrap();
        let line = stat
            .lines()
            .find_map(|line| line.strip_prefix("processes "));
        line.unwrap().parse().unwrap()
    }

    fn unshared() -> Child {
        let mut command = Command::new("unshare");
        let command = command.args(["--net", "cat"]).stdin(Stdio::piped());
        command.spawn().unwrap()
    }

    async fn hear(
        events: &mut mpsc::Receiver<HeldEvent>,
        wanted: impl Fn(&HeldEvent) -> bool,
    ) -> HeldEvent {
        loop {
            let event = timeout(SOON, events.recv()).await.expect("in time");
            let event = event.expect("it runs");
            if wanted(&event) {
                return event;
            }
        }
    }

    fn is_of(event: &HeldEvent, child: &Child) -> bool {
        let pid = i32::try_from(child.id()).unwrap();
        matches!(event, HeldEvent::Added(Holder { id, .. }) if id.pid() == pid)
    }

    fn report(text: &str) {
        writeln!(std::io::stderr(), "measured: {text}").unwrap();
    }

    /// Lets a storm rage, makes a namespace in it, and returns the share of a processor, in thousandths.
    async fn weather(events: &mut mpsc::Receiver<HeldEvent>, name: &str, scripts: &[&str]) -> u128 {
        let shells: Vec<Shell> = scripts.iter().map(|script| Shell::run(script)).collect();
        let (began, cpu, count) = (Instant::now(), cpu_time(), processes());
        let middle = timeout(STORM / 2, hear(events, |_| false)).await;
        assert!(middle.is_err(), "the channel is emptied until then");

        let made = Instant::now();
        let mut child = unshared();
        let added = hear(events, |event| is_of(event, &child)).await;
        let (added, HeldEvent::Added(Holder { id, .. })) = (made.elapsed(), added) else {
            panic!("it was added");
        };
        drop(child.stdin.take());
        child.wait().unwrap();
        let ended = Instant::now();
        hear(events, |event| *event == HeldEvent::Removed(id)).await;
        let removed = ended.elapsed();

        let rest = (began + STORM).saturating_duration_since(Instant::now());
        timeout(rest, hear(events, |_| false)).await.unwrap_err();
        let (elapsed, used) = (began.elapsed(), cpu_time() - cpu);
        let rate = u128::from(processes() - count) * 1000 / elapsed.as_millis();
        let share = used.as_micros() * 1000 / elapsed.as_micros();
        report(&format!(
            "{name}: {rate} processes/s, {share} ‰ of a processor; in the middle of it a namespace \
             added after {added:.1?}, removed after {removed:.1?}"
        ));
        drop(shells);
        share
    }

    /// Waits until the process is in another namespace, and returns when that was.
    fn away(child: &Child) -> Instant {
        let link = |pid| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        let own = link(std::process::id());
        while link(child.id()) == own {
            std::thread::yield_now();
        }
        Instant::now()
    }

    /// Makes namespaces one after another, as often as is free, and reports how soon they are known.
    async fn quiet(events: &mut mpsc::Receiver<HeldEvent>) {
        const COUNT: usize = 200;
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for _ in 0..COUNT {
            let mut child = unshared();
            let made = away(&child);
            let event = hear(events, |event| is_of(event, &child)).await;
            let HeldEvent::Added(Holder { id, .. }) = event else {
                panic!("it was added");
            };
            added.push(made.elapsed());
            drop(child.stdin.take());
            child.wait().unwrap();
            let ended = Instant::now();
            hear(events, |event| *event == HeldEvent::Removed(id)).await;
            removed.push(ended.elapsed());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for (name, mut times) in [("made → added", added), ("ended → removed", removed)] {
            times.sort_unstable();
            let (median, late) = (times[COUNT / 2], times[COUNT * 99 / 100]);
            report(&format!("{name}: p50 {median:.2?} p99 {late:.2?}"));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn namespaces_are_known_soon_and_storms_cost_little() {
        let config = ProcessesConfig {
            sweep_interval: Duration::from_secs(30),
            degraded_sweep_interval: Duration::from_secs(1),
        };
        let (tx, mut events) = mpsc::channel(64);
        let (_handle, task) = open(config, tx).unwrap();
        let stop = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "the test is the supervisor")]
        let running = tokio::spawn(task.run(stop.clone()));

        quiet(&mut events).await;
        let programs = "while :; do /bin/true; done";
        let forks = "while :; do (:); done";
        let spaces = "while :; do unshare --net true; done";
        for (name, scripts) in [
            ("nothing", &[][..]),
            ("programs", &[programs, programs]),
            ("forks", &[forks, forks]),
            ("namespaces", &[spaces]),
        ] {
            let share = weather(&mut events, name, scripts).await;
            assert!(share <= ALLOWED, "{name}: {share} ‰");
        }
        stop.cancel();
        timeout(SOON, running).await.unwrap().unwrap();
    }
}
