//! Namespaces without a name, held by a process, on the running kernel.

use super::*;
use crate::blocking;
use crate::kernel::lab::HeldNetns;
use crate::kernel::netns::NetnsFiles;
use crate::kernel::rtnetlink::{EventSocket, Observer, RequestSocket, Rtnetlink};
use crate::sockets::{NetnsSockets, NetnsTarget, SocketError};

const SOON: Duration = Duration::from_secs(10);

/// The actor over the running kernel, with its sockets.
struct Real {
    handle: InterfacesHandle,
    events: mpsc::Receiver<InterfacesEvent>,
    sockets: NetnsSockets,
    observer: Option<Observer>,
    stop: CancellationToken,
}

impl Real {
    #[expect(clippy::disallowed_methods, reason = "the test is the supervisor")]
    fn start(ids: bool) -> Self {
        let observer = ids.then(|| Observer::open().unwrap());
        let files = NetnsFiles::new().unwrap();
        let sockets = NetnsSockets::new(Rtnetlink::open(1).unwrap(), files, 1);
        let dumps = Rtnetlink::open_from(observer.clone(), 1).unwrap();
        let kernel = KernelLinks::open(dumps, files, sockets.clone()).unwrap();
        let (handle, events, task) = open(kernel, SWEEP, UnknownNamespaces::Ignore);
        let stop = CancellationToken::new();
        tokio::spawn(task.run(stop.clone()));
        Self {
            handle,
            events,
            sockets,
            observer,
            stop,
        }
    }

    /// Tracks a namespace that a process holds, and waits until its links are reported.
    async fn inhabit(&mut self) -> (HeldNetns, NetnsRef) {
        let holder = HeldNetns::new();
        let netns_ref = NetnsRef::Process(holder.id());
        self.sockets.admit(netns_ref.key());
        self.handle.track(netns_ref.key(), netns_ref.clone()).await;
        self.links(netns_ref.key(), &["lo"]).await;
        (holder, netns_ref)
    }

    /// Waits until these links of the namespace are reported.
    async fn links(&mut self, key: NetnsKey, expected: &[&str]) {
        let wait = async {
            while let Some(event) = self.events.recv().await {
                if let InterfacesEvent::Links {
                    key: reported,
                    snapshot,
                } = event
                    && reported == key
                    && snapshot.links.iter().map(|link| &link.ifname).eq(expected)
                {
                    return;
                }
            }
            panic!("the actor ended");
        };
        timeout(SOON, wait).await.expect("the links in time");
    }

    /// Waits until the namespace is reported as unreadable.
    async fn is_unreadable(&mut self, key: NetnsKey) {
        let wait = async {
            while let Some(event) = self.events.recv().await {
                if matches!(event, InterfacesEvent::Unreadable { key: reported } if reported == key)
                {
                    return;
                }
            }
            panic!("the actor ended");
        };
        timeout(SOON, wait).await.expect("a report in time");
    }

    /// Waits until the namespace is deleted.
    async fn dies(&self, key: NetnsKey) {
        let wait = async {
            while self.handle.refresh(key).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, wait).await.expect("its death in time");
    }

    /// Changes a link over a socket inside.
    async fn set_lo_up(&self, place: NetnsTarget) -> Result<(), SocketError> {
        let sockets = self.sockets.clone();
        let set =
            |socket: &mut RequestSocket| socket.set_up(1, true)?.map(drop).map_err(Into::into);
        blocking::run(move || sockets.run_here(&place, set)).await
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn a_namespace_is_tracked_through_a_process_until_that_ends() {
    for ids in [true, false] {
        let mut real = Real::start(ids);
        let (holder, netns_ref) = real.inhabit().await;
        let key = netns_ref.key();
        let place = NetnsTarget {
            key,
            netns_refs: vec![netns_ref.clone()],
            named: Some(netns_ref.clone()),
        };
        real.set_lo_up(place).await.unwrap();
        let up = |snapshot: &Snapshot| snapshot.links.iter().all(|link| link.up);
        assert!(
            up(&real.handle.refresh(key).await.unwrap()),
            "seen from inside"
        );
        holder.end();
        if ids {
            // The first report is that it is unreadable, so no descriptor was kept inside, and the kernel reports
            // the deletion.
            real.is_unreadable(key).await;
            real.dies(key).await;
        }
        real.handle.untrack(key, netns_ref).await;
        real.sockets.forget(key);
        let gone = real.handle.refresh(key).await.unwrap_err();
        assert!(matches!(*gone, DumpError::Gone), "{gone}");
    }
}

#[tokio::test]
async fn a_kept_socket_is_closed_with_the_last_reference() {
    for kept in [true, false] {
        is_closed_with_the_last_reference(kept).await;
    }
}

/// The socket is either kept because of a netem (`kept`), or because it was used a short time ago.
async fn is_closed_with_the_last_reference(kept: bool) {
    let mut real = Real::start(true);
    let kernel = EventSocket::open_in(real.observer.as_ref().unwrap()).unwrap();
    let (holder, netns_ref) = real.inhabit().await;
    let key = netns_ref.key();
    let nsid = real.handle.refresh(key).await.unwrap().nsid.unwrap();
    // A dump would find that there is no netem and close the socket.
    real.handle.untrack(key, netns_ref.clone()).await;
    real.handle.refresh(key).await.unwrap_err();
    if !kept {
        real.sockets.used(key);
    }
    real.sockets.keep(key, kept);
    let place = NetnsTarget {
        key,
        netns_refs: vec![netns_ref],
        named: None,
    };
    real.set_lo_up(place.clone()).await.unwrap();
    let gone = real.sockets.gone(key);
    holder.end();
    // The kept socket keeps the namespace alive and needs no reference.
    real.set_lo_up(place.clone()).await.unwrap();
    assert!(!gone.is_cancelled());
    real.sockets.forget(key);
    assert!(gone.is_cancelled());
    let died = async {
        while !kernel
            .next()
            .await
            .unwrap()
            .contains(&KernelEvent::NsidRemoved(nsid))
        {}
    };
    timeout(SOON, died).await.expect("its death in time");
    let refused = real.set_lo_up(place).await.unwrap_err();
    assert!(matches!(refused, SocketError::Gone), "{refused}");
}

#[tokio::test]
async fn a_named_reference_is_not_replaced_by_another() {
    let real = Real::start(true);
    let holder = HeldNetns::new();
    let (device, inode, ..) = holder.id().parts();
    let pid = nix::unistd::getpid().as_raw();
    let (.., started) = NetnsFiles::new().unwrap().held_by(pid).unwrap().parts();
    // The process was once in a namespace with this inode number, and is now in another one.
    let left = NetnsRef::Process(ProcessNetnsId::from_parts(device, inode, pid, started));
    let stays = NetnsRef::Process(holder.id());
    let key = left.key();
    real.sockets.admit(key);
    for kept in [false, true] {
        real.sockets.keep(key, kept);
        let place = |named| NetnsTarget {
            key,
            netns_refs: vec![left.clone(), stays.clone()],
            named,
        };
        let run = |named| real.set_lo_up(place(named));
        run(Some(stays.clone())).await.unwrap();
        run(None).await.unwrap();
        let refused = run(Some(left.clone())).await.unwrap_err();
        assert!(matches!(refused, SocketError::Gone), "{refused}");
    }
    real.sockets.forget(key);
}
