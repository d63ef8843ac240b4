//! New processes and programs, as the kernel's process connector reports them.
//!
//! Netlink protocol `NETLINK_CONNECTOR` (`drivers/connector/cn_proc.c`). It works only in the host's first
//! network, user and PID namespaces, and only with `CAP_NET_ADMIN`. It does not report that a process enters a
//! namespace.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc::{self, sock_filter};
use nix::sys::socket::{MsgFlags, NetlinkAddr, bind, recvfrom, send, setsockopt, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Size of the queue in bytes, for about 1 300 events with the kernel's overhead. Further events are reported as
/// lost.
const RECEIVE_BUFFER: usize = 1024 * 1024;
/// Limit of the events taken at once. Processing them takes about 1 ms.
const BATCH: usize = 128;
/// Size of the buffer in bytes. An event has 76 bytes; longer messages are cut and ignored.
const DATAGRAM: usize = 256;
/// Limit of the events of earlier listeners that may precede the reply to our request.
const BEFORE_ANSWER: usize = 4096;

/// `CN_IDX_PROC` and `CN_VAL_PROC` (`include/uapi/linux/connector.h`).
const CN_PROC: [u32; 2] = [1, 1];
/// Offset of `struct proc_event`, after a `struct nlmsghdr` and a `struct cn_msg`.
const EVENT: usize = 16 + 20;
/// Offset of the part that depends on the kind.
const PARTS: usize = EVENT + 16;
/// `PROC_CN_MCAST_LISTEN`, `PROC_CN_MCAST_IGNORE`, and kinds of events (`include/uapi/linux/cn_proc.h`).
const LISTEN: u32 = 1;
const IGNORE: u32 = 2;
const ANSWER: u32 = 0;
const FORK: u32 = 1;
const EXEC: u32 = 2;

/// A batch of events.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ProcessEventBatch {
    /// Processes that were started or executed another program, in the order of the events.
    pub pids: Vec<i32>,
    /// Some events did not fit into the queue.
    pub lost: bool,
}

/// Reports every new process and every exec. New threads are not reported.
#[derive(Debug)]
pub struct ProcessEvents {
    fd: OwnedFd,
}

impl ProcessEvents {
    /// Opens the socket. From then on lost events are reported.
    ///
    /// # Errors
    /// The kernel refuses or does not reply, usually because the daemon is in a container.
    pub fn open() -> io::Result<Self> {
        let fd = connector_socket()?;
        // Refused in a user namespace, where there are no events anyway.
        setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER).ok();
        attach_filter(&fd)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, CN_PROC[0]))?;
        ask(&fd, LISTEN)?;
        await_answer(&fd)?;
        Ok(Self { fd })
    }

    /// Waits for events and returns at most a batch of them. Cancel-safe: an event that was not returned stays in
    /// the socket.
    ///
    /// Events wake the runtime only while this future is polled. In a storm the wake-ups are a large part of the
    /// cost.
    ///
    /// # Errors
    /// The socket failed, or cannot be registered. Lost events are no error, see [`ProcessEventBatch::lost`].
    pub async fn next(&self) -> io::Result<ProcessEventBatch> {
        match receive_batch(&self.fd) {
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
            batch => return batch,
        }
        #[expect(
            unsafe_code,
            reason = "tokio asks its callers to vouch for the descriptor"
        )]
        // SAFETY: the descriptor is borrowed from `self`, which keeps it open for longer than the `AsyncFd` exists. Nothing
        // else waits for it.
        let fd = unsafe { AsyncFd::register_with_interest(self.fd.as_fd(), Interest::READABLE) }?;
        let receive = |_: &BorrowedFd<'_>| receive_batch(&self.fd);
        fd.async_io(Interest::READABLE, receive).await
    }
}

impl Drop for ProcessEvents {
    fn drop(&mut self) {
        // Before Linux 6.6 the kernel still creates events after a listener has closed its socket without this
        // request. A failure cannot be handled.
        ask(&self.fd, IGNORE).ok();
    }
}

#[expect(unsafe_code, reason = "nix does not know the protocol")]
fn connector_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the call takes three numbers, and no pointer.
    let answer = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_CONNECTOR) };
    let fd = Errno::result(answer)?;
    // SAFETY: the kernel has just opened the descriptor for the caller, and it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets the kernel drop useless events before they wake the daemon: most events are threads and exits. Since Linux
/// 6.6, `proc_input` could exclude exits, but not threads.
#[expect(unsafe_code, reason = "nix has no wrapper for this option")]
fn attach_filter(fd: &OwnedFd) -> io::Result<()> {
    let mut filter = filter();
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_mut_ptr(),
    };
    let length = libc::socklen_t::try_from(size_of_val(&program)).map_err(io::Error::other)?;
    // SAFETY: the pointers and lengths describe `program` and `filter`, which live until the call returns;
    // the kernel copies both. The descriptor is open, borrowed from its owner.
    let answer = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            length,
        )
    };
    Ok(Errno::result(answer).map(drop)?)
}

/// Returns the filter (`man 7 socket`, `SO_ATTACH_FILTER`): it accepts execs, replies, and forks that create a
/// process.
fn filter() -> [sock_filter; 10] {
    // The filter loads words in network byte order, but events use the machine's byte order.
    let kind = |kind: u32| u32::from_be_bytes(kind.to_ne_bytes());
    let op = |code: u32, jt, jf, k| sock_filter {
        code: u16::try_from(code).unwrap_or(u16::MAX),
        jt,
        jf,
        k,
    };
    let load = |at: usize| {
        let at = u32::try_from(at).unwrap_or(u32::MAX);
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at)
    };
    let equal = libc::BPF_JMP | libc::BPF_JEQ;
    [
        load(EVENT),
        op(equal | libc::BPF_K, 0, 4, kind(FORK)),
        load(PARTS + 12),
        op(libc::BPF_MISC | libc::BPF_TAX, 0, 0, 0),
        load(PARTS + 8),
        op(equal | libc::BPF_X, 2, 3, 0),
        op(equal | libc::BPF_K, 1, 0, kind(EXEC)),
        op(equal | libc::BPF_K, 0, 1, kind(ANSWER)),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ]
}

/// Sends `PROC_CN_MCAST_LISTEN` or `PROC_CN_MCAST_IGNORE`. The kernel has handled it when this returns.
fn ask(fd: &OwnedFd, operation: u32) -> io::Result<()> {
    const LENGTH: u32 = 16 + 20 + 4;
    const NLMSG_DONE: u16 = 3;
    let mut bytes = Vec::with_capacity(64);
    bytes.extend(LENGTH.to_ne_bytes());
    bytes.extend(NLMSG_DONE.to_ne_bytes());
    bytes.extend(0_u16.to_ne_bytes());
    let (sequence, sender) = (0_u32, 0_u32);
    for word in [sequence, sender, CN_PROC[0], CN_PROC[1], sequence, 0] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(4_u16.to_ne_bytes());
    bytes.extend(0_u16.to_ne_bytes());
    bytes.extend(operation.to_ne_bytes());
    send(fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
    Ok(())
}

/// Reads the reply to `LISTEN`, which the kernel sends before `send` returns. Outside the initial user and PID namespaces
/// the kernel ignores the request and sends no reply.
fn await_answer(fd: &OwnedFd) -> io::Result<()> {
    for _ in 0..BEFORE_ANSWER {
        match receive(fd) {
            Ok(Some(Event::Answer(0))) => return Ok(()),
            Ok(Some(Event::Answer(errno))) => return Err(io::Error::from_raw_os_error(errno)),
            Ok(_) => {}
            Err(err) if err.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
            Err(err) => return Err(err),
        }
    }
    let problem = "no answer, as outside the first user and PID namespaces";
    Err(io::Error::new(io::ErrorKind::Unsupported, problem))
}

fn receive_batch(fd: &OwnedFd) -> io::Result<ProcessEventBatch> {
    let mut batch = ProcessEventBatch::default();
    for index in 0..BATCH {
        match receive(fd) {
            Ok(Some(Event::Process(pid))) => batch.pids.push(pid),
            Ok(_) => {}
            Err(err) if err.raw_os_error() == Some(libc::ENOBUFS) => batch.lost = true,
            // Return the error only if nothing was taken: it clears the readiness, which is edge-triggered.
            Err(err) if index == 0 => return Err(err),
            Err(_) => break,
        }
    }
    Ok(batch)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Process(i32),
    Answer(i32),
}

fn receive(fd: &OwnedFd) -> io::Result<Option<Event>> {
    let mut buffer = [0; DATAGRAM];
    let (length, sender) = recvfrom::<NetlinkAddr>(fd.as_raw_fd(), &mut buffer)?;
    let from_kernel = sender.is_some_and(|sender| sender.pid() == 0);
    Ok(buffer.get(..length).filter(|_| from_kernel).and_then(parse))
}

/// Parses an event by the same rules as the filter.
fn parse(datagram: &[u8]) -> Option<Event> {
    let word = |at: usize| {
        let bytes = datagram.get(at..at + 4)?.try_into().ok()?;
        Some(i32::from_ne_bytes(bytes))
    };
    let ours = CN_PROC.map(u32::cast_signed) == [word(16)?, word(20)?];
    match word(EVENT)?.cast_unsigned() {
        _ if !ours => None,
        ANSWER => Some(Event::Answer(word(PARTS)?)),
        FORK => {
            let (thread, process) = (word(PARTS + 8)?, word(PARTS + 12)?);
            (thread == process).then_some(Event::Process(process))
        }
        EXEC => Some(Event::Process(word(PARTS + 4)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::process::Command;
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::time::timeout;

    use super::*;
    use crate::kernel::lab::PrivateNetns;

    const SOON: Duration = Duration::from_secs(5);

    fn event(kind: u32, parts: [i32; 4]) -> Vec<u8> {
        let mut bytes = vec![0; 76];
        bytes[16..20].copy_from_slice(&1_u32.to_ne_bytes());
        bytes[20..24].copy_from_slice(&1_u32.to_ne_bytes());
        bytes[EVENT..EVENT + 4].copy_from_slice(&kind.to_ne_bytes());
        for (index, part) in parts.into_iter().enumerate() {
            bytes[PARTS + 4 * index..][..4].copy_from_slice(&part.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn only_new_processes_and_execs_are_events() {
        assert_eq!(
            parse(&event(FORK, [1, 1, 7, 7])),
            Some(Event::Process(7)),
            "a process"
        );
        assert_eq!(parse(&event(FORK, [1, 1, 8, 7])), None, "a thread");
        assert_eq!(
            parse(&event(EXEC, [7, 7, 0, 0])),
            Some(Event::Process(7)),
            "a program"
        );
        assert_eq!(parse(&event(0x8000_0000, [7, 7, 0, 0])), None, "an end");
        assert_eq!(
            parse(&event(ANSWER, [13, 0, 0, 0])),
            Some(Event::Answer(13))
        );
        let mut other = event(EXEC, [7, 7, 0, 0]);
        other[16] = 9;
        assert_eq!(parse(&other), None, "of another connector");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..DATAGRAM)) {
            let _read = parse(&bytes);
        }
    }

    #[tokio::test]
    async fn execs_are_reported_and_threads_are_not() {
        let events = ProcessEvents::open().expect("in the host's namespaces, as root");
        let mut seen = HashSet::new();
        let own = i32::try_from(std::process::id()).unwrap();
        std::thread::spawn(|| {}).join().unwrap();
        let mut child = Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        while !seen.contains(&pid) {
            let batch = timeout(SOON, events.next()).await.expect("an event");
            seen.extend(batch.unwrap().pids);
        }
        child.wait().unwrap();
        assert!(!seen.contains(&own), "only threads were made in {own}");
    }

    #[tokio::test]
    async fn events_beyond_the_queue_are_reported_as_lost() {
        let events = ProcessEvents::open().expect("in the host's namespaces, as root");
        setsockopt(&events.fd, sockopt::RcvBuf, &1).unwrap();
        for _ in 0..20 {
            Command::new("true").status().unwrap();
        }
        let mut lost = false;
        while !lost {
            let batch = timeout(SOON, events.next()).await.expect("an event");
            lost = batch.unwrap().lost;
        }
    }

    #[test]
    fn the_kernel_refuses_outside_the_host_namespaces() {
        let netns = PrivateNetns::new();
        let err = netns.inside(|| ProcessEvents::open().unwrap_err());
        assert_eq!(err.raw_os_error(), Some(libc::ECONNREFUSED), "{err}");
    }
}
