//! Tests that run on a kernel with netem, each in its own network namespace.

use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use tcgui_backend::kernel::netem::Netem;
use tcgui_backend::kernel::qdisc::Qdisc;
use tcgui_backend::kernel::rtnetlink::{EventSocket, KernelEvent, RequestSocket};
use tcgui_backend::tc::desired::{Desired, LinkFacts};
use tcgui_backend::tc::error::TcError;
use tcgui_backend::tc::observed::Observed;
use tcgui_backend::tc::perform::{Order, Outcome, link_facts, perform};
use tcgui_backend::tc::plan::ForeignQdiscs;
use tcgui_shared::netem::{FlatNetem, TcNetemConfig};

pub(crate) const LINK: LinkFacts = LinkFacts {
    mtu: 1500,
    speed: None,
    bottleneck: true,
};

/// Maximum delay of an event on a slow machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// A new network namespace. It ends with the thread and the socket.
pub(crate) struct Lab {
    socket: RequestSocket,
}

impl Lab {
    /// Enters a new namespace, and runs these commands in it.
    pub(crate) fn new(commands: &[&str]) -> Self {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        for command in commands {
            sh(command);
        }
        Self {
            socket: RequestSocket::open().unwrap(),
        }
    }

    fn ifindex(&mut self, ifname: &str) -> u32 {
        let links = self.socket.links(None).unwrap();
        let link = links.iter().find(|link| link.ifname == ifname);
        link.unwrap_or_else(|| panic!("no {ifname}")).ifindex
    }

    pub(crate) fn perform(&mut self, ifname: &str, desired: Desired) -> Result<Outcome, TcError> {
        self.order(ifname, desired, ForeignQdiscs::Keep)
    }

    fn order(
        &mut self,
        ifname: &str,
        desired: Desired,
        foreign: ForeignQdiscs,
    ) -> Result<Outcome, TcError> {
        let ifindex = self.ifindex(ifname);
        let order = Order {
            ifindex,
            desired,
            foreign,
        };
        perform(&mut self.socket, order)
    }

    /// Returns the root qdisc as the kernel lists it.
    pub(crate) fn root(&mut self, ifname: &str) -> Option<Qdisc> {
        let ifindex = self.ifindex(ifname);
        let qdiscs = self.socket.qdiscs().unwrap();
        qdiscs
            .into_iter()
            .find(|qdisc| qdisc.ifindex == ifindex && qdisc.is_root())
    }

    /// Returns all qdiscs of a link.
    pub(crate) fn qdiscs(&mut self, ifname: &str) -> Vec<Qdisc> {
        let ifindex = self.ifindex(ifname);
        let qdiscs = self.socket.qdiscs().unwrap();
        qdiscs
            .into_iter()
            .filter(|it| it.ifindex == ifindex)
            .collect()
    }

    /// Returns the qdiscs of a link.
    pub(crate) fn observe(&mut self, ifname: &str) -> Observed {
        let ifindex = self.ifindex(ifname);
        Observed::new(&self.socket.qdiscs().unwrap(), ifindex)
    }

    fn root_kind(&mut self, ifname: &str) -> String {
        self.root(ifname)
            .map_or_else(|| "none".to_owned(), |root| root.kind)
    }
}

/// Runs a command. Panics if it fails.
pub(crate) fn sh(command: &str) {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
}

fn wanted(config: &TcNetemConfig) -> Desired {
    Desired::from_config(config, LINK).unwrap()
}

pub(crate) fn flat(flat: FlatNetem) -> Desired {
    Desired::from_flat(&flat, LINK).unwrap()
}

pub(crate) fn delay(delay_ms: f64) -> Desired {
    flat(FlatNetem {
        delay_ms: Some(delay_ms),
        ..FlatNetem::default()
    })
}

pub(crate) fn nothing() -> Desired {
    flat(FlatNetem::default())
}

/// Returns the requested netem.
pub(crate) fn netem_of(desired: &Desired) -> Netem {
    desired.netem.unwrap()
}

mod with_netem {
    use std::collections::BTreeSet;
    use std::net::UdpSocket;

    use proptest::strategy::{Strategy, ValueTree};
    use proptest::test_runner::TestRunner;
    use tcgui_backend::kernel::netem::Loss;
    use tcgui_backend::tc::note::Note;
    use tcgui_backend::tc::observed::Root;
    use tcgui_backend::tc::plan::{Plan, Refusal, is_same};
    use tcgui_backend::tc::report::command;
    use tcgui_shared::error_kind::ErrorKind;
    use tcgui_shared::netem::Distribution;

    use super::*;
    use crate::configs;

    /// Each configuration takes a few requests. On an emulated processor they take a hundred times as long.
    const CONFIGURATIONS: usize = 300;
    const DUMMY: &str = "ip link add dummy1 type dummy && ip link set dummy1 up";

    fn handle_of(outcome: &Outcome) -> u32 {
        match outcome.observed.root {
            Root::Own { handle, .. } => handle,
            ref other => panic!("not ours: {other:?}"),
        }
    }

    #[test]
    #[ignore = "needs netem"]
    fn each_configuration_is_read_back_as_it_was_set() {
        let mut lab = Lab::new(&[DUMMY]);
        let mut runner = TestRunner::deterministic();
        for _ in 0..CONFIGURATIONS {
            let config = configs::config().new_tree(&mut runner).unwrap().current();
            let desired = wanted(&config);
            let outcome = lab.perform("dummy1", desired.clone()).unwrap();
            let observed = outcome.observed.netem().copied();
            let is_there = match (&desired.netem, &observed) {
                (Some(wanted), Some(observed)) => is_same(wanted, observed),
                (wanted, observed) => wanted == observed,
            };
            assert!(is_there, "{config:?}: {observed:?} by {:?}", outcome.plan);
            let again = lab.perform("dummy1", desired).unwrap();
            assert_eq!(again.plan, Plan::Nothing, "{config:?}");
        }
    }

    #[test]
    #[ignore = "needs netem"]
    fn a_change_keeps_the_queue_and_the_counters() {
        let mut lab = Lab::new(&["ip link set lo up"]);
        let first = lab.perform("lo", delay(9_000.0)).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..5 {
            socket
                .send_to(b"held", socket.local_addr().unwrap())
                .unwrap();
        }
        let waiting = lab.root("lo").unwrap().statistics;
        assert_eq!(waiting.qlen, 5, "{waiting:?}");
        let desired = flat(FlatNetem {
            loss: 12.5,
            delay_ms: Some(0.25),
            ..FlatNetem::default()
        });
        let second = lab.perform("lo", desired).unwrap();
        assert!(matches!(second.plan, Plan::Change { .. }), "{second:?}");
        assert_eq!(handle_of(&first), handle_of(&second));
        assert_eq!(second.observed.statistics, waiting);
    }

    #[test]
    #[ignore = "needs netem"]
    fn correlations_and_rates_are_cleared_when_they_are_switched_off() {
        let mut lab = Lab::new(&[DUMMY]);
        let everything = FlatNetem {
            loss: 10.0,
            correlation: Some(20.0),
            delay_ms: Some(50.0),
            delay_jitter_ms: Some(10.0),
            delay_correlation: Some(30.0),
            duplicate_percent: Some(5.0),
            duplicate_correlation: Some(40.0),
            reorder_percent: Some(6.0),
            reorder_correlation: Some(50.0),
            reorder_gap: Some(3),
            corrupt_percent: Some(7.0),
            corrupt_correlation: Some(60.0),
            rate_limit_kbps: Some(4_000),
            ..FlatNetem::default()
        };
        lab.perform("dummy1", flat(everything)).unwrap();
        let outcome = lab.perform("dummy1", delay(50.0)).unwrap();
        assert!(matches!(outcome.plan, Plan::Change { .. }), "{outcome:?}");
        assert_eq!(outcome.observed.netem(), delay(50.0).netem.as_ref());
    }

    #[test]
    #[ignore = "needs netem"]
    fn removing_a_distribution_table_takes_one_replacement() {
        let mut lab = Lab::new(&[DUMMY]);
        let mut config = TcNetemConfig::default();
        config.delay.enabled = true;
        config.delay.base_ms = 100.0;
        config.delay.jitter_ms = 20.0;
        config.extensions.distribution = Some(Distribution::Pareto);
        let first = lab.perform("dummy1", wanted(&config)).unwrap();
        config.delay.jitter_ms = 30.0;
        let second = lab.perform("dummy1", wanted(&config)).unwrap();
        assert!(matches!(second.plan, Plan::Change { .. }), "{second:?}");
        config.extensions.distribution = None;
        let third = lab.perform("dummy1", wanted(&config)).unwrap();
        assert!(matches!(third.plan, Plan::Replace { .. }), "{third:?}");
        assert_ne!(handle_of(&first), handle_of(&third));
        assert_eq!(third.observed.netem(), Some(&netem_of(&wanted(&config))));
    }

    #[test]
    #[ignore = "needs netem"]
    fn jitter_above_the_limit_of_the_kernel_is_noted() {
        let mut lab = Lab::new(&[DUMMY]);
        let desired = flat(FlatNetem {
            delay_ms: Some(10_000.0),
            delay_jitter_ms: Some(5_000.0),
            ..FlatNetem::default()
        });
        let outcome = lab.perform("dummy1", desired).unwrap();
        assert_eq!(outcome.notes, [Note::JitterCapped]);
        let netem = outcome.observed.netem().unwrap();
        assert_eq!(
            (netem.latency_ns, netem.jitter_ns),
            (10_000_000_000, 2_147_483_647)
        );
    }

    #[test]
    #[ignore = "needs netem"]
    fn a_seed_that_the_kernel_does_not_report_is_noted() {
        let mut lab = Lab::new(&[DUMMY]);
        let mut config = TcNetemConfig::default();
        config.loss.enabled = true;
        config.loss.percentage = 1.0;
        config.extensions.seed = Some(7);
        let outcome = lab.perform("dummy1", wanted(&config)).unwrap();
        assert_eq!(outcome.notes, [Note::SeedUnknown]);
    }

    #[test]
    #[ignore = "needs netem"]
    fn a_netem_of_another_program_is_taken_over() {
        let mut lab = Lab::new(&[DUMMY]);
        let default = lab.root_kind("dummy1");
        sh("tc qdisc add dev dummy1 root netem loss 7% 30%");
        let taken = lab.perform("dummy1", delay(3.0)).unwrap();
        assert!(matches!(taken.plan, Plan::Replace { .. }), "{taken:?}");
        assert_eq!(taken.observed.netem(), delay(3.0).netem.as_ref());
        let changed = lab.perform("dummy1", delay(4.0)).unwrap();
        assert!(matches!(changed.plan, Plan::Change { .. }), "{changed:?}");
        // A netem of another program can also be removed directly.
        sh("tc qdisc replace dev dummy1 root handle 1: netem loss 7%");
        let removed = lab.perform("dummy1", nothing()).unwrap();
        assert!(matches!(removed.plan, Plan::Delete { .. }), "{removed:?}");
        assert_eq!(lab.root_kind("dummy1"), default);
    }

    #[test]
    #[ignore = "needs netem"]
    fn events_distinguish_our_changes_from_those_of_other_programs() {
        let mut lab = Lab::new(&[DUMMY]);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let events = runtime.block_on(async { EventSocket::open_here().unwrap() });
        let heard = || {
            let event = async { tokio::time::timeout(PATIENCE, events.next()).await };
            runtime.block_on(event).expect("an event").unwrap()
        };
        for desired in [delay(3.0), delay(4.0), nothing()] {
            lab.perform("dummy1", desired).unwrap();
            assert_eq!(heard(), [KernelEvent::ChangedHere(None)]);
        }
        for command in ["add dev dummy1 root netem", "del dev dummy1 root"] {
            sh(&format!("tc qdisc {command}"));
            assert_eq!(heard(), [KernelEvent::Changed(None)], "{command}");
        }
    }

    #[test]
    #[ignore = "needs netem"]
    fn qdiscs_of_other_programs_are_refused_and_kept() {
        let tree = "ip link add dummy2 type dummy && ip link set dummy2 up
            tc qdisc add dev dummy2 root handle 1: htb default 10
            tc class add dev dummy2 parent 1: classid 1:10 htb rate 1mbit
            tc qdisc add dev dummy2 parent 1:10 handle 10: netem delay 5ms";
        let limited = "ip link add dummy3 type dummy && ip link set dummy3 up
            tc qdisc add dev dummy3 root handle 2: tbf rate 1mbit burst 5k latency 5ms";
        let parent = "ip link add dummy4 type dummy && ip link set dummy4 up
            tc qdisc add dev dummy4 root handle 3: netem delay 5ms
            tc qdisc add dev dummy4 parent 3:1 handle 30: tbf rate 1mbit burst 5k latency 5ms";
        let ours = "ip link add dummy5 type dummy && ip link set dummy5 up
            tc qdisc add dev dummy5 root handle 7c60: htb";
        let mut lab = Lab::new(&[DUMMY, tree, limited, parent, ours]);
        let default = lab.root_kind("dummy1");
        for (ifname, named) in [
            ("dummy2", "htb 1:"),
            ("dummy3", "tbf 2:"),
            ("dummy4", "tbf 30:"),
            ("dummy5", "htb 7c60:"),
        ] {
            let before = lab.socket.qdiscs().unwrap();
            let err = lab.perform(ifname, delay(1.0)).unwrap_err();
            assert!(matches!(err, TcError::Refused(_)), "{err:?}");
            assert_eq!(err.kind(), ErrorKind::Denied);
            assert!(err.to_string().contains(named), "{err}");
            assert_eq!(lab.socket.qdiscs().unwrap(), before, "{ifname}");
        }
        // A removal leaves other kinds of root qdiscs unchanged. It refuses a netem with a child.
        for ifname in ["dummy2", "dummy3", "dummy5"] {
            let left = lab.perform(ifname, nothing()).unwrap();
            assert!(
                matches!(left.notes[..], [Note::LeftAlone { .. }]),
                "{left:?}"
            );
        }
        let err = lab.perform("dummy4", nothing()).unwrap_err();
        let child = matches!(err, TcError::Refused(Refusal::Child { .. }));
        assert!(child, "{err:?}");
        // The same with the permission of the operator.
        for ifname in ["dummy2", "dummy3", "dummy4", "dummy5"] {
            let outcome = lab
                .order(ifname, delay(1.0), ForeignQdiscs::Replace)
                .unwrap();
            assert_eq!(
                outcome.observed.netem(),
                delay(1.0).netem.as_ref(),
                "{ifname}"
            );
            assert_eq!(outcome.observed.below, []);
            lab.perform(ifname, nothing()).unwrap();
            assert_eq!(lab.root_kind(ifname), default);
        }
    }

    #[test]
    #[ignore = "needs netem"]
    fn a_child_of_ours_stays_while_ours_is_changed() {
        let mut lab = Lab::new(&[DUMMY]);
        lab.perform("dummy1", delay(1.0)).unwrap();
        sh("tc qdisc add dev dummy1 parent 7c60:1 handle 30: tbf rate 1mbit burst 5k latency 5ms");
        let outcome = lab.perform("dummy1", delay(2.0)).unwrap();
        assert!(matches!(outcome.plan, Plan::Change { .. }), "{outcome:?}");
        assert_eq!(outcome.observed.below.len(), 1, "{outcome:?}");
        let err = lab.perform("dummy1", nothing()).unwrap_err();
        assert!(err.to_string().contains("tbf 30:"), "{err}");
    }

    #[test]
    #[ignore = "needs netem"]
    fn a_removal_restores_the_default_qdisc() {
        let mut lab = Lab::new(&[
            DUMMY,
            "ip link add ifb1 type ifb && ip link set ifb1 up",
            "ip link add ifb2 numtxqueues 3 type ifb && ip link set ifb2 up",
            "ip link add veth1 type veth peer name veth2 && ip link set veth1 up",
            "ip link add ifb3 type ifb",
        ]);
        // The default depends on the kernel and on `net.core.default_qdisc`.
        let mut defaults = BTreeSet::new();
        for ifname in ["dummy1", "ifb1", "ifb2", "veth1", "ifb3"] {
            let default = lab.root_kind(ifname);
            assert_ne!(default, "netem", "{ifname}");
            let removed = lab.perform(ifname, nothing()).unwrap();
            assert_eq!(removed.plan, Plan::Nothing, "{ifname}");
            let added = lab.perform(ifname, delay(1.0)).unwrap();
            assert!(
                matches!(added.plan, Plan::Add { .. }),
                "{ifname}: {added:?}"
            );
            let removed = lab.perform(ifname, nothing()).unwrap();
            assert!(matches!(removed.plan, Plan::Delete { .. }), "{ifname}");
            assert_eq!(lab.root_kind(ifname), default, "{ifname}");
            defaults.insert(default);
        }
        // Links with no queue, one queue and several queues have different defaults. A link that was never up has none.
        assert!(defaults.len() >= 3, "{defaults:?}");
    }

    #[test]
    #[ignore = "needs netem"]
    fn link_facts_contain_mtu_and_speed() {
        let veth = "ip link add veth1 mtu 9000 type veth peer name veth2
            ip link set veth1 up && ip link set veth2 up";
        let mut lab = Lab::new(&[DUMMY, veth]);
        for (ifname, mtu, speed) in [
            ("lo", 65_536, None),
            ("dummy1", 1_500, None),
            // The driver reports this speed.
            ("veth1", 9_000, Some(10_000_000_000)),
        ] {
            let ifindex = lab.ifindex(ifname);
            let mut link = lab.socket.link(ifindex).unwrap();
            let facts = link_facts(&mut lab.socket, &link, false);
            assert_eq!((facts.mtu, facts.speed), (mtu, speed), "{ifname}");
            link.ifname = "gone".into();
            assert_eq!(link_facts(&mut lab.socket, &link, false).speed, None);
        }
    }

    #[test]
    #[ignore = "needs netem"]
    fn a_missing_link_is_reported_as_not_found() {
        let mut lab = Lab::new(&[]);
        for desired in [delay(1.0), nothing()] {
            let order = Order {
                ifindex: 77,
                desired,
                foreign: ForeignQdiscs::Keep,
            };
            let err = perform(&mut lab.socket, order).unwrap_err();
            assert!(matches!(err, TcError::NoInterface), "{err:?}");
            assert_eq!(err.kind(), ErrorKind::NotFound);
        }
    }

    /// Removes differences that are caused by `tc`: it rounds times to ticks, and version 6.1 drops the correlation of
    /// duplication if there is no other correlation. Distribution tables cannot be read back.
    fn forgive(mut made: Netem, wanted: &Netem) -> Netem {
        let forgive = |made: &mut u64, wanted: u64| {
            if made.abs_diff(wanted) <= 1_000 {
                *made = wanted;
            }
        };
        made.distribution = wanted.distribution;
        forgive(&mut made.latency_ns, wanted.latency_ns);
        forgive(&mut made.jitter_ns, wanted.jitter_ns);
        if let (Some(made), Some(wanted)) = (&mut made.slot, &wanted.slot) {
            made.distribution = wanted.distribution;
            forgive(&mut made.min_ns, wanted.min_ns);
            forgive(&mut made.max_ns, wanted.max_ns);
            forgive(&mut made.delay_ns, wanted.delay_ns);
            forgive(&mut made.jitter_ns, wanted.jitter_ns);
        }
        let loss_correlated =
            matches!(wanted.loss, Loss::Random(loss) if !loss.correlation.is_zero());
        if wanted.delay_correlation.is_zero() && !loss_correlated {
            made.duplicate.correlation = wanted.duplicate.correlation;
        }
        made
    }

    #[test]
    #[ignore = "needs netem"]
    fn the_published_command_makes_the_same_netem() {
        let mut lab = Lab::new(&[DUMMY]);
        let mut runner = TestRunner::deterministic();
        for _ in 0..20 {
            let config = configs::config().new_tree(&mut runner).unwrap().current();
            let desired = netem_of(&wanted(&config));
            let line = command("dummy1", &desired);
            sh(&format!("tc qdisc del dev dummy1 root 2>/dev/null; {line}"));
            let made = *lab.observe("dummy1").netem().unwrap();
            let alone = |netem| Netem {
                bottleneck: None,
                ..netem
            };
            let expected = alone(desired);
            assert_eq!(forgive(alone(made), &expected), expected, "{line}");
            let is_close = match (desired.bottleneck, made.bottleneck) {
                (Some(wanted), Some(made)) => wanted.is_close_to(&made),
                (wanted, made) => wanted == made,
            };
            assert!(is_close, "{line}: {made:?}");
        }
    }
}

mod without_netem {
    use tcgui_backend::error::chain;
    use tcgui_shared::error_kind::ErrorKind;

    use super::*;

    #[test]
    #[ignore = "needs netem"]
    fn the_module_and_its_package_are_named() {
        std::fs::write("/proc/sys/kernel/modprobe", "/bin/false").unwrap();
        let mut lab = Lab::new(&["ip link set lo up"]);
        let before = lab.root("lo");
        let err = lab.perform("lo", delay(1.0)).unwrap_err();
        assert!(matches!(err, TcError::NoNetem(_)), "{err:?}");
        assert_eq!(err.kind(), ErrorKind::Unsupported);
        let text = chain(&err).to_string();
        for part in ["sch_netem", "kernel-modules-extra", "qdisc kind is unknown"] {
            assert!(text.contains(part), "no {part}: {text}");
        }
        assert_eq!(lab.root("lo"), before);
    }
}
