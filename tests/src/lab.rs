//! Isolation: every test runs in its own process with private mount and network namespaces.
//!
//! The host's `/run/netns`, its links and its port 7447 are out of reach. Therefore tests run in parallel and may change
//! anything. A test is declared with [`lab_test!`](crate::lab_test):
//!
//! ```text
//! libtest (outer) ── isolated() ── unshare -m -n … ── same binary, --exact NAME (inner) ── body
//! ```
//!
//! The namespaces are created before the inner process has any thread.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;
use std::{env, io};

use anyhow::{Context, ensure};

use crate::measure;
use crate::process;
use crate::scene::Scene;
use crate::wait::wait_for;

/// Marks the inner process. Its value is the outer mount namespace.
const MARK: &str = "TCGUI_LAB_OUTSIDE";

const LOCK: &str = "tcgui-tests.lock";

/// Maximum duration of a test, unless it declares a longer one.
const DEADLINE: Duration = Duration::from_secs(150);

/// Returns a command that runs the program in private mount and network namespaces.
///
/// There `/run` is an empty tmpfs, as after a boot. `/var/lib` is another tmpfs, for the daemon's state. Only the loopback link
/// exists. The program keeps the pid that the spawn returned, and ends with the thread that started it.
#[must_use]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    unshared(&["-m", "-n"], program)
}

/// [`command`] with a private user namespace, whose root may set limits in `/proc/sys/user`.
#[must_use]
pub fn command_with_limits(program: impl AsRef<OsStr>) -> Command {
    unshared(&["-U", "-r", "-m", "-n"], program)
}

/// [`command`] with a private process namespace. Processes that the program leaves behind end with it.
///
/// The pid that the spawn returned belongs to a program that waits for it and ends with the same status.
#[must_use]
pub fn command_with_processes(program: impl AsRef<OsStr>) -> Command {
    let namespaces = ["-m", "-n", "-p", "--fork", "--kill-child", "--mount-proc"];
    let mut command = unshared(&namespaces, "bash");
    // The shell is the first process of the namespace and waits for orphans.
    command.args(["-c", r#""$@"; exit $?"#, "_"]).arg(program);
    command
}

/// [`command`] with private mounts only. It sees the processes and links of the machine.
#[must_use]
pub fn command_on_the_network(program: impl AsRef<OsStr>) -> Command {
    prepared(&["-m"], MOUNTS, program)
}

const MOUNTS: &str = "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib";

fn unshared(namespaces: &[&str], program: impl AsRef<OsStr>) -> Command {
    prepared(
        namespaces,
        &format!("{MOUNTS} && ip link set lo up"),
        program,
    )
}

fn prepared(namespaces: &[&str], preparation: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = process::bound_to_parent("unshare");
    command
        .args(namespaces)
        .args(["--propagation", "private", "bash", "-c"])
        .arg(format!(r#"{preparation} && exec "$@""#))
        .arg("_")
        .arg(program);
    command
}

/// Declares a test that runs in the lab: `lab_test!(name, |scene| { …; Ok(()) });`
///
/// The body receives a [`Scene`], which is checked for leaks at the end.
#[macro_export]
macro_rules! lab_test {
    ($(#[$attribute:meta])* $name:ident, $body:expr $(,)?) => {
        $crate::lab_test!($(#[$attribute])* $name, $crate::lab::Kind::Plain, $body);
    };
    ($(#[$attribute:meta])* $name:ident, $kind:expr, $body:expr $(,)?) => {
        #[test]
        $(#[$attribute])*
        fn $name() {
            let path = concat!(module_path!(), "::", stringify!($name));
            $crate::lab::isolated(path, $kind, $body);
        }
    };
}

/// Time limit for tests with engines. A hundred containers take at least a minute.
const ENGINES_DEADLINE: Duration = Duration::from_secs(600);

/// The isolation and the time that a test needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The default. Other tests may run at the same time.
    Plain,
    /// No other test runs at the same time, because the test measures time or load.
    Alone,
    /// No other test runs at the same time. The test may take this long.
    AloneFor(Duration),
    /// Other tests may run at the same time. The test may take this long.
    Lasting(Duration),
    /// With a private user namespace that has its own limits in `/proc/sys/user`.
    OwnLimits,
    /// With a private process namespace, so that `/proc` shows only the processes of the test.
    OwnProcesses,
    /// With a private process namespace for container engines. No other test runs at the same time.
    Engines,
    /// With the processes and the network namespace of the machine, because only there the kernel announces new processes. No
    /// other test runs at the same time. Only mounts are private, so the test must not change the network.
    Announced,
}

impl Kind {
    fn is_alone(self) -> bool {
        matches!(
            self,
            Self::Alone | Self::AloneFor(_) | Self::Engines | Self::Announced
        )
    }

    fn deadline(self) -> Duration {
        match self {
            Self::AloneFor(period) | Self::Lasting(period) => period,
            Self::Plain | Self::Alone | Self::OwnLimits | Self::OwnProcesses | Self::Announced => {
                DEADLINE
            }
            Self::Engines => ENGINES_DEADLINE,
        }
    }
}

/// Runs the body in the lab. Called by the macro.
///
/// Panics if the test fails.
#[expect(clippy::missing_panics_doc, reason = "panicking is how a test reports")]
pub fn isolated(path: &str, kind: Kind, body: impl FnOnce(&mut Scene) -> anyhow::Result<()>) {
    let verdict = match env::var_os(MARK) {
        Some(outside) => inside(&outside, body),
        None => outside(path, kind),
    };
    if let Err(error) = verdict {
        panic!("{error:#}");
    }
}

fn mount_namespace() -> anyhow::Result<std::path::PathBuf> {
    fs::read_link("/proc/self/ns/mnt").context("read the link of the own mount namespace")
}

fn inside(
    outside: &OsStr,
    body: impl FnOnce(&mut Scene) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    ensure!(
        mount_namespace()?.as_os_str() != outside,
        "{MARK} is set but this is not the lab: unset it"
    );
    let mut scene = Scene::default();
    let verdict = body(&mut scene).and_then(|()| scene.check());
    if verdict.is_err() {
        scene.describe();
    }
    verdict
}

fn outside(path: &str, kind: Kind) -> anyhow::Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN, for private mount and network namespaces): \
         run it as root, for instance with scripts/test.sh"
    );
    let lock = lock(kind)?;
    // libtest's names do not contain the crate name.
    let name = path.split_once("::").map_or(path, |(_, name)| name);
    let mut output = tempfile::tempfile().context("make a file for the output of the test")?;
    let status = run_inner(name, kind, &output)?;
    drop(lock);

    let mut text = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    for line in text
        .lines()
        .filter(|line| line.starts_with(measure::PREFIX))
    {
        writeln!(io::stderr(), "{name}: {line}")?;
    }
    let passed = status.success() && text.contains("test result: ok. 1 passed");
    ensure!(passed, "{name} in the lab: {status}\n{text}");
    Ok(())
}

/// Runs this binary again for one test. A test that exceeds its time is killed, and its status shows that.
fn run_inner(name: &str, kind: Kind, output: &File) -> anyhow::Result<ExitStatus> {
    let program = env::current_exe().context("find the path of this test binary")?;
    let mut command = match kind {
        Kind::OwnLimits => command_with_limits(program),
        Kind::Engines | Kind::OwnProcesses => command_with_processes(program),
        Kind::Announced => command_on_the_network(program),
        _ => command(program),
    };
    let mut child = command
        .args([
            name,
            "--exact",
            "--nocapture",
            "--include-ignored",
            "--test-threads=1",
        ])
        .env(MARK, mount_namespace()?)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .spawn()
        .context("start setpriv and unshare (package util-linux)")?;
    let look = || child.try_wait().ok().flatten();
    if let Err(error) = wait_for(
        "the test ends by itself",
        kind.deadline(),
        look,
        Option::is_some,
    ) {
        child.kill()?;
        writeln!(&mut &*output, "killed: {error}")?;
    }
    Ok(child.wait()?)
}

/// Takes the lock: shared for tests, exclusive for measurements. It is released when the file is closed.
fn lock(kind: Kind) -> anyhow::Result<File> {
    let program = env::current_exe()?;
    let beside = program.parent().unwrap_or(Path::new("/")).join(LOCK);
    // If the directory is read-only, this is a virtual machine without other tests.
    let file = File::create(beside)
        .or_else(|_| File::create(env::temp_dir().join(LOCK)))
        .context("make the lock file")?;
    if kind.is_alone() {
        file.lock()?;
    } else {
        file.lock_shared()?;
    }
    Ok(file)
}
