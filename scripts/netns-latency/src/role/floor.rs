//! The fastest possible observer on this kernel. The other observers are compared with it.
//!
//! A thread blocks in poll(2) on the mount table, and calls stat(2) for the one awaited entry. For links, a thread blocks in
//! recv(2) on a netlink socket inside the namespace.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, anyhow};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use tcgui_tests::client::monotonic_ns;
use tcgui_tests::netns;

use super::links::{LINKS, News, Socket};
use crate::progress;
use crate::protocol::{self, Thing};

/// The awaited entry.
struct Entry {
    name: String,
    path: PathBuf,
    usable: bool,
}

pub(super) fn play() -> anyhow::Result<()> {
    let nsfs = fs::metadata("/proc/self/ns/net")?.dev();
    let entry = Arc::new(Mutex::new(None::<Entry>));
    let shared = Arc::clone(&entry);
    run(move || watch_mounts(nsfs, &shared));

    let mut listening = None;
    protocol::serve(|thing: Thing| {
        match thing {
            Thing::Namespace { name } => {
                let path = netns::path(&name);
                let usable = is_usable(&path, nsfs);
                *entry.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(Entry { name, path, usable });
            }
            Thing::Link { netns, .. } | Thing::LinkUp { netns, .. } => {
                if listening.as_ref() != Some(&netns) {
                    let mut socket = open_inside(&netns)?;
                    listening = Some(netns.clone());
                    run(move || watch_links(&netns, &mut socket));
                }
            }
            Thing::Directory => {}
        }
        Ok(0)
    })
}

/// Runs a thread until the end of the process. If it fails, nothing is seen, which counts as missed.
fn run(body: impl FnOnce() -> anyhow::Result<()> + Send + 'static) {
    thread::spawn(move || {
        if let Err(error) = body() {
            progress::complain(&error);
        }
    });
}

/// Returns whether the entry exists and is on nsfs, that is, mounted and not only the empty file.
fn is_usable(path: &PathBuf, nsfs: u64) -> bool {
    fs::metadata(path).is_ok_and(|it| it.dev() == nsfs)
}

fn watch_mounts(nsfs: u64, entry: &Mutex<Option<Entry>>) -> anyhow::Result<()> {
    // The kernel counts changes for each open file, so no change is lost between two polls.
    let table = File::open("/proc/self/mountinfo").context("open the mount table")?;
    loop {
        let mut change = [PollFd::new(table.as_fd(), PollFlags::POLLPRI)];
        poll(&mut change, PollTimeout::NONE).context("poll the mount table")?;
        let mut entry = entry.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = entry.as_mut() else {
            continue;
        };
        let usable = is_usable(&entry.path, nsfs);
        if usable != entry.usable {
            let now = monotonic_ns()?;
            entry.usable = usable;
            let name = entry.name.clone();
            protocol::send_sight(Thing::Namespace { name }, usable, now)?;
        }
    }
}

/// Opens a socket in a namespace, on a thread that enters the namespace and ends.
fn open_inside(namespace: &str) -> anyhow::Result<Socket> {
    let path = netns::path(namespace);
    let visitor = thread::spawn(move || {
        let file = File::open(path).context("open the namespace of the links")?;
        setns(file, CloneFlags::CLONE_NEWNET).context("enter the namespace of the links")?;
        Socket::open(LINKS)
    });
    visitor
        .join()
        .map_err(|_| anyhow!("the visitor panicked"))?
}

/// Reports links until the process ends. The socket keeps the namespace alive, which does no harm here.
fn watch_links(namespace: &str, socket: &mut Socket) -> anyhow::Result<()> {
    loop {
        let news = socket.news()?;
        let now = monotonic_ns()?;
        let netns = namespace.to_owned();
        match news {
            News::Is { name, up } => {
                let link = Thing::Link {
                    netns: netns.clone(),
                    name: name.clone(),
                };
                protocol::send_sight(link, true, now)?;
                protocol::send_sight(Thing::LinkUp { netns, name }, up, now)?;
            }
            News::Gone { name } => protocol::send_sight(Thing::Link { netns, name }, false, now)?,
        }
    }
}
