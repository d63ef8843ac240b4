//! Every branch of the decisions, and the guarantees for any order and any loss of doorbells.

use proptest::prelude::*;

use super::*;

const SWEEP: Duration = Duration::from_secs(30);

fn id(generation: i64) -> MountedNamespaceId {
    MountedNamespaceId::from_parts(4, 1, 0, generation)
}

fn network(generation: i64) -> Entry {
    Entry::Network(id(generation))
}

fn added(name: &str, generation: i64) -> NamespaceEvent {
    NamespaceEvent::Added {
        name: name.into(),
        id: id(generation),
    }
}

fn removed(name: &str, generation: i64) -> NamespaceEvent {
    NamespaceEvent::Removed {
        name: name.into(),
        id: id(generation),
    }
}

fn events(directory: &mut Directory) -> Vec<NamespaceEvent> {
    std::iter::from_fn(|| directory.next_event()).collect()
}

/// A directory that was swept once, with all events taken by the consumer.
fn swept(now: Instant, entries: &[(&str, Entry)]) -> Directory {
    let mut directory = Directory::new(now, SWEEP);
    assert!(
        directory.next_look(now).sweep,
        "the first look is a full one"
    );
    directory.observe_directory(now, now, Some(listing(entries)), &HashSet::new());
    events(&mut directory);
    directory
}

fn listing(entries: &[(&str, Entry)]) -> Vec<(OsString, Entry)> {
    entries
        .iter()
        .map(|(name, entry)| (name.into(), *entry))
        .collect()
}

fn hint(name: &str) -> Hints {
    Hints {
        names: [name.into()].into(),
        ..Hints::default()
    }
}

#[test]
fn a_placeholder_is_added_when_it_becomes_a_namespace() {
    let now = Instant::now();
    let mut directory = swept(now, &[]);
    directory.apply_hints(hint("x"));
    assert_eq!(
        directory.next_look(now),
        Look {
            names: vec!["x".into()],
            sweep: false
        }
    );
    directory.observe_entry(now, "x".into(), Entry::Plain);
    assert!(!directory.has_events());
    assert_eq!(
        directory.wake_at(),
        now + BACKOFF.0,
        "it is looked at again soon"
    );

    directory.mount_table_changed(now, true);
    let look = directory.next_look(now);
    assert_eq!(
        look,
        Look {
            names: vec!["x".into()],
            sweep: true
        }
    );
    directory.observe_entry(now, "x".into(), network(1));
    assert_eq!(events(&mut directory), [added("x", 1)]);
}

#[test]
fn a_recreated_name_is_removed_before_it_is_added() {
    let now = Instant::now();
    let mut directory = swept(now, &[("x", network(1))]);
    directory.observe_entry(now, "x".into(), network(2));
    assert_eq!(events(&mut directory), [removed("x", 1), added("x", 2)]);
}

#[test]
fn an_unmounted_namespace_is_removed_even_if_its_file_stays() {
    let now = Instant::now();
    let mut directory = swept(now, &[("x", network(1))]);
    directory.observe_directory(
        now,
        now,
        Some(listing(&[("x", Entry::Plain)])),
        &HashSet::new(),
    );
    assert_eq!(events(&mut directory), [removed("x", 1)]);
}

#[test]
fn other_namespaces_and_junk_are_not_reported() {
    let now = Instant::now();
    let entries = [
        ("uts", Entry::OtherNamespace(id(1))),
        ("junk", Entry::Plain),
    ];
    let mut directory = swept(now, &entries);
    assert!(!directory.has_events());
    assert_eq!(
        directory.known(OsStr::new("uts")),
        Some(entries[0].1),
        "it is not opened again"
    );
    directory.observe_entry(now, "uts".into(), network(2));
    assert_eq!(events(&mut directory), [added("uts", 2)]);
}

#[test]
fn events_that_were_not_taken_are_merged() {
    let now = Instant::now();
    let mut directory = swept(now, &[("x", network(1))]);
    directory.observe_entry(now, "x".into(), network(2));
    directory.observe_entry(now, "y".into(), network(3));
    directory.observe_entry(now, "x".into(), network(4));
    directory.observe_entry(now, "y".into(), Entry::Absent);
    assert_eq!(events(&mut directory), [removed("x", 1), added("x", 4)]);
    directory.observe_entry(now, "x".into(), network(5));
    directory.observe_entry(now, "x".into(), network(4));
    assert_eq!(
        events(&mut directory),
        [],
        "a return to the reported state is no event"
    );
}

#[test]
fn the_directory_appears_before_its_names_and_vanishes_after_them() {
    let now = Instant::now();
    let mut directory = swept(now, &[("x", network(1))]);
    directory.observe_directory(now, now, None, &HashSet::new());
    assert_eq!(
        events(&mut directory),
        [removed("x", 1), NamespaceEvent::DirectoryVanished]
    );
    directory.observe_directory(
        now,
        now,
        Some(listing(&[("y", network(2))])),
        &HashSet::new(),
    );
    assert_eq!(
        events(&mut directory),
        [NamespaceEvent::DirectoryAppeared, added("y", 2)]
    );
}

#[test]
fn a_failed_sweep_changes_nothing_and_is_retried() {
    let now = Instant::now();
    let mut directory = swept(now, &[("x", network(1))]);
    directory.apply_hints(Hints {
        sweep: true,
        ..Hints::default()
    });
    let later = now + Duration::from_millis(1);
    assert!(directory.next_look(later).sweep);
    directory.observe_failure(later, Duration::from_millis(20));
    assert!(!directory.has_events());
    assert!(
        !directory.next_look(later).sweep,
        "not at once: that would be a busy loop"
    );
    assert_eq!(directory.wake_at(), later + Duration::from_millis(20));
    assert!(directory.next_look(directory.wake_at()).sweep);
}

#[test]
fn a_failed_sweep_with_pending_entries_is_not_retried_at_once() {
    let now = Instant::now();
    let names: Vec<String> = (0..=PENDING_AT_ONCE).map(|n| format!("f{n}")).collect();
    let entries: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), Entry::Plain))
        .collect();
    let mut directory = swept(now, &entries);
    let later = now + BACKOFF.0;
    assert!(directory.next_look(later).sweep);
    directory.observe_failure(later, Duration::from_secs(1));
    assert_eq!(directory.wake_at(), later + Duration::from_secs(1));
}

#[test]
fn a_look_during_a_sweep_is_newer_than_the_sweep() {
    let now = Instant::now();
    let mut directory = swept(now, &[("x", network(1))]);
    directory.observe_entry(now, "x".into(), Entry::Absent);
    directory.observe_entry(now, "y".into(), network(2));
    let live = HashSet::from(["x".into(), "y".into()]);
    directory.observe_directory(now, now, Some(listing(&[("x", network(1))])), &live);
    assert_eq!(events(&mut directory), [removed("x", 1), added("y", 2)]);
}

#[test]
fn a_sweep_is_delayed_after_an_event_but_only_once() {
    let now = Instant::now();
    let mut directory = swept(now, &[]);
    directory.mount_table_changed(now, true);
    assert!(directory.yield_sweep(now));
    assert!(!directory.next_look(now).sweep);
    assert_eq!(directory.wake_at(), now + AFTER_EVENT);
    assert!(
        !directory.yield_sweep(now),
        "a stream of events must not delay it without limit"
    );
    assert!(directory.next_look(now + AFTER_EVENT).sweep);
}

#[test]
fn a_sweep_of_many_waits_for_the_name_but_only_once() {
    let now = Instant::now();
    let names: Vec<_> = (0..WORTH_WAITING).map(|n| format!("n{n}")).collect();
    let entries: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), network(1)))
        .collect();
    let mut directory = swept(now, &entries);
    directory.mount_table_changed(now, true);
    assert!(!directory.next_look(now).sweep);
    assert_eq!(directory.wake_at(), now + NAME_FOLLOWS);
    let later = now + NAME_FOLLOWS;
    directory.mount_table_changed(later, true);
    assert!(directory.next_look(later).sweep, "not without limit");

    let mut directory = swept(now, &entries);
    assert!(!directory.yield_sweep(now), "none is wanted");
    directory.mount_table_changed(now, true);
    directory.apply_hints(hint("n0"));
    let look = directory.next_look(now);
    assert!(!look.sweep && look.names == ["n0"]);
    directory.observe_entry(now, "n0".into(), Entry::Absent);
    assert_eq!(events(&mut directory), [removed("n0", 1)]);
    assert!(directory.yield_sweep(now), "the event is delivered first");
    let all = AFTER_EVENT_EACH * u32::try_from(WORTH_WAITING - 1).unwrap();
    assert_eq!(directory.wake_at(), now + AFTER_EVENT + all);

    let mut directory = swept(now, &entries);
    directory.mount_table_changed(now, false);
    assert!(directory.next_look(now).sweep, "names are not reported");
}

#[test]
fn sweeps_are_spaced_by_their_cost_and_repeated_by_the_fallback() {
    let now = Instant::now();
    let mut directory = Directory::new(now, SWEEP);
    let end = now + Duration::from_millis(2);
    directory.observe_directory(now, end, Some(Vec::new()), &HashSet::new());
    directory.mount_table_changed(now, true);
    assert!(!directory.next_look(end).sweep);
    assert_eq!(directory.wake_at(), end + Duration::from_millis(20));
    assert!(directory.next_look(end + Duration::from_millis(20)).sweep);
    directory.observe_directory(end, end, Some(Vec::new()), &HashSet::new());
    assert_eq!(directory.wake_at(), end + SWEEP);
    directory.set_sweep_interval(end, Duration::from_secs(1));
    assert_eq!(directory.wake_at(), end + Duration::from_secs(1));
}

#[test]
fn replaced_junk_is_pending_again() {
    let start = Instant::now();
    let mut now = start;
    let mut directory = swept(now, &[("junk", Entry::Plain)]);
    while directory.wake_at() < start + SWEEP {
        now = directory.wake_at();
        for name in directory.next_look(now).names {
            directory.observe_entry(now, name, Entry::Plain);
        }
    }
    assert!(
        now < start + Duration::from_secs(10),
        "given up after {:?}",
        now - start
    );
    assert_eq!(directory.take_given_up(), ["junk"]);
    directory.apply_hints(hint("junk"));
    assert_eq!(directory.next_look(now).names, ["junk"]);
    directory.observe_entry(now, "junk".into(), Entry::Plain);
    assert!(
        directory.wake_at() < start + SWEEP,
        "it may be a new placeholder"
    );
}

#[test]
fn many_pending_entries_are_swept_not_looked_at_one_by_one() {
    let now = Instant::now();
    let names: Vec<String> = (0..=PENDING_AT_ONCE).map(|n| format!("f{n}")).collect();
    let entries: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), Entry::Plain))
        .collect();
    let mut directory = swept(now, &entries);
    let look = directory.next_look(now + BACKOFF.0);
    assert_eq!(
        look,
        Look {
            names: Vec::new(),
            sweep: true
        }
    );
    directory.observe_directory(
        now + BACKOFF.0,
        now + BACKOFF.0 * 2,
        Some(listing(&entries)),
        &HashSet::new(),
    );
    assert!(directory.wake_at() > now + BACKOFF.0 * 2, "no busy loop");
}

/// A change or event between two looks.
#[derive(Debug, Clone)]
enum Happening {
    Set(u8, Entry),
    RemoveDirectory,
    MakeDirectory,
    /// The doorbell of this name reports an event, with or without a change.
    NameEvent(u8),
    MountTableChanged,
    EventsLost,
    /// The actor does the looks that are due after this many milliseconds.
    Look(u64),
    /// The consumer takes this many events.
    Take(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    let entry = prop_oneof![
        Just(Entry::Absent),
        Just(Entry::Plain),
        (0..4_i64).prop_map(network),
        (0..2_i64).prop_map(|n| Entry::OtherNamespace(id(n))),
    ];
    prop_oneof![
        4 => (0..5_u8, entry).prop_map(|(name, entry)| Happening::Set(name, entry)),
        1 => Just(Happening::RemoveDirectory),
        1 => Just(Happening::MakeDirectory),
        2 => (0..5_u8).prop_map(Happening::NameEvent),
        1 => Just(Happening::MountTableChanged),
        1 => Just(Happening::EventsLost),
        3 => (0..200_u64).prop_map(Happening::Look),
        2 => (0..4_usize).prop_map(Happening::Take),
    ]
}

/// The directory that the model looks at.
#[derive(Debug, Default)]
struct World {
    exists: bool,
    entries: BTreeMap<OsString, Entry>,
}

impl World {
    fn entry(&self, name: &OsStr) -> Entry {
        self.entries.get(name).copied().unwrap_or(Entry::Absent)
    }

    fn look(&self, directory: &mut Directory, now: Instant, look: Look) {
        for name in look.names {
            let entry = self.entry(&name);
            directory.observe_entry(now, name, entry);
        }
        if look.sweep {
            let entries = self
                .entries
                .iter()
                .map(|(name, entry)| (name.clone(), *entry))
                .collect();
            directory.observe_directory(now, now, self.exists.then_some(entries), &HashSet::new());
        }
    }

    fn usable(&self) -> HashMap<OsString, MountedNamespaceId> {
        let usable = self.entries.iter().filter_map(|(name, entry)| match entry {
            Entry::Network(id) => Some((name.clone(), *id)),
            _ => None,
        });
        usable.collect()
    }
}

/// Applies every event, and panics at an event that contradicts the earlier ones.
#[derive(Debug, Default)]
struct Consumer {
    exists: bool,
    namespaces: HashMap<OsString, MountedNamespaceId>,
}

impl Consumer {
    fn take(&mut self, event: NamespaceEvent) {
        match event {
            NamespaceEvent::DirectoryAppeared => {
                assert!(!std::mem::replace(&mut self.exists, true))
            }
            NamespaceEvent::DirectoryVanished => {
                assert!(std::mem::replace(&mut self.exists, false));
                assert!(self.namespaces.is_empty(), "names outlive their directory");
            }
            NamespaceEvent::Added { name, id } => {
                assert_eq!(self.namespaces.insert(name, id), None, "added twice");
            }
            NamespaceEvent::Removed { name, id } => {
                assert_eq!(
                    self.namespaces.remove(&name),
                    Some(id),
                    "removed what was not there"
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn any_order_and_loss_of_doorbells_converges_after_one_look(
        happenings in prop::collection::vec(happening(), 0..80),
    ) {
        let mut now = Instant::now();
        let mut directory = Directory::new(now, SWEEP);
        let mut world = World::default();
        let mut consumer = Consumer::default();
        for happening in happenings {
            match happening {
                Happening::Set(name, entry) if world.exists => {
                    let name = OsString::from(name.to_string());
                    if entry == Entry::Absent {
                        world.entries.remove(&name);
                    } else {
                        world.entries.insert(name, entry);
                    }
                }
                Happening::Set(..) => {}
                Happening::RemoveDirectory => world = World::default(),
                Happening::MakeDirectory => world.exists = true,
                Happening::NameEvent(name) => directory.apply_hints(hint(&name.to_string())),
                Happening::MountTableChanged => directory.mount_table_changed(now, true),
                Happening::EventsLost => {
                    directory.apply_hints(Hints { sweep: true, ..Hints::default() });
                }
                Happening::Look(pause) => {
                    now += Duration::from_millis(pause);
                    let look = directory.next_look(now);
                    world.look(&mut directory, now, look);
                }
                Happening::Take(count) => {
                    for _ in 0..count {
                        directory.next_event().into_iter().for_each(|event| consumer.take(event));
                    }
                }
            }
        }
        // The fallback sweep corrects the state, with or without doorbells.
        now += SWEEP + Duration::from_secs(1);
        let look = directory.next_look(now);
        prop_assert!(look.sweep);
        world.look(&mut directory, now, look);
        events(&mut directory).into_iter().for_each(|event| consumer.take(event));
        prop_assert_eq!(&consumer.namespaces, &world.usable());
        prop_assert_eq!(consumer.exists, world.exists);
        prop_assert!(directory.wake_at() > now, "nothing is due, and nothing spins");
    }
}
