//! Namespaces to which no tracked way leads.

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
async fn an_id_of_a_namespace_that_is_not_known_is_news_once() {
    let mut actor = start_tracking(Strangers::Report).await;
    actor.kernel.ring(met(7));
    actor.nothing_for(UNSWEPT / 2).await;
    // Several at once are one reason to look for them.
    for id in [8, 9] {
        actor.kernel.ring(met(id));
    }
    expect_stranger(&mut actor).await;
}

#[tokio::test(start_paused = true)]
async fn an_id_of_the_host_is_matched_with_the_tracked_namespaces() {
    // The number that the host has given says nothing about who is meant.
    for (given_by_host, is_stranger) in [
        (Some(Some(7)), false),
        (Some(Some(8)), true),
        (Some(None), true),
        // It is gone.
        (None, false),
    ] {
        let mut actor = start_tracking(Strangers::Report).await;
        actor.kernel.set(|state| {
            state.given_by_host.extend(given_by_host.map(|id| (3, id)));
            state.given_by_host.insert(7, None);
        });
        actor.kernel.ring(met_by_host(3));
        if is_stranger {
            expect_stranger(&mut actor).await;
        } else {
            actor.nothing_for(UNSWEPT / 2).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_ids_of_the_host_takes_few_questions() {
    let mut actor = start_tracking(Strangers::Report).await;
    for id in 0..1000 {
        actor.kernel.set(|state| {
            state.given_by_host.insert(id, Some(7));
        });
        actor.kernel.ring(met_by_host(id));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    actor.kernel.ring(met_by_host(1000));
    actor.kernel.set(|state| {
        state.given_by_host.insert(1000, None);
    });
    expect_stranger(&mut actor).await;
    let mut questions = 0;
    actor.kernel.set(|state| questions = state.questions);
    // The burst lasts a second. A question takes a millisecond, and a pause of ten follows.
    assert!((2..=120).contains(&questions), "{questions}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_or_reported_if_nobody_looks_for_strangers() {
    let mut actor = start_tracking(Strangers::Ignore).await;
    actor.kernel.set(|state| {
        state.given_by_host.insert(3, None);
    });
    actor.kernel.ring(met(8));
    actor.kernel.ring(met_by_host(3));
    actor.nothing_for(UNSWEPT / 2).await;
    actor
        .kernel
        .set(|state| assert_eq!(state.questions, 0, "asked"));
}

#[tokio::test(start_paused = true)]
async fn lost_events_may_have_announced_a_namespace_that_is_not_known() {
    let mut actor = start_tracking(Strangers::Report).await;
    actor.kernel.ring(KernelEvent::Lost);
    expect_stranger(&mut actor).await;
    let mut actor = start_tracking(Strangers::Ignore).await;
    actor.kernel.ring(KernelEvent::Lost);
    actor.nothing_for(UNSWEPT / 2).await;
}
