//! Network namespaces as files: telling them from other entries, naming them, opening them.
//!
//! All members of nsfs share one `st_dev` (`fs/nsfs.c`), so a `stat` tells a mounted namespace from
//! its empty placeholder file without opening anything: it does not block on a FIFO and pins nothing. It does
//! not wait for a file system whose server hangs either ([`Inode`]).
//! A descriptor, even an `O_PATH` one, would keep the namespace alive after `ip netns del`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

use nix::dir::Dir;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open, openat};
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, fstat, fstatat};

use super::inode::{FileKind, Inode, Links};

pub use netns_ref::{NetnsKey, NetnsRef};

mod netns_ref;

/// The kernel identity of a namespace as its entry shows it.
///
/// Inode numbers are reused within microseconds after a delete, so the change time of the nsfs inode belongs to the
/// identity. It is stable while the mount exists. For a symbolic link, for instance to `/proc/PID/ns/net`, it is the change time
/// of the link itself. The nsfs inode behind such a link has no mount that keeps it in memory, and gets a new time at each lookup.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MountedNamespaceId {
    device: u64,
    inode: u64,
    ctime_s: i64,
    ctime_ns: i64,
    link: bool,
}

impl MountedNamespaceId {
    /// Returns the identity of a mount made of its parts; only tests and stored leases have them apart.
    pub const fn from_parts(device: u64, inode: u64, ctime_s: i64, ctime_ns: i64) -> Self {
        Self {
            device,
            inode,
            ctime_s,
            ctime_ns,
            link: false,
        }
    }

    /// Returns the identity of a symbolic link made of its parts.
    #[must_use]
    pub const fn through_link(self) -> Self {
        Self { link: true, ..self }
    }

    /// Returns whether a symbolic link leads to the namespace; its change time says nothing of that.
    pub const fn is_link(&self) -> bool {
        self.link
    }

    /// Returns whether the namespace of `self` was dead when that of `other` was made. All mounts of one
    /// namespace have one change time, and the inode number is given to a later one.
    pub fn died_before(&self, other: &Self) -> bool {
        let time = |id: &Self| (id.ctime_s, id.ctime_ns);
        let are_mounts = !self.link && !other.link;
        are_mounts && self.inode == other.inode && time(self) < time(other)
    }

    /// Returns device, inode, and change time in seconds and nanoseconds, for what is stored.
    pub const fn parts(&self) -> (u64, u64, i64, i64) {
        (self.device, self.inode, self.ctime_s, self.ctime_ns)
    }

    /// Returns the inode number, by which namespaces that live at the same time differ.
    pub const fn inode(&self) -> u64 {
        self.inode
    }

    fn new(inode: &Inode, ctime: &Inode) -> Self {
        let (seconds, nanoseconds) = ctime.ctime;
        Self::from_parts(inode.device, inode.number, seconds, nanoseconds)
    }
}

impl fmt::Display for MountedNamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}@{}.{:09}",
            self.device, self.inode, self.ctime_s, self.ctime_ns
        )
    }
}

impl fmt::Debug for MountedNamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A process that holds a namespace which may have no name.
///
/// Namespaces that live at the same time differ by inode number, and the process keeps its namespace alive;
/// process ids are reused, but not at the same time since boot (`man 5 proc_pid_stat`, field 22).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessNetnsId {
    device: u64,
    inode: u64,
    pid: i32,
    started: u64,
}

impl ProcessNetnsId {
    /// Returns an identity made of its parts; only tests and stored leases have them apart.
    pub const fn from_parts(device: u64, inode: u64, pid: i32, started: u64) -> Self {
        Self {
            device,
            inode,
            pid,
            started,
        }
    }

    /// Returns device, inode, process id, and the start of the process in clock ticks since boot.
    pub const fn parts(&self) -> (u64, u64, i32, u64) {
        (self.device, self.inode, self.pid, self.started)
    }

    /// Returns the inode number, by which namespaces that live at the same time differ.
    pub const fn inode(&self) -> u64 {
        self.inode
    }

    /// Returns the id of the process.
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// Returns when the process started, in clock ticks since boot.
    pub const fn started(&self) -> u64 {
        self.started
    }
}

impl fmt::Display for ProcessNetnsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} of pid {}", self.device, self.inode, self.pid)
    }
}

/// What one entry of the netns directory is at the moment of looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// There is no such entry.
    Absent,
    /// Something that is no namespace: a placeholder before its mount, or junk.
    Plain,
    /// A namespace of another type, a bound `uts` namespace for instance.
    OtherNamespace(MountedNamespaceId),
    /// A network namespace that can be entered now.
    Network(MountedNamespaceId),
}

/// Why a namespace could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The entry is gone or names another namespace by now; the watcher will say so too.
    #[error("the entry no longer names the expected network namespace")]
    Gone,
    /// The kernel refused.
    #[error("cannot open the namespace file")]
    Open(#[source] io::Error),
}

/// Looks at namespace files.
#[derive(Debug, Clone, Copy)]
pub struct NetnsFiles {
    nsfs_device: u64,
    own_inode: u64,
}

impl NetnsFiles {
    /// Learns the device number of nsfs from the caller's own namespace.
    ///
    /// # Errors
    /// `/proc` is not mounted or hides the caller from itself.
    pub fn new() -> io::Result<Self> {
        let own = fs::metadata("/proc/self/ns/net")?;
        Ok(Self {
            nsfs_device: own.dev(),
            own_inode: own.ino(),
        })
    }

    /// Returns the inode number of the caller's own network namespace.
    pub fn own_inode(&self) -> u64 {
        self.own_inode
    }

    /// Returns the device number that all namespaces share.
    pub fn device(&self) -> u64 {
        self.nsfs_device
    }

    /// Returns what the entry `name` of `directory` is now. Never blocks on a FIFO or device and keeps
    /// nothing open.
    ///
    /// `known` is the answer of an earlier look: a namespace whose identity has not changed is not
    /// opened again to ask for its type.
    pub fn look_at(&self, directory: &NetnsDirectory, name: &OsStr, known: Option<Entry>) -> Entry {
        self.look_from(directory.0.as_fd(), name, known)
    }

    /// Returns what `path` is now, as [`Self::look_at`] does.
    pub fn look(&self, path: &Path, known: Option<Entry>) -> Entry {
        self.look_from(AT_FDCWD, path.as_os_str(), known)
    }

    fn look_from(&self, base: BorrowedFd<'_>, name: &OsStr, known: Option<Entry>) -> Entry {
        let link = match Inode::beside(base, name, Links::Stay) {
            Ok(link) => link,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Entry::Absent,
            Err(_) => return Entry::Plain,
        };
        let id = if link.device == self.nsfs_device {
            MountedNamespaceId::new(&link, &link)
        } else if link.kind() == FileKind::Symlink {
            match Inode::beside(base, name, Links::Follow) {
                Ok(target) if target.device == self.nsfs_device => {
                    MountedNamespaceId::new(&target, &link).through_link()
                }
                _ => return Entry::Plain,
            }
        } else {
            return Entry::Plain;
        };
        match known {
            Some(same @ (Entry::Network(known) | Entry::OtherNamespace(known))) if known == id => {
                same
            }
            _ => match self.open_and_type(base, name, id) {
                Ok((_closed_here, true)) => Entry::Network(id),
                Ok((_closed_here, false)) => Entry::OtherNamespace(id),
                // It changed between the two looks: not usable yet, the next look decides.
                Err(_) => Entry::Plain,
            },
        }
    }

    /// Opens the network namespace `id` at `path`.
    ///
    /// The descriptor keeps the namespace alive: use it and close it.
    ///
    /// # Errors
    /// [`OpenError::Gone`] when the path no longer names that namespace.
    pub fn open(&self, path: &Path, id: MountedNamespaceId) -> Result<OwnedFd, OpenError> {
        let (fd, network) = self.open_and_type(AT_FDCWD, path.as_os_str(), id)?;
        // Only now: while the descriptor is open, no other namespace can have the inode.
        let same = self.look(path, Some(Entry::Network(id))) == Entry::Network(id);
        if network && same {
            Ok(fd)
        } else {
            Err(OpenError::Gone)
        }
    }

    /// Returns which namespace a process is in.
    ///
    /// # Errors
    /// The process is gone, or it belongs to another user and `CAP_SYS_PTRACE` is missing.
    pub fn held_by(&self, pid: i32) -> io::Result<ProcessNetnsId> {
        let process = open_process(pid)?;
        let netns = fstatat(&process, "ns/net", AtFlags::empty())?;
        if netns.st_dev != self.nsfs_device {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        Ok(ProcessNetnsId {
            device: netns.st_dev,
            inode: netns.st_ino,
            pid,
            started: started(&process)?,
        })
    }

    /// Opens the namespace of a process, if the process is still the same and still in it.
    ///
    /// The descriptor keeps the namespace alive: use it and close it.
    ///
    /// # Errors
    /// [`OpenError::Gone`] when the process has ended or left the namespace.
    pub fn open_held(&self, id: ProcessNetnsId) -> Result<OwnedFd, OpenError> {
        let failed = |err: io::Error| match err.kind() {
            io::ErrorKind::NotFound => OpenError::Gone,
            _ if err.raw_os_error() == Some(libc::ESRCH) => OpenError::Gone,
            _ => OpenError::Open(err),
        };
        let process = open_process(id.pid).map_err(failed)?;
        if started(&process).map_err(failed)? != id.started {
            return Err(OpenError::Gone);
        }
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let netns = openat(&process, "ns/net", flags, Mode::empty());
        let netns = netns.map_err(|errno| failed(errno.into()))?;
        let stat = fstat(&netns).map_err(|errno| failed(errno.into()))?;
        if (stat.st_dev, stat.st_ino) == (id.device, id.inode) {
            Ok(netns)
        } else {
            Err(OpenError::Gone)
        }
    }

    /// Returns the type of the namespace `id` at `path` in the words of `/proc/PID/ns`; `None` when the path
    /// no longer names it or may not be opened.
    pub fn type_of(&self, path: &Path, id: MountedNamespaceId) -> Option<&'static str> {
        let (_closed_here, kind) = self.open_with_type(AT_FDCWD, path.as_os_str(), id).ok()?;
        let names = [
            (CloneFlags::CLONE_NEWNET, "net"),
            (CloneFlags::CLONE_NEWNS, "mnt"),
            (CloneFlags::CLONE_NEWUTS, "uts"),
            (CloneFlags::CLONE_NEWIPC, "ipc"),
            (CloneFlags::CLONE_NEWPID, "pid"),
            (CloneFlags::CLONE_NEWUSER, "user"),
            (CloneFlags::CLONE_NEWCGROUP, "cgroup"),
        ];
        let found = names.iter().find(|(flag, _)| *flag == kind);
        Some(found.map_or("unknown", |(_, name)| name))
    }

    /// Opens an entry without ever blocking and tells whether it is a network namespace.
    fn open_and_type(
        &self,
        base: BorrowedFd<'_>,
        name: &OsStr,
        id: MountedNamespaceId,
    ) -> Result<(OwnedFd, bool), OpenError> {
        let (fd, kind) = self.open_with_type(base, name, id)?;
        Ok((fd, kind == CloneFlags::CLONE_NEWNET))
    }

    /// Opens an entry without ever blocking and asks for its type.
    ///
    /// The path may have turned into a FIFO since it was looked at, so the first open is `O_PATH`;
    /// only what is nsfs for certain is then opened for real, through `/proc/self/fd`.
    fn open_with_type(
        &self,
        base: BorrowedFd<'_>,
        name: &OsStr,
        id: MountedNamespaceId,
    ) -> Result<(OwnedFd, CloneFlags), OpenError> {
        let failed = |errno: nix::Error| OpenError::Open(errno.into());
        let handle = match openat(base, name, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
            Err(nix::Error::ENOENT) => return Err(OpenError::Gone),
            opened => opened.map_err(failed)?,
        };
        let found = Inode::of(&handle).map_err(OpenError::Open)?;
        if found.device != self.nsfs_device || found.number != id.inode {
            return Err(OpenError::Gone);
        }
        let reopen = format!("/proc/self/fd/{}", handle.as_raw_fd());
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let fd = open(reopen.as_str(), flags, Mode::empty()).map_err(failed)?;
        let kind = namespace_type(&fd).map_err(OpenError::Open)?;
        Ok((fd, kind))
    }
}

/// Opens the directory of a process. What is read through it is about this process and no later one with
/// its id, and it keeps nothing alive.
fn open_process(pid: i32) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(open(format!("/proc/{pid}").as_str(), flags, Mode::empty())?)
}

/// Reads when a process started, in clock ticks since boot.
fn started(process: &OwnedFd) -> io::Result<u64> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let stat = openat(process, "stat", flags, Mode::empty())?;
    // The name of a program need not be UTF-8, and is of no interest here.
    let mut bytes = Vec::new();
    fs::File::from(stat).read_to_end(&mut bytes)?;
    start_time(&String::from_utf8_lossy(&bytes))
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Returns field 22 of a `/proc/PID/stat`. The second field is the name of the program, in parentheses, of
/// which it may have some itself.
pub(super) fn start_time(stat: &str) -> Option<u64> {
    const AFTER_THE_NAME: usize = 22 - 3;
    let (_, fields) = stat.rsplit_once(')')?;
    fields
        .split_ascii_whitespace()
        .nth(AFTER_THE_NAME)?
        .parse()
        .ok()
}

/// The netns directory, open for one sweep: entries are looked at relative to it, which is half the
/// work of looking at full paths. Kept open it would keep its mount busy.
#[derive(Debug)]
pub struct NetnsDirectory(Dir);

impl NetnsDirectory {
    /// Opens the directory.
    ///
    /// # Errors
    /// As `open(2)` with `O_DIRECTORY`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self(Dir::open(path, flags, Mode::empty())?))
    }

    /// Returns the names of all entries.
    ///
    /// # Errors
    /// The directory was not read to its end.
    pub fn names(&mut self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in self.0.iter() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        Ok(names)
    }
}

/// Runs `work` inside the namespace, on a thread that ends with it: no other thread ever leaves home.
///
/// A socket that `work` opens stays in the namespace, and keeps it alive until it is closed.
///
/// # Errors
/// `setns` is refused (`CAP_SYS_ADMIN` over the namespace), or no thread can be had.
pub fn inside<T: Send>(netns: OwnedFd, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, || {
                setns(&netns, CloneFlags::CLONE_NEWNET)?;
                drop(netns);
                Ok(work())
            })?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Asks the kernel for the type of an open namespace (`man 2 ioctl_ns`, `NS_GET_NSTYPE`, Linux 4.11).
#[expect(unsafe_code, reason = "ioctl has no safe wrapper for this request")]
fn namespace_type(fd: &OwnedFd) -> io::Result<CloneFlags> {
    const NS_GET_NSTYPE: libc::c_ulong = nix::request_code_none!(0xb7, 0x3);
    // SAFETY: the descriptor is open for the duration of the call, and the request takes no argument.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
    nix::errno::Errno::result(answer)
        .map(CloneFlags::from_bits_retain)
        .map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn tells_namespaces_from_everything_else() {
        let files = NetnsFiles::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("plain"), "").unwrap();
        nix::unistd::mkfifo(&at("fifo"), Mode::S_IRUSR).unwrap();
        symlink("/nowhere/at/all", at("dangling")).unwrap();
        symlink("/proc/self/ns/net", at("net")).unwrap();
        symlink("/proc/self/ns/uts", at("uts")).unwrap();

        assert_eq!(files.look(&at("missing"), None), Entry::Absent);
        for name in ["plain", "fifo", "dangling"] {
            assert_eq!(files.look(&at(name), None), Entry::Plain, "{name}");
        }
        let Entry::OtherNamespace(uts) = files.look(&at("uts"), None) else {
            panic!("not another namespace")
        };
        assert_eq!(files.type_of(&at("uts"), uts), Some("uts"));
        assert_eq!(files.type_of(&at("net"), uts), None);
        let Entry::Network(id) = files.look(&at("net"), None) else {
            panic!("not a namespace")
        };
        assert_eq!(
            files.look(&at("net"), None),
            Entry::Network(id),
            "identity is stable"
        );
        drop(files.open(&at("net"), id).unwrap());

        let other = MountedNamespaceId {
            ctime_ns: id.ctime_ns ^ 1,
            ..id
        };
        assert!(matches!(
            files.open(&at("net"), other),
            Err(OpenError::Gone)
        ));
        assert!(matches!(files.open(&at("fifo"), id), Err(OpenError::Gone)));
    }

    #[test]
    fn a_namespace_is_reached_through_the_process_that_holds_it() {
        let files = NetnsFiles::new().unwrap();
        let pid = nix::unistd::getpid().as_raw();
        let id = files.held_by(pid).unwrap();
        assert_eq!((id.inode(), id.pid()), (files.own_inode(), pid));
        drop(files.open_held(id).unwrap());
        for other in [
            ProcessNetnsId {
                started: id.started + 1,
                ..id
            },
            ProcessNetnsId {
                inode: id.inode + 1,
                ..id
            },
            ProcessNetnsId { pid: -1, ..id },
        ] {
            assert!(
                matches!(files.open_held(other), Err(OpenError::Gone)),
                "{other:?}"
            );
        }
    }

    #[test]
    fn the_name_of_a_program_is_not_read_as_fields() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        for name in ["(sleep)", "(a b)", "(x) R 9 9)", "()"] {
            assert_eq!(
                start_time(&format!("7 {name} {rest}")),
                Some(4711),
                "{name}"
            );
        }
        assert_eq!(start_time("7 (sleep) S 1"), None);
        assert_eq!(start_time(""), None);
    }
}
