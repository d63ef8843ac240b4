//! A network namespace for one test, and processes in other namespaces. All end with the test. The machine's own
//! namespaces are not changed.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use super::netns::{Entry, MountedNamespaceId, NetnsFiles, ProcessNetnsId, inside};

/// A namespace that lives as long as this value. Panics without root.
#[derive(Debug)]
pub(crate) struct PrivateNetns {
    netns: OwnedFd,
    directory: TempDir,
}

impl PrivateNetns {
    /// Creates an empty namespace, with its loopback down, on a temporary thread.
    pub(crate) fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("tests of the kernel need root");
            std::fs::File::open("/proc/thread-self/ns/net").expect("a namespace is a file")
        };
        let netns: OwnedFd = thread::spawn(make).join().expect("made").into();
        let directory = tempfile::tempdir().expect("a directory");
        let file = format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd());
        symlink(file, directory.path().join("netns")).expect("a name for it");
        Self { netns, directory }
    }

    /// Returns a descriptor of the namespace.
    pub(crate) fn open(&self) -> OwnedFd {
        self.netns.try_clone().expect("a descriptor")
    }

    /// Returns a path that leads to the namespace, and its identity there.
    pub(crate) fn path(&self) -> (PathBuf, MountedNamespaceId) {
        let path = self.directory.path().join("netns");
        match NetnsFiles::new().expect("/proc").look(&path, None) {
            Entry::Network(id) => (path, id),
            other => panic!("{path:?} is {other:?}"),
        }
    }

    /// Runs `work` inside the namespace.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(self.open(), work).expect("tests of the kernel need root")
    }

    /// Runs `ip` inside the namespace with the words of `line`.
    pub(crate) fn ip(&self, line: &str) {
        self.run("ip", line);
    }

    /// Runs `tc` inside the namespace with the words of `line`.
    pub(crate) fn tc(&self, line: &str) {
        self.run("tc", line);
    }

    fn run(&self, program: &str, line: &str) {
        let output = self.inside(|| Command::new(program).args(line.split_whitespace()).output());
        let output = output.expect("iproute2 is installed");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {line}: {error}");
    }
}

/// A process that ends when this value is dropped, or with the test.
#[derive(Debug)]
pub(crate) struct Inhabitant {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Inhabitant {
    /// Starts a process in the namespace of the calling thread.
    pub(crate) fn in_own_netns() -> Self {
        Self::start(&mut Command::new("cat"))
    }

    /// Starts `unshare`, which creates a namespace and executes `cat`.
    pub(crate) fn unshared() -> Self {
        Self::start(Command::new("unshare").args(["--net", "cat"]))
    }

    /// Starts a process in a namespace of its own, with this many other processes.
    pub(crate) fn crowd(others: usize) -> Self {
        let script = "exec 3<&0; i=0; while [ $i -lt $0 ]; do cat <&3 & i=$((i+1)); done; wait";
        let mut command = Command::new("unshare");
        Self::start(command.args(["--net", "sh", "-c", script, &others.to_string()]))
    }

    /// Starts `nsenter`, which enters the namespace of another process and executes `cat`.
    pub(crate) fn beside(other: &Self) -> Self {
        let target = format!("--target={}", other.pid());
        Self::start(Command::new("nsenter").args([&target, "--net", "cat"]))
    }

    /// Starts a process that moves to a new namespace for each input line, without an exec.
    pub(crate) fn restless() -> Self {
        let script = "while (<STDIN>) { syscall(0+$ARGV[0], 0+$ARGV[1]) == 0 or die }";
        let numbers = [
            nix::libc::SYS_unshare,
            i64::from(CloneFlags::CLONE_NEWNET.bits()),
        ];
        let numbers = numbers.map(|number| number.to_string());
        Self::start(Command::new("perl").args(["-e", script]).args(numbers))
    }

    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().expect("util-linux and perl are installed");
        let stdin = child.stdin.take();
        Self { child, stdin }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id")
    }

    /// Returns the number of its children (`man 5 proc_pid_task`), without examining them.
    pub(crate) fn children(&self) -> usize {
        let file = format!("/proc/{0}/task/{0}/children", self.pid());
        let children = std::fs::read_to_string(file).expect("CONFIG_PROC_CHILDREN");
        children.split_whitespace().count()
    }

    /// Moves a process of [`Self::restless`] to a new namespace.
    pub(crate) fn rouse(&mut self) {
        use std::io::Write;
        let stdin = self.stdin.as_mut().expect("open until it ends");
        stdin.write_all(b"\n").expect("it reads");
    }

    /// Waits until the process has left the namespace of the calling thread, in which it starts, and returns its
    /// new one.
    pub(crate) fn wait_until_moved(&self) -> ProcessNetnsId {
        let files = NetnsFiles::new().expect("/proc");
        let here = std::fs::metadata("/proc/thread-self/ns/net").expect("/proc");
        loop {
            let id = files.held_by(self.pid()).expect("it lives");
            if id.inode() != here.ino() {
                return id;
            }
            thread::yield_now();
        }
    }
}

impl Drop for Inhabitant {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // The processes of a crowd end with the oldest one.
        self.child.wait().ok();
    }
}

/// A network namespace without a name, held by a process that ends with this value. Panics without root.
#[derive(Debug)]
pub(crate) struct HeldNetns {
    process: Inhabitant,
    id: ProcessNetnsId,
}

impl HeldNetns {
    /// Starts the process, and waits until it has entered its namespace.
    pub(crate) fn new() -> Self {
        let process = Inhabitant::unshared();
        let id = process.wait_until_moved();
        Self { process, id }
    }

    /// Returns the process that holds the namespace.
    pub(crate) fn id(&self) -> ProcessNetnsId {
        self.id
    }

    /// Ends the process. The kernel deletes the namespace unless something else keeps it alive.
    pub(crate) fn end(self) {
        drop(self.process);
    }
}

/// Runs `work` on a thread that has no `CAP_SYS_PTRACE`.
#[expect(unsafe_code, reason = "libc has no functions for these system calls")]
pub(crate) fn without_ptrace<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    const CAP_SYS_PTRACE: u32 = 19;
    const VERSION_3: u32 = 0x2008_0522;
    let drop_it = || {
        let header = [VERSION_3, 0];
        // Effective, permitted and inheritable, the low 32 bits and then the high ones.
        let mut sets = [0_u32; 6];
        // SAFETY: for this version the kernel accesses six words, which `sets` has; both live until the calls
        // return. Capabilities are the calling thread's own.
        let (got, set) = unsafe {
            let got = nix::libc::syscall(nix::libc::SYS_capget, &raw const header, &raw mut sets);
            sets[0] &= !(1 << CAP_SYS_PTRACE);
            let set = nix::libc::syscall(nix::libc::SYS_capset, &raw const header, &raw const sets);
            (got, set)
        };
        assert_eq!((got, set), (0, 0), "a thread may give up a capability");
        work()
    };
    thread::scope(|scope| scope.spawn(drop_it).join().expect("it worked"))
}
