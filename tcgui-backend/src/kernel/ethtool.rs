//! The speed of a link as its driver reports it (`man 8 ethtool`).
//!
//! The request is an `ioctl` on the rtnetlink socket: the kernel passes an `ioctl` that a protocol does not know
//! to the device, in the namespace of the socket (`sock_do_ioctl`, `net/socket.c`).

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;

use nix::libc;

use super::link::Link;
use super::rtnetlink::RequestSocket;

/// `SIOCETHTOOL` (`include/uapi/linux/sockios.h`).
const SIOCETHTOOL: libc::Ioctl = 0x8946;
/// `ETHTOOL_GSET` (`include/uapi/linux/ethtool.h`): the older form, whose size is fixed. Kernels also answer it
/// for drivers that only know the newer one.
const ETHTOOL_GSET: u32 = 1;
/// `SPEED_UNKNOWN`.
const UNKNOWN: u32 = u32::MAX;
const MBIT: u64 = 1_000_000;

/// `struct ethtool_cmd`. Only the speed is used.
#[repr(C)]
#[derive(Debug, Default)]
struct EthtoolCmd {
    cmd: u32,
    supported: u32,
    advertising: u32,
    speed: u16,
    skipped: [u8; 6],
    maxtxpkt: u32,
    maxrxpkt: u32,
    speed_hi: u16,
    eth_tp_mdix: u8,
    eth_tp_mdix_ctrl: u8,
    lp_advertising: u32,
    reserved: [u32; 2],
}

impl RequestSocket {
    /// Returns the speed of a link of the socket's own namespace in bits per second. `None`: the driver reports no
    /// speed, for instance because there is no carrier.
    pub fn link_speed(&self, ifname: &OsStr) -> Option<u64> {
        let command = self.ethtool(ifname).ok()?;
        let mbit = u32::from(command.speed_hi) << 16 | u32::from(command.speed);
        // Drivers also report 0, or the lower half of `SPEED_UNKNOWN`.
        let known = mbit != 0 && mbit != UNKNOWN && mbit != u32::from(u16::MAX);
        known.then(|| u64::from(mbit) * MBIT)
    }

    /// Returns the speed that limits the traffic of a link of the socket's own namespace, in bits per second.
    ///
    /// A tun or tap reports 10 Mbit/s unless another number was set (`drivers/net/tun.c`). Its traffic is not limited to that.
    pub fn speed_of(&self, link: &Link) -> Option<u64> {
        match link.kind.as_deref() {
            Some("tun") => None,
            _ => self.link_speed(&link.ifname),
        }
    }

    #[expect(unsafe_code, reason = "ioctl has no safe wrapper for this request")]
    fn ethtool(&self, ifname: &OsStr) -> io::Result<EthtoolCmd> {
        let mut command = EthtoolCmd {
            cmd: ETHTOOL_GSET,
            ..EthtoolCmd::default()
        };
        let mut name = [0; libc::IFNAMSIZ];
        // One byte is needed for the terminator.
        if ifname.len() >= name.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (place, byte) in name.iter_mut().zip(ifname.as_bytes()) {
            *place = byte.cast_signed();
        }
        let mut request = libc::ifreq {
            ifr_name: name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_data: std::ptr::from_mut(&mut command).cast(),
            },
        };
        // SAFETY: the descriptor is open, borrowed from its owner. The kernel reads and writes `request`,
        // a whole `struct ifreq`, and through its pointer one `struct ethtool_cmd`, whose layout
        // `EthtoolCmd` has; both live, unaliased, until the call returns.
        let answer = unsafe {
            libc::ioctl(
                self.descriptor().as_raw_fd(),
                SIOCETHTOOL,
                std::ptr::from_mut(&mut request),
            )
        };
        nix::errno::Errno::result(answer)?;
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structure_has_the_size_of_the_kernels() {
        assert_eq!(size_of::<EthtoolCmd>(), 44);
        assert_eq!(std::mem::offset_of!(EthtoolCmd, speed_hi), 28);
    }

    #[test]
    fn a_link_without_a_driver_has_no_speed() {
        let socket = RequestSocket::open().unwrap();
        for ifname in ["lo", "no-such-link", "a-name-that-is-too-long"] {
            assert_eq!(socket.link_speed(OsStr::new(ifname)), None);
        }
    }
}
