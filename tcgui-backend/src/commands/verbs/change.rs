//! `clear`, `confirm`, `up` and `down`.

use std::sync::Arc;

use tcgui_backend::cli::verbs::{ClearArgs, TargetsArgs};
use tcgui_shared::control::{InterfaceControlOperation, InterfaceControlRequest};
use tcgui_shared::state::StateRequest;
use tcgui_shared::tc::{TcOperation, TcRequest};

use super::apply::{client_name, done, state_of};
use super::failure::Failure;
use super::impairment::{self, describe};
use super::output::Output;
use super::session::Session;
use super::targets::{Done, Interface, Loopback, each, report, resolve};

/// Removes impairments.
pub(super) async fn clear(args: ClearArgs) -> Result<(), Failure> {
    let output = Output::of(&args.client);
    let session = Arc::new(Session::open(&args.client).await?);
    let interfaces = if args.all {
        let impaired = StateRequest {
            impaired: true,
            ..StateRequest::default()
        };
        let state = session.state(&impaired).await?;
        let interfaces = state.interfaces.into_iter();
        interfaces.map(|it| (it.namespace, it.interface)).collect()
    } else {
        resolve(&session, &args.targets, Loopback::Included).await?
    };
    if interfaces.is_empty() {
        output.note("no interface is impaired");
    }
    let act = |session: Arc<Session>, interface: Interface| async move {
        remove(&session, &interface).await
    };
    let outcomes = each(&session, interfaces, "clearing", output.quiet, act).await;
    report(&session, output, &outcomes, false)
}

/// Removes an impairment, and says what it was. What was there is read first, so it may have changed since.
async fn remove(session: &Session, interface: &Interface) -> Result<Done, Failure> {
    let before = state_of(session, interface).await.ok();
    let before = before.and_then(|state| state.configuration);
    let before = before.map(|it| describe(&impairment::document(&it.netem)));
    let request = TcRequest {
        client: Some(client_name("clear")),
        ..TcRequest::new(&interface.0, &interface.1, TcOperation::Remove)
    };
    let done = done(&session.tc(&request).await?);
    let text = match (before, &done.netem) {
        (_, Some(_)) => None,
        (Some(before), None) => Some(format!("removed {before}")),
        (None, None) => Some("no impairment".to_owned()),
    };
    Ok(Done { text, ..done })
}

/// Keeps impairments that wait for a confirmation.
pub(super) async fn confirm(args: TargetsArgs) -> Result<(), Failure> {
    let output = Output::of(&args.client);
    let session = Arc::new(Session::open(&args.client).await?);
    let interfaces = resolve(&session, &args.on.targets, Loopback::Included).await?;
    let act = |session: Arc<Session>, (namespace, interface): Interface| async move {
        let request = TcRequest::new(namespace, interface, TcOperation::Confirm);
        Ok(done(&session.tc(&request).await?))
    };
    let outcomes = each(&session, interfaces, "confirming", output.quiet, act).await;
    report(&session, output, &outcomes, false)
}

/// Switches interfaces on or off.
pub(super) async fn switch(args: TargetsArgs, up: bool) -> Result<(), Failure> {
    let output = Output::of(&args.client);
    let session = Arc::new(Session::open(&args.client).await?);
    let loopback = if up {
        Loopback::Included
    } else {
        Loopback::Excluded
    };
    let interfaces = resolve(&session, &args.on.targets, loopback).await?;
    let operation = match up {
        true => InterfaceControlOperation::Enable,
        false => InterfaceControlOperation::Disable,
    };
    let act = move |session: Arc<Session>, (namespace, interface): Interface| async move {
        let request = InterfaceControlRequest {
            namespace,
            interface,
            operation,
        };
        let response = session.link(&request).await?;
        let text = if response.new_state { "up" } else { "down" };
        Ok(Done {
            text: Some(text.to_owned()),
            ..Done::default()
        })
    };
    let outcomes = each(&session, interfaces, "switching", output.quiet, act).await;
    report(&session, output, &outcomes, false)
}
