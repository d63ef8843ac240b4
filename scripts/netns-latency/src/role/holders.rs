//! Processes that hold network namespaces without a name.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::Context;
use tcgui_tests::client::monotonic_ns;
use tcgui_tests::process::{Companion, bound_to_parent};
use tcgui_tests::unnamed::namespace_of;
use tcgui_tests::wait::wait_every;
use tempfile::TempDir;

use super::links::Socket;

/// Timeout for the start of a program on a busy machine.
const SOON: Duration = Duration::from_secs(5);

/// Interval between checks of a process that is starting.
const LOOK: Duration = Duration::from_micros(20);

/// Running programs by name.
#[derive(Debug, Default)]
pub(super) struct Holders(BTreeMap<String, Companion>);

impl Holders {
    /// Starts a program of this name in a new namespace. Returns the time at which it was seen there.
    pub(super) fn start(&mut self, name: &str) -> anyhow::Result<u64> {
        let home = namespace_of(std::process::id())?;
        // The kernel names a process after the file of its program. A deleted file can still run.
        let directory = TempDir::new()?;
        let path = directory.path().join(name);
        fs::copy("/bin/sleep", &path).with_context(|| format!("make {}", path.display()))?;
        let mut command = bound_to_parent("unshare");
        let holder = Companion::start(command.arg("--net").arg(&path).arg("infinity"))?;
        let look = || namespace_of(holder.pid()).ok();
        let is_away = |now: &Option<_>| now.as_ref().is_some_and(|now| *now != home);
        wait_every(LOOK, "a process is elsewhere", SOON, look, is_away)?;
        let there = monotonic_ns()?;
        // The process enters the namespace before it executes the program.
        let comm = format!("/proc/{}/comm", holder.pid());
        let look = || fs::read_to_string(&comm).ok();
        let is_named =
            |now: &Option<String>| now.as_deref().is_some_and(|it| it.trim_end() == name);
        wait_every(LOOK, "a process runs its program", SOON, look, is_named)?;
        self.0.insert(name.to_owned(), holder);
        Ok(there)
    }

    /// [`Self::start`], then moves one end of a new veth there. Returns the time of that request.
    pub(super) fn start_and_move(&mut self, name: &str) -> anyhow::Result<u64> {
        let mut socket = Socket::open(0)?;
        socket.add_veth(name)?;
        self.start(name)?;
        let holder = self.0.get(name).context("it was just started")?;
        socket.move_to(name, holder.pid())
    }

    /// Kills a program. Returns the time of the signal.
    pub(super) fn end(&mut self, name: &str) -> anyhow::Result<u64> {
        let holder = self.0.remove(name).context("no program of this name")?;
        let start = monotonic_ns()?;
        holder.kill()?;
        Ok(start)
    }
}
