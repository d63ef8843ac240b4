//! Framing: encodes requests, and splits datagrams into messages and messages into attributes.
//!
//! Requests are built with the codecs of the netlink crates. Replies are parsed attribute by attribute instead:
//! names are bytes (the codecs require UTF-8), and a new attribute that the codecs cannot parse must not make the
//! whole link unreadable.

use std::io;

use netlink_packet_core::{Emitable, NetlinkBuffer, NetlinkHeader, NlasIterator};

use super::RtnetlinkError;

/// `NLMSG_ERROR`, `NLMSG_DONE` (`include/uapi/linux/netlink.h`).
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Extended acknowledgement attributes follow.
const NLM_F_ACK_TLVS: u16 = 0x200;
/// The dump is inconsistent: something changed while it ran.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// The error message attribute of an extended acknowledgement.
const NLMSGERR_ATTR_MSG: u16 = 1;
/// `NETNSA_NSID` (`include/uapi/linux/net_namespace.h`), behind a `struct rtgenmsg` with its padding.
const NETNSA_NSID: u16 = 1;
/// `NETNSA_CURRENT_NSID`: the id in the table of the socket's namespace, while `NETNSA_NSID` is that in another table.
const NETNSA_CURRENT_NSID: u16 = 5;
const RTGENMSG: usize = 4;
const HEADER: usize = 16;
/// Size of `struct nlattr`.
const ATTRIBUTE: usize = 4;

/// Appends a request to a datagram, padded so that another one can follow.
pub(super) fn push_request(
    bytes: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &dyn Emitable,
) {
    let length = HEADER + body.buffer_len();
    let begin = bytes.len();
    bytes.resize(begin + length.next_multiple_of(4), 0);
    let message = &mut bytes[begin..begin + length];
    let mut header = NetlinkHeader::default();
    header.length = u32::try_from(length).expect("requests are a few KiB");
    header.message_type = kind;
    header.flags = flags;
    header.sequence_number = sequence;
    let (fixed, rest) = message.split_at_mut(HEADER);
    header.emit(fixed);
    body.emit(rest);
}

/// One message of a datagram.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernel) struct Message<'a> {
    pub(in crate::kernel) kind: u16,
    pub(in crate::kernel) payload: &'a [u8],
    pub(super) sequence: u32,
    /// The port id of the socket that requested it. 0: it was not requested.
    pub(super) port: u32,
    flags: u16,
}

/// The meaning of a message for the request to which it replies.
#[derive(Debug)]
pub(super) enum Answer {
    /// One object of the reply.
    Object,
    /// The request is done.
    Done(Result<(), RtnetlinkError>),
}

impl<'a> Message<'a> {
    pub(super) fn answer(&self) -> Result<Answer, RtnetlinkError> {
        // Acknowledgements repeat the header of the request, and no more (`NETLINK_CAP_ACK`).
        let fixed = match self.kind {
            NLMSG_DONE => 4,
            NLMSG_ERROR => 4 + HEADER,
            _ => return Ok(Answer::Object),
        };
        // A dump may end with a bare NLMSG_DONE, which carries no error.
        let code = match self.payload.get(..4) {
            Some(_) => i32::from_ne_bytes(take(self.payload, 0)?),
            None => 0,
        };
        if code >= 0 {
            return Ok(Answer::Done(Ok(())));
        }
        let text = (self.flags & NLM_F_ACK_TLVS != 0)
            .then(|| self.payload.get(fixed..))
            .flatten()
            .and_then(|tlvs| Attributes(tlvs).find(NLMSGERR_ATTR_MSG))
            .map(|text| {
                String::from_utf8_lossy(text)
                    .trim_end_matches('\0')
                    .to_owned()
            });
        let err = io::Error::from_raw_os_error(code.saturating_neg());
        Ok(Answer::Done(Err(RtnetlinkError::Refused { text, err })))
    }

    pub(super) fn interrupted(&self) -> bool {
        self.flags & NLM_F_DUMP_INTR != 0
    }

    /// Returns the namespace id in an `RTM_*NSID` message.
    pub(in crate::kernel) fn nsid(&self) -> Result<i32, RtnetlinkError> {
        self.id(NETNSA_NSID)
    }

    /// Returns the id in the table of the socket's namespace, if the message is about another table.
    pub(in crate::kernel) fn current_nsid(&self) -> Result<i32, RtnetlinkError> {
        self.id(NETNSA_CURRENT_NSID)
    }

    fn id(&self, kind: u16) -> Result<i32, RtnetlinkError> {
        let id = self.attributes(RTGENMSG).find(kind);
        Ok(i32::from_ne_bytes(take(id.unwrap_or_default(), 0)?))
    }

    /// Returns the attributes behind a fixed part of `header` bytes.
    pub(in crate::kernel) fn attributes(&self, header: usize) -> Attributes<'a> {
        Attributes(self.payload.get(header..).unwrap_or_default())
    }
}

#[cfg(test)]
impl<'a> Message<'a> {
    /// Returns a message with this payload, for tests.
    pub(in crate::kernel) fn sample(kind: u16, payload: &'a [u8]) -> Self {
        Self {
            kind,
            payload,
            sequence: 0,
            port: 0,
            flags: 0,
        }
    }
}

/// A sequence of netlink attributes.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernel) struct Attributes<'a>(pub(in crate::kernel) &'a [u8]);

impl<'a> Attributes<'a> {
    /// Returns each attribute's type, without its flags, and value. Ends at the first malformed one.
    pub(in crate::kernel) fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        NlasIterator::new(self.0).map_while(|attribute| {
            let attribute = attribute.ok()?;
            let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
            Some((kind, attribute.into_inner().get(ATTRIBUTE..length)?))
        })
    }

    pub(in crate::kernel) fn find(self, kind: u16) -> Option<&'a [u8]> {
        self.iter()
            .find(|(found, _)| *found == kind)
            .map(|(_, value)| value)
    }
}

/// Returns the bytes of a fixed-size field.
pub(in crate::kernel) fn take<const N: usize>(
    bytes: &[u8],
    at: usize,
) -> Result<[u8; N], RtnetlinkError> {
    let field = bytes.get(at..at + N).ok_or(RtnetlinkError::Malformed)?;
    field.try_into().map_err(|_| RtnetlinkError::Malformed)
}

/// Cuts a C string at its terminator.
pub(in crate::kernel) fn string(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Appends an attribute, padded to the next multiple of four.
pub(in crate::kernel) fn push_attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(ATTRIBUTE + value.len()).expect("no attribute is near 64 KiB");
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Calls `each` for every message of a datagram, until it returns an error.
pub(super) fn for_each<E: From<RtnetlinkError>>(
    datagram: &[u8],
    mut each: impl FnMut(Message<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut rest = datagram;
    while rest.len() >= HEADER {
        let buffer = NetlinkBuffer::new_checked(rest).map_err(|_| RtnetlinkError::Malformed)?;
        let length = buffer.length() as usize;
        each(Message {
            kind: buffer.message_type(),
            payload: buffer.payload(),
            sequence: buffer.sequence_number(),
            port: buffer.port_number(),
            flags: buffer.flags(),
        })?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}
