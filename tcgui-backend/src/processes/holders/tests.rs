//! Histories of processes, hand-written and random, and the events that a consumer gets.

use proptest::prelude::*;

use super::*;

const DEVICE: u64 = 4;

fn process(inode: u64, pid: i32, started: u64, comm: &str) -> Process {
    Process {
        id: ProcessNetnsId::from_parts(DEVICE, inode, pid, started),
        netns: Some(inode),
        findable: true,
        comm: std::ffi::OsStr::new(comm).into(),
    }
}

fn events(holders: &mut Holders) -> Vec<HeldEvent> {
    std::iter::from_fn(|| holders.next_event()).collect()
}

fn removed(process: &Process) -> HeldEvent {
    HeldEvent::Removed(process.id)
}

#[test]
fn the_oldest_process_is_the_holder_of_a_namespace() {
    let mut holders = Holders::default();
    let (old, new) = (process(1, 90, 5, "old"), process(1, 7, 6, "new"));
    let twin = process(1, 91, 5, "twin");
    holders.observe_all(vec![new.clone(), twin, old.clone()]);
    assert_eq!(events(&mut holders), [added(&old)]);
    assert!(!holders.has_events() && !holders.in_doubt());
    assert_eq!(holders.reported_pids(), HashSet::from([90]));
}

#[test]
fn the_successor_is_added_before_the_predecessor_is_removed() {
    let mut holders = Holders::default();
    let (a, b) = (process(1, 7, 5, "a"), process(1, 8, 6, "b"));
    holders.observe_all(vec![a.clone(), b.clone()]);
    assert_eq!(events(&mut holders), [added(&a)]);
    holders.ended(a.id);
    assert_eq!(events(&mut holders), [added(&b), removed(&a)]);
    assert!(!holders.in_doubt(), "a process is left");
    // Another process has the id now.
    holders.ended(ProcessNetnsId::from_parts(DEVICE, 1, 8, 3));
    assert_eq!(events(&mut holders), []);
}

#[test]
fn a_namespace_is_removed_after_two_scans_without_a_process() {
    let mut holders = Holders::default();
    let a = process(1, 7, 5, "a");
    holders.observe(7, Some(a.clone()));
    assert_eq!(events(&mut holders), [added(&a)]);
    holders.observe(7, None);
    assert!(holders.in_doubt());
    assert_eq!(events(&mut holders), []);
    let b = process(1, 8, 6, "b");
    holders.observe_all(vec![b.clone()]);
    assert!(!holders.in_doubt());
    assert_eq!(events(&mut holders), [added(&b), removed(&a)]);
    holders.observe_all(vec![]);
    assert!(holders.in_doubt(), "it may have moved meanwhile");
    assert_eq!(events(&mut holders), []);
    holders.observe_all(vec![]);
    assert!(!holders.in_doubt());
    assert_eq!(events(&mut holders), [removed(&b)]);
}

#[test]
fn a_namespace_that_the_kernel_deleted_is_removed_at_once() {
    let mut holders = Holders::default();
    let (a, b) = (process(1, 7, 5, "a"), process(2, 8, 5, "b"));
    holders.observe_all(vec![a.clone(), b.clone()]);
    events(&mut holders);
    holders.ended(a.id);
    holders.gone(2);
    assert_eq!(holders.take_doubts(), [(1, 1)]);
    assert_eq!(holders.take_doubts(), [], "asked once");
    holders.gone(1);
    assert_eq!(events(&mut holders), [removed(&a)], "and not the other one");
    assert!(!holders.in_doubt());
    let mut old = process(1, 7, 5, "of an older kernel");
    (old.netns, old.findable) = (None, false);
    holders.observe(7, Some(old));
    holders.observe(7, None);
    assert!(holders.in_doubt());
    assert_eq!(holders.take_doubts(), []);
}

#[test]
fn a_reused_inode_number_is_another_namespace() {
    let mut holders = Holders::default();
    let old = process(1, 7, 5, "old");
    let mut new = process(1, 8, 6, "new");
    new.netns = Some(2);
    holders.observe(7, Some(old.clone()));
    assert_eq!(events(&mut holders), [added(&old)]);
    holders.observe(8, Some(new.clone()));
    assert_eq!(events(&mut holders), [removed(&old), added(&new)]);
    holders.ended(old.id);
    assert!(!holders.in_doubt());
}

#[test]
fn another_program_changes_the_name_of_the_holder() {
    let mut holders = Holders::default();
    let before = process(1, 7, 5, "unshare");
    holders.observe(7, Some(before));
    events(&mut holders);
    let after = process(1, 7, 5, "sleep");
    holders.observe(7, Some(after.clone()));
    assert_eq!(events(&mut holders), [added(&after)]);
}

#[test]
fn a_process_that_moves_is_reported_in_its_new_namespace() {
    let mut holders = Holders::default();
    let (here, there) = (process(1, 7, 5, "a"), process(2, 7, 5, "a"));
    holders.observe_all(vec![here.clone()]);
    assert_eq!(events(&mut holders), [added(&here)]);
    holders.observe(7, Some(there.clone()));
    assert_eq!(events(&mut holders), [added(&there)]);
    holders.observe_all(vec![there.clone()]);
    holders.observe_all(vec![there]);
    assert_eq!(events(&mut holders), [removed(&here)]);
}

#[test]
fn the_number_of_reported_namespaces_is_limited() {
    let mut holders = Holders::default();
    let many = (0..NAMESPACES as u64 + 5).zip(1..);
    let many: Vec<Process> = many.map(|(n, pid)| process(n, pid, n, "x")).collect();
    holders.observe_all(many.clone());
    assert!(holders.beyond_limit());
    assert_eq!(events(&mut holders).len(), NAMESPACES);
    for pid in 10_000..20_000 {
        holders.observe(pid, Some(process(1, pid, 9, "crowd")));
    }
    assert!(holders.members.len() < NAMESPACES + MEMBERS, "bounded too");
    // After some have ended, there is room for others.
    for _ in 0..3 {
        holders.observe_all(many[5..].to_vec());
    }
    let reported = events(&mut holders);
    assert!(!holders.beyond_limit());
    assert_eq!(reported.len(), 10, "{reported:?}");
}

/// A machine with a few processes, whose process ids and inode numbers are reused as soon as possible.
#[derive(Debug, Default)]
struct World {
    /// The kernel gives the unique numbers of namespaces.
    numbered: bool,
    clock: u64,
    namespaces: u64,
    processes: BTreeMap<i32, (u64, u64)>,
    inodes: HashMap<u64, u64>,
}

const HOME: u64 = 0;
const PIDS: i32 = 9;

impl World {
    fn namespace(&mut self) -> u64 {
        self.namespaces += 1;
        let alive: HashSet<u64> = self.processes.values().map(|(_, netns)| *netns).collect();
        self.inodes.retain(|netns, _| alive.contains(netns));
        let free = (100..).find(|inode| !self.inodes.values().any(|used| used == inode));
        self.inodes.insert(self.namespaces, free.unwrap());
        self.namespaces
    }

    fn spawn(&mut self, parent: usize, new: bool) {
        let Some(pid) = (1..=PIDS).find(|pid| !self.processes.contains_key(pid)) else {
            return;
        };
        self.clock += 1;
        let netns = if new {
            self.namespace()
        } else {
            self.pick(parent).map_or(HOME, |pid| self.processes[&pid].1)
        };
        // Two processes often start in the same clock tick.
        self.processes.insert(pid, (self.clock / 2, netns));
    }

    fn enter(&mut self, who: usize, whose: Option<usize>) {
        let Some(pid) = self.pick(who) else { return };
        let netns = match whose.and_then(|whose| self.pick(whose)) {
            Some(other) => self.processes[&other].1,
            None => self.namespace(),
        };
        self.processes.get_mut(&pid).unwrap().1 = netns;
    }

    fn pick(&self, index: usize) -> Option<i32> {
        let index = index.checked_rem(self.processes.len())?;
        self.processes.keys().nth(index).copied()
    }

    fn look(&self, pid: i32) -> Option<Process> {
        let (started, netns) = *self.processes.get(&pid)?;
        let inode = *self.inodes.get(&netns)?;
        Some(Process {
            id: ProcessNetnsId::from_parts(DEVICE, inode, pid, started),
            netns: self.numbered.then_some(netns),
            findable: self.numbered,
            comm: std::ffi::OsString::from(format!("p{pid}")).into(),
        })
    }

    fn look_at_all(&self) -> Vec<Process> {
        (1..=PIDS).filter_map(|pid| self.look(pid)).collect()
    }

    fn holds(&self, netns: u64) -> bool {
        self.processes.values().any(|(_, held)| *held == netns)
    }
}

/// Applies the events, and checks the guarantees to the consumer.
#[derive(Debug, Default)]
struct Consumer {
    numbers: HashMap<ProcessNetnsId, u64>,
    holders: BTreeMap<u64, Vec<(ProcessNetnsId, u64)>>,
}

impl Consumer {
    fn observe(&mut self, process: &Process, world: &World) {
        let (_, netns) = world.processes[&process.id.pid()];
        self.numbers.insert(process.id, netns);
    }

    fn handle(&mut self, event: &HeldEvent, world: &World) {
        match event {
            HeldEvent::Added(holder) => {
                let of_inode = self.holders.entry(holder.id.inode()).or_default();
                of_inode.retain(|(id, _)| *id != holder.id);
                of_inode.push((holder.id, self.numbers[&holder.id]));
                assert!(of_inode.len() <= 2, "one holder, or two: {of_inode:?}");
                // Without unique numbers, a namespace cannot be distinguished from a later one with its inode
                // number.
                let one =
                    !world.numbered || of_inode.iter().all(|(_, netns)| *netns == of_inode[0].1);
                assert!(one, "of one namespace: {of_inode:?}");
            }
            HeldEvent::Removed(id) => {
                let of_inode = self.holders.get_mut(&id.inode()).expect("it was added");
                let at = of_inode.iter().position(|(known, _)| known == id);
                let (_, netns) = of_inode.remove(at.expect("it was added"));
                if of_inode.is_empty() {
                    self.holders.remove(&id.inode());
                    assert!(!world.holds(netns), "{netns} lives");
                }
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Spawn { parent: usize, new: bool },
    Enter { who: usize, whose: Option<usize> },
    Exit { who: usize },
    LookAt(i32),
    LookAtAll,
    TellEnds,
    AskKernel,
    Deliver(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let index = 0..64_usize;
    prop_oneof![
        3 => (index.clone(), any::<bool>()).prop_map(|(parent, new)| Step::Spawn { parent, new }),
        2 => (index.clone(), prop::option::of(index.clone()))
            .prop_map(|(who, whose)| Step::Enter { who, whose }),
        3 => index.prop_map(|who| Step::Exit { who }),
        4 => (1..=PIDS).prop_map(Step::LookAt),
        2 => Just(Step::LookAtAll),
        2 => Just(Step::TellEnds),
        2 => Just(Step::AskKernel),
        3 => (1..4_usize).prop_map(Step::Deliver),
    ]
}

#[derive(Debug, Default)]
struct Run {
    world: World,
    holders: Holders,
    consumer: Consumer,
}

impl Run {
    fn take(&mut self, step: Step) {
        match step {
            Step::Spawn { parent, new } => self.world.spawn(parent, new),
            Step::Enter { who, whose } => self.world.enter(who, whose),
            Step::Exit { who } => {
                if let Some(pid) = self.world.pick(who) {
                    self.world.processes.remove(&pid);
                }
            }
            Step::LookAt(pid) => {
                let seen = self.world.look(pid);
                seen.iter()
                    .for_each(|process| self.consumer.observe(process, &self.world));
                self.holders.observe(pid, seen);
            }
            Step::LookAtAll => {
                let seen = self.world.look_at_all();
                seen.iter()
                    .for_each(|process| self.consumer.observe(process, &self.world));
                self.holders.observe_all(seen);
            }
            Step::TellEnds => {
                let reported = self.consumer.holders.values().flatten();
                for (id, _) in reported {
                    let now = self.world.processes.get(&id.pid());
                    if now.is_none_or(|(started, _)| *started != id.started()) {
                        self.holders.ended(*id);
                    }
                }
            }
            Step::AskKernel => {
                for (inode, netns) in self.holders.take_doubts() {
                    if !self.world.holds(netns) {
                        self.holders.gone(inode);
                    }
                }
            }
            Step::Deliver(count) => self.deliver(count),
        }
    }

    fn deliver(&mut self, count: usize) {
        for _ in 0..count {
            match self.holders.next_event() {
                Some(event) => self.consumer.handle(&event, &self.world),
                None => return assert!(!self.holders.has_events()),
            }
        }
    }

    fn converge(mut self) {
        self.take(Step::LookAtAll);
        self.take(Step::LookAtAll);
        self.deliver(usize::MAX);
        assert!(!self.holders.in_doubt());
        let mut expected = BTreeMap::new();
        for process in self.world.look_at_all() {
            let oldest = expected.entry(process.id.inode()).or_insert(process.id);
            if age(process.id) < age(*oldest) {
                *oldest = process.id;
            }
        }
        let reported = self.consumer.holders.into_iter();
        let reported: BTreeMap<_, _> = reported
            .map(|(inode, ids)| {
                assert_eq!(ids.len(), 1, "{ids:?}");
                (inode, ids[0].0)
            })
            .collect();
        assert_eq!(reported, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn a_held_namespace_is_never_removed(
        numbered in any::<bool>(),
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut run = Run::default();
        run.world.numbered = numbered;
        for step in steps {
            run.take(step);
        }
        run.converge();
    }
}
