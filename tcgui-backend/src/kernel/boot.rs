//! Properties of the current boot: its id, the time since it, and the cookie of the own network namespace.

use std::fs;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::libc;
use nix::time::{ClockId, clock_gettime};

use super::rtnetlink::RequestSocket;

/// `SO_NETNS_COOKIE` (`include/uapi/asm-generic/socket.h`), Linux 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// Returns the kernel's id of this boot, which no other boot has.
///
/// # Errors
/// `/proc` is not mounted.
pub fn boot_id() -> io::Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}

/// Returns the time since the boot, including the time in which the machine slept (`CLOCK_BOOTTIME`).
pub fn time_since_boot() -> Duration {
    // Cannot fail: the clock exists since Linux 2.6.39, and no pointer of the caller is involved.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// Returns the cookie of the calling thread's network namespace. No other namespace has it until the next boot.
/// `None` before Linux 5.14.
pub fn netns_cookie() -> Option<u64> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    cookie_of(socket.as_fd())
}

/// Returns the cookie of the namespace that a socket is in.
pub fn netns_cookie_of(socket: &RequestSocket) -> Option<u64> {
    cookie_of(socket.descriptor())
}

fn cookie_of(socket: BorrowedFd<'_>) -> Option<u64> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).ok()?;
    #[expect(unsafe_code, reason = "the option has no safe wrapper")]
    // SAFETY: the descriptor is open for the duration of the call, and the kernel writes at most
    // `length` bytes to `cookie`, which has as many.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    (answer == 0).then_some(cookie)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_has_one_id_and_an_increasing_time() {
        let id = boot_id().unwrap();
        assert_eq!(id, boot_id().unwrap());
        assert!(id.len() >= 32, "{id}");
        let before = time_since_boot();
        assert!(before > Duration::ZERO && time_since_boot() >= before);
        assert_eq!(netns_cookie(), netns_cookie());
        let socket = RequestSocket::open().unwrap();
        assert_eq!(netns_cookie_of(&socket), netns_cookie());
    }
}
