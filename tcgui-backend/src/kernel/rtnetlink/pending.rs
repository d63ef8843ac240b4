//! A request and its reply, which may share its datagram with others.

use netlink_packet_core::Emitable;

use super::RtnetlinkError;
use super::message::{Answer, Message, push_request};
use super::socket::{Change, NLM_F_ACK, NLM_F_REQUEST};

/// A request that may share its datagram with others.
pub(super) trait Exchanged {
    /// Appends the request with this sequence number.
    fn push(&mut self, sequence: u32, bytes: &mut Vec<u8>);
    /// Handles a message. Ignores one that replies to another request.
    fn take(&mut self, message: Message<'_>) -> Result<(), RtnetlinkError>;
    fn is_answered(&self) -> bool;
}

/// A request and its reply so far.
pub(super) struct Pending<'a, T, F> {
    kind: u16,
    flags: u16,
    body: &'a dyn Emitable,
    read: F,
    sequence: u32,
    objects: Vec<T>,
    /// The kernel reported a change during the dump.
    pub(super) interrupted: bool,
    /// The final result from the kernel. `None`: the reply is not complete.
    result: Option<Result<(), RtnetlinkError>>,
}

impl<'a, T, F: FnMut(Message<'_>) -> Result<T, RtnetlinkError>> Pending<'a, T, F> {
    pub(super) fn change(kind: u16, change: Change, body: &'a dyn Emitable, read: F) -> Self {
        Self::new(kind, NLM_F_ACK | change.flags(), body, read)
    }

    pub(super) fn get(kind: u16, body: &'a dyn Emitable, read: F) -> Self {
        Self::new(kind, NLM_F_ACK, body, read)
    }

    pub(super) fn new(kind: u16, flags: u16, body: &'a dyn Emitable, read: F) -> Self {
        Self {
            kind,
            flags: NLM_F_REQUEST | flags,
            body,
            read,
            sequence: 0,
            objects: Vec::new(),
            interrupted: false,
            result: None,
        }
    }

    pub(super) fn done(self) -> Result<(), RtnetlinkError> {
        self.objects().map(drop)
    }

    pub(super) fn object(self) -> Result<T, RtnetlinkError> {
        self.objects()?.pop().ok_or(RtnetlinkError::Malformed)
    }

    /// Returns the objects of this request and the result of the other request of its datagram. If the exchange
    /// failed before this request had its reply, the other result contains the error, which is then returned.
    pub(super) fn objects_and<U>(
        self,
        other: Result<U, RtnetlinkError>,
    ) -> Result<(Vec<T>, Result<U, RtnetlinkError>), RtnetlinkError> {
        match (self.result.is_some(), other) {
            (false, Err(err)) => Err(err),
            (_, other) => Ok((self.objects()?, other)),
        }
    }

    pub(super) fn objects(self) -> Result<Vec<T>, RtnetlinkError> {
        self.result.unwrap_or(Err(RtnetlinkError::Malformed))?;
        Ok(self.objects)
    }
}

impl<T, F: FnMut(Message<'_>) -> Result<T, RtnetlinkError>> Exchanged for Pending<'_, T, F> {
    fn push(&mut self, sequence: u32, bytes: &mut Vec<u8>) {
        self.sequence = sequence;
        push_request(bytes, self.kind, self.flags, sequence, self.body);
    }

    fn take(&mut self, message: Message<'_>) -> Result<(), RtnetlinkError> {
        if message.sequence != self.sequence {
            return Ok(());
        }
        self.interrupted |= message.interrupted();
        match message.answer()? {
            Answer::Object => self.objects.push((self.read)(message)?),
            Answer::Done(result) => self.result = Some(result),
        }
        Ok(())
    }

    fn is_answered(&self) -> bool {
        self.result.is_some()
    }
}

/// A request whose notifications are not read.
pub(super) type Acknowledged<'a> = Pending<'a, (), fn(Message<'_>) -> Result<(), RtnetlinkError>>;

/// Returns a request whose notifications are not read.
pub(super) fn acknowledged(kind: u16, change: Change, body: &dyn Emitable) -> Acknowledged<'_> {
    Pending::change(kind, change, body, |_| Ok(()))
}
