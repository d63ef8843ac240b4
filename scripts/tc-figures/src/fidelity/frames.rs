//! Captures frames on the link, because UDP would drop a corrupted packet with a wrong checksum.

use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::RIGHT;
use super::flight::{NUMBER, PATTERN, PAYLOAD, Path};
use crate::bench::inside_named;

/// Length of the Ethernet, IPv4 and UDP headers without options.
const HEADERS: usize = 14 + 20 + 8;

/// Time in s without a frame after which all sent frames have arrived.
const QUIET_S: i64 = 1;

const ROOM: usize = 8 * 1024 * 1024;

/// Sends packets. Returns the number of packets in which exactly one payload bit was flipped.
pub(super) fn corrupted(path: &Path, packets: u32, apart: Duration) -> anyhow::Result<u32> {
    let wire = inside_named(RIGHT, || {
        let wire = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        )
        .context("open a packet socket")?;
        setsockopt(&wire, sockopt::RcvBufForce, &ROOM).context("make room for frames")?;
        setsockopt(&wire, sockopt::ReceiveTimeout, &TimeVal::seconds(QUIET_S))
            .context("set a time limit")?;
        Ok(wire)
    })?;
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut buffer = [0; 2048];
            let mut corrupted = 0;
            loop {
                match recv(wire.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                    Ok(length) => {
                        let frame = buffer.get(..length).unwrap_or_default();
                        corrupted += u32::from(flipped_bits(frame) == Some(1));
                    }
                    Err(Errno::EAGAIN) => return anyhow::Ok(corrupted),
                    Err(errno) => return Err(errno).context("receive a frame"),
                }
            }
        });
        path.send(packets, apart)?;
        receiver
            .join()
            .map_err(|_| anyhow!("the receiver panicked"))?
    })
}

/// Returns the number of flipped payload bits. `None` for other frames.
fn flipped_bits(frame: &[u8]) -> Option<u32> {
    let payload = frame.get(HEADERS + NUMBER..)?;
    (payload.len() == PAYLOAD).then(|| {
        let flipped = payload.iter().map(|byte| (byte ^ PATTERN).count_ones());
        flipped.sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flipped_bits_are_counted() {
        let mut frame = vec![PATTERN; HEADERS + NUMBER + PAYLOAD];
        assert_eq!(flipped_bits(&frame), Some(0));
        frame[HEADERS + NUMBER + 7] ^= 0x10;
        assert_eq!(flipped_bits(&frame), Some(1));
        frame[0] ^= 1;
        assert_eq!(flipped_bits(&frame), Some(1), "only the payload counts");
        assert_eq!(flipped_bits(&frame[1..]), None);
    }
}
