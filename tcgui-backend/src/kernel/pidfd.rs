//! Reports the exit of any process at once, not only of a child process.
//!
//! A pidfd refers to one process, never to a later one with the same id, and becomes readable when the
//! process ends (`man 2 pidfd_open`, Linux 5.3). It keeps neither the process nor its namespaces alive.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use nix::libc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::netns::{NetnsFiles, OpenError, ProcessNetnsId};
use super::proc_link::ProcTask;

/// `PIDFD_THREAD` (`include/uapi/linux/pidfd.h`).
const PIDFD_THREAD: libc::c_uint = libc::O_EXCL.cast_unsigned();

/// A process whose exit can be waited for.
#[derive(Debug)]
pub struct ProcessHandle(OwnedFd);

impl ProcessHandle {
    /// Opens the process that has this id now.
    ///
    /// # Errors
    /// `ESRCH` if there is no such process, `EINVAL` or `ENOENT` if the id is that of a thread, `ENOSYS` on an old
    /// kernel, `EMFILE` if no descriptor is free.
    pub fn open(pid: i32) -> io::Result<Self> {
        Self::open_with(pid, 0)
    }

    /// Opens the task in `/proc` on which a path depends.
    ///
    /// `/proc/PID` is the first thread of a process, which may end before the others, and `/proc/TID` is any other thread.
    /// So this opens the thread (`PIDFD_THREAD`, Linux 6.9). An older kernel reports only the end of the whole process.
    /// Since Linux 6.15, the kernel reports the end of a first thread only when no other thread is left
    /// (`pidfd_poll`, `fs/pidfs.c`).
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn of_task(task: ProcTask) -> io::Result<Self> {
        of_task_with(task, Self::open_with)
    }

    #[expect(
        unsafe_code,
        reason = "libc has the number of the call, but no wrapper"
    )]
    fn open_with(id: i32, flags: libc::c_uint) -> io::Result<Self> {
        // SAFETY: the call takes two integers and touches no memory of this process.
        let answer = unsafe { libc::syscall(libc::SYS_pidfd_open, id, flags) };
        let fd = nix::errno::Errno::result(answer)?;
        let fd = i32::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        // SAFETY: the kernel has just made this descriptor, close-on-exec, and nothing else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Registers the descriptor for waiting. Needs a runtime with I/O.
    ///
    /// # Errors
    /// The descriptor cannot be registered.
    #[expect(
        unsafe_code,
        reason = "tokio asks its callers to vouch for the descriptor"
    )]
    pub fn end(self) -> io::Result<ProcessEnd> {
        // SAFETY: the descriptor is moved into the `AsyncFd`, which lends it out only shared and closes it
        // after it has been deregistered.
        let registered = unsafe { AsyncFd::register_with_interest(self.0, Interest::READABLE) };
        registered.map(ProcessEnd).map_err(io::Error::from)
    }
}

/// Opens the thread, or the whole process if the kernel does not know the flag.
fn of_task_with<T>(
    task: ProcTask,
    open: impl Fn(i32, libc::c_uint) -> io::Result<T>,
) -> io::Result<T> {
    let (pid, tid) = match task {
        ProcTask::Process(pid) => (pid, pid),
        ProcTask::Thread { pid, tid } => (pid, tid),
    };
    match open(tid, PIDFD_THREAD) {
        Err(err) if err.raw_os_error() == Some(libc::EINVAL) => open(pid, 0),
        opened => opened,
    }
}

/// The exit of a process, to be waited for.
#[derive(Debug)]
pub struct ProcessEnd(AsyncFd<OwnedFd>);

impl ProcessEnd {
    /// Watches the process that holds `id`, if it is still the same and still in that namespace.
    ///
    /// # Errors
    /// [`OpenError::Gone`] if it has ended or left the namespace. [`OpenError::Open`] if no descriptor is free, or
    /// the kernel does not support pidfds.
    pub fn open(files: NetnsFiles, id: ProcessNetnsId) -> Result<Self, OpenError> {
        let process = ProcessHandle::open(id.pid()).map_err(|err| match err.raw_os_error() {
            Some(libc::ESRCH) => OpenError::Gone,
            _ => OpenError::Open(err),
        })?;
        // Check after the pidfd is open: from now on the pidfd reports the exit, even if the process id is reused.
        if files.held_by(id.pid()).ok() != Some(id) {
            return Err(OpenError::Gone);
        }
        process.end().map_err(OpenError::Open)
    }

    /// Waits until the process has ended. Cancel-safe: the exit is a state.
    ///
    /// # Errors
    /// The runtime shuts down.
    pub async fn wait(&self) -> io::Result<()> {
        self.0.readable().await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn the_exit_of_a_process_is_reported() {
        let mut child = Command::new("sleep")
            .arg("60")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let end = ProcessHandle::open(pid).unwrap().end().unwrap();
        let early = timeout(Duration::from_millis(20), end.wait()).await;
        assert!(early.is_err(), "it still runs");
        child.kill().unwrap();
        // Before `wait` is called: a zombie has already ended.
        let told = timeout(Duration::from_secs(5), end.wait()).await;
        told.expect("reported in time").unwrap();
        child.wait().unwrap();
        let gone = ProcessHandle::open(pid).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::ESRCH));
    }

    #[tokio::test]
    async fn the_exit_of_a_thread_is_reported_while_its_process_runs() {
        let pid = nix::unistd::getpid().as_raw();
        // `/proc/TID` exists, although `/proc` does not list it.
        for task in [
            |pid, tid| ProcTask::Thread { pid, tid },
            |_, tid| ProcTask::Process(tid),
        ] {
            let (ids, id) = std::sync::mpsc::channel();
            let (end, ending) = std::sync::mpsc::channel::<()>();
            let thread = std::thread::spawn(move || {
                ids.send(nix::unistd::gettid().as_raw()).unwrap();
                ending.recv().ok();
            });
            let task = task(pid, id.recv().unwrap());
            // Needs Linux 6.9.
            let told = ProcessHandle::of_task(task).unwrap().end().unwrap();
            let early = timeout(Duration::from_millis(20), told.wait()).await;
            assert!(early.is_err(), "it still runs");
            drop(end);
            let told = timeout(Duration::from_secs(5), told.wait()).await;
            told.expect("reported in time").unwrap();
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_kernel_without_pidfds_of_threads_watches_the_process() {
        let (process, thread) = (ProcTask::Process(7), ProcTask::Thread { pid: 7, tid: 8 });
        let old = |id, flags| match flags {
            0 => Ok(id),
            _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        };
        for task in [process, thread] {
            assert_eq!(of_task_with(task, old).unwrap(), 7, "{task:?}");
        }
        for (task, id) in [(process, 7), (thread, 8)] {
            let opened = of_task_with(task, |id, flags| Ok((id, flags)));
            assert_eq!(opened.unwrap(), (id, PIDFD_THREAD), "{task:?}");
            let gone = |_, _| Err::<(), _>(io::Error::from_raw_os_error(libc::ESRCH));
            let gone = of_task_with(task, gone).unwrap_err();
            assert_eq!(gone.raw_os_error(), Some(libc::ESRCH), "{task:?}");
        }
    }

    #[test]
    fn an_id_without_a_process_is_refused() {
        for wrong in [0, -1, i32::MIN, i32::MAX] {
            assert!(ProcessHandle::open(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn the_exit_of_a_holder_is_reported_and_an_ended_one_refused() {
        let files = NetnsFiles::new().unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let id = files.held_by(pid).unwrap();
        let end = ProcessEnd::open(files, id).unwrap();
        let early = timeout(Duration::from_millis(50), end.wait()).await;
        assert!(early.is_err(), "it lives");

        let (device, inode, pid, started) = id.parts();
        let other = ProcessNetnsId::from_parts(device, inode + 1, pid, started);
        assert!(matches!(
            ProcessEnd::open(files, other),
            Err(OpenError::Gone)
        ));

        drop(child.stdin.take());
        timeout(Duration::from_secs(5), end.wait())
            .await
            .expect("it ends")
            .unwrap();
        assert!(matches!(ProcessEnd::open(files, id), Err(OpenError::Gone)));
        child.wait().unwrap();
        assert!(matches!(ProcessEnd::open(files, id), Err(OpenError::Gone)));
    }
}
