//! The daemon's own process: capabilities, the descriptor limit, memory and environment.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The capabilities that the daemon needs, with their bit numbers (`include/uapi/linux/capability.h`).
const REQUIRED: [(&str, u32); 3] = [
    ("CAP_NET_BROADCAST", 11),
    ("CAP_NET_ADMIN", 12),
    ("CAP_SYS_ADMIN", 21),
];

/// The capabilities without which a part of the daemon's work is not possible.
const OPTIONAL: [(&str, u32); 3] = [
    ("CAP_DAC_READ_SEARCH", 2),
    ("CAP_NET_RAW", 13),
    ("CAP_SYS_PTRACE", 19),
];

/// Returns the names of the required capabilities that the process lacks.
///
/// # Errors
/// `/proc/self/status` cannot be read.
pub fn missing_capabilities() -> io::Result<Vec<&'static str>> {
    missing_of(&REQUIRED)
}

/// Returns the names of the capabilities that the process lacks, of those without which only a part of the work is possible.
///
/// # Errors
/// `/proc/self/status` cannot be read.
pub fn missing_optional_capabilities() -> io::Result<Vec<&'static str>> {
    missing_of(&OPTIONAL)
}

fn missing_of(capabilities: &[(&'static str, u32)]) -> io::Result<Vec<&'static str>> {
    let status = fs::read_to_string("/proc/self/status")?;
    effective(&status)
        .map(|bits| {
            capabilities
                .iter()
                .filter(|(_, bit)| bits & (1 << bit) == 0)
                .map(|(name, _)| *name)
                .collect()
        })
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no CapEff in /proc/self/status"))
}

/// Returns whether the process may examine processes of other users (`CAP_SYS_PTRACE`).
///
/// # Errors
/// `/proc/self/status` cannot be read.
pub fn may_trace() -> io::Result<bool> {
    const CAP_SYS_PTRACE: u32 = 19;
    let status = fs::read_to_string("/proc/self/status")?;
    Ok(effective(&status).is_some_and(|bits| bits & (1 << CAP_SYS_PTRACE) != 0))
}

/// Returns the effective capability set of a `/proc/PID/status` (`man 5 proc_pid_status`).
fn effective(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Raises the soft limit of open descriptors to the hard one and returns it.
///
/// # Errors
/// The kernel refuses. Then the limit is unchanged.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// Configures the allocator so that repeated bursts do not increase the memory use (`man 3 mallopt`).
///
/// Publications and kernel requests run on any free blocking thread. glibc has up to eight arenas for each
/// processor, and each arena keeps a share of the freed memory. With two arenas, ten bursts of a thousand
/// namespaces leave 5.3 % more than one burst. After the first list of a thousand namespaces is freed, glibc would
/// raise its threshold and put the next lists on the heap, between blocks that stay allocated. With a fixed
/// threshold the lists are mapped, and unmapped when they are freed. See also [`without_thread_caches`].
pub fn tune_allocator() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (nix::libc::M_ARENA_MAX, 1),
        (nix::libc::M_MMAP_THRESHOLD, 128 * 1024),
    ] {
        #[expect(unsafe_code, reason = "the allocator is tuned through libc alone")]
        // SAFETY: `mallopt` takes two integers, and is called before there is a second thread. It returns
        // 0 for a parameter it does not know, which leaves everything as it was.
        unsafe {
            nix::libc::mallopt(parameter, value);
        }
    }
}

/// Executes the program again in the same process, with the thread caches of glibc's allocator disabled.
///
/// Such a cache holds up to seven blocks of each small size. No call empties it while the thread lives, and its
/// blocks keep their pages in use. With caches, a burst of a thousand namespaces leaves 2 MB more, and later
/// bursts add to that. Only the environment at the start can disable them (glibc manual, "Memory Allocation
/// Tunables"). Call it before any other thread is started.
///
/// Returns if there is nothing to do: after that second start, if the operator has set tunables, in secure
/// execution (`AT_SECURE`, `man 3 getauxval`), where the loader ignores them, or without glibc.
///
/// # Errors
/// The program cannot be executed again, for instance because its file was replaced. The process is unchanged.
pub fn without_thread_caches() -> io::Result<()> {
    const TUNABLES: &str = "GLIBC_TUNABLES";
    #[expect(unsafe_code, reason = "only libc knows how the program was started")]
    // SAFETY: it reads a value that the kernel gave the process.
    let is_secure = unsafe { nix::libc::getauxval(nix::libc::AT_SECURE) } != 0;
    if !cfg!(target_env = "gnu") || is_secure || std::env::var_os(TUNABLES).is_some() {
        return Ok(());
    }
    let mut given = std::env::args_os();
    let mut again = Command::new(std::env::current_exe()?);
    if let Some(name) = given.next() {
        again.arg0(name);
    }
    Err(again
        .args(given)
        .env(TUNABLES, "glibc.malloc.tcache_count=0")
        .exec())
}

/// Returns free pages of the heap to the kernel (`man 3 malloc_trim`), which takes about a millisecond.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "malloc_trim has no safe wrapper")]
    // SAFETY: it may be called by any thread at any time, and touches only what is free.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// Sets an environment variable if it is not set. Call it before any other thread is started.
pub fn default_environment(name: &str, value: &str) {
    if std::env::var_os(name).is_some() {
        return;
    }
    #[expect(
        unsafe_code,
        clippy::disallowed_methods,
        reason = "the variable must be set in this process"
    )]
    // SAFETY: no other thread reads or writes the environment, as there is none yet.
    unsafe {
        std::env::set_var(name, value);
    }
}

/// Returns the host's name, as `uname -n` prints it.
pub fn hostname() -> Option<String> {
    nix::unistd::gethostname().ok()?.into_string().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_effective_set() {
        assert_eq!(
            effective("CapPrm:\tff\nCapEff:\t0000000000201000\nCapBnd:\tff\n"),
            Some(0x20_1000)
        );
        assert_eq!(effective("CapPrm:\tff\n"), None);
    }
}
