//! The session of a verb: the daemon that was chosen, and its queries.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tcgui_backend::cli::verbs::ClientArgs;
use tcgui_backend::client::Client;
use tcgui_backend::config;
use tcgui_backend::error::chain;
use tcgui_shared::control::{InterfaceControlRequest, InterfaceControlResponse};
use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::keys::Keys;
use tcgui_shared::names::BackendName;
use tcgui_shared::scenario::{
    ScenarioExecutionRequest, ScenarioExecutionResponse, ScenarioRequest, ScenarioResponse,
};
use tcgui_shared::state::{BackendState, StateRequest, StateResponse};
use tcgui_shared::tc::{TcRequest, TcResponse};
use tokio::time::Instant;

use super::failure::{Failure, Status};

/// The pause before a daemon that starts is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A session with one daemon.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) backend: BackendName,
    pub(super) keys: Keys,
    timeout: Duration,
}

/// Checks the endpoint and connects to it.
pub(super) async fn connect(endpoint: Option<&str>, within: Duration) -> Result<Client, Failure> {
    let endpoint = endpoint.unwrap_or(config::DEFAULT_LISTEN);
    if let Err(err) = config::check_endpoint(endpoint) {
        let message = format!("--connect: {}", chain(&err));
        return Err(Failure::new(Status::Usage, message));
    }
    Ok(Client::connect(endpoint, within).await?)
}

impl Session {
    /// Connects, and chooses the daemon.
    pub(super) async fn open(args: &ClientArgs) -> Result<Self, Failure> {
        Self::choose(
            args.connect.as_deref(),
            args.backend.as_deref(),
            args.timeout,
        )
        .await
    }

    /// Connects, and chooses the daemon of this name, or the only one.
    pub(super) async fn choose(
        endpoint: Option<&str>,
        wanted: Option<&str>,
        timeout: Duration,
    ) -> Result<Self, Failure> {
        let wanted: Option<BackendName> = match wanted.map(str::parse).transpose() {
            Ok(wanted) => wanted,
            Err(err) => return Err(Failure::new(Status::Usage, format!("--backend: {err}"))),
        };
        let client = connect(endpoint, timeout).await?;
        let present = client.backends(timeout).await?;
        let present: Vec<_> = present.iter().map(String::as_str).collect();
        let backend = choose(wanted.as_ref(), &present)?;
        let keys = Keys::new(&backend);
        Ok(Self {
            client,
            backend,
            keys,
            timeout,
        })
    }

    /// Sends a request to a key of the daemon.
    pub(super) async fn ask<Q: Serialize, R: DeserializeOwned>(
        &self,
        key: &str,
        request: &Q,
    ) -> Result<R, Failure> {
        Ok(self.client.ask(key, request, self.timeout).await?)
    }

    /// Asks for a change of a qdisc.
    pub(super) async fn tc(&self, request: &TcRequest) -> Result<TcResponse, Failure> {
        let response: TcResponse = self.ask(&self.keys.query_tc(), request).await?;
        if response.success {
            return Ok(response);
        }
        Err(Failure::of_reply(response.error_kind, response.message))
    }

    /// Asks for a change of a link.
    pub(super) async fn link(
        &self,
        request: &InterfaceControlRequest,
    ) -> Result<InterfaceControlResponse, Failure> {
        let key = self.keys.query_interface();
        let response: InterfaceControlResponse = self.ask(&key, request).await?;
        if response.success {
            return Ok(response);
        }
        Err(Failure::of_reply(response.error_kind, response.message))
    }

    /// Asks for something about stored scenarios.
    pub(super) async fn scenario(
        &self,
        request: &ScenarioRequest,
    ) -> Result<ScenarioResponse, Failure> {
        match self.ask(&self.keys.query_scenario(), request).await? {
            ScenarioResponse::Error { error } => Err(error.into()),
            response => Ok(response),
        }
    }

    /// Asks for something about scenarios that run.
    pub(super) async fn execution(
        &self,
        request: &ScenarioExecutionRequest,
    ) -> Result<ScenarioExecutionResponse, Failure> {
        let key = self.keys.query_scenario_execution();
        match self.ask(&key, request).await? {
            ScenarioExecutionResponse::Error { error } => Err(error.into()),
            response => Ok(response),
        }
    }

    /// Asks what is in force. A daemon that starts is asked again until the timeout.
    pub(super) async fn state(&self, request: &StateRequest) -> Result<BackendState, Failure> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let response: StateResponse = self.ask(&self.keys.query_state(), request).await?;
            match response.state {
                Some(state) if response.success => return Ok(state),
                _ => {}
            }
            let may_change = response.error_kind == Some(ErrorKind::Busy);
            if !may_change || Instant::now() + RETRY_PAUSE > deadline {
                return Err(Failure::of_reply(response.error_kind, response.message));
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Leaves the bus.
    pub(super) async fn close(self) {
        self.client.close().await;
    }
}

/// Returns the daemon to talk to.
fn choose(wanted: Option<&BackendName>, present: &[&str]) -> Result<BackendName, Failure> {
    let no_daemon = |message: String| Failure::new(Status::NoDaemon, message);
    let named = |name: &str| {
        name.parse::<BackendName>().map_err(|err| {
            Failure::new(
                Status::Failed,
                format!("a daemon has the name {name:?}: {err}"),
            )
        })
    };
    match (wanted, present) {
        (Some(wanted), _) if present.contains(&wanted.as_str()) => Ok(wanted.clone()),
        (Some(wanted), []) => Err(no_daemon(format!(
            "no daemon named {wanted} is on the bus; start it with `tcgui-backend --name {wanted}`"
        ))),
        (Some(wanted), others) => Err(no_daemon(format!(
            "no daemon named {wanted} is on the bus, there is {}; name one with --backend",
            others.join(", ")
        ))),
        (None, []) => Err(no_daemon(
            "no daemon is on the bus; start one with `systemctl start tcgui-backend`".to_owned(),
        )),
        (None, [only]) => named(only),
        (None, several) => Err(Failure::new(
            Status::Usage,
            format!(
                "several daemons are on the bus: {}; choose one with --backend or TCGUI_BACKEND_NAME",
                several.join(", ")
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(wanted: Option<&str>, present: &[&str]) -> Result<String, (Status, String)> {
        let wanted = wanted.map(|name| name.parse().unwrap());
        choose(wanted.as_ref(), present)
            .map(|name| name.to_string())
            .map_err(|failure| (failure.status, failure.message))
    }

    #[test]
    fn the_only_daemon_is_chosen() {
        assert_eq!(chosen(None, &["lab"]), Ok("lab".to_owned()));
        assert_eq!(chosen(Some("b"), &["a", "b"]), Ok("b".to_owned()));
    }

    #[test]
    fn several_daemons_without_a_choice_are_listed() {
        let (status, message) = chosen(None, &["a", "b"]).unwrap_err();
        assert_eq!(status, Status::Usage);
        assert!(
            message.contains("a, b") && message.contains("--backend"),
            "{message}"
        );
    }

    #[test]
    fn a_daemon_that_is_not_there_is_reported_with_those_that_are() {
        let (status, message) = chosen(Some("c"), &["a", "b"]).unwrap_err();
        assert_eq!(status, Status::NoDaemon);
        assert!(message.contains("a, b"), "{message}");
        let (status, _) = chosen(None, &[]).unwrap_err();
        assert_eq!(status, Status::NoDaemon);
    }
}
