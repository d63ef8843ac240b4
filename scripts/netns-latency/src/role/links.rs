//! A netlink socket in one namespace: requests about links, and the kernel's notifications about them.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, bail, ensure};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};
use tcgui_tests::client::monotonic_ns;

/// The multicast group of links, `RTNLGRP_LINK` as a mask.
pub(super) const LINKS: u32 = 1;

/// Buffer size in bytes, larger than any message about one link without virtual functions.
const BUFFER: usize = 32 * 1024;

/// A notification about a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    Is { name: String, up: bool },
    Gone { name: String },
}

/// A socket in the namespace in which it was opened. It keeps the namespace alive.
#[derive(Debug)]
pub(super) struct Socket {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread that receives these multicast groups.
    pub(super) fn open(groups: u32) -> anyhow::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )
        .context("open a netlink socket")?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups)).context("bind a netlink socket")?;
        Ok(Self {
            socket,
            buffer: vec![0; BUFFER],
        })
    }

    /// Creates a veth. The kernel names its other end, which is in the same namespace.
    pub(super) fn add_veth(&mut self, name: &str) -> anyhow::Result<u64> {
        let mut link = named(name);
        let kind = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]);
        link.attributes.push(kind);
        let request = RouteNetlinkMessage::NewLink(link);
        self.request(request, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Sets a link up.
    pub(super) fn set_up(&mut self, name: &str) -> anyhow::Result<u64> {
        let mut link = named(name);
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.request(RouteNetlinkMessage::NewLink(link), 0)
    }

    /// Moves a link to the network namespace of a process.
    pub(super) fn move_to(&mut self, name: &str, pid: u32) -> anyhow::Result<u64> {
        let mut link = named(name);
        link.attributes.push(LinkAttribute::NetNsPid(pid));
        self.request(RouteNetlinkMessage::NewLink(link), 0)
    }

    /// Deletes a link.
    pub(super) fn delete(&mut self, name: &str) -> anyhow::Result<u64> {
        self.request(RouteNetlinkMessage::DelLink(named(name)), 0)
    }

    /// Sends a request and waits for its acknowledgement. Returns the time just before the request.
    fn request(&mut self, request: RouteNetlinkMessage, flags: u16) -> anyhow::Result<u64> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);

        let start = monotonic_ns()?;
        let sent = send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        ensure!(sent == bytes.len(), "the kernel took half a request");
        match self.receive()?.payload {
            NetlinkPayload::Error(answer) if answer.code.is_none() => Ok(start),
            NetlinkPayload::Error(answer) => Err(answer.to_io()).context("netlink request"),
            other => bail!("the kernel answered {other:?}"),
        }
    }

    /// Waits for the next notification about a link.
    pub(super) fn news(&mut self) -> anyhow::Result<News> {
        loop {
            let NetlinkPayload::InnerMessage(message) = self.receive()?.payload else {
                continue;
            };
            if let Some(news) = news_of(&message) {
                return Ok(news);
            }
        }
    }

    fn receive(&mut self) -> anyhow::Result<NetlinkMessage<RouteNetlinkMessage>> {
        let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())
            .context("receive from the kernel")?;
        let bytes = self.buffer.get(..length).unwrap_or_default();
        NetlinkMessage::deserialize(bytes).context("understand the kernel")
    }
}

fn named(name: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link
}

fn news_of(message: &RouteNetlinkMessage) -> Option<News> {
    let name = |link: &LinkMessage| {
        link.attributes.iter().find_map(|it| match it {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })
    };
    match message {
        RouteNetlinkMessage::NewLink(link) => Some(News::Is {
            name: name(link)?,
            up: link.header.flags.contains(LinkFlags::Up),
        }),
        RouteNetlinkMessage::DelLink(link) => Some(News::Gone { name: name(link)? }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications_contain_whether_a_link_is_up() {
        let mut link = named("v0");
        let down = RouteNetlinkMessage::NewLink(link.clone());
        link.header.flags = LinkFlags::Up | LinkFlags::Broadcast;
        let name = || "v0".to_owned();
        let is = |up| Some(News::Is { name: name(), up });
        assert_eq!(news_of(&down), is(false));
        assert_eq!(
            news_of(&RouteNetlinkMessage::NewLink(link.clone())),
            is(true)
        );
        let gone = RouteNetlinkMessage::DelLink(link);
        assert_eq!(news_of(&gone), Some(News::Gone { name: name() }));
        let nameless = RouteNetlinkMessage::NewLink(LinkMessage::default());
        assert_eq!(news_of(&nameless), None);
    }
}
