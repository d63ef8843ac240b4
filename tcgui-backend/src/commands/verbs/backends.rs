//! `backends`: the daemons on the bus.

use std::sync::Arc;
use std::time::Duration;

use tcgui_backend::cli::verbs::BackendsArgs;
use tcgui_backend::client::Client;
use tcgui_shared::keys::Keys;
use tcgui_shared::state::{StateRequest, StateResponse};
use tokio::task::JoinSet;

use super::documents::{BackendDocument, BackendsDocument, SCHEMA};
use super::failure::{Failure, Status};
use super::output::{Output, print, table};
use super::session::connect;
use super::times::rfc3339;

/// How long daemons have to report their presence, and to answer.
const WITHIN: Duration = Duration::from_secs(2);

/// Lists the daemons.
pub(super) async fn backends(args: BackendsArgs) -> Result<(), Failure> {
    let output = Output::of(&args.client);
    let client = Arc::new(connect(args.client.connect.as_deref(), args.client.timeout).await?);
    let mut present = client.backends(WITHIN).await?;
    if let Some(wanted) = &args.client.backend {
        present.retain(|name| name == wanted);
    }
    if present.is_empty() {
        let message = "no daemon is on the bus; start one with `systemctl start tcgui-backend`";
        return Err(Failure::new(Status::NoDaemon, message));
    }
    let mut asked = JoinSet::new();
    for name in present {
        let (client, within) = (Arc::clone(&client), args.client.timeout.min(WITHIN));
        asked.spawn(async move { ask(&client, name, within).await });
    }
    let mut backends = asked.join_all().await;
    backends.sort_by(|a, b| a.name.cmp(&b.name));
    if output.is_table() {
        let rows = backends.iter().map(|it| {
            let count =
                |count: Option<usize>| count.map_or_else(|| "?".to_owned(), |it| it.to_string());
            vec![
                it.name.clone(),
                it.host.clone().unwrap_or_default(),
                it.version.clone().unwrap_or_default(),
                count(it.namespaces),
                count(it.interfaces),
                it.error.clone().unwrap_or_default(),
            ]
        });
        let heading = ["NAME", "HOST", "VERSION", ">NAMESPACES", ">INTERFACES", ""];
        print(&table(&heading, rows.collect()))?;
    }
    let document = BackendsDocument {
        schema: SCHEMA,
        backends,
    };
    output.document(&document, &document.backends).map(drop)
}

async fn ask(client: &Client, name: String, within: Duration) -> BackendDocument {
    let mut document = BackendDocument {
        name: name.clone(),
        host: None,
        version: None,
        started_at: None,
        namespaces: None,
        interfaces: None,
        error: None,
    };
    let Ok(backend) = name.parse() else {
        document.error = Some("its name is not valid".to_owned());
        return document;
    };
    // Only the head of the state is of interest.
    let request = StateRequest {
        impaired: true,
        ..StateRequest::default()
    };
    let key = Keys::new(&backend).query_state();
    let answer: Result<StateResponse, _> = client.ask(&key, &request, within).await;
    match answer {
        Ok(StateResponse {
            state: Some(state), ..
        }) => {
            document.host = state.hostname;
            document.version = Some(state.version);
            document.started_at = Some(rfc3339(state.started_at));
            document.namespaces = Some(state.namespace_count);
            document.interfaces = Some(state.interface_count);
        }
        Ok(StateResponse { message, .. }) => document.error = Some(message),
        Err(err) => document.error = Some(Failure::from(err).message),
    }
    document
}
