//! The machine on which a measurement runs.

use std::fmt;
use std::fs;
use std::thread;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// The properties of the machine that affect measurements.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// The release of the kernel, as in `/proc/sys/kernel/osrelease`.
    pub kernel: String,
    /// The number of processors that this process may use.
    pub cpus: usize,
    /// The model of the first processor, if `/proc/cpuinfo` has it.
    pub cpu: Option<String>,
    /// The memory in KiB, if `/proc/meminfo` has it.
    pub memory_kib: Option<u64>,
    /// The load averages of 1, 5 and 15 minutes, as in `/proc/loadavg`.
    pub load: Option<String>,
}

impl Machine {
    /// Reads the data of this machine.
    ///
    /// # Errors
    ///
    /// The release of the kernel or the number of processors cannot be read.
    pub fn read() -> anyhow::Result<Self> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")
            .context("read the release of the kernel")?;
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load: Vec<_> = load.split_whitespace().take(3).collect();
        Ok(Self {
            kernel: kernel.trim().to_owned(),
            cpus: thread::available_parallelism()?.get(),
            cpu: proc_value("/proc/cpuinfo", "model name"),
            memory_kib: proc_value("/proc/meminfo", "MemTotal")
                .and_then(|it| it.split_whitespace().next()?.parse().ok()),
            load: (load.len() == 3).then(|| load.join(" ")),
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let load = self.load.as_deref().unwrap_or("unknown");
        write!(f, "Linux {}, {} cpus, load {load}", self.kernel, self.cpus)
    }
}

/// Returns the value of the first line `key: value` of a file of /proc.
fn proc_value(file: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
