//! Namespaces to which no tracked reference leads.

use super::*;

/// Starts the actor with one tracked namespace, whose id in the observer's table is 7.
async fn start_tracking(unknown_namespaces: UnknownNamespaces) -> Actor {
    let mut actor = start_with(unknown_namespaces);
    actor.kernel.set(|state| {
        state.links.insert(NetnsKey::Mounted(A), vec!["lo"]);
        state.nsids.insert(NetnsKey::Mounted(A), 7);
    });
    actor.track(A, "a").await;
    while actor.report().await.0 != NetnsKey::Mounted(A) {}
    actor
}

async fn expect_unknown_namespace(actor: &mut Actor) {
    let event = timeout(SWEEP, actor.events.recv()).await.expect("news");
    assert!(
        matches!(event, Some(InterfacesEvent::UnknownNsid)),
        "{event:?}"
    );
    actor.nothing_for(UNSWEPT / 2).await;
}

fn id_assigned(id: i32) -> KernelEvent {
    KernelEvent::NsidAssigned(Nsid::from_raw(id))
}

fn host_id_assigned(id: i32) -> KernelEvent {
    KernelEvent::MetByHost(Nsid::from_raw(id))
}

#[tokio::test(start_paused = true)]
async fn the_id_of_an_unknown_namespace_is_reported_once() {
    let mut actor = start_tracking(UnknownNamespaces::Report).await;
    actor.kernel.send(id_assigned(7));
    actor.nothing_for(UNSWEPT / 2).await;
    // Several ids at once cause one report.
    for id in [8, 9] {
        actor.kernel.send(id_assigned(id));
    }
    expect_unknown_namespace(&mut actor).await;
}

#[tokio::test(start_paused = true)]
async fn an_id_of_the_host_is_matched_with_the_tracked_namespaces() {
    // The number in the host's table does not identify the namespace.
    for (given_by_host, is_unknown) in [
        (Some(Some(7)), false),
        (Some(Some(8)), true),
        (Some(None), true),
        // The host no longer has the id.
        (None, false),
    ] {
        let mut actor = start_tracking(UnknownNamespaces::Report).await;
        actor.kernel.set(|state| {
            state.given_by_host.extend(given_by_host.map(|id| (3, id)));
            state.given_by_host.insert(7, None);
        });
        actor.kernel.send(host_id_assigned(3));
        if is_unknown {
            expect_unknown_namespace(&mut actor).await;
        } else {
            actor.nothing_for(UNSWEPT / 2).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_host_ids_causes_few_queries() {
    let mut actor = start_tracking(UnknownNamespaces::Report).await;
    for id in 0..1000 {
        actor.kernel.set(|state| {
            state.given_by_host.insert(id, Some(7));
        });
        actor.kernel.send(host_id_assigned(id));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    actor.kernel.send(host_id_assigned(1000));
    actor.kernel.set(|state| {
        state.given_by_host.insert(1000, None);
    });
    expect_unknown_namespace(&mut actor).await;
    let mut queries = 0;
    actor.kernel.set(|state| queries = state.queries);
    // The burst lasts a second. A query takes 1 ms, and a pause of 10 ms follows.
    assert!((2..=120).contains(&queries), "{queries}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_queried_or_reported_if_unknown_namespaces_are_ignored() {
    let mut actor = start_tracking(UnknownNamespaces::Ignore).await;
    actor.kernel.set(|state| {
        state.given_by_host.insert(3, None);
    });
    actor.kernel.send(id_assigned(8));
    actor.kernel.send(host_id_assigned(3));
    actor.nothing_for(UNSWEPT / 2).await;
    actor
        .kernel
        .set(|state| assert_eq!(state.queries, 0, "asked"));
}

#[tokio::test(start_paused = true)]
async fn lost_events_are_reported_as_an_unknown_namespace() {
    let mut actor = start_tracking(UnknownNamespaces::Report).await;
    actor.kernel.send(KernelEvent::Lost);
    expect_unknown_namespace(&mut actor).await;
    let mut actor = start_tracking(UnknownNamespaces::Ignore).await;
    actor.kernel.send(KernelEvent::Lost);
    actor.nothing_for(UNSWEPT / 2).await;
}
