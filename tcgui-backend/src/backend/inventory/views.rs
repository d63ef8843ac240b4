//! The references to one namespace: names and holders. Pure.
//!
//! The display name is the best of its names: first those of the netns directory, then those of containers, then those of
//! processes. Podman creates a name `netns-UUID` for each of its namespaces. Such a name ranks below that of the container.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use tcgui_shared::names::NamespaceName;

use super::container_names::ContainerNames;
use crate::kernel::netns::{MountedNamespaceId, NetnsRef, ProcessNetnsId};
use crate::netns_holders::{Container, HolderKind, HolderSource};

/// Maximum length in bytes of a program name in the kernel (`TASK_COMM_LEN` − 1).
const PROGRAM: usize = 15;

/// Start time and pid. The creator of a namespace is older than the processes that joined it.
type Age = (u64, i32);

/// The known references to a namespace.
#[derive(Debug, Default)]
pub(super) struct Views {
    names: BTreeMap<OsString, MountedNamespaceId>,
    containers: BTreeMap<Age, (ProcessNetnsId, Arc<Container>)>,
    processes: BTreeMap<Age, (ProcessNetnsId, Arc<OsStr>)>,
}

impl Views {
    pub(super) fn add_name(&mut self, name: OsString, id: MountedNamespaceId) {
        self.names.insert(name, id);
    }

    /// Removes a name if it refers to `id`. Returns whether it did.
    pub(super) fn remove_name(&mut self, name: &OsStr, id: MountedNamespaceId) -> bool {
        let known = self.names.get(name) == Some(&id);
        if known {
            self.names.remove(name);
        }
        known
    }

    /// Returns the namespace to which a name refers.
    pub(super) fn named(&self, name: &OsStr) -> Option<MountedNamespaceId> {
        self.names.get(name).copied()
    }

    /// Returns the names of a namespace that was deleted before `id` was created.
    pub(super) fn dead_beside(
        &self,
        id: MountedNamespaceId,
    ) -> Vec<(OsString, MountedNamespaceId)> {
        let names = self.names.iter().map(|(name, id)| (name.clone(), *id));
        names.filter(|(_, known)| known.died_before(&id)).collect()
    }

    /// Adds a holder. Returns the earlier report of the same source about it.
    pub(super) fn add_holder(
        &mut self,
        id: ProcessNetnsId,
        kind: HolderKind,
    ) -> Option<HolderKind> {
        match kind {
            HolderKind::Container(container) => self
                .containers
                .insert(age(id), (id, container))
                .map(|(_, before)| HolderKind::Container(before)),
            HolderKind::Process(program) => self
                .processes
                .insert(age(id), (id, program))
                .map(|(_, before)| HolderKind::Process(before)),
        }
    }

    /// Removes the report of a source about a holder, and returns it.
    pub(super) fn remove_holder(
        &mut self,
        source: HolderSource,
        id: ProcessNetnsId,
    ) -> Option<HolderKind> {
        match source {
            HolderSource::Containers => self
                .containers
                .remove(&age(id))
                .map(|(_, container)| HolderKind::Container(container)),
            HolderSource::Processes => self
                .processes
                .remove(&age(id))
                .map(|(_, program)| HolderKind::Process(program)),
        }
    }

    /// Returns the references to the namespace, each once. Names are relative to `directory`.
    pub(super) fn netns_refs(&self, directory: &Path) -> Vec<NetnsRef> {
        let name = |(name, id): (&OsString, &MountedNamespaceId)| NetnsRef::Name {
            path: directory.join(name),
            id: *id,
        };
        let containers = self.containers.values().map(|(id, _)| *id);
        let seen_twice = |id: &ProcessNetnsId| self.containers.contains_key(&age(*id));
        let processes = self.processes.values().map(|(id, _)| *id);
        let holders = containers.chain(processes.filter(|id| !seen_twice(id)));
        let names = self.names.iter().map(name);
        names.chain(holders.map(NetnsRef::Process)).collect()
    }

    /// Returns the reference with this name.
    pub(super) fn reference_named(
        &self,
        name: &NamespaceName,
        containers: &ContainerNames,
        directory: &Path,
    ) -> Option<NetnsRef> {
        match name {
            NamespaceName::Host => None,
            NamespaceName::Named(name) => {
                let (name, id) = self.names.get_key_value(name.as_os_str())?;
                let path = directory.join(name);
                Some(NetnsRef::Name { path, id: *id })
            }
            NamespaceName::Container(name) => {
                let mut all = self.containers.values();
                let found = all.find(|(id, container)| {
                    containers.name(container, *id).as_ref() == Some(name)
                })?;
                Some(NetnsRef::Process(found.0))
            }
            NamespaceName::Process(_) => {
                let mut all = self.processes.values();
                let found =
                    all.find(|(id, program)| process_name(*id, program).as_ref() == Some(name))?;
                Some(NetnsRef::Process(found.0))
            }
        }
    }

    /// Returns all names of the namespace, the best first, each with its container if it is a container name.
    pub(super) fn names(
        &self,
        containers: &ContainerNames,
    ) -> Vec<(NamespaceName, Option<Arc<Container>>)> {
        let (podman, own): (Vec<_>, Vec<_>) = self.names.keys().partition(|name| is_podmans(name));
        // Names of directory entries are always valid.
        let named = |name: &OsString| Some((NamespaceName::named(name).ok()?, None));
        let contained = |(id, container): &(ProcessNetnsId, Arc<Container>)| {
            let name = containers.name(container, *id)?;
            Some((NamespaceName::Container(name), Some(Arc::clone(container))))
        };
        let held = |(id, program): &(ProcessNetnsId, Arc<OsStr>)| {
            Some((process_name(*id, program)?, None))
        };
        let mut names: Vec<_> = own.into_iter().filter_map(named).collect();
        names.extend(self.containers.values().filter_map(contained));
        names.extend(podman.into_iter().filter_map(named));
        names.extend(self.processes.values().filter_map(held));
        names
    }
}

fn age(id: ProcessNetnsId) -> Age {
    (id.started(), id.pid())
}

/// Returns the name of a process. NUL bytes, which the kernel never reports, are dropped, so that the namespace stays visible.
fn process_name(id: ProcessNetnsId, program: &OsStr) -> Option<NamespaceName> {
    let bytes = program.as_bytes().iter().take(PROGRAM).copied();
    let bytes: Vec<u8> = bytes.filter(|byte| *byte != 0).collect();
    NamespaceName::process(id.pid(), &bytes).ok()
}

/// Returns whether a name has the form that Podman creates: `netns-` and a UUID in lower case.
fn is_podmans(name: &OsStr) -> bool {
    const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
    let Some(uuid) = name.as_bytes().strip_prefix(b"netns-") else {
        return false;
    };
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let groups = || uuid.split(|byte| *byte == b'-');
    groups().map(<[u8]>::len).eq(GROUPS) && groups().flatten().all(is_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_created_by_podman_are_recognised() {
        for (name, expected) in [
            ("netns-0f3c1b2a-4d5e-6f70-8192-a3b4c5d6e7f8", true),
            ("netns-0F3c1b2a-4d5e-6f70-8192-a3b4c5d6e7f8", false),
            ("netns-0f3c1b2a-4d5e-6f70-8192-a3b4c5d6e7f8-", false),
            ("netns-0f3c1b2a4d5e-6f70-8192-a3b4c5d6e7f8", false),
            ("netns-0f3c1b2a-4d5e-6f70-8192-a3b4c5d6e7g8", false),
            ("xnetns-0f3c1b2a-4d5e-6f70-8192-a3b4c5d6e7f8", false),
            ("netns-", false),
            ("", false),
        ] {
            assert_eq!(is_podmans(OsStr::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn any_program_has_a_name() {
        let id = ProcessNetnsId::from_parts(4, 1, 7, 1);
        for (program, wire) in [
            (&b"sleep"[..], "pid:7(sleep)"),
            (b"", "pid:7()"),
            (b"a\0b", "pid:7(ab)"),
            (b"a)\n\\", "pid:7(a)\n\\\\)"),
            (b"\xff\xc3", r"pid:7(\xff\xc3)"),
            (b"1234567890123456", "pid:7(123456789012345)"),
        ] {
            let name = process_name(id, OsStr::from_bytes(program)).map(|name| name.to_wire());
            assert_eq!(name.as_deref(), Some(wire), "{program:?}");
        }
        let nobody = ProcessNetnsId::from_parts(4, 1, 0, 1);
        assert_eq!(process_name(nobody, OsStr::new("x")), None);
    }
}
