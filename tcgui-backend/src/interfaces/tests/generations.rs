//! A link that is deleted and created again with the same name and index gets a new generation.

use std::process::Command as Process;

use super::tracker::Answer;
use super::*;
use crate::kernel::lab::HeldNetns;
use crate::kernel::netns::NetnsFiles;
use crate::kernel::rtnetlink::{Observer, Rtnetlink};
use crate::sockets::NetnsSockets;

mod histories;

const SOON: Duration = Duration::from_secs(10);

/// The id of the namespace `A` in the observer's table.
const ID: Nsid = Nsid::from_raw(4);

/// A tracker of one namespace.
struct Bench {
    tracker: Tracker<&'static str>,
    key: NetnsKey,
    now: Instant,
    /// The dump under way.
    request: Option<DumpRequest>,
}

impl Bench {
    /// Tracks the host.
    fn new() -> Self {
        Self::of(NetnsKey::Host)
    }

    /// Tracks a namespace whose links are then known.
    fn named(links: &[Link]) -> (Self, Vec<u64>) {
        let mut bench = Self::of(NetnsKey::Mounted(A));
        let generations = bench.dump(links, &[]);
        (bench, generations)
    }

    fn of(key: NetnsKey) -> Self {
        let now = Instant::now();
        let mut tracker = Tracker::new(now, SWEEP, UnknownNamespaces::Ignore);
        tracker.track(key, Some(name(A, "/run/netns/a")));
        Self {
            tracker,
            key,
            now,
            request: None,
        }
    }

    /// Begins a dump, handles `events` while it runs, and returns the generations of the links.
    fn dump(&mut self, links: &[Link], events: &[KernelEvent]) -> Vec<u64> {
        self.begin();
        self.handle(events);
        self.end(links).expect("the dump counts")
    }

    fn handle(&mut self, events: &[KernelEvent]) {
        for event in events {
            self.tracker.kernel(*event, self.now);
        }
    }

    /// Begins a dump and returns the id that it uses.
    fn begin(&mut self) -> Option<Nsid> {
        self.now += SWEEP;
        self.tracker.schedule(self.key);
        let request = self
            .tracker
            .next_dumps(self.now)
            .pop()
            .expect("a dump is due");
        self.request.insert(request).nsid
    }

    /// Ends the dump under way with the links of the namespace with the id [`ID`].
    fn end(&mut self, links: &[Link]) -> Option<Vec<u64>> {
        self.end_by(ID, links)
    }

    fn end_by(&mut self, id: Nsid, links: &[Link]) -> Option<Vec<u64>> {
        let answer = self.finish(Ok(DumpedLinks {
            nsid: (self.key != NetnsKey::Host).then_some(id),
            links: links.to_vec(),
        }))?;
        let snapshot = answer.result.unwrap();
        let generations = snapshot.links.iter().map(|link| link.generation);
        Some(generations.collect())
    }

    /// Ends the dump under way with an error.
    fn fail(&mut self, err: DumpError) {
        let answer = self.finish(Err(err));
        answer.expect("it is known").result.unwrap_err();
    }

    fn finish(&mut self, result: Result<DumpedLinks, DumpError>) -> Option<Answer<&'static str>> {
        let request = self.request.take().expect("a dump is under way");
        let done = DumpDone {
            key: self.key,
            generation: request.generation,
            began: self.now,
            cost: Duration::from_micros(1),
            result,
        };
        self.tracker.dump_done(self.now, done)
    }
}

#[test]
fn a_link_gets_a_new_generation_only_after_its_deletion() {
    let mut bench = Bench::new();
    let (v1, v2) = (Link::sample(1, "v1"), Link::sample(2, "v2"));
    let first = bench.dump(&[v1.clone(), v2.clone()], &[]);
    assert!(first[0] != first[1] && !first.contains(&0));
    let renamed = Link {
        up: false,
        mtu: 900,
        ..Link::sample(1, "z1")
    };
    let changed = KernelEvent::Changed(None);
    assert_eq!(bench.dump(&[renamed, v2.clone()], &[changed]), first);
    assert_eq!(
        bench.dump(&[v1.clone(), v2.clone()], &[KernelEvent::Lost]),
        first
    );
    assert_eq!(bench.dump(&[v1.clone(), v2.clone()], &[]), first);
    let other_address = Link {
        fingerprint: 9,
        ..v1.clone()
    };
    assert_eq!(bench.dump(&[other_address, v2.clone()], &[]), first);
    // The event of its deletion may have been lost.
    let lost = bench.dump(&[v1.clone(), v2.clone()], &[KernelEvent::Lost]);
    assert!(lost[0] > first[1] && lost[1] == first[1], "{lost:?}");
    let first = lost;
    // An event of another namespace.
    let elsewhere = KernelEvent::Deleted(Some(Nsid::from_raw(4)), 1);
    assert_eq!(bench.dump(&[v1.clone(), v2.clone()], &[elsewhere]), first);
    let deleted = KernelEvent::Deleted(None, 1);
    let second = bench.dump(&[v1.clone(), v2.clone()], &[deleted]);
    assert!(second[0] > first[0] && second[1] == first[1], "{second:?}");
    assert_eq!(bench.dump(&[v1.clone(), v2.clone()], &[]), second);
    // One dump did not contain it.
    assert_eq!(bench.dump(std::slice::from_ref(&v2), &[]), second[1..]);
    let third = bench.dump(&[v1.clone(), v2.clone()], &[]);
    assert!(third[0] > second[0] && third[1] == second[1], "{third:?}");
    // The kind of a link never changes.
    let dummy = Link {
        kind: Some("dummy".to_owned()),
        ..v1
    };
    let fourth = bench.dump(&[dummy, v2], &[]);
    assert!(fourth[0] > third[0] && fourth[1] == third[1], "{fourth:?}");
}

#[test]
fn a_deleted_link_is_noticed_after_a_failed_dump() {
    let v1 = [Link::sample(1, "v1")];
    for err in [
        || DumpError::Open(io::ErrorKind::OutOfMemory.into()),
        || DumpError::Gone,
    ] {
        let (mut bench, first) = Bench::named(&v1);
        bench.begin();
        bench.fail(err());
        bench.handle(&[KernelEvent::Deleted(Some(ID), 1)]);
        assert!(bench.dump(&v1, &[])[0] > first[0]);

        let (mut bench, first) = Bench::named(&v1);
        bench.begin();
        bench.handle(&[KernelEvent::Deleted(Some(ID), 1)]);
        bench.fail(err());
        assert!(bench.dump(&v1, &[])[0] > first[0]);

        // No event arrived in between.
        let (mut bench, first) = Bench::named(&v1);
        bench.begin();
        bench.fail(err());
        assert_eq!(bench.dump(&v1, &[]), first);
    }
}

#[test]
fn events_lost_during_a_dump_make_the_next_dump_unsure_too() {
    let v1 = Link::sample(1, "v1");
    let made_anew = Link {
        fingerprint: 9,
        ..v1.clone()
    };
    let mut bench = Bench::new();
    let first = bench.dump(std::slice::from_ref(&v1), &[]);
    // The dump was made before the link was replaced, and the event was lost.
    assert_eq!(bench.dump(&[v1], &[KernelEvent::Lost]), first);
    let second = bench.dump(std::slice::from_ref(&made_anew), &[]);
    assert!(second[0] > first[0]);
    // After a failed dump the state is still unsure.
    bench.handle(&[KernelEvent::Lost]);
    bench.begin();
    bench.fail(DumpError::Open(io::ErrorKind::OutOfMemory.into()));
    let third = bench.dump(&[Link::sample(1, "v1")], &[]);
    assert!(third[0] > second[0]);
    // No event was lost since the last dump began.
    assert_eq!(bench.dump(&[made_anew], &[]), third);
}

#[test]
fn after_missed_events_a_changed_link_gets_a_new_generation() {
    let v1 = Link::sample(1, "v1");
    let made_anew = Link {
        fingerprint: 9,
        ..v1.clone()
    };
    let (mut bench, first) = Bench::named(&[v1]);
    // Missed before a dump, or during one.
    bench.tracker.missed_events(bench.key);
    let second = bench.dump(std::slice::from_ref(&made_anew), &[]);
    assert!(second[0] > first[0]);
    assert_eq!(bench.begin(), Some(ID));
    bench.tracker.missed_events(bench.key);
    assert_eq!(bench.end(std::slice::from_ref(&made_anew)), None);
    assert!(bench.dump(&[Link::sample(1, "v1")], &[])[0] > second[0]);
}

#[test]
fn a_deleted_link_is_noticed_right_after_lost_events() {
    let v1 = [Link::sample(1, "v1")];
    let deleted = KernelEvent::Deleted(Some(ID), 1);
    let (mut bench, first) = Bench::named(&v1);
    bench.handle(&[KernelEvent::Lost, deleted]);
    let second = bench.dump(&v1, &[]);
    assert!(second[0] > first[0]);
    bench.handle(&[KernelEvent::Lost]);
    let third = bench.dump(&v1, &[deleted]);
    assert!(third[0] > second[0]);
}

#[test]
fn another_namespace_with_the_same_key_has_new_generations() {
    let v1 = [Link::sample(1, "v1")];
    let removed = KernelEvent::NsidRemoved(ID);
    let other = Nsid::from_raw(5);
    // The kernel may give the id to the next namespace.
    for next in [ID, other] {
        let (mut bench, first) = Bench::named(&v1);
        bench.handle(&[removed]);
        bench.begin();
        let second = bench.end_by(next, &v1).unwrap();
        assert!(second[0] > first[0], "{next:?}");
    }
    // The event of its deletion was lost.
    let (mut bench, first) = Bench::named(&v1);
    bench.handle(&[KernelEvent::Lost]);
    assert_eq!(bench.begin(), None, "the id may be that of another one");
    let second = bench.end_by(other, &v1).unwrap();
    assert!(second[0] > first[0]);
    // The kernel returns `EINVAL` for the id.
    bench.begin();
    bench.fail(DumpError::StaleId);
    assert_eq!(bench.begin(), None);
    let third = bench.end_by(other, &v1).unwrap();
    assert!(third[0] > second[0]);
}

#[test]
fn a_dump_by_an_id_that_was_removed_during_it_is_repeated() {
    let (a, b) = ([Link::sample(1, "v1")], [Link::sample(1, "v2")]);
    for event in [KernelEvent::NsidRemoved(ID), KernelEvent::Lost] {
        let (mut bench, _) = Bench::named(&a);
        bench.tracker.refresh(bench.key, "client");
        assert_eq!(bench.begin(), Some(ID));
        bench.handle(&[event]);
        // The id now belongs to another namespace, which has these links.
        assert_eq!(bench.end(&b), None, "{event:?}");
        assert_eq!(bench.begin(), None, "{event:?}");
        let answer = bench.finish(Ok(DumpedLinks {
            nsid: Some(Nsid::from_raw(5)),
            links: a.to_vec(),
        }));
        let answer = answer.expect("the dump counts");
        assert_eq!(answer.waiters, ["client"], "{event:?}");
        assert_eq!(answer.result.unwrap().links[0].ifname, "v1", "{event:?}");
    }
    // The id was given and removed during the dump.
    let mut bench = Bench::of(NetnsKey::Mounted(A));
    assert_eq!(bench.begin(), None);
    bench.handle(&[KernelEvent::NsidRemoved(ID)]);
    assert_eq!(bench.end(&b), None);
    assert_eq!(bench.begin(), None);
    // Lost events do not prevent a dump from being accepted.
    bench.handle(&[KernelEvent::Lost]);
    assert!(bench.end(&a).is_some());
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
async fn a_link_recreated_quickly_gets_a_new_generation() {
    for ids in [true, false] {
        let files = NetnsFiles::new().unwrap();
        let sockets = NetnsSockets::new(Rtnetlink::open(1).unwrap(), files, 1);
        let observer = ids.then(|| Observer::open().unwrap());
        let dumps = Rtnetlink::open_from(observer, 1).unwrap();
        let kernel = KernelLinks::open(dumps, files, sockets.clone()).unwrap();
        let (handle, _events, task) = open(kernel, SWEEP, UnknownNamespaces::Ignore);
        tokio::spawn(task.run(CancellationToken::new()));
        let holder = HeldNetns::new();
        let netns_ref = NetnsRef::Process(holder.id());
        let (key, pid) = (netns_ref.key(), holder.id().pid());
        sockets.admit(key);
        handle.track(key, netns_ref.clone()).await;
        let make = "link add d0 index 7 address 02:00:00:00:00:07 type veth peer name p0 index 8";
        ip(pid, make);
        let d0 = async || {
            let done = timeout(SOON, handle.refresh(key)).await.expect("in time");
            let links = done.unwrap().links;
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
            // No further event of it follows.
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
        // A port that leaves its bridge keeps its generation.
        ip(pid, "link add b0 type bridge");
        ip(pid, "link set d0 master b0");
        ip(pid, "link set d0 nomaster");
        assert_eq!(d0().await.generation, before.generation);
        handle.untrack(key, netns_ref).await;
        sockets.forget(key);
    }
}
