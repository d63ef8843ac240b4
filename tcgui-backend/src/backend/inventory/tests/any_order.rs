//! Applies any sequence of added and removed names and holders, and compares the result with a simple model.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;

/// A report to the inventory.
#[derive(Debug, Clone)]
enum Event {
    Name(&'static str, MountedNamespaceId),
    NoName(&'static str, MountedNamespaceId),
    Holder(ProcessNetnsId, HolderKind),
    NoHolder(HolderSource, ProcessNetnsId),
}

fn event() -> impl Strategy<Value = Event> {
    let name = proptest::sample::select(vec!["a", "b", "default", PODMANS]);
    let inode = proptest::sample::select(vec![1, 2, 3, OWN_INODE]);
    let id = (inode.clone(), 1..3_i64, any::<bool>()).prop_map(|(inode, ctime, link)| {
        let id = MountedNamespaceId::from_parts(4, inode, ctime, 0);
        if link { id.through_link() } else { id }
    });
    let holder = (inode, 1..5_i32).prop_map(|(inode, pid)| held(inode, pid));
    // A malicious engine may report one runtime and short id for several processes.
    let kind = (any::<bool>(), 0..2_usize, 0..3_usize).prop_map(|(contained, name, who)| {
        let runtime = [Runtime::Podman, Runtime::Docker, Runtime::Docker][who];
        match contained {
            true => container(["web", "db"][name], runtime, ["000", "111", "222"][who]),
            false => process(["sh", "sleep"][name]),
        }
    });
    let source = proptest::sample::select(vec![HolderSource::Containers, HolderSource::Processes]);
    prop_oneof![
        (name.clone(), id.clone()).prop_map(|(name, id)| Event::Name(name, id)),
        (name, id).prop_map(|(name, id)| Event::NoName(name, id)),
        (holder.clone(), kind).prop_map(|(id, kind)| Event::Holder(id, kind)),
        (source, holder).prop_map(|(source, id)| Event::NoHolder(source, id)),
    ]
}

/// The reports in force, without derived data.
#[derive(Debug, Default)]
struct Model {
    names: BTreeMap<&'static str, MountedNamespaceId>,
    holders: BTreeMap<(HolderSource, i32), (ProcessNetnsId, HolderKind)>,
}

impl Model {
    fn take(&mut self, event: &Event) {
        match event {
            Event::Name(name, id) => {
                self.names.retain(|_, known| !known.died_before(id));
                self.names.insert(name, *id);
            }
            Event::NoName(name, id) => self.names.retain(|key, it| (key, &*it) != (name, id)),
            Event::Holder(id, kind) => {
                self.holders.remove(&(kind.source(), id.pid()));
                if id.inode() != OWN_INODE {
                    let holder = (*id, kind.clone());
                    self.holders.insert((kind.source(), id.pid()), holder);
                }
            }
            Event::NoHolder(source, id) => self
                .holders
                .retain(|(by, _), (it, _)| (by, &*it) != (source, id)),
        }
    }

    /// Returns the containers with this name. The first one keeps the plain name.
    fn namesakes(&self, name: &str) -> Vec<(Runtime, String, ProcessNetnsId)> {
        let namesake = |(id, kind): &'_ (ProcessNetnsId, HolderKind)| match kind {
            HolderKind::Container(it) if it.name.as_str() == name => {
                Some((it.runtime, it.short_id.clone(), *id))
            }
            _ => None,
        };
        let mut all: Vec<_> = self.holders.values().filter_map(namesake).collect();
        all.sort();
        all
    }

    fn container_name(&self, id: ProcessNetnsId, container: &Container) -> String {
        let name = container.name.as_str();
        let namesakes = self.namesakes(name);
        if namesakes[0].2 == id {
            return format!("container:{name}");
        }
        let short_id = &container.short_id;
        let same = namesakes.iter().filter(|it| it.1 == *short_id).count();
        match same {
            1 => format!("container:{name}@{short_id}"),
            _ => format!("container:{name}@{short_id}.{}.{}", id.pid(), id.started()),
        }
    }

    /// Returns the names of each namespace, the best first.
    fn names(&self) -> BTreeMap<u64, Vec<String>> {
        let mut ranked = BTreeMap::<u64, BTreeSet<(u8, u64, String)>>::new();
        ranked
            .entry(OWN_INODE)
            .or_default()
            .insert((0, 0, "default".to_owned()));
        for (name, id) in &self.names {
            let rank = if *name == PODMANS { 3 } else { 1 };
            let wire = NamespaceName::named(name).unwrap().to_wire();
            // `netns:default` is sorted as `default`.
            let place = u64::from(name.as_bytes()[0]);
            ranked
                .entry(id.inode())
                .or_default()
                .insert((rank, place, wire));
        }
        for (id, kind) in self.holders.values() {
            let (rank, wire) = match kind {
                HolderKind::Container(container) => (2, self.container_name(*id, container)),
                HolderKind::Process(program) => {
                    (4, format!("pid:{}({})", id.pid(), program.display()))
                }
            };
            ranked
                .entry(id.inode())
                .or_default()
                .insert((rank, id.started(), wire));
        }
        let names = |ranked: BTreeSet<(u8, u64, String)>| {
            ranked.into_iter().map(|(.., name)| name).collect()
        };
        let namespaces = ranked.into_iter();
        namespaces.map(|(inode, all)| (inode, names(all))).collect()
    }

    fn netns_refs(&self, inode: u64) -> BTreeSet<String> {
        let names = self.names.iter().filter(|(_, id)| id.inode() == inode);
        let names = names.map(|(name, id)| format!("{name} {id}"));
        let holders = self.holders.values();
        let holders = holders.filter(|(id, _)| id.inode() == inode);
        names
            .chain(holders.map(|(id, _)| id.pid().to_string()))
            .collect()
    }
}

fn netns_ref(netns_ref: &NetnsRef) -> String {
    match netns_ref {
        NetnsRef::Name { path, id } => format!("{} {id}", path.file_name().unwrap().display()),
        NetnsRef::Process(id) => id.pid().to_string(),
    }
}

/// The state that a receiver of the changes derives from them.
#[derive(Debug, Default)]
struct Followers {
    netns_refs: HashMap<NetnsKey, BTreeSet<String>>,
    /// The namespace of each display name.
    display_names: BTreeMap<String, NetnsKey>,
}

impl Followers {
    fn follow(&mut self, change: &Change) {
        for (key, reference) in &change.untracked {
            let netns_refs = self
                .netns_refs
                .get_mut(key)
                .expect("the namespace is tracked");
            assert!(
                netns_refs.remove(&netns_ref(reference)),
                "{reference:?} was not tracked"
            );
        }
        for key in &change.gone {
            let left = self.netns_refs.remove(key).expect("it was there");
            assert!(left.is_empty(), "{left:?} leads to {key:?}");
        }
        assert!(
            self.netns_refs
                .values()
                .all(|netns_refs| !netns_refs.is_empty())
        );
        for (key, reference) in &change.tracked {
            assert!(
                self.netns_refs
                    .entry(*key)
                    .or_default()
                    .insert(netns_ref(reference))
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn one_entry_for_each_namespace(events in proptest::collection::vec(event(), 1..40)) {
        let mut inventory = inventory();
        inventory.set_links(NetnsKey::Host, links(&["lo"]));
        let (mut model, mut followers) = (Model::default(), Followers::default());
        followers.display_names.insert("default".to_owned(), NetnsKey::Host);
        let mut keys = HashMap::from([(OWN_INODE, NetnsKey::Host)]);
        for event in events {
            model.take(&event);
            let change = match event {
                Event::Name(name, id) => inventory.add_name(name.into(), id),
                Event::NoName(name, id) => inventory.remove_name(OsStr::new(name), id),
                Event::Holder(id, kind) => inventory.add_holder(Holder { id, kind }),
                Event::NoHolder(source, id) => inventory.remove_holder(source, id),
            };
            followers.follow(&change);
            keys.retain(|_, key| !change.gone.contains(key));
            for (key, _) in &change.tracked {
                if inventory.has(*key) {
                    let known = *keys.entry(inventory.inode(*key)).or_insert(*key);
                    prop_assert_eq!(known, *key, "the key stays");
                    inventory.set_links(*key, links(&["lo"]));
                }
            }
            let all_names = model.names();
            let expected: BTreeSet<_> = all_names.values().cloned().collect();
            let all = shown(&inventory);
            prop_assert_eq!(all.len(), expected.len(), "each is shown once");
            prop_assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), expected);
            let mut shown_now = BTreeMap::new();
            for (inode, names) in &all_names {
                let key = keys[inode];
                shown_now.insert(names[0].clone(), key);
                for name in names {
                    let found = find(&inventory, name, "lo").expect("found by any name");
                    prop_assert_eq!((found.key, found.name.to_wire()), (key, names[0].clone()));
                    let display_name = NamespaceName::from_wire(name).unwrap();
                    let lo = InterfaceName::new("lo").unwrap();
                    prop_assert_eq!(inventory.shows(&display_name, &lo), *name == names[0]);
                }
                if *inode != OWN_INODE {
                    prop_assert_eq!(&followers.netns_refs[&key], &model.netns_refs(*inode));
                    let netns_refs = inventory.netns_refs(key);
                    let netns_refs: BTreeSet<_> = netns_refs.iter().map(netns_ref).collect();
                    prop_assert_eq!(netns_refs, model.netns_refs(*inode));
                }
            }
            prop_assert_eq!(followers.netns_refs.len() + 1, all_names.len());
            let count: usize = all_names.values().map(Vec::len).sum();
            prop_assert_eq!(inventory.by_name.len(), count, "no other name finds anything");
            let touched: BTreeSet<_> = change.touched.iter().map(NamespaceName::to_wire).collect();
            for (name, key) in shown_now.iter().chain(&followers.display_names) {
                let same = shown_now.get(name) == followers.display_names.get(name);
                prop_assert!(same || touched.contains(name), "{} of {:?}", name, key);
            }
            followers.display_names = shown_now;
        }
    }
}
