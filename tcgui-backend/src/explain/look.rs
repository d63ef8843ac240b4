//! Reads one entry of the netns directory and the limits of the machine. Blocks for a few `stat` calls.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tcgui_shared::names::NetnsName;

use super::{EntryFacts, EntryKind, HostFacts, Propagation};
use crate::kernel::inode::{FileKind, Inode, Links};
use crate::kernel::mountinfo::{Mount, MountInfo};
use crate::kernel::netns::{Entry, NetnsFiles};
use crate::kernel::process;

/// The limits of inotify: those of the machine (inotify(7)) and those of the user namespace (namespaces(7)), which are lower in
/// some containers.
const LIMITS: [&str; 5] = [
    "fs.inotify.max_user_instances",
    "fs.inotify.max_user_watches",
    "fs.inotify.max_queued_events",
    "user.max_inotify_instances",
    "user.max_inotify_watches",
];

/// Reads the facts about one entry of the netns directory. Opens only namespace files.
///
/// A [`NetnsName`] is one component and never `..`, so the path stays in the directory.
pub fn entry_facts(files: &NetnsFiles, directory: &Path, name: &NetnsName) -> EntryFacts {
    let path = directory.join(name.as_os_str());
    let link = Inode::at(&path, Links::Stay);
    let is_link = link
        .as_ref()
        .is_ok_and(|inode| inode.kind() == FileKind::Symlink);
    let link_target = is_link.then(|| fs::read_link(&path).ok()).flatten();
    // Paths in the mount table contain no symbolic links.
    let resolved = directory.canonicalize();
    let place = resolved.as_deref().unwrap_or(directory);
    let table = MountInfo::read().ok();
    let on = |path: &Path| table.as_ref().and_then(|table| table.on(path));
    let around = table.as_ref().and_then(|table| table.holding(place));
    let mount = on(&place.join(name.as_os_str()));
    let exists = link.is_ok();
    EntryFacts {
        path: path.to_string_lossy().into_owned(),
        directory_exists: place.is_dir(),
        kind: kind(files, &path, link),
        link_target: link_target.map(|target| target.to_string_lossy().into_owned()),
        file_system: mount
            .or(around)
            .filter(|_| exists)
            .map(|mount| mount.file_system()),
        mount: mount.as_ref().map(Mount::line),
        propagation: around.map(|mount| Propagation {
            text: mount.propagation(),
            receives: mount.receives(),
        }),
    }
}

fn kind(files: &NetnsFiles, path: &Path, link: io::Result<Inode>) -> EntryKind {
    match files.look(path, None) {
        Entry::Network(id) => {
            let kind = Some("net");
            return EntryKind::Namespace { id, kind };
        }
        Entry::OtherNamespace(id) => {
            let kind = files.type_of(path, id);
            return EntryKind::Namespace { id, kind };
        }
        Entry::Absent | Entry::Plain => {}
    }
    let found = match link {
        Ok(link) if link.kind() != FileKind::Symlink => link,
        Ok(_) => match Inode::at(path, Links::Follow) {
            Ok(found) => found,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return EntryKind::DanglingLink,
            Err(err) => return EntryKind::Unreachable(err.to_string()),
        },
        Err(err) if is_absent(&err) => return EntryKind::Nothing,
        Err(err) => return EntryKind::Unreachable(err.to_string()),
    };
    if found.device == files.device() {
        return EntryKind::Unreachable("a namespace that may not be opened".to_owned());
    }
    match found.kind() {
        FileKind::Regular => EntryKind::File {
            len: found.len,
            mode: found.permissions(),
        },
        FileKind::Directory => EntryKind::Other("a directory"),
        FileKind::Fifo => EntryKind::Other("a FIFO"),
        FileKind::Socket => EntryKind::Other("a socket"),
        FileKind::Device | FileKind::Symlink => EntryKind::Other("a device"),
    }
}

fn is_absent(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Reads limits and capabilities. Values that cannot be read are omitted.
pub fn host_facts() -> HostFacts {
    HostFacts {
        missing_capabilities: process::missing_capabilities().unwrap_or_default(),
        limits: LIMITS.iter().map(|name| (*name, limit(name))).collect(),
        mounts_of_init: mounts_of_init(),
    }
}

/// Reads one numeric sysctl.
fn limit(name: &str) -> Option<u64> {
    let path = Path::new("/proc/sys").join(name.replace('.', "/"));
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(64).read_to_string(&mut text))
        .ok()?;
    text.trim().parse().ok()
}

fn mounts_of_init() -> Option<bool> {
    let own = fs::metadata("/proc/self/ns/mnt").ok()?;
    let init = fs::metadata("/proc/1/ns/mnt").ok()?;
    Some(own.ino() == init.ino())
}
