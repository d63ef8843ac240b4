//! A link that is deleted and made anew is another one, though it has the same name and index.

use std::process::Command as Process;

use super::*;
use crate::kernel::lab::HeldNetns;
use crate::kernel::netns::NetnsFiles;
use crate::kernel::rtnetlink::{Observer, Rtnetlink};
use crate::sockets::NetnsSockets;

const SOON: Duration = Duration::from_secs(10);

/// A tracker of the host alone.
struct Bench {
    tracker: Tracker<()>,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let now = Instant::now();
        let mut tracker = Tracker::new(now, SWEEP, Strangers::Ignore);
        tracker.track(NetnsKey::Host, None);
        Self { tracker, now }
    }

    /// Looks, hears `events` meanwhile, and returns the generations of the links.
    fn look(&mut self, links: &[Link], events: &[KernelEvent]) -> Vec<u64> {
        self.now += SWEEP;
        self.tracker.ring(NetnsKey::Host);
        let order = self.tracker.next_looks(self.now).pop().expect("it is due");
        for event in events {
            self.tracker.kernel(*event, self.now);
        }
        let looked = DumpDone {
            key: NetnsKey::Host,
            generation: order.generation,
            began: self.now,
            cost: Duration::from_micros(1),
            result: Ok(Seen {
                nsid: None,
                links: links.to_vec(),
            }),
        };
        let answer = self.tracker.looked(self.now, looked).expect("it is known");
        let snapshot = answer.result.unwrap();
        snapshot.links.iter().map(|link| link.generation).collect()
    }
}

#[test]
fn a_generation_ends_with_the_link_and_with_nothing_else() {
    let mut bench = Bench::new();
    let (v1, v2) = (Link::sample(1, "v1"), Link::sample(2, "v2"));
    let first = bench.look(&[v1.clone(), v2.clone()], &[]);
    assert!(first[0] != first[1] && !first.contains(&0));
    let renamed = Link {
        up: false,
        mtu: 900,
        ..Link::sample(1, "z1")
    };
    let changed = KernelEvent::Changed(None);
    assert_eq!(bench.look(&[renamed, v2.clone()], &[changed]), first);
    assert_eq!(
        bench.look(&[v1.clone(), v2.clone()], &[KernelEvent::Lost]),
        first
    );
    let other_address = Link {
        fingerprint: 9,
        ..v1.clone()
    };
    assert_eq!(bench.look(&[other_address, v2.clone()], &[]), first);
    // While events were lost, it may have been made anew.
    let lost = bench.look(&[v1.clone(), v2.clone()], &[KernelEvent::Lost]);
    assert!(lost[0] > first[1] && lost[1] == first[1], "{lost:?}");
    let first = lost;
    // Of another namespace.
    let elsewhere = KernelEvent::Deleted(Some(Nsid::from_raw(4)), 1);
    assert_eq!(bench.look(&[v1.clone(), v2.clone()], &[elsewhere]), first);
    let deleted = KernelEvent::Deleted(None, 1);
    let second = bench.look(&[v1.clone(), v2.clone()], &[deleted]);
    assert!(second[0] > first[0] && second[1] == first[1], "{second:?}");
    assert_eq!(bench.look(&[v1.clone(), v2.clone()], &[]), second);
    // It was away when somebody looked.
    assert_eq!(bench.look(std::slice::from_ref(&v2), &[]), second[1..]);
    let third = bench.look(&[v1.clone(), v2.clone()], &[]);
    assert!(third[0] > second[0] && third[1] == second[1], "{third:?}");
    // The driver's kind never changes.
    let dummy = Link {
        kind: Some("dummy".to_owned()),
        ..v1
    };
    let fourth = bench.look(&[dummy, v2], &[]);
    assert!(fourth[0] > third[0] && fourth[1] == third[1], "{fourth:?}");
}

/// Runs `ip` with the words of a line in the namespace of a process.
fn ip(pid: i32, line: &str) {
    let target = format!("--target={pid}");
    let mut command = Process::new("nsenter");
    command.args([&target, "--net", "ip"]);
    let output = command.args(line.split_whitespace()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {line}: {error}");
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the test is the supervisor")]
async fn the_kernel_tells_that_a_link_was_made_anew_however_quickly() {
    for ids in [true, false] {
        let files = NetnsFiles::new().unwrap();
        let sockets = NetnsSockets::new(Rtnetlink::open(1).unwrap(), files, 1);
        let observer = ids.then(|| Observer::open().unwrap());
        let looks = Rtnetlink::open_from(observer, 1).unwrap();
        let kernel = KernelLinks::open(looks, files, sockets.clone()).unwrap();
        let (handle, _events, task) = open(kernel, SWEEP, Strangers::Ignore);
        tokio::spawn(task.run(CancellationToken::new()));
        let holder = HeldNetns::new();
        let netns_ref = NetnsRef::Process(holder.id());
        let (key, pid) = (netns_ref.key(), holder.id().pid());
        sockets.admit(key);
        handle.track(key, netns_ref.clone()).await;
        let make = "link add d0 index 7 address 02:00:00:00:00:07 type veth peer name p0 index 8";
        ip(pid, make);
        let d0 = async || {
            let looked = timeout(SOON, handle.refresh(key)).await.expect("in time");
            let links = looked.unwrap().links;
            let link = links.iter().find(|link| link.ifindex == 7);
            link.expect("it is there").clone()
        };
        let mut before = d0().await;
        for line in [
            "link set d0 name e0",
            "link set e0 name d0",
            "link set d0 up",
        ] {
            ip(pid, line);
            assert_eq!(d0().await.generation, before.generation, "{line}");
        }
        for round in 0..20 {
            ip(pid, "link del d0");
            ip(pid, make);
            let after = d0().await;
            assert_eq!(after.ifname, before.ifname);
            assert!(
                after.generation > before.generation,
                "round {round}, ids {ids}"
            );
            // Nothing of it comes later.
            assert_eq!(
                d0().await.generation,
                after.generation,
                "round {round}, ids {ids}"
            );
            before = after;
        }
        ip(
            pid,
            "link property add dev d0 altname a-name-of-twenty-two-b",
        );
        assert_eq!(d0().await.altnames, ["a-name-of-twenty-two-b"]);
        // A port that leaves its bridge stays what it is.
        ip(pid, "link add b0 type bridge");
        ip(pid, "link set d0 master b0");
        ip(pid, "link set d0 nomaster");
        assert_eq!(d0().await.generation, before.generation);
        handle.untrack(key, netns_ref).await;
        sockets.forget(key);
    }
}
