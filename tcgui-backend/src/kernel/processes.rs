//! The network namespace of each process, from `/proc`.
//!
//! The link `/proc/PID/ns/net` is read, not followed: that costs half of a `stat` and allocates no inode. It
//! belongs to the first thread. Another thread alone in another namespace is not seen.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::libc;
use nix::sys::stat::{Mode, fstat, fstatat};
use nix::time::{ClockId, clock_gettime};

use super::netns::{ProcessNetnsId, start_time};

/// Sizes in bytes of the longest `PID/ns/net` and of the longest link, `net:[INODE]`.
const PATH: usize = 24;
const LINK: usize = 32;

/// Size in bytes of the buffer for `/proc/PID/stat`, which has 52 fields of at most twenty digits each.
const STAT: usize = 2048;

/// A process in a network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// The process and its namespace.
    pub id: ProcessNetnsId,
    /// The unique number of the namespace, which no other namespace gets until the next boot. Inode numbers are
    /// reused at once. `None` before Linux 6.18 (`NS_GET_ID`).
    pub netns: Option<u64>,
    /// Whether [`netns_lives`] can detect that the namespace was deleted.
    pub findable: bool,
    /// The name of its program.
    pub comm: Arc<OsStr>,
}

/// Why a process cannot be described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unseen {
    /// It has ended.
    Gone,
    /// `CAP_SYS_PTRACE` is missing, and the process belongs to another user.
    Denied,
}

impl From<Errno> for Unseen {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::EACCES | Errno::EPERM => Self::Denied,
            _ => Self::Gone,
        }
    }
}

/// The namespace that was described last. It is kept open, so that no other namespace gets its inode number. Many
/// processes are in the same namespace, which is then described only once. Use it for one scan of all processes
/// only.
#[derive(Debug, Default)]
pub struct Recent(Option<Netns>);

#[derive(Debug)]
struct Netns {
    _open: OwnedFd,
    device: u64,
    inode: u64,
    number: Option<u64>,
    findable: bool,
}

impl Netns {
    fn open(process: &OwnedFd) -> Result<Self, Unseen> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let open = openat(process, "ns/net", flags, Mode::empty())?;
        let file = fstat(&open)?;
        let number = namespace_number(&open);
        Ok(Self {
            _open: open,
            device: file.st_dev,
            inode: file.st_ino,
            number,
            findable: number.is_some_and(|number| netns_lives(number, file.st_ino)),
        })
    }
}

/// An open `/proc`.
#[derive(Debug)]
pub struct ProcessTable {
    proc: Dir,
}

impl ProcessTable {
    /// Opens the table.
    ///
    /// # Errors
    /// `/proc` is not mounted, or belongs to another PID namespace with other process ids.
    pub fn open() -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let proc = Dir::open("/proc", flags, Mode::empty())?;
        let own = std::fs::read_link("/proc/self")?;
        if own != Path::new(&std::process::id().to_string()) {
            let problem = "/proc belongs to another PID namespace";
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        Ok(Self { proc })
    }

    /// Returns the ids of all processes.
    ///
    /// # Errors
    /// The directory was not read to its end.
    pub fn pids(&mut self) -> io::Result<Vec<i32>> {
        let mut pids = Vec::new();
        for entry in self.proc.iter() {
            pids.extend(number(entry?.file_name().to_bytes()));
        }
        Ok(pids)
    }

    /// Returns the inode number of the namespace of a process.
    ///
    /// # Errors
    /// The process has ended, or may not be examined.
    pub fn netns_inode(&self, pid: i32) -> Result<u64, Unseen> {
        let mut path = [0; PATH];
        write!(&mut path[..], "{pid}/ns/net\0").map_err(|_| Unseen::Gone)?;
        let path = CStr::from_bytes_until_nul(&path).map_err(|_| Unseen::Gone)?;
        match linked_inode(&self.proc, path) {
            Ok(inode) => inode.ok_or(Unseen::Gone),
            // The kernel also returns this for a process that has ended (`proc_ns_readlink`,
            // `fs/proc/namespaces.c`).
            Err(Errno::EACCES) if !self.exists(pid) => Err(Unseen::Gone),
            Err(errno) => Err(errno.into()),
        }
    }

    fn exists(&self, pid: i32) -> bool {
        fstatat(&self.proc, pid.to_string().as_str(), AtFlags::empty()).is_ok()
    }

    /// Returns the description of a process and its namespace.
    ///
    /// The namespace is kept alive until `recent` is dropped or another one is described.
    ///
    /// # Errors
    /// The process has ended, or may not be examined.
    pub fn describe(&self, pid: i32, recent: &mut Recent) -> Result<Process, Unseen> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        // Files read through this directory belong to this process, never to a later one with the same id.
        let process = openat(&self.proc, pid.to_string().as_str(), flags, Mode::empty())?;
        let (comm, started) = stat(&process)?;
        let is_recent = |recent: &Netns| {
            linked_inode(&process, c"ns/net").is_ok_and(|inode| inode == Some(recent.inode))
        };
        let netns = match recent.0.take_if(|recent| is_recent(recent)) {
            Some(netns) => netns,
            None => Netns::open(&process)?,
        };
        let described = Process {
            id: ProcessNetnsId::from_parts(netns.device, netns.inode, pid, started),
            netns: netns.number,
            findable: netns.findable,
            comm,
        };
        recent.0 = Some(netns);
        Ok(described)
    }
}

/// Returns whether a network namespace with this unique number and inode number exists (`struct nsfs_file_handle`,
/// `include/uapi/linux/nsfs.h`, Linux 6.18). Keeps it alive during the call.
///
/// The result is also `false` if the kernel is older, or does not let the caller find that namespace. Only after an
/// earlier `true`, `false` means that the namespace was deleted.
#[expect(unsafe_code, reason = "nix has no handles of files")]
pub fn netns_lives(number: u64, inode: u64) -> bool {
    const FD_NSFS_ROOT: libc::c_int = -10003;
    const FILEID_NSFS: libc::c_int = 0xf1;
    /// `struct file_handle` with room for this one.
    #[repr(C)]
    struct Handle {
        bytes: libc::c_uint,
        kind: libc::c_int,
        number: [u8; 8],
        netns: libc::c_int,
        inode: u32,
    }
    let Ok(inode) = u32::try_from(inode) else {
        return false;
    };
    let mut handle = Handle {
        bytes: 16,
        kind: FILEID_NSFS,
        number: number.to_ne_bytes(),
        netns: libc::CLONE_NEWNET,
        inode,
    };
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: `bytes` is the number of bytes after the head, and the handle has as many; it lives until the call
    // returns, and the kernel only reads it.
    let answer = unsafe { libc::open_by_handle_at(FD_NSFS_ROOT, (&raw mut handle).cast(), flags) };
    if answer < 0 {
        return false;
    }
    // SAFETY: the kernel has just opened the descriptor for the caller, and it has no other owner.
    drop(unsafe { OwnedFd::from_raw_fd(answer) });
    true
}

/// Returns the processor time that the calling thread has used.
pub fn thread_cpu_time() -> Duration {
    // Cannot fail: the clock exists since Linux 2.6.12, and no pointer of the caller is involved.
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

fn number(name: &[u8]) -> Option<i32> {
    let digits = name.first().is_some_and(u8::is_ascii_digit);
    digits
        .then(|| str::from_utf8(name).ok()?.parse().ok())
        .flatten()
}

/// Returns the inode number in the link of a network namespace.
#[expect(unsafe_code, reason = "nix asks for 4 KiB of memory for each link")]
fn linked_inode(directory: &impl AsFd, path: &CStr) -> nix::Result<Option<u64>> {
    let mut link = [0_u8; LINK];
    let directory = directory.as_fd().as_raw_fd();
    // SAFETY: the path ends with a zero and the kernel writes at most as many bytes to `link` as it has; both
    // live until the call returns.
    let answer = unsafe {
        libc::readlinkat(
            directory,
            path.as_ptr(),
            link.as_mut_ptr().cast(),
            link.len(),
        )
    };
    let len = Errno::result(answer)?;
    let link = usize::try_from(len).ok().and_then(|len| link.get(..len));
    Ok(link.and_then(inode))
}

/// Reads the inode number of a link like `net:[4026531833]`.
fn inode(link: &[u8]) -> Option<u64> {
    let digits = link.strip_prefix(b"net:[")?.strip_suffix(b"]")?;
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Reads the name of the program and the start time of the process, in clock ticks since boot.
fn stat(process: &OwnedFd) -> Result<(Arc<OsStr>, u64), Unseen> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let stat = openat(process.as_fd(), "stat", flags, Mode::empty())?;
    // The kernel returns the whole file at once if the buffer is large enough (`seq_read`, `fs/seq_file.c`).
    let mut buffer = [0; STAT];
    let read = File::from(stat).read(&mut buffer);
    let bytes = buffer.get(..read.map_err(|_| Unseen::Gone)?);
    let bytes = bytes.ok_or(Unseen::Gone)?;
    // The start time follows the name, which does not have to be UTF-8.
    let started = start_time(&String::from_utf8_lossy(bytes)).ok_or(Unseen::Gone)?;
    let program = program(bytes).ok_or(Unseen::Gone)?;
    Ok((OsStr::from_bytes(program).into(), started))
}

/// Returns the second field, which is in parentheses and may contain parentheses.
fn program(stat: &[u8]) -> Option<&[u8]> {
    let begin = stat.iter().position(|byte| *byte == b'(')? + 1;
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(begin..end)
}

/// Reads the unique number of an open namespace (`include/uapi/linux/nsfs.h`).
#[expect(unsafe_code, reason = "ioctl has no safe wrapper for this request")]
fn namespace_number(netns: &OwnedFd) -> Option<u64> {
    const NS_GET_ID: libc::c_ulong = nix::request_code_read!(0xb7, 13, size_of::<u64>());
    let mut number = 0_u64;
    // SAFETY: the descriptor is open for the duration of the call, and the kernel writes eight bytes to
    // `number`, which has as many.
    let answer = unsafe { libc::ioctl(netns.as_raw_fd(), NS_GET_ID, &raw mut number) };
    (answer == 0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::super::lab::Inhabitant;
    use super::super::netns::NetnsFiles;
    use super::*;

    #[test]
    fn all_functions_agree_about_the_own_process() {
        let mut table = ProcessTable::open().unwrap();
        let pid = nix::unistd::getpid().as_raw();
        assert!(table.pids().unwrap().contains(&pid));
        let files = NetnsFiles::new().unwrap();
        assert_eq!(table.netns_inode(pid), Ok(files.own_inode()));
        let process = table.describe(pid, &mut Recent::default()).unwrap();
        assert_eq!(process.id, files.held_by(pid).unwrap());
        let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(&*process.comm, OsStr::new(comm.trim_end()));
        assert_eq!(table.netns_inode(i32::MAX), Err(Unseen::Gone));
        assert_eq!(
            table.describe(i32::MAX, &mut Recent::default()),
            Err(Unseen::Gone)
        );
    }

    #[test]
    fn a_namespace_is_described_once_for_all_its_processes() {
        let processes = [Inhabitant::unshared(), Inhabitant::unshared()];
        let home = processes.each_ref().map(Inhabitant::wait_until_moved)[0];
        let guest = Inhabitant::beside(&processes[0]);
        assert_eq!(guest.wait_until_moved().inode(), home.inode());
        let table = ProcessTable::open().unwrap();
        let mut recent = Recent::default();
        let pids = [&processes[0], &guest, &processes[1], &guest].map(Inhabitant::pid);
        for pid in pids {
            // Without the name of the program, because the process may not have executed it yet.
            let of = |seen: Process| (seen.id, seen.netns, seen.findable);
            let alone = table.describe(pid, &mut Recent::default()).unwrap();
            let among = table.describe(pid, &mut recent).unwrap();
            assert_eq!(of(among), of(alone));
        }
    }

    #[test]
    fn namespaces_are_found_by_number_since_linux_6_18() {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut parts = release
            .split(['.', '-'])
            .map_while(|part| part.parse().ok());
        let release: (u32, u32) = (parts.next().unwrap(), parts.next().unwrap());
        let process = Inhabitant::unshared();
        let inode = process.wait_until_moved().inode();
        let table = ProcessTable::open().unwrap();
        let seen = table
            .describe(process.pid(), &mut Recent::default())
            .unwrap();
        assert_eq!(seen.netns.is_some(), release >= (6, 18), "{release:?}");
        assert_eq!(
            seen.findable,
            seen.netns.is_some(),
            "nothing is hidden from root"
        );
        drop(process);
        assert!(!netns_lives(seen.netns.unwrap_or_default(), inode));
    }

    #[test]
    fn other_entries_and_links_are_not_parsed() {
        assert_eq!(number(b"4711"), Some(4711));
        for name in ["self", "", "4x", "-1", "+1", "99999999999"] {
            assert_eq!(number(name.as_bytes()), None, "{name}");
        }
        assert_eq!(inode(b"net:[4026531833]"), Some(4_026_531_833));
        for link in ["uts:[1]", "net:[]", "net:[x]", "net:1", ""] {
            assert_eq!(inode(link.as_bytes()), None, "{link}");
        }
    }

    #[test]
    fn the_name_of_a_program_may_have_parentheses() {
        for name in [&b"sleep"[..], b"a b", b"x) R (9", b"", b"((", b"\xff)\n"] {
            let stat = [b"7 (", name, b") S 1 2"].concat();
            assert_eq!(program(&stat), Some(name));
        }
        for stat in [&b"7 sleep S 1"[..], b"", b"7 )(", b"7 (", b")"] {
            assert_eq!(program(stat), None);
        }
    }

    #[test]
    fn processor_time_increases() {
        let before = thread_cpu_time();
        while thread_cpu_time() == before {
            std::hint::spin_loop();
        }
    }
}
