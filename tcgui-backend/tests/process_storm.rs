//! Measures how soon namespaces of processes are known, and the processor time of the process scan while many short
//! processes run. It is a separate program, because it measures the processor time of the whole program.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::PathBuf;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use nix::libc;
    use nix::sys::resource::{UsageWho, getrusage};
    use tcgui_backend::netns_holders::{HeldEvent, Holder};
    use tcgui_backend::processes::{ProcessesConfig, ProcessesHandle, open};
    use tokio::sync::mpsc;
    use tokio::time::timeout;
    use tokio_util::sync::CancellationToken;

    const SOON: Duration = Duration::from_secs(30);
    const BURST: Duration = Duration::from_secs(3);
    const STORM: Duration = Duration::from_secs(5);
    /// Number of namespaces that are created one after another, and the time between them.
    const COUNT: usize = 100;
    const PAUSE: Duration = Duration::from_millis(100);
    /// Limit of the long-term processor time in thousandths of a processor. A debug build may use more.
    const ALLOWED: u128 = if cfg!(debug_assertions) { 30 } else { 20 };

    /// A shell that starts processes until it is killed.
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

    /// Returns the number of processes that were created since boot.
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

    async fn wait_for_event(
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

    /// Starts a storm of processes, creates a namespace during it, and returns the used processor time in thousandths
    /// of a processor.
    async fn weather(events: &mut mpsc::Receiver<HeldEvent>, name: &str, scripts: &[&str]) -> u128 {
        let shells: Vec<Shell> = scripts.iter().map(|script| Shell::run(script)).collect();
        // First wait until the burst of the budget is used up.
        let burst = timeout(BURST, wait_for_event(events, |_| false)).await;
        assert!(burst.is_err(), "the channel is emptied until then");
        let (began, cpu, count) = (Instant::now(), cpu_time(), processes());

        let made = Instant::now();
        let mut child = unshared();
        let added = wait_for_event(events, |event| is_of(event, &child)).await;
        let (added, HeldEvent::Added(Holder { id, .. })) = (made.elapsed(), added) else {
            panic!("it was added");
        };
        drop(child.stdin.take());
        child.wait().unwrap();
        let ended = Instant::now();
        wait_for_event(events, |event| *event == HeldEvent::Removed(id)).await;
        let removed = ended.elapsed();

        let rest = (began + STORM).saturating_duration_since(Instant::now());
        timeout(rest, wait_for_event(events, |_| false))
            .await
            .unwrap_err();
        let (elapsed, used) = (began.elapsed(), cpu_time() - cpu);
        let rate = u128::from(processes() - count) * 1000 / elapsed.as_millis();
        let share = used.as_micros() * 1000 / elapsed.as_micros();
        report(&format!(
            "{name}: {rate} processes/s, {share} ‰ of a processor; amid it a namespace \
             added after {added:.1?}, removed after {removed:.1?}"
        ));
        drop(shells);
        share
    }

    /// Waits until the process is in a namespace that is not in `others`, and returns the time.
    fn away(child: &Child, others: &[PathBuf]) -> Instant {
        while others.contains(&netns(child.id())) {
            std::thread::yield_now();
        }
        Instant::now()
    }

    fn netns(pid: u32) -> PathBuf {
        fs::read_link(format!("/proc/{pid}/ns/net")).unwrap()
    }

    /// Creates namespaces one after another, with pauses, and reports how soon they are known.
    async fn quiet(events: &mut mpsc::Receiver<HeldEvent>) {
        let own = [netns(std::process::id())];
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for _ in 0..COUNT {
            let mut child = unshared();
            let made = away(&child, &own);
            let event = wait_for_event(events, |event| is_of(event, &child)).await;
            let HeldEvent::Added(Holder { id, .. }) = event else {
                panic!("it was added");
            };
            added.push(made.elapsed());
            drop(child.stdin.take());
            child.wait().unwrap();
            let ended = Instant::now();
            wait_for_event(events, |event| *event == HeldEvent::Removed(id)).await;
            removed.push(ended.elapsed());
            tokio::time::sleep(PAUSE).await;
        }
        report_times("made → added", added);
        report_times("ended → removed", removed);
    }

    /// Lets a running process enter new namespaces, which the kernel does not announce, and requests a scan after each.
    async fn silent(events: &mut mpsc::Receiver<HeldEvent>, handle: &ProcessesHandle) {
        let script = "while (<STDIN>) { syscall(0+$ARGV[0], 0+$ARGV[1]) == 0 or die }";
        let numbers = [libc::SYS_unshare, i64::from(libc::CLONE_NEWNET)];
        let mut command = Command::new("perl");
        let command = command
            .args(["-e", script])
            .args(numbers.map(|number| number.to_string()));
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let mut times = Vec::new();
        for _ in 0..COUNT / 4 {
            let others = [netns(std::process::id()), netns(child.id())];
            child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
            let made = away(&child, &others);
            handle.request_scan();
            wait_for_event(events, |event| is_of(event, &child)).await;
            times.push(made.elapsed());
            tokio::time::sleep(PAUSE).await;
        }
        report_times("entered silently, scan requested → added", times);
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    fn report_times(name: &str, mut times: Vec<Duration>) {
        times.sort_unstable();
        let (median, late) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        report(&format!("{name}: p50 {median:.2?} p99 {late:.2?}"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn namespaces_are_known_soon_and_storms_cost_little() {
        let config = ProcessesConfig {
            sweep_interval: Duration::from_secs(30),
            degraded_sweep_interval: Duration::from_secs(1),
        };
        let (tx, mut events) = mpsc::channel(64);
        let (handle, task) = open(config, tx).unwrap();
        let stop = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "the test is the supervisor")]
        let running = tokio::spawn(task.run(stop.clone()));

        quiet(&mut events).await;
        silent(&mut events, &handle).await;
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
