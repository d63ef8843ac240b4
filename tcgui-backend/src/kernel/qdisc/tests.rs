//! Reading qdiscs out of messages.

use proptest::prelude::*;

use super::*;

const IFINDEX: u32 = 7;
const HANDLE: u32 = 0x7c60_0000;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A root qdisc with these attributes, as the payload of a message.
fn payload(attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut body = Request::new(IFINDEX, HANDLE, ROOT);
    for (kind, value) in attributes {
        push_attribute(&mut body.attributes, *kind, value);
    }
    let mut bytes = vec![0; body.buffer_len()];
    body.emit(&mut bytes);
    bytes
}

fn read(attributes: &[(u16, Vec<u8>)]) -> Qdisc {
    let payload = payload(attributes);
    parse(Message::sample(libc::RTM_NEWQDISC, &payload)).unwrap()
}

#[test]
fn a_netem_is_read_with_its_counters() {
    let netem = Netem {
        limit: 9,
        latency_ns: 77,
        ..Netem::default()
    };
    let mut nested = Vec::new();
    // Four bytes of padding follow the structure in the kernel's own form.
    let basic = [&5_000_000_000_u64.to_ne_bytes()[..], &words(&[3, 0])].concat();
    push_attribute(&mut nested, TCA_STATS_BASIC, &basic);
    let packets = (1_u64 << 32) + 3;
    push_attribute(&mut nested, TCA_STATS_PKT64, &packets.to_ne_bytes());
    push_attribute(&mut nested, TCA_STATS_QUEUE, &words(&[1, 2, 3, 4, 5]));
    push_attribute(&mut nested, TCA_STATS_RATE_EST, &words(&[6, 7]));
    let qdisc = read(&[
        (TCA_KIND, b"netem\0".to_vec()),
        (TCA_OPTIONS, netem.to_options()),
        (99, vec![1, 2, 3]),
        (TCA_STATS2, nested),
        (TCA_STATS, vec![0xff; 36]),
    ]);
    let statistics = QdiscStatistics {
        bytes: 5_000_000_000,
        packets,
        qlen: 1,
        backlog: 2,
        drops: 3,
        requeues: 4,
        overlimits: 5,
        rate: Some(QdiscRate {
            bytes_per_s: 6,
            packets_per_s: 7,
        }),
    };
    let expected = Qdisc {
        ifindex: IFINDEX,
        handle: HANDLE,
        parent: ROOT,
        kind: "netem".into(),
        netem: Some(netem),
        tbf: None,
        statistics,
    };
    assert_eq!(qdisc, expected);
    assert!(qdisc.is_root());
}

#[test]
fn old_counters_are_read_where_there_are_no_new_ones() {
    let old = [&4_u64.to_ne_bytes()[..], &words(&[5, 6, 7, 0, 0, 8, 9])].concat();
    let qdisc = read(&[(TCA_KIND, b"htb\0".to_vec()), (TCA_STATS, old)]);
    let expected = QdiscStatistics {
        bytes: 4,
        packets: 5,
        drops: 6,
        overlimits: 7,
        qlen: 8,
        backlog: 9,
        ..QdiscStatistics::default()
    };
    assert_eq!(qdisc.statistics, expected);
    assert_eq!(qdisc.netem, None);
}

#[test]
fn a_child_contains_the_handle_of_its_parent() {
    let root = read(&[(TCA_KIND, b"netem\0".to_vec())]);
    let at = |ifindex, parent| Qdisc {
        ifindex,
        parent,
        ..root.clone()
    };
    assert!(at(IFINDEX, HANDLE | 1).is_child_of(&root));
    assert!(!at(IFINDEX + 1, HANDLE | 1).is_child_of(&root));
    assert!(!at(IFINDEX, HANDLE + 0x1_0001).is_child_of(&root));
    assert!(!root.is_child_of(&root));
}

proptest! {
    #[test]
    fn no_bytes_cause_a_panic(bytes: Vec<u8>, kind in 0..12_u16) {
        parse(Message::sample(libc::RTM_NEWQDISC, &bytes)).ok();
        let netem = (TCA_KIND, b"netem\0".to_vec());
        let payload = payload(&[netem, (kind, bytes)]);
        prop_assert!(parse(Message::sample(libc::RTM_NEWQDISC, &payload)).is_ok());
    }
}
