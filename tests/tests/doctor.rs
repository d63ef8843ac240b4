//! `tcgui-backend doctor` on machines that are broken on purpose.

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::net::TcpListener;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::process::Command;

    use anyhow::{Context, ensure};
    use tcgui_tests::lab::Kind;
    use tcgui_tests::process::run;
    use tcgui_tests::scene::SOON;
    use tcgui_tests::{daemon, lab_test};

    /// The report of the command.
    #[derive(Debug)]
    struct Report {
        text: String,
        code: Option<i32>,
    }

    impl Report {
        /// Runs the command with options of setpriv(1) and of the daemon.
        fn read(privileges: &[&str], options: &[&str]) -> anyhow::Result<Self> {
            let args = options.iter().chain(&["doctor"]);
            let args: Vec<_> = args.map(OsStr::new).collect();
            let output = daemon::run(privileges, &args, SOON * 6)?;
            ensure!(output.stderr.is_empty(), "{output:?}");
            let report = Self {
                text: String::from_utf8(output.stdout)?,
                code: output.status.code(),
            };
            let is_faulty = report.text.lines().any(|line| line.starts_with("FAULT"));
            ensure!(report.code == Some(i32::from(is_faulty)), "{report:?}");
            for line in report.text.lines() {
                let has_remedy = line.contains(". Remedy: ");
                ensure!(has_remedy != line.starts_with("ok "), "{line}");
            }
            Ok(report)
        }

        fn of(options: &[&str]) -> anyhow::Result<Self> {
            Self::read(&[], options)
        }

        /// Returns the only line about a subject.
        fn line(&self, subject: &str) -> anyhow::Result<&str> {
            let mut lines = self.text.lines().filter(|line| line.contains(subject));
            let line = lines.next();
            ensure!(
                lines.next().is_none(),
                "two lines about {subject}: {self:?}"
            );
            line.with_context(|| format!("nothing about {subject}: {self:?}"))
        }

        /// Checks the line about a subject: it has this verdict and these words.
        fn expect(&self, subject: &str, verdict: &str, words: &[&str]) -> anyhow::Result<()> {
            let line = self.line(subject)?;
            ensure!(line.starts_with(verdict), "{line}");
            for word in words {
                ensure!(line.contains(word), "no {word:?} in {line:?}");
            }
            Ok(())
        }
    }

    fn mount(line: &str) -> anyhow::Result<()> {
        run(Command::new("mount").args(line.split_whitespace())).map(drop)
    }

    const STATE: &str = "/run/state/tcgui";

    fn with_state() -> [&'static str; 2] {
        ["--state-dir", STATE]
    }

    lab_test!(a_machine_without_faults_has_one_line_for_each_check, |_| {
        mount("--make-shared /run")?;
        let report = Report::of(&[])?;
        report.expect("capabilities:", "ok", &["all"])?;
        report.expect("inotify:", "ok", &["max_user_instances="])?;
        report.expect("netns directory /run/netns", "ok", &["does not exist yet"])?;
        report.expect("container engines:", "ok", &["no socket"])?;
        report.expect("state directory /var/lib/tcgui", "ok", &["made when"])?;
        report.expect("bus endpoint tcp/127.0.0.1:7447", "ok", &["free"])?;
        report.line("clock:")?;
        ensure!(report.text.lines().count() == 13, "{report:?}");
        for path in ["/var/lib/tcgui", "/run/netns"] {
            ensure!(!Path::new(path).exists(), "{path} was made");
        }
        Ok(())
    });

    /// Replaces the lists of modules of the running kernel, and what is loaded.
    fn fake_modules(built_in: &str, loadable: &str) -> anyhow::Result<()> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        // A directory that may be missing on the host is made in a private layer.
        fs::create_dir_all("/run/layer/upper/modules")?;
        fs::create_dir_all("/run/layer/work")?;
        mount(
            "-t overlay overlay -o lowerdir=/usr/lib,upperdir=/run/layer/upper,workdir=/run/layer/work /usr/lib",
        )?;
        mount("-t tmpfs tmpfs /usr/lib/modules")?;
        let directory = Path::new("/lib/modules").join(release.trim());
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("modules.builtin"), built_in)?;
        fs::write(directory.join("modules.dep"), loadable)?;
        mount("-t tmpfs tmpfs /sys/module")?;
        fs::write("/run/kallsyms", "")?;
        mount("--bind /run/kallsyms /proc/kallsyms")
    }

    lab_test!(missing_kernel_modules_are_named, |_| {
        fake_modules(
            "kernel/net/sched/sch_tbf.ko\n",
            "kernel/drivers/net/ifb.ko.xz:\nkernel/net/sched/act_mirred.ko: x.ko\n",
        )?;
        fs::create_dir_all("/sys/module/sch_prio")?;
        let report = Report::of(&[])?;
        let remedy = "modprobe sch_netem";
        report.expect(
            "kernel module sch_netem",
            "FAULT",
            &["not in the kernel", remedy],
        )?;
        report.expect(
            "kernel module cls_flower",
            "warning",
            &["modprobe cls_flower"],
        )?;
        report.expect("kernel module sch_tbf", "ok", &["built into"])?;
        report.expect("kernel module sch_prio", "ok", &["loaded"])?;
        report.expect("kernel module ifb", "ok", &["when it is needed"])?;
        report.expect("kernel module act_mirred", "ok", &["when it is needed"])?;
        ensure!(report.code == Some(1), "{report:?}");
        Ok(())
    });

    lab_test!(a_machine_with_all_modules_is_healthy, |_| {
        mount("--make-shared /run")?;
        let names = [
            "sch_netem",
            "sch_tbf",
            "sch_prio",
            "ifb",
            "cls_flower",
            "act_mirred",
        ];
        let list: String = names
            .iter()
            .map(|name| format!("kernel/{name}.ko:\n"))
            .collect();
        fake_modules("", &list)?;
        let report = Report::of(&[])?;
        ensure!(report.code == Some(0), "{report:?}");
        ensure!(!report.text.contains("FAULT"), "{report:?}");
        Ok(())
    });

    lab_test!(missing_capabilities_are_named, |_| {
        let report = Report::read(&["--bounding-set=-net_admin,-sys_ptrace"], &[])?;
        report.expect(
            "capabilities:",
            "FAULT",
            &["CAP_NET_ADMIN", "AmbientCapabilities="],
        )?;
        let report = Report::read(&["--bounding-set=-net_raw"], &[])?;
        report.expect("capabilities:", "warning", &["CAP_NET_RAW"])?;
        Ok(())
    });

    lab_test!(a_used_up_inotify_limit_is_found, Kind::OwnLimits, |_| {
        fs::write("/proc/sys/user/max_inotify_instances", "0")?;
        let report = Report::of(&[])?;
        report.expect(
            "inotify:",
            "FAULT",
            &["user.max_inotify_instances=0", "sysctl -w"],
        )
    });

    lab_test!(private_mounts_are_found, |_| {
        // The mounts of a test are private.
        let report = Report::of(&[])?;
        report.expect("netns directory", "FAULT", &["do not arrive", "rslave"])?;
        mount("--make-shared /run")?;
        fs::create_dir("/run/netns")?;
        let report = Report::of(&[])?;
        report.expect("netns directory", "ok", &["exists", "shared:"])?;
        mount("-t tmpfs tmpfs /run/netns")?;
        mount("--make-private /run/netns")?;
        let report = Report::of(&[])?;
        report.expect("netns directory", "FAULT", &["private"])
    });

    lab_test!(sockets_of_container_engines_are_checked, |_| {
        fs::create_dir("/run/podman")?;
        drop(UnixListener::bind("/run/podman/podman.sock")?);
        let live = UnixListener::bind("/run/docker.sock")?;
        fs::write("/run/engine", "")?;
        let report = Report::of(&["--container-socket", "/run/engine"])?;
        report.expect(
            "engine /run/podman/podman.sock",
            "warning",
            &["systemctl start"],
        )?;
        report.expect("engine /run/docker.sock", "ok", &["listens"])?;
        report.expect("engine /run/engine", "FAULT", &["a regular file"])?;
        fs::set_permissions("/run/docker.sock", fs::Permissions::from_mode(0o600))?;
        let report = Report::read(&["--reuid=1000", "--clear-groups"], &[])?;
        report.expect(
            "engine /run/docker.sock",
            "FAULT",
            &["SupplementaryGroups="],
        )?;
        drop(live);
        let report = Report::of(&["--no-containers"])?;
        report.expect("container engines:", "ok", &["--no-containers"])
    });

    lab_test!(an_endpoint_of_another_program_is_found, |scene| {
        let owner = TcpListener::bind("127.0.0.1:7447")?;
        let report = Report::of(&[])?;
        report.expect("bus endpoint", "FAULT", &["in use", "ss -tulpn"])?;
        drop(owner);
        scene.start()?;
        let report = Report::of(&[])?;
        report.expect("bus endpoint", "ok", &["the backend default answers"])?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let router = format!("tcp/{address}");
        let client = ["--zenoh-mode", "client", "--zenoh-connect", &router];
        let report = Report::of(&client)?;
        report.expect("bus endpoint", "warning", &["refused", &router])?;
        let report = Report::of(&[
            "--zenoh-mode",
            "client",
            "--zenoh-listen",
            "tcp/127.0.0.1:1",
        ])?;
        report.expect("options:", "FAULT", &["--zenoh-mode peer"])
    });

    lab_test!(a_state_directory_of_other_users_is_found, |_| {
        fs::create_dir_all(STATE)?;
        fs::set_permissions(STATE, fs::Permissions::from_mode(0o777))?;
        let report = Report::of(&with_state())?;
        report.expect("state directory", "FAULT", &["chmod 700", STATE])?;
        fs::set_permissions(STATE, fs::Permissions::from_mode(0o700))?;
        let report = Report::of(&with_state())?;
        report.expect("state directory", "ok", &["private and writable"])?;
        fs::remove_dir(STATE)?;
        fs::write(STATE, "")?;
        let report = Report::of(&with_state())?;
        report.expect("state directory", "FAULT", &["--state-dir"])
    });

    lab_test!(a_state_directory_without_space_is_found, |_| {
        fs::create_dir_all(STATE)?;
        mount(&format!("-t tmpfs -o size=1m,mode=700 tmpfs {STATE}"))?;
        fs::write(Path::new(STATE).join("large"), vec![0; 1_000_000])?;
        let report = Report::of(&with_state())?;
        report.expect("state directory", "FAULT", &["are free", "1 MiB"])?;
        mount(&format!("-o remount,ro,size=4m {STATE}"))?;
        let report = Report::of(&with_state())?;
        report.expect(
            "state directory",
            "FAULT",
            &["cannot be written", "read-write"],
        )
    });
}
