//! Encodes echo requests and decodes echo replies (RFC 792, RFC 4443 §4). Pure.

/// Types of ICMP and ICMPv6; the codes of all four are 0.
const ECHO_REQUEST: u8 = 8;
pub(super) const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
pub(super) const ECHO_REPLY_V6: u8 = 129;
/// Type, code, checksum, identifier, sequence number.
const HEADER: usize = 8;
/// The payload size of `ping`, so that both measure the same latency on a slow link.
const PAYLOAD: usize = 56;
/// The length of our echoes.
pub(super) const LENGTH: usize = HEADER + PAYLOAD;
/// The shortest IPv4 header (RFC 791 §3.1).
const IPV4_HEADER: usize = 20;

/// The packet format of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    /// ICMPv6. The kernel computes and checks the checksums.
    pub(super) v6: bool,
    /// A raw socket: it receives the replies to all programs, for IPv4 with the IP header. A ping socket chooses
    /// the identifier and receives only its own replies.
    pub(super) raw: bool,
}

/// Distinguish our echoes from those of other programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) identifier: u16,
    /// The first bytes of the payload, which the reply repeats.
    pub(super) token: u64,
}

/// Builds an echo request.
pub(super) fn request(format: Format, marks: Marks, sequence: u16) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[0] = if format.v6 {
        ECHO_REQUEST_V6
    } else {
        ECHO_REQUEST
    };
    bytes[4..6].copy_from_slice(&marks.identifier.to_be_bytes());
    bytes[6..8].copy_from_slice(&sequence.to_be_bytes());
    bytes[8..16].copy_from_slice(&marks.token.to_be_bytes());
    if !format.v6 {
        let checksum = !sum(&bytes);
        bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    bytes
}

/// Returns the sequence number of a reply to one of our requests. `None`: any other packet.
pub(super) fn reply(format: Format, marks: Marks, received: &[u8]) -> Option<u16> {
    let (message, expected) = match format {
        Format { v6: true, .. } => (received, ECHO_REPLY_V6),
        Format { raw: false, .. } => (received, ECHO_REPLY),
        Format { raw: true, .. } => (behind_ipv4(received)?, ECHO_REPLY),
    };
    // Packets of another length are not replies to our requests.
    let message: &[u8; LENGTH] = message.try_into().ok()?;
    let field = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
    // On a raw IPv4 socket the kernel has not checked the checksum, and a netem may corrupt packets.
    let intact = format.v6 || !format.raw || sum(message) == u16::MAX;
    let ours = !format.raw || field(4) == marks.identifier;
    let token = message[8..16] == marks.token.to_be_bytes();
    let is_reply = message[0] == expected && message[1] == 0;
    (is_reply && intact && ours && token).then(|| field(6))
}

/// Returns the bytes after the IPv4 header.
fn behind_ipv4(packet: &[u8]) -> Option<&[u8]> {
    let first = *packet.first()?;
    let length = usize::from(first & 0xf) * 4;
    let valid = first >> 4 == 4 && length >= IPV4_HEADER;
    packet.get(length..).filter(|_| valid)
}

/// Returns the one's complement sum over 16-bit words (RFC 1071). It is all ones for a message with a correct
/// checksum.
fn sum(bytes: &[u8; LENGTH]) -> u16 {
    let words = bytes.chunks_exact(2).map(|word| match word {
        [high, low] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    });
    words.fold(0, |sum: u16, word| {
        let (sum, carry) = sum.overflowing_add(word);
        // The carry cannot overflow again: the sum is at most 0xfffe then.
        sum + u16::from(carry)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MARKS: Marks = Marks {
        identifier: 0x1234,
        token: 0x0102_0304_0506_0708,
    };
    const FORMATS: [Format; 4] = [
        Format {
            v6: false,
            raw: true,
        },
        Format {
            v6: false,
            raw: false,
        },
        Format {
            v6: true,
            raw: true,
        },
        Format {
            v6: true,
            raw: false,
        },
    ];

    /// Returns the reply of a host: the request with another type.
    fn answer(format: Format, request: &[u8; LENGTH]) -> Vec<u8> {
        let mut message = *request;
        message[0] = if format.v6 { ECHO_REPLY_V6 } else { ECHO_REPLY };
        message[2..4].fill(0);
        if !format.v6 {
            let checksum = !sum(&message);
            message[2..4].copy_from_slice(&checksum.to_be_bytes());
        }
        if format.raw && !format.v6 {
            let mut packet = vec![0x46];
            // Six words: one of them contains options.
            packet.resize(24, 0);
            packet.extend(message);
            packet
        } else {
            message.to_vec()
        }
    }

    #[test]
    fn a_request_has_the_standard_format() {
        let request = request(FORMATS[0], MARKS, 0x0203);
        assert_eq!(request[..2], [8, 0]);
        assert_eq!(request[4..8], [0x12, 0x34, 2, 3]);
        // Computed by hand: 0800 + 1234 + 0203 + 0102 + 0304 + 0506 + 0708 = 2c4b.
        assert_eq!(request[2..4], (!0x2c4b_u16).to_be_bytes());
        assert_eq!(super::request(FORMATS[2], MARKS, 1)[..4], [128, 0, 0, 0]);
    }

    #[test]
    fn other_packets_are_ignored() {
        for format in FORMATS {
            let ours = answer(format, &request(format, MARKS, 3));
            assert_eq!(reply(format, MARKS, &ours), Some(3), "{format:?}");
            let own_request = request(format, MARKS, 3);
            assert_eq!(reply(format, MARKS, &own_request), None, "{format:?}");
            let token = Marks { token: 9, ..MARKS };
            let identifier = Marks {
                identifier: 9,
                ..MARKS
            };
            let others = answer(format, &request(format, token, 3));
            assert_eq!(reply(format, MARKS, &others), None, "{format:?}");
            let renamed = answer(format, &request(format, identifier, 3));
            let expected = if format.raw { None } else { Some(3) };
            assert_eq!(reply(format, MARKS, &renamed), expected, "{format:?}");
        }
    }

    fn any_format() -> impl Strategy<Value = Format> {
        prop::sample::select(FORMATS.to_vec())
    }

    proptest! {
        #[test]
        fn every_reply_finds_its_request(
            format in any_format(), identifier: u16, token: u64, sequence: u16
        ) {
            let marks = Marks { identifier, token };
            let answer = answer(format, &request(format, marks, sequence));
            prop_assert_eq!(reply(format, marks, &answer), Some(sequence));
        }

        #[test]
        fn no_packet_makes_the_parser_panic(format in any_format(), bytes: Vec<u8>) {
            reply(format, MARKS, &bytes);
        }

        #[test]
        fn a_cut_reply_is_none(format in any_format(), keep in 0..LENGTH) {
            let answer = answer(format, &request(format, MARKS, 1));
            prop_assert_eq!(reply(format, MARKS, &answer[..keep]), None);
        }

        #[test]
        fn a_flipped_bit_is_detected_if_the_kernel_does_not_check(bit in 0..LENGTH * 8) {
            let format = FORMATS[0];
            let mut answer = answer(format, &request(format, MARKS, 1));
            answer[24 + bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(reply(format, MARKS, &answer), None);
        }
    }
}
