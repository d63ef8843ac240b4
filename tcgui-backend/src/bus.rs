//! The Zenoh bus: the session, publications and queries. Types of `zenoh` appear in no other module.
//!
//! The actor owns the session with its publishers, queryables and liveliness token. Its inputs are [`Publication`]s
//! from the backend, one at a time, and queries from clients. Its outputs are [`Request`]s to the backend, each with
//! its [`Reply`], and replies to clients. It ends when it is stopped.
//!
//! ```text
//! backend ── Publication ──▶ task.rs ──▶ publishers.rs ──▶ clients
//!    ▲ ◀───────── cost ──────────┘
//!    └──── Request + Reply ── queries.rs ◀──────────────── clients
//! ```
//!
//! A separate actor sends samples (`samples.rs`), because there are thousands of them and they are not kept.
//!
//! A put may wait for a slow link, and a reply for a frozen client. So both run on blocking threads. Except in an
//! overload, every query gets a reply in the format of its key: a failure if the request is invalid, cannot be accepted
//! in time, or is not answered by the backend.

mod admission;
mod cached;
mod joining;
mod listening;
mod namesakes;
mod publishers;
mod queries;
mod replies;
mod samples;
mod session;
mod task;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use tcgui_shared::control::{InterfaceControlRequest, InterfaceControlResponse};
use tcgui_shared::diagnostics::{DiagnosticsRequest, DiagnosticsResponse};
use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::explain::{ExplainRequest, ExplainResponse};
use tcgui_shared::health::BackendHealthStatus;
use tcgui_shared::interface::InterfaceListUpdate;
use tcgui_shared::names::{InterfaceName, NamespaceName};
use tcgui_shared::preset::PresetList;
use tcgui_shared::scenario::{
    ScenarioError, ScenarioExecutionRequest, ScenarioExecutionResponse, ScenarioExecutionUpdate,
    ScenarioRequest, ScenarioResponse,
};
use tcgui_shared::state::{StateRequest, StateResponse};
use tcgui_shared::tc::{TcConfigUpdate, TcRequest, TcResponse};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::error::BoxError;
use crate::kernel::process;

use replies::ReplyPriority;

pub use namesakes::{NAMESAKE_GONE, Namesakes};

pub use listening::try_bind;
pub use samples::{Sample, SampleTask};
pub use session::open;
pub use task::Task;

/// Capacity of the request channel. The backend takes a request within microseconds. Further requests are answered
/// "busy".
const REQUESTS: usize = 256;

/// Number of blocking threads that may wait for clients: those for replies, and those for last samples.
pub const WRITERS: usize = 2 * replies::WRITERS;

/// Number of Zenoh's threads: those of `tx` send, those of `rx` receive. A thread that writes to a client, or closes
/// its link, may wait for that client. The other threads then continue to serve other links.
const ZENOH_THREADS: &str = "(tx: (worker_threads: 8), rx: (worker_threads: 16))";

/// Checks the time in seconds that Zenoh's `close()` of a link waits for a client that does not read.
///
/// By default, Zenoh sets `SO_LINGER` to 10 s. It closes links on the threads that receive from all clients. These
/// build variables change the time, and `.cargo/config.toml` sets them to 0.
const _: () = {
    const fn is_zero(value: Option<&str>) -> bool {
        match value {
            Some(value) => matches!(value.as_bytes(), b"0"),
            None => false,
        }
    }
    assert!(
        is_zero(option_env!("TCP_LINGER_TIMEOUT")) && is_zero(option_env!("TLS_LINGER_TIMEOUT")),
        "TCP_LINGER_TIMEOUT and TLS_LINGER_TIMEOUT must be 0: run cargo in the root of the workspace, where it finds \
         .cargo/config.toml, or set both variables"
    );
};

/// Prepares the process for Zenoh. Call it before any other thread is started. A value that the operator has set is
/// kept.
pub fn prepare() {
    process::default_environment("ZENOH_RUNTIME", ZENOH_THREADS);
}

/// The reasons why there is no bus.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Zenoh refused a configuration value.
    #[error("cannot configure the bus: {key} = {value}")]
    Configure {
        /// Its path in Zenoh's configuration.
        key: &'static str,
        /// The value.
        value: String,
        /// The error from Zenoh.
        #[source]
        err: BoxError,
    },
    /// The daemon cannot listen on an endpoint.
    #[error("cannot listen on {endpoint} ({hint})")]
    Listen {
        /// The endpoint as configured.
        endpoint: String,
        /// The remedy.
        hint: &'static str,
        /// The error from the kernel.
        #[source]
        err: io::Error,
    },
    /// Zenoh could not open the session.
    #[error("cannot open the Zenoh session ({hint})")]
    Open {
        /// The remedy.
        hint: &'static str,
        /// The error from Zenoh.
        #[source]
        err: BoxError,
    },
    /// Zenoh refused a publisher, queryable or token.
    #[error("cannot declare {key}")]
    Declare {
        /// The key expression.
        key: String,
        /// The error from Zenoh.
        #[source]
        err: BoxError,
    },
}

/// A message or part of a message that is already serialised. Clones share it.
#[derive(Debug, Clone)]
pub struct Rendered(Arc<RawValue>);

impl Rendered {
    /// Serialises a value.
    ///
    /// # Errors
    /// The value cannot be written as JSON.
    pub fn new(value: &impl Serialize) -> serde_json::Result<Self> {
        serde_json::value::to_raw_value(value).map(|json| Self(json.into()))
    }

    /// Returns the JSON text.
    pub fn json(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Rendered {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.json() == other.json()
    }
}

impl Serialize for Rendered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// Responses, each with the reply on which it is sent.
pub type Answers = Vec<(Reply<TcResponse>, TcResponse)>;

/// Messages that are published together, in this order. Cached publishers keep them for clients that connect later.
#[derive(Debug, Default)]
pub struct Publication {
    /// `presets/list`.
    pub presets: Option<PresetList>,
    /// `interfaces/list`. The liveliness token follows the first one.
    pub list: Option<InterfaceListUpdate<Rendered>>,
    /// `health`.
    pub health: Option<BackendHealthStatus>,
    /// `tc/NS/IF`. It follows the list, because clients drop messages about unknown interfaces.
    pub tc: Vec<TcPublication>,
    /// `scenario/execution/NS/IF`.
    pub executions: Vec<ExecutionPublication>,
    /// Responses to the requesters of the changes above. They are sent after the publication.
    pub answers: Answers,
}

impl Publication {
    /// Returns whether there is nothing to publish or to send.
    pub fn is_empty(&self) -> bool {
        let Self {
            presets,
            list,
            health,
            tc,
            executions,
            answers,
        } = self;
        presets.is_none()
            && list.is_none()
            && health.is_none()
            && tc.is_empty()
            && executions.is_empty()
            && answers.is_empty()
    }
}

/// A publication on `tc/NS/IF`.
#[derive(Debug, Clone, PartialEq)]
pub struct TcPublication {
    /// The namespace.
    pub netns: NamespaceName,
    /// The interface in it.
    pub interface: InterfaceName,
    /// The message. `None`: the interface is gone, so its publisher is removed.
    pub update: Option<TcConfigUpdate>,
    /// Whether clients that connect later get the message. This needs a cached publisher for the key.
    pub is_kept: bool,
}

/// A publication on `scenario/execution/NS/IF`.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecutionPublication {
    /// The namespace.
    pub netns: NamespaceName,
    /// The interface in it.
    pub interface: InterfaceName,
    /// The message. `None`: no scenario has run there for some time, so the publisher is removed.
    pub update: Option<ScenarioExecutionUpdate>,
}

/// Sends publications to the actor.
#[derive(Debug, Clone)]
pub struct BusHandle {
    publications: mpsc::Sender<(Publication, oneshot::Sender<Duration>)>,
}

impl BusHandle {
    /// Publishes, and returns the duration. `None`: the bus has ended.
    pub async fn publish(&self, publication: Publication) -> Option<Duration> {
        let (reply, cost) = oneshot::channel();
        self.publications.send((publication, reply)).await.ok()?;
        cost.await.ok()
    }
}

/// Sends each response.
pub fn send(answers: Answers) {
    for (reply, answer) in answers {
        reply.send(answer);
    }
}

/// The inputs from other members of the bus.
#[derive(Debug)]
pub struct Clients {
    /// Requests of clients.
    pub requests: mpsc::Receiver<Request>,
    /// Other backends with the same name.
    pub namesakes: Namesakes,
    /// Notified when a frontend appears. It may miss messages that are published before it has the list.
    pub joined: Arc<Notify>,
    /// Becomes true once, when the liveliness token is declared: clients see this backend from then on.
    pub is_visible: watch::Receiver<bool>,
}

/// A request of a client, with the reply for it.
#[derive(Debug)]
pub enum Request {
    /// `query/tc`.
    Tc(Box<TcRequest>, Reply<TcResponse>),
    /// `query/interface`.
    Interface(InterfaceControlRequest, Reply<InterfaceControlResponse>),
    /// `query/scenario`.
    Scenario(ScenarioRequest, Reply<ScenarioResponse>),
    /// `query/scenario/execution`.
    Execution(ScenarioExecutionRequest, Reply<ScenarioExecutionResponse>),
    /// `query/diagnostics`.
    Diagnostics(DiagnosticsRequest, Reply<DiagnosticsResponse>),
    /// `query/explain`.
    Explain(ExplainRequest, Reply<ExplainResponse>),
    /// `query/state`.
    State(StateRequest, Reply<StateResponse>),
}

impl Request {
    /// Returns whether it requests a change, on this host or of stored scenarios.
    pub fn is_change(&self) -> bool {
        match self {
            Self::Tc(..) | Self::Interface(..) => true,
            Self::Scenario(request, _) => match request {
                ScenarioRequest::Add(_)
                | ScenarioRequest::Remove { .. }
                | ScenarioRequest::Update(_) => true,
                ScenarioRequest::List | ScenarioRequest::Get { .. } => false,
            },
            Self::Execution(request, _) => match request {
                ScenarioExecutionRequest::Start { .. }
                | ScenarioExecutionRequest::Stop(_)
                | ScenarioExecutionRequest::Pause(_)
                | ScenarioExecutionRequest::Resume(_) => true,
                ScenarioExecutionRequest::Status(_) | ScenarioExecutionRequest::ListActive => false,
            },
            Self::Diagnostics(..) | Self::Explain(..) | Self::State(..) => false,
        }
    }

    /// Sends a failure in the format of the key.
    pub fn refuse(self, kind: ErrorKind, message: String) {
        match self {
            Self::Tc(_, reply) => reply.send(TcResponse::failure(message, kind)),
            Self::Interface(request, reply) => {
                let operation = request.operation;
                reply.send(InterfaceControlResponse::failure(operation, message, kind));
            }
            Self::Scenario(_, reply) => {
                reply.send(ScenarioError::new(kind.into(), message).into());
            }
            Self::Execution(_, reply) => {
                reply.send(ScenarioError::new(kind.into(), message).into());
            }
            Self::Diagnostics(_, reply) => reply.send(DiagnosticsResponse::failure(message, kind)),
            Self::Explain(_, reply) => reply.send(ExplainResponse::failure(message, kind)),
            Self::State(_, reply) => reply.send(StateResponse::failure(message, kind)),
        }
    }
}

/// Sends the response to the client. If it is dropped, the client gets a failure.
pub struct Reply<R> {
    turn: ReplyPriority,
    answer: Option<Box<Answer<R>>>,
}

/// Takes the response, or `None` if the reply was dropped. Never waits.
type Answer<R> = dyn FnOnce(Option<R>, ReplyPriority) + Send;

impl<R> Reply<R> {
    fn new(answer: impl FnOnce(Option<R>, ReplyPriority) + Send + 'static) -> Self {
        Self {
            turn: ReplyPriority::InOrder,
            answer: Some(Box::new(answer)),
        }
    }

    /// Returns a reply, and the receiver of its response.
    pub fn channel() -> (Self, oneshot::Receiver<R>)
    where
        R: Send + 'static,
    {
        let (tx, rx) = oneshot::channel();
        let answer = move |answer, _| {
            if let Some(answer) = answer {
                // A receiver that was dropped needs no response.
                tx.send(answer).ok();
            }
        };
        (Self::new(answer), rx)
    }

    /// Lets the replies to other requests go first.
    #[must_use]
    pub fn yielding(mut self) -> Self {
        self.turn = ReplyPriority::Last;
        self
    }

    /// Sends the response.
    pub fn send(mut self, answer: R) {
        self.end(Some(answer));
    }

    fn end(&mut self, answer: Option<R>) {
        if let Some(send) = self.answer.take() {
            send(answer, self.turn);
        }
    }
}

impl<R> Drop for Reply<R> {
    fn drop(&mut self) {
        self.end(None);
    }
}

impl<R> fmt::Debug for Reply<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}
