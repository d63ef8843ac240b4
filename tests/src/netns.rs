//! Changes of `/run/netns` like those of administrators, and its actual content. Only for use in the lab.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::process::{Companion, bound_to_parent, run};
use crate::wait::wait_for;

/// The directory of `ip netns`.
pub const DIR: &str = "/run/netns";

/// The path of an entry.
#[must_use]
pub fn path(name: impl AsRef<OsStr>) -> PathBuf {
    Path::new(DIR).join(name.as_ref())
}

/// Runs `ip` with these arguments.
///
/// # Errors
///
/// When it fails.
pub fn ip<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> anyhow::Result<String> {
    run(Command::new("ip").args(args))
}

/// Runs `ip` with the words of a line. Arguments cannot contain blanks.
///
/// # Errors
///
/// When it fails.
pub fn ip_line(line: &str) -> anyhow::Result<String> {
    ip(line.split_whitespace())
}

/// `ip netns add NAME`
///
/// # Errors
///
/// When it fails.
pub fn add(name: impl AsRef<OsStr>) -> anyhow::Result<()> {
    ip([OsStr::new("netns"), OsStr::new("add"), name.as_ref()]).map(drop)
}

/// `ip netns del NAME`
///
/// # Errors
///
/// When it fails.
pub fn del(name: impl AsRef<OsStr>) -> anyhow::Result<()> {
    ip([OsStr::new("netns"), OsStr::new("del"), name.as_ref()]).map(drop)
}

/// `ip netns attach NAME PID`
///
/// # Errors
///
/// When it fails.
pub fn attach(name: &str, pid: u32) -> anyhow::Result<()> {
    ip(["netns", "attach", name, &pid.to_string()]).map(drop)
}

/// Creates the empty file on which a namespace can be bound. An existing FIFO does not block it.
///
/// # Errors
///
/// When it cannot be created.
pub fn touch(path: &Path) -> anyhow::Result<()> {
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map(drop)
        .with_context(|| format!("make {}", path.display()))
}

/// `mount --bind SOURCE TARGET`
///
/// # Errors
///
/// When the kernel refuses.
pub fn bind(source: &Path, target: &Path) -> nix::Result<()> {
    let none = None::<&str>;
    mount(Some(source), target, none, MsFlags::MS_BIND, none)
}

/// Mounts an empty tmpfs over a directory.
///
/// # Errors
///
/// When the kernel refuses.
pub fn cover(target: &Path) -> nix::Result<()> {
    mount(
        Some("tmpfs"),
        target,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
}

/// `umount --lazy TARGET`, with everything mounted below it.
///
/// # Errors
///
/// When the kernel refuses.
pub fn detach(target: &Path) -> nix::Result<()> {
    umount2(target, MntFlags::MNT_DETACH)
}

/// Enters the namespace on a thread that ends afterwards. Success proves that the namespace is usable.
///
/// # Errors
///
/// When the entry cannot be opened or is not a network namespace.
pub fn enter(name: &OsStr) -> anyhow::Result<()> {
    let path = path(name);
    on_a_thread(move || {
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter {}", path.display()))
    })
}

/// Runs work that enters a namespace on a thread that ends afterwards.
fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    thread::spawn(work)
        .join()
        .map_err(|_| anyhow!("the thread panicked"))?
}

/// Creates many namespaces with the system calls of `ip netns add`, but without starting `ip` for each.
///
/// # Errors
///
/// When the kernel refuses one.
pub fn add_burst(names: Vec<String>) -> anyhow::Result<()> {
    fs::create_dir_all(DIR)?;
    on_a_thread(move || {
        for path in names.iter().map(path) {
            touch(&path)?;
            unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
            bind(Path::new("/proc/thread-self/ns/net"), &path)?;
        }
        Ok(())
    })
}

/// Removes many namespaces with the system calls of `ip netns del`.
///
/// # Errors
///
/// When one does not exist.
pub fn del_burst(names: &[String]) -> anyhow::Result<()> {
    for path in names.iter().map(path) {
        detach(&path)?;
        fs::remove_file(&path)?;
    }
    Ok(())
}

/// The entries that are usable network namespaces, found by another method than that of the daemon.
///
/// # Errors
///
/// When the directory exists and cannot be read.
pub fn reality() -> anyhow::Result<BTreeSet<OsString>> {
    let nsfs = fs::metadata("/proc/self/ns/net")?.dev();
    // Only entries on nsfs are opened, because a FIFO would block. An entry may be deleted between the two checks.
    let on_nsfs = |name: &OsString| fs::metadata(path(name)).is_ok_and(|it| it.dev() == nsfs);
    let names = entries()?.into_iter().filter(on_nsfs);
    Ok(names.filter(|name| enter(name).is_ok()).collect())
}

/// Every name in the directory. Empty if the directory does not exist.
///
/// # Errors
///
/// When the directory exists and cannot be read.
pub fn entries() -> anyhow::Result<Vec<OsString>> {
    match fs::read_dir(DIR) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).context("list the netns directory"),
    }
}

/// Removes the whole directory and all mounts on it and in it.
///
/// # Errors
///
/// When something cannot be removed.
pub fn clear() -> anyhow::Result<()> {
    for name in entries()? {
        while detach(&path(&name)).is_ok() {}
    }
    let directory = Path::new(DIR);
    while detach(directory).is_ok() {
        // Each mount on the directory may have hidden further entries.
        for name in entries()? {
            while detach(&path(&name)).is_ok() {}
        }
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).context("remove the netns directory")
        }
        _ => Ok(()),
    }
}

/// Starts a process in a new network namespace.
///
/// # Errors
///
/// When it does not enter a new namespace.
pub fn holder() -> anyhow::Result<Companion> {
    let holder = Companion::start(bound_to_parent("unshare").args(["-n", "sleep", "infinity"]))?;
    let ours = fs::read_link("/proc/self/ns/net")?;
    let link = of_process(holder.pid());
    wait_for(
        "a process has its own network namespace",
        Duration::from_secs(5),
        || fs::read_link(&link).ok(),
        |theirs| theirs.as_ref().is_some_and(|theirs| *theirs != ours),
    )?;
    Ok(holder)
}

/// The path of the network namespace of a process.
#[must_use]
pub fn of_process(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/net"))
}
