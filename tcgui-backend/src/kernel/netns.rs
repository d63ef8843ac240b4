//! Network namespaces as files: recognizing, identifying and opening them.
//!
//! All files of nsfs share one `st_dev` (`fs/nsfs.c`). So a `stat` distinguishes a mounted namespace from its
//! empty placeholder file without opening anything. It does not block on a FIFO and keeps no namespace alive. It
//! also does not wait for a file system whose server hangs ([`Inode`]). A descriptor, even an `O_PATH` one, would
//! keep the namespace alive after `ip netns del`.

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

/// The identity of a namespace, as its entry in the netns directory shows it.
///
/// Inode numbers are reused within microseconds after a delete, so the change time of the nsfs inode belongs to
/// the identity. It is stable while the mount exists. For a symbolic link, for instance to `/proc/PID/ns/net`, it
/// is the change time of the link itself. The nsfs inode behind such a link has no mount that keeps it in memory,
/// and gets a new time at each lookup.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MountedNamespaceId {
    device: u64,
    inode: u64,
    ctime_s: i64,
    ctime_ns: i64,
    link: bool,
}

impl MountedNamespaceId {
    /// Returns the identity of a mount with these parts. Used for stored leases and tests.
    pub const fn from_parts(device: u64, inode: u64, ctime_s: i64, ctime_ns: i64) -> Self {
        Self {
            device,
            inode,
            ctime_s,
            ctime_ns,
            link: false,
        }
    }

    /// Returns the identity of a symbolic link with these parts.
    #[must_use]
    pub const fn through_link(self) -> Self {
        Self { link: true, ..self }
    }

    /// Returns whether the entry is a symbolic link. Then the change time is that of the link.
    pub const fn is_link(&self) -> bool {
        self.link
    }

    /// Returns whether the namespace of `self` was deleted before that of `other` was created. All mounts of one
    /// namespace have one change time, so an older time with the same inode number belongs to an earlier
    /// namespace.
    pub fn died_before(&self, other: &Self) -> bool {
        let time = |id: &Self| (id.ctime_s, id.ctime_ns);
        let are_mounts = !self.link && !other.link;
        are_mounts && self.inode == other.inode && time(self) < time(other)
    }

    /// Returns device, inode, and change time in seconds and nanoseconds, for storing.
    pub const fn parts(&self) -> (u64, u64, i64, i64) {
        (self.device, self.inode, self.ctime_s, self.ctime_ns)
    }

    /// Returns the inode number. Namespaces that exist at the same time have different ones.
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

/// A process that holds a namespace. The namespace may have no name.
///
/// Namespaces that exist at the same time have different inode numbers, and the process keeps its namespace alive.
/// Process ids are reused, but not with the same start time (`man 5 proc_pid_stat`, field 22).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessNetnsId {
    device: u64,
    inode: u64,
    pid: i32,
    started: u64,
}

impl ProcessNetnsId {
    /// Returns the identity with these parts. Used for stored leases and tests.
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

    /// Returns the inode number. Namespaces that exist at the same time have different ones.
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

/// The state of one entry of the netns directory at the time of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The entry does not exist.
    Absent,
    /// Not a namespace: a placeholder before its mount, or junk.
    Plain,
    /// A namespace of another type, a bound `uts` namespace for instance.
    OtherNamespace(MountedNamespaceId),
    /// A network namespace that can be entered now.
    Network(MountedNamespaceId),
}

/// Why a namespace could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The entry was deleted or leads to another namespace. The watcher reports that too.
    #[error("the entry no longer names the expected network namespace")]
    Gone,
    /// The namespace file could not be opened.
    #[error("cannot open the namespace file")]
    Open(#[source] io::Error),
}

/// Examines and opens namespace files.
#[derive(Debug, Clone, Copy)]
pub struct NetnsFiles {
    nsfs_device: u64,
    own_inode: u64,
}

impl NetnsFiles {
    /// Reads the device number of nsfs from the caller's own namespace.
    ///
    /// # Errors
    /// `/proc` is not mounted, or does not show the caller.
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

    /// Returns the current state of the entry `name` of `directory`. Never blocks on a FIFO or device and keeps
    /// nothing open.
    ///
    /// `known` is the result of an earlier look. A namespace with an unchanged identity is not opened again to
    /// read its type.
    pub fn look_at(&self, directory: &NetnsDirectory, name: &OsStr, known: Option<Entry>) -> Entry {
        self.look_from(directory.0.as_fd(), name, known)
    }

    /// Returns the current state of `path`, as [`Self::look_at`] does.
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
                // It changed between the `stat` and the open. The next look decides.
                Err(_) => Entry::Plain,
            },
        }
    }

    /// Opens the network namespace `id` at `path`.
    ///
    /// The descriptor keeps the namespace alive: use it and close it.
    ///
    /// # Errors
    /// [`OpenError::Gone`] if the path no longer leads to that namespace.
    pub fn open(&self, path: &Path, id: MountedNamespaceId) -> Result<OwnedFd, OpenError> {
        let (fd, network) = self.open_and_type(AT_FDCWD, path.as_os_str(), id)?;
        // Check the path after the open: while the descriptor is open, no other namespace can have the inode
        // number.
        let same = self.look(path, Some(Entry::Network(id))) == Entry::Network(id);
        if network && same {
            Ok(fd)
        } else {
            Err(OpenError::Gone)
        }
    }

    /// Returns the namespace of a process.
    ///
    /// # Errors
    /// The process has ended, or it belongs to another user and `CAP_SYS_PTRACE` is missing.
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
    /// [`OpenError::Gone`] if the process has ended or left the namespace.
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

    /// Returns the type of the namespace `id` at `path`, named as in `/proc/PID/ns`. `None`: the path no longer
    /// leads to it, or it may not be opened.
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

    /// Opens an entry without blocking, and returns whether it is a network namespace.
    fn open_and_type(
        &self,
        base: BorrowedFd<'_>,
        name: &OsStr,
        id: MountedNamespaceId,
    ) -> Result<(OwnedFd, bool), OpenError> {
        let (fd, kind) = self.open_with_type(base, name, id)?;
        Ok((fd, kind == CloneFlags::CLONE_NEWNET))
    }

    /// Opens an entry without blocking, and returns its type.
    ///
    /// The path may have become a FIFO since the `stat`, so the first open is with `O_PATH`. Only a file of nsfs
    /// is then opened for reading, through `/proc/self/fd`.
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

/// Opens the directory of a process. Files read through it belong to this process, never to a later one with the
/// same id. The descriptor keeps neither the process nor its namespaces alive.
fn open_process(pid: i32) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(open(format!("/proc/{pid}").as_str(), flags, Mode::empty())?)
}

/// Returns the start time of a process, in clock ticks since boot.
fn started(process: &OwnedFd) -> io::Result<u64> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let stat = openat(process, "stat", flags, Mode::empty())?;
    // The name of the program does not have to be UTF-8, and is not needed here.
    let mut bytes = Vec::new();
    fs::File::from(stat).read_to_end(&mut bytes)?;
    start_time(&String::from_utf8_lossy(&bytes))
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Returns field 22 of a `/proc/PID/stat`. The second field is the name of the program in parentheses, and the
/// name may contain parentheses itself.
pub(super) fn start_time(stat: &str) -> Option<u64> {
    const AFTER_THE_NAME: usize = 22 - 3;
    let (_, fields) = stat.rsplit_once(')')?;
    fields
        .split_ascii_whitespace()
        .nth(AFTER_THE_NAME)?
        .parse()
        .ok()
}

/// The netns directory, open for one sweep. Examining entries relative to it costs half of the work for full
/// paths. An open descriptor keeps its mount busy, so it is closed after the sweep.
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

/// Runs `work` inside the namespace, on a temporary thread. No other thread changes its namespace.
///
/// A socket that `work` opens stays in the namespace, and keeps it alive until it is closed.
///
/// # Errors
/// `setns` is refused (`CAP_SYS_ADMIN` over the namespace), or no thread can be started.
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

/// Returns the type of an open namespace (`man 2 ioctl_ns`, `NS_GET_NSTYPE`, Linux 4.11).
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
    fn namespaces_are_distinguished_from_other_files() {
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
    fn a_namespace_is_opened_through_its_holder() {
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
