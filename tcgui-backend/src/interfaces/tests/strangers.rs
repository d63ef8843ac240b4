//! Namespaces to which no tracked reference leads.

use super::*;

/// Starts the actor with one tracked namespace, whose id in the observer's table is 7.
async fn start_tracking(strangers: Strangers) -> Actor {
    let mut actor = start_with(strangers);
    actor.kernel.set(|state| {
        state.links.insert(NetnsKey::Mounted(A), vec!["lo"]);
        state.nsids.insert(NetnsKey::Mounted(A), 7);
    });
    actor.track(A, "a").await;
    while actor.report().await.0 != NetnsKey::Mounted(A) {}
    actor
}

async fn expect_stranger(actor: &mut Actor) {
    let event = timeout(SWEEP, actor.events.recv()).await.expect("news");
    assert!(
        matches!(event, Some(InterfacesEvent::UnknownNsid)),
        "{event:?}"
    );
    actor.nothing_for(UNSWEPT / 2).await;
}

fn met(id: i32) -> KernelEvent {
    KernelEvent::NsidAssigned(Nsid::from_raw(id))
}

fn met_by_host(id: i32) -> KernelEvent {
    KernelEvent::MetByHost(Nsid::from_raw(id))
}

#[tokio::test(start_paused = true)]
async fn the_id_of_an_unknown_namespace_is_reported_once() {
    let mut actor = start_tracking(Strangers::Report).await;
    actor.kernel.send(met(7));
    actor.nothing_for(UNSWEPT / 2).await;
    // Several ids at once cause one report.
    for id in [8, 9] {
        actor.kernel.send(met(id));
    }
    expect_stranger(&mut actor).await;
}

#[tokio::test(start_paused = true)]
async fn an_id_of_the_host_is_matched_with_the_tracked_namespaces() {
    // The number in the host's table does not identify the namespace.
    for (given_by_host, is_stranger) in [
        (Some(Some(7)), false),
        (Some(Some(8)), true),
        (Some(None), true),
        // The host no longer has the id.
        (None, false),
    ] {
        let mut actor = start_tracking(Strangers::Report).await;
        actor.kernel.set(|state| {
            state.given_by_host.extend(given_by_host.map(|id| (3, id)));
            state.given_by_host.insert(7, None);
        });
        actor.kernel.send(met_by_host(3));
        if is_stranger {
            expect_stranger(&mut actor).await;
        } else {
            actor.nothing_for(UNSWEPT / 2).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_host_ids_causes_few_queries() {
    let mut actor = start_tracking(Strangers::Report).await;
    for id in 0..1000 {
        actor.kernel.set(|state| {
            state.given_by_host.insert(id, Some(7));
        });
        actor.kernel.send(met_by_host(id));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    actor.kernel.send(met_by_host(1000));
    actor.kernel.set(|state| {
        state.given_by_host.insert(1000, None);
    });
    expect_stranger(&mut actor).await;
    let mut questions = 0;
    actor.kernel.set(|state| questions = state.questions);
    // The burst lasts a second. A query takes 1 ms, and a pause of 10 ms follows.
    assert!((2..=120).contains(&questions), "{questions}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_queried_or_reported_if_unknown_namespaces_are_ignored() {
    let mut actor = start_tracking(Strangers::Ignore).await;
    actor.kernel.set(|state| {
        state.given_by_host.insert(3, None);
    });
    actor.kernel.send(met(8));
    actor.kernel.send(met_by_host(3));
    actor.nothing_for(UNSWEPT / 2).await;
    actor
        .kernel
        .set(|state| assert_eq!(state.questions, 0, "asked"));
}

#[tokio::test(start_paused = true)]
async fn lost_events_are_reported_as_an_unknown_namespace() {
    let mut actor = start_tracking(Strangers::Report).await;
    actor.kernel.send(KernelEvent::Lost);
    expect_stranger(&mut actor).await;
    let mut actor = start_tracking(Strangers::Ignore).await;
    actor.kernel.send(KernelEvent::Lost);
    actor.nothing_for(UNSWEPT / 2).await;
}
