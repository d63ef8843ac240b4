//! Requests to the running kernel, and replies that only a test can make.

use std::os::fd::AsRawFd;
use std::process::Command;

use netlink_packet_core::Emitable;
use nix::sys::socket::{MsgFlags, NetlinkAddr, getsockname, send};

use super::*;
use crate::kernel::lab::PrivateNetns;
use crate::kernel::qdisc::{Qdisc, RootChange};

#[tokio::test]
async fn lists_the_links_of_the_own_namespace() {
    let kernel = Rtnetlink::open(1).unwrap();
    let links = kernel.run(|socket| socket.links(None)).await.unwrap();
    let lo = links
        .iter()
        .find(|link| link.ifname == "lo")
        .expect("every namespace has lo");
    assert!(lo.loopback);
    assert_eq!(lo.ifindex, 1);
}

#[tokio::test]
async fn a_refusal_has_the_kernels_text_and_the_socket_stays_usable() {
    let kernel = Rtnetlink::open(1).unwrap();
    let refused = kernel
        .run(|socket| socket.links(Some(Nsid(0x7fff_fff0))))
        .await
        .unwrap_err();
    assert_eq!(refused.errno(), Some(nix::libc::EINVAL));
    assert!(
        refused.to_string().contains("target network namespace"),
        "{refused}"
    );
    assert!(
        kernel
            .run(|socket| socket.links(None))
            .await
            .is_ok_and(|links| !links.is_empty())
    );
}

/// An index that no link has: the kernel counts from 1.
const NO_LINK: u32 = 0x7fff_fff0;

#[test]
fn two_requests_in_one_datagram_have_separate_replies() {
    let mut socket = RequestSocket::open().unwrap();
    let (link, qdiscs) = socket.link_and_qdiscs(1).unwrap();
    assert_eq!(link.ifname, "lo");
    // Without the counters, which change.
    let names = |qdiscs: Vec<Qdisc>| -> Vec<_> {
        let name = |it: Qdisc| (it.ifindex, it.handle, it.kind);
        qdiscs.into_iter().map(name).collect()
    };
    assert_eq!(names(qdiscs.unwrap()), names(socket.qdiscs().unwrap()));
    let refused = socket.link_and_qdiscs(NO_LINK).unwrap_err();
    assert_eq!(refused.refused(), Some(Refused::NoDevice));
    assert!(socket.is_in_step(), "also the second was answered");
    assert_eq!(socket.link(1).unwrap(), link);
}

#[test]
fn a_refused_change_is_reported_despite_the_read_back() {
    let mut socket = RequestSocket::open().unwrap();
    let delete = RootChange::Delete { handle: 0 };
    let refused = socket.change_root_and_read(NO_LINK, &delete).unwrap_err();
    // Without privileges the kernel does not look up the link.
    let expected = [Some(nix::libc::ENODEV), Some(nix::libc::EPERM)];
    assert!(expected.contains(&refused.errno()), "{refused:?}");
    let refused = socket.set_up(NO_LINK, true).unwrap_err();
    assert!(expected.contains(&refused.errno()), "{refused:?}");
    assert!(socket.is_in_step());
    assert_eq!(socket.link(1).unwrap().ifname, "lo");
}

/// Returns the port id of a socket.
fn port(socket: &RequestSocket) -> u32 {
    let fd = socket.descriptor().as_raw_fd();
    getsockname::<NetlinkAddr>(fd).unwrap().pid()
}

/// Sends a datagram of `times` copies from another process to a port. Returns the error number of its `send`, if
/// any.
fn send_from_another_process(port: u32, datagram: &[u8], times: usize) -> Option<i32> {
    // `struct sockaddr_nl`, with no groups.
    let script = "socket(my $s, 16, 3, 0) or die; \
        my $to = pack('SSLL', 16, 0, $ARGV[0], 0); \
        print send($s, pack('H*', $ARGV[1]) x $ARGV[2], 0, $to) ? 0 : 0 + $!";
    let hex: String = datagram.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut perl = Command::new("perl");
    let (port, times) = (port.to_string(), times.to_string());
    let output = perl.args(["-e", script, &port, &hex, &times]).output();
    let output = output.expect("perl is installed");
    let errno: i32 = String::from_utf8_lossy(&output.stdout).parse().unwrap();
    Some(errno).filter(|errno| *errno != 0)
}

/// Returns an acknowledgement of the request with this number.
fn forged_acknowledgement(sequence: u32, port: u32) -> Vec<u8> {
    const NLMSG_ERROR: u16 = 2;
    let mut bytes = framed(NLMSG_ERROR, 0, &[0; 20]);
    bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    bytes[12..16].copy_from_slice(&port.to_ne_bytes());
    bytes
}

#[test]
fn another_process_cannot_send_to_a_request_socket() {
    let mut socket = RequestSocket::open().unwrap();
    let forged = forged_acknowledgement(1, port(&socket));
    let refused = send_from_another_process(port(&socket), &forged, 1);
    assert_eq!(refused, Some(nix::libc::ECONNREFUSED));
    let err = socket.set_up(NO_LINK, true).unwrap_err();
    assert_eq!(err.refused(), Some(Refused::NoDevice));
}

#[test]
fn datagrams_of_other_processes_are_ignored() {
    // This socket is not connected, so the kernel delivers the forged datagram.
    let mut socket = RequestSocket::open_to_all().unwrap();
    for (forged, times) in [
        (forged_acknowledgement(1, port(&socket)), 1),
        // Malformed, and larger than any reply.
        (vec![0xff; 1000], 70),
    ] {
        let refused = send_from_another_process(port(&socket), &forged, times);
        assert_eq!(refused, None, "sent");
    }
    let err = socket.set_up(NO_LINK, true).unwrap_err();
    assert_eq!(err.refused(), Some(Refused::NoDevice));
    assert!(socket.is_in_step());
    assert_eq!(socket.link(1).unwrap().ifname, "lo");
}

#[test]
fn the_reply_to_an_earlier_request_is_ignored() {
    let mut socket = RequestSocket::open().unwrap();
    // An unread reply to a request with the number 0.
    let mut bytes = Vec::new();
    message::push_request(&mut bytes, nix::libc::RTM_GETLINK, 0x301, 0, &NoBody);
    let fd = socket.descriptor().as_raw_fd();
    send(fd, &bytes, MsgFlags::empty()).unwrap();
    let err = socket.link(NO_LINK).unwrap_err();
    assert_eq!(err.refused(), Some(Refused::NoDevice));
    assert_eq!(socket.link(1).unwrap().ifname, "lo");
}

/// `struct ifinfomsg` without a link.
struct NoBody;

impl Emitable for NoBody {
    fn buffer_len(&self) -> usize {
        16
    }

    fn emit(&self, _: &mut [u8]) {}
}

/// Returns a message as the kernel frames it.
fn framed(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + payload.len()).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn answers(datagram: &[u8]) -> Result<Vec<message::Answer>, RtnetlinkError> {
    let mut answers = Vec::new();
    message::for_each(datagram, |message| {
        answers.push(message.answer()?);
        Ok::<_, RtnetlinkError>(())
    })?;
    Ok(answers)
}

#[test]
fn acknowledgements_are_distinguished_from_refusals() {
    use message::Answer;
    const ERROR: u16 = 2;
    const DONE: u16 = 3;
    const ACK_TLVS: u16 = 0x200;
    let ack = [&0_i32.to_ne_bytes()[..], &[0; 16]].concat();
    assert!(matches!(
        answers(&framed(ERROR, 0, &ack)).unwrap()[..],
        [Answer::Done(Ok(()))]
    ));
    assert!(matches!(
        answers(&framed(DONE, 0, &[])).unwrap()[..],
        [Answer::Done(Ok(()))]
    ));
    assert!(matches!(
        answers(&framed(16, 0, &[])).unwrap()[..],
        [Answer::Object]
    ));

    let text = [&8_u16.to_ne_bytes()[..], &1_u16.to_ne_bytes(), b"no!\0"].concat();
    let refusal = [&(-nix::libc::EPERM).to_ne_bytes()[..], &[0; 16], &text].concat();
    let refused = answers(&framed(ERROR, ACK_TLVS, &refusal))
        .unwrap()
        .remove(0);
    let Answer::Done(Err(err)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(
        (err.errno(), err.to_string().as_str()),
        (Some(nix::libc::EPERM), "no!")
    );
}

proptest::proptest! {
    #[test]
    fn no_datagram_makes_the_parser_panic_or_spin(bytes: Vec<u8>, kind in 0..6_u16, flags: u16) {
        answers(&bytes).ok();
        let framed = framed(kind, flags, &bytes);
        answers(&framed).ok();
        message::for_each(&framed, |message| {
            message.attributes(0).iter().for_each(drop);
            Ok::<_, RtnetlinkError>(())
        }).ok();
    }
}

#[tokio::test]
async fn at_most_4096_messages_are_taken_at_once_and_the_others_later() {
    let (netns, runtime) = (PrivateNetns::new(), tokio::runtime::Handle::current());
    let (events, mut requests) = netns.inside(|| {
        let _context = runtime.enter();
        (
            EventSocket::open_here().unwrap(),
            RequestSocket::open().unwrap(),
        )
    });
    assert_eq!(events.pending().unwrap(), None);
    for round in 0..4100 {
        requests.set_up(1, round % 2 == 0).unwrap().unwrap();
    }
    let queued = events.pending().unwrap().unwrap();
    assert!(queued.has_more);
    assert!(queued.events.len() <= 4096, "{}", queued.events.len());
    let queued = events.pending().unwrap().unwrap();
    assert!(!queued.has_more);
    assert!(queued.events.contains(&KernelEvent::Changed(None)));
    assert_eq!(events.pending().unwrap(), None);
}
