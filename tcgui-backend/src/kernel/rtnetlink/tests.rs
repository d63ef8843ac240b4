//! Requests to the running kernel, and answers that only a test can make.

use super::*;
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
async fn a_refusal_carries_the_text_of_the_kernel_and_the_socket_goes_on() {
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

/// No link has it: the kernel counts from 1 on.
const NO_LINK: u32 = 0x7fff_fff0;

#[test]
fn two_requests_in_one_datagram_are_told_apart() {
    let mut socket = RequestSocket::open().unwrap();
    let (link, qdiscs) = socket.link_and_qdiscs(1).unwrap();
    assert_eq!(link.ifname, "lo");
    // Their counters go on.
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
fn a_refused_change_is_told_whatever_is_read_after_it() {
    let mut socket = RequestSocket::open().unwrap();
    let delete = RootChange::Delete { handle: 0 };
    let refused = socket.change_root_and_read(NO_LINK, &delete).unwrap_err();
    // Without privileges it does not look for the link.
    let expected = [Some(nix::libc::ENODEV), Some(nix::libc::EPERM)];
    assert!(expected.contains(&refused.errno()), "{refused:?}");
    let refused = socket.set_up(NO_LINK, true).unwrap_err();
    assert!(expected.contains(&refused.errno()), "{refused:?}");
    assert!(socket.is_in_step());
    assert_eq!(socket.link(1).unwrap().ifname, "lo");
}

/// A message as the kernel frames it.
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
fn acknowledgements_are_told_from_refusals() {
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
