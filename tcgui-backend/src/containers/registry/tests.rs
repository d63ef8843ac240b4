//! The registry with containers that change during inspections, and with lost, late and false events.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tcgui_shared::names::ContainerName;

use super::*;
use crate::netns_holders::Runtime;

type Reported = BTreeMap<ProcessNetnsId, String>;

fn id(number: u64) -> ContainerId {
    ContainerId::new(&format!("{number:012x}")).unwrap()
}

fn key(engine: usize, number: u64) -> Key {
    let id = id(number);
    Key { engine, id }
}

fn process(pid: i32) -> ProcessNetnsId {
    ProcessNetnsId::from_parts(4, 4_026_532_000, pid, 1)
}

fn container(name: &str) -> Container {
    Container {
        name: ContainerName::new(name).unwrap(),
        runtime: Runtime::Docker,
        of_root: true,
        short_id: "0".repeat(12),
        image: "tiny".into(),
    }
}

fn holds(pid: i32, name: &str) -> Outcome<()> {
    Outcome::Holds {
        id: process(pid),
        container: container(name),
        watch: Some(()),
        own: false,
    }
}

fn event(number: u64, kind: EventKind) -> Event {
    Event {
        id: id(number),
        kind,
    }
}

fn list(containers: &[(u64, &str)]) -> Listing {
    let entry = |(number, name): &(u64, &str)| (id(*number), vec![(*name).to_owned()]);
    Listing {
        containers: containers.iter().map(entry).collect(),
        more: false,
    }
}

/// Takes all events, and checks each against the earlier ones.
fn take(registry: &mut Registry<()>, reported: &mut Reported) -> Vec<HeldEvent> {
    let mut events = Vec::new();
    while registry.has_events() {
        let event = registry.next_event().expect("as announced");
        match &event {
            HeldEvent::Added(Holder { id, kind }) => {
                let HolderKind::Container(container) = kind else {
                    panic!("{kind:?}");
                };
                let name = container.name.as_str().to_owned();
                assert_ne!(
                    reported.insert(*id, name.clone()),
                    Some(name),
                    "reported twice"
                );
            }
            HeldEvent::Removed(id) => drop(reported.remove(id).expect("was reported")),
        }
        events.push(event);
    }
    assert_eq!(registry.next_event(), None);
    events
}

/// Connects one engine with one running container.
fn with_one() -> (Registry<()>, Reported) {
    let (mut registry, mut reported) = (Registry::new(1), Reported::new());
    registry.listed(0, &list(&[(1, "web")]), true);
    assert_eq!(registry.next_look(|_| true), Some(key(0, 1)));
    registry.looked(&key(0, 1), holds(7, "web"));
    take(&mut registry, &mut reported);
    assert_eq!(reported, Reported::from([(process(7), "web".into())]));
    (registry, reported)
}

#[test]
fn a_restarted_container_is_removed_before_it_is_added() {
    let (mut registry, mut reported) = with_one();
    // The exit of the process arrives after the start of the next one.
    registry.event(0, &event(1, EventKind::Changed));
    assert_eq!(registry.next_look(|_| true), Some(key(0, 1)));
    registry.looked(&key(0, 1), holds(3, "web"));
    let events = take(&mut registry, &mut reported);
    assert_eq!(events[0], HeldEvent::Removed(process(7)));
    assert!(matches!(&events[1], HeldEvent::Added(it) if it.id == process(3)));
    registry.ended(&key(0, 1), process(7));
    assert_eq!(take(&mut registry, &mut reported), []);
}

#[test]
fn a_new_name_is_reported_under_the_same_identity() {
    let (mut registry, mut reported) = with_one();
    registry.event(0, &event(1, EventKind::Changed));
    registry.next_look(|_| true).unwrap();
    registry.looked(&key(0, 1), holds(7, "db"));
    assert_eq!(take(&mut registry, &mut reported).len(), 1);
    assert_eq!(reported, Reported::from([(process(7), "db".into())]));
}

#[test]
fn a_container_that_ends_before_its_report_is_never_reported() {
    let (mut registry, mut reported) = (Registry::new(1), Reported::new());
    registry.listed(0, &list(&[(1, "web")]), true);
    let key = registry.next_look(|_| true).unwrap();
    registry.looked(&key, holds(7, "web"));
    registry.ended(&key, process(7));
    assert_eq!(take(&mut registry, &mut reported), []);
    assert!(registry.engines[0].containers.is_empty(), "and forgotten");
}

#[test]
fn an_event_during_an_inspection_causes_another() {
    let (mut registry, _) = with_one();
    for _ in 0..3 {
        registry.event(0, &event(1, EventKind::Changed));
    }
    assert_eq!(
        registry.next_look(|_| true),
        Some(key(0, 1)),
        "one for three events"
    );
    assert_eq!(registry.next_look(|_| true), None);
    registry.event(0, &event(1, EventKind::Ended));
    registry.looked(&key(0, 1), holds(7, "web"));
    assert_eq!(registry.next_look(|_| true), Some(key(0, 1)));
    registry.looked(&key(0, 1), Outcome::Nothing);
    assert!(registry.has_events() && registry.next_look(|_| true).is_none());
}

#[test]
fn after_a_reconnect_only_differences_are_inspected() {
    let (mut registry, mut reported) = with_one();
    registry.disconnected(0);
    assert_eq!(take(&mut registry, &mut reported), [], "it may still run");
    registry.listed(0, &list(&[(1, "web"), (2, "db")]), true);
    assert_eq!(registry.next_look(|_| true), Some(key(0, 2)));
    assert_eq!(registry.next_look(|_| true), None);
    registry.looked(&key(0, 2), Outcome::Nothing);
    // Listed under another name, and not listed although its process runs.
    for list in [list(&[(1, "other")]), list(&[])] {
        registry.disconnected(0);
        registry.listed(0, &list, true);
        assert_eq!(registry.next_look(|_| true), Some(key(0, 1)));
        registry.looked(&key(0, 1), holds(7, "web"));
    }
    // The list was made with a later process than the one whose exit arrives only now.
    registry.listed(0, &list(&[(1, "web")]), true);
    registry.ended(&key(0, 1), process(7));
    assert_eq!(registry.next_look(|_| true), Some(key(0, 1)));
}

#[test]
fn without_exit_watches_lists_cause_inspections() {
    let (mut registry, mut reported) = (Registry::new(1), Reported::new());
    registry.listed(0, &list(&[(1, "web")]), true);
    let unwatched = Outcome::<()>::Holds {
        id: process(7),
        container: container("web"),
        watch: None,
        own: false,
    };
    let key = registry.next_look(|_| true).unwrap();
    registry.looked(&key, unwatched);
    take(&mut registry, &mut reported);
    // A list does not show whether it is the same process.
    registry.listed(0, &list(&[(1, "web")]), true);
    let key = registry.next_look(|_| true).unwrap();
    registry.looked(&key, Outcome::Failed);
    registry.event(0, &event(1, EventKind::Ended));
    let key = registry.next_look(|_| true).unwrap();
    registry.looked(&key, Outcome::Nothing);
    let events = take(&mut registry, &mut reported);
    assert_eq!(events, [HeldEvent::Removed(process(7))]);
}

#[test]
fn one_process_of_two_containers_is_reported_once() {
    let (mut registry, mut reported) = (Registry::new(2), Reported::new());
    for engine in 0..2 {
        registry.listed(engine, &list(&[(1, "x")]), true);
    }
    while let Some(key) = registry.next_look(|_| true) {
        registry.looked(&key, holds(7, ["first", "second"][key.engine]));
    }
    take(&mut registry, &mut reported);
    assert_eq!(reported, Reported::from([(process(7), "first".into())]));
    registry.event(0, &event(1, EventKind::Ended));
    let key = registry.next_look(|_| true).unwrap();
    registry.looked(&key, Outcome::Nothing);
    take(&mut registry, &mut reported);
    assert_eq!(reported, Reported::from([(process(7), "second".into())]));
}

#[test]
fn an_engine_of_a_user_cannot_hide_the_name_of_a_container_of_roots_engine() {
    for of_root in [0, 1] {
        let (mut registry, mut reported) = (Registry::new(2), Reported::new());
        for engine in 0..2 {
            registry.listed(engine, &list(&[(1, "x")]), engine == of_root);
        }
        while let Some(key) = registry.next_look(|_| true) {
            let is_roots = key.engine == of_root;
            let container = Container {
                of_root: is_roots,
                ..container(if is_roots { "real" } else { "false" })
            };
            let outcome = Outcome::Holds {
                id: process(7),
                container,
                watch: Some(()),
                own: false,
            };
            registry.looked(&key, outcome);
        }
        take(&mut registry, &mut reported);
        assert_eq!(reported, Reported::from([(process(7), "real".into())]));
    }
}

#[test]
fn a_container_is_inspected_again_if_another_kind_of_user_lists_it() {
    let (mut registry, _) = with_one();
    registry.listed(0, &list(&[(1, "web")]), true);
    assert_eq!(registry.next_look(|_| true), None);
    registry.listed(0, &list(&[(1, "web")]), false);
    assert_eq!(registry.next_look(|_| true), Some(key(0, 1)));
}

#[test]
fn a_flood_of_false_events_is_bounded_and_causes_a_list() {
    let (mut registry, _) = with_one();
    for number in 0..10 * MAX_CONTAINERS as u64 {
        registry.event(0, &event(number, EventKind::Changed));
    }
    let engine = &registry.engines[0];
    assert_eq!(engine.containers.len(), MAX_CONTAINERS);
    assert!(engine.queue.len() <= MAX_CONTAINERS && registry.is_full(0));
    let mut running = Vec::new();
    loop {
        while let Some(key) = registry.next_look(|_| true) {
            running.push(key);
        }
        assert!(running.len() <= MAX_LOOKS);
        let Some(key) = running.pop() else { break };
        assert!(!registry.wants_list(0));
        registry.looked(&key, Outcome::Nothing);
    }
    assert!(
        registry.wants_list(0),
        "the true ones may have been dropped"
    );
    registry.begin_list(0);
    assert!(!registry.wants_list(0), "one is under way");
    registry.listed(0, &list(&[]), true);
    assert!(!registry.wants_list(0));
}

#[test]
fn a_failed_inspection_keeps_the_state_and_is_retried() {
    let (mut registry, mut reported) = with_one();
    registry.event(0, &event(1, EventKind::Changed));
    let key = registry.next_look(|_| true).unwrap();
    registry.looked(&key, Outcome::Failed);
    assert_eq!(take(&mut registry, &mut reported), []);
    assert!(registry.wants_list(0));
}

#[test]
fn a_miss_during_a_list_causes_another_list() {
    let (mut registry, _) = with_one();
    registry.begin_list(0);
    registry.mark_incomplete(0);
    registry.listed(0, &list(&[(1, "web")]), true);
    assert!(registry.wants_list(0));
}

#[test]
fn containers_on_the_hosts_network_are_inspected_once() {
    let (mut registry, mut reported) = with_one();
    let both = list(&[(1, "web"), (2, "host")]);
    registry.listed(0, &both, true);
    let key = registry.next_look(|_| true).expect("it is new");
    let mut host = holds(8, "host");
    if let Outcome::Holds { own, .. } = &mut host {
        *own = true;
    }
    registry.looked(&key, host);
    for _ in 0..3 {
        registry.listed(0, &both, true);
        assert_eq!(registry.next_look(|_| true), None);
    }
    registry.ended(&key, process(8));
    assert_eq!(registry.next_look(|_| true), Some(key.clone()), "it ended");
    registry.looked(&key, Outcome::Nothing);
    assert_eq!(take(&mut registry, &mut reported), []);
    assert_eq!(registry.engines[0].containers.len(), 1, "and is forgotten");
}

/// A change or message about one of a few containers of two engines.
#[derive(Debug, Clone, Copy)]
enum Step {
    Start(usize, u64),
    Stop(usize, u64),
    Rename(usize, u64),
    /// An event arrives, true or false.
    Event(usize, u64, EventKind),
    Session(usize),
    Lost(usize),
    BeginLook,
    EndLook(usize, bool),
    HearEnd,
    Take,
}

fn step() -> impl Strategy<Value = Step> {
    let which = (0_usize..2, 0_u64..4);
    let kind = prop_oneof![Just(EventKind::Changed), Just(EventKind::Ended)];
    prop_oneof![
        which.clone().prop_map(|(e, c)| Step::Start(e, c)),
        which.clone().prop_map(|(e, c)| Step::Stop(e, c)),
        which.clone().prop_map(|(e, c)| Step::Rename(e, c)),
        (which, kind).prop_map(|((e, c), kind)| Step::Event(e, c, kind)),
        (0_usize..2).prop_map(Step::Session),
        (0_usize..2).prop_map(Step::Lost),
        Just(Step::BeginLook),
        (0_usize..4, any::<bool>()).prop_map(|(n, works)| Step::EndLook(n, works)),
        Just(Step::HearEnd),
        Just(Step::Take),
    ]
}

/// The running containers, and the messages on their way to the registry.
#[derive(Default)]
struct World {
    running: BTreeMap<(usize, u64), (i32, String)>,
    processes: i32,
    looks: Vec<(Key, Option<(i32, String)>)>,
    /// Exits of watched processes.
    ends: VecDeque<(Key, i32)>,
}

impl World {
    fn list(&self, engine: usize) -> Listing {
        let running = self.running.iter().filter(|((it, _), _)| *it == engine);
        let listed: Vec<_> = running
            .map(|((_, n), (_, name))| (*n, name.as_str()))
            .collect();
        list(&listed)
    }

    fn lives(&self, pid: i32) -> bool {
        self.running.values().any(|(it, _)| *it == pid)
    }

    fn begin_look(&mut self, registry: &mut Registry<()>) -> bool {
        let Some(key) = registry.next_look(|_| true) else {
            return false;
        };
        let number = u64::from_str_radix(key.id.as_str(), 16).unwrap();
        let found = self.running.get(&(key.engine, number)).cloned();
        self.looks.push((key, found));
        true
    }

    fn end_look(&mut self, registry: &mut Registry<()>, which: usize, works: bool) {
        if self.looks.is_empty() {
            return;
        }
        let (key, found) = self.looks.remove(which % self.looks.len());
        let outcome = match &found {
            _ if !works => Outcome::Failed,
            Some((pid, name)) => holds(*pid, name),
            None => Outcome::Nothing,
        };
        registry.looked(&key, outcome);
        // The exit watch also reports processes that ended during the inspection or end later.
        if let Some((pid, _)) = found.filter(|_| works) {
            self.ends.push_back((key, pid));
        }
    }

    fn hear_end(&mut self, registry: &mut Registry<()>) {
        let dead = self.ends.iter().position(|(_, pid)| !self.lives(*pid));
        if let Some((key, pid)) = dead.and_then(|at| self.ends.remove(at)) {
            registry.ended(&key, process(pid));
        }
    }

    fn step(&mut self, registry: &mut Registry<()>, reported: &mut Reported, step: Step) {
        match step {
            Step::Start(engine, number) => {
                self.processes += 1;
                let now = (self.processes, format!("c{}", self.processes % 3));
                self.running.insert((engine, number), now);
                registry.event(engine, &event(number, EventKind::Changed));
            }
            Step::Stop(engine, number) => drop(self.running.remove(&(engine, number))),
            Step::Rename(engine, number) => {
                if let Some((_, name)) = self.running.get_mut(&(engine, number)) {
                    name.push('x');
                }
            }
            Step::Event(engine, number, kind) => registry.event(engine, &event(number, kind)),
            Step::Session(engine) => registry.listed(engine, &self.list(engine), true),
            Step::Lost(engine) => registry.disconnected(engine),
            Step::BeginLook => drop(self.begin_look(registry)),
            Step::EndLook(which, works) => self.end_look(registry, which, works),
            Step::HearEnd => self.hear_end(registry),
            Step::Take => drop(take(registry, reported)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn one_list_corrects_the_state_after_any_loss(steps in prop::collection::vec(step(), 0..60)) {
        let (mut registry, mut reported, mut world) = (Registry::new(2), Reported::new(), World::default());
        for step in steps {
            world.step(&mut registry, &mut reported, step);
        }
        for engine in 0..2 {
            registry.disconnected(engine);
            registry.listed(engine, &world.list(engine), true);
        }
        loop {
            while world.begin_look(&mut registry) {}
            world.hear_end(&mut registry);
            let expected = world.ends.iter().any(|(_, pid)| !world.lives(*pid));
            // The exit that was just handled may have scheduled an inspection.
            let waiting = (0..2).any(|engine| registry.is_waiting(engine));
            if world.looks.is_empty() && !expected && !waiting {
                break;
            }
            world.end_look(&mut registry, 0, true);
        }
        take(&mut registry, &mut reported);
        let real: Reported = world
            .running
            .values()
            .map(|(pid, name)| (process(*pid), name.clone()))
            .collect();
        prop_assert_eq!(reported, real);
        for engine in &registry.engines {
            prop_assert_eq!((engine.running, engine.queue.len()), (0, 0));
        }
    }
}
