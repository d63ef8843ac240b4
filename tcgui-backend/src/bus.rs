//! The Zenoh bus: the session, what is published, what is asked. The only code that names `zenoh`.
//!
//! The actor owns the session with its publishers, queryables and liveliness token. Inputs:
//! [`Publication`]s, one at a time, from the backend; queries from clients. Outputs: [`Request`]s to
//! the backend, each with its [`Reply`]; replies to clients. It ends when it is told to stop.
//!
//! ```text
//!  backend ── Publication ──▶ task.rs ──▶ publishers.rs ──▶ clients
//!     ▲ ◀───────── cost ──────────┘
//!     └──── Request + Reply ── queries.rs ◀──────────────── clients
//! ```
//!
//! Samples, which come in thousands and are not kept, have an actor of their own (`samples.rs`).
//!
//! A put may wait for a slow link and a reply for a frozen client, so both happen on blocking threads.
//! Nobody's query goes unanswered: what cannot be understood, taken in time or answered is answered
//! with a failure of the form that its key promises.

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
use tokio::sync::{Notify, mpsc, oneshot};

use crate::error::BoxError;
use crate::kernel::process;

use replies::ReplyPriority;

pub use namesakes::{NAMESAKE_GONE, Namesakes};

pub use samples::{Sample, SampleTask};
pub use session::open;
pub use task::Task;

/// Requests that wait for the backend, which takes each in microseconds. More are answered "busy".
const REQUESTS: usize = 256;

/// Blocking threads that may wait for clients: those of the replies, and those of the last samples.
pub const WRITERS: usize = 2 * replies::WRITERS;

/// Threads of Zenoh: it sends on `tx` and receives on `rx`. A thread that writes to a client or closes its link may
/// wait for that client. With several of them the links of others go on meanwhile.
const ZENOH_THREADS: &str = "(tx: (worker_threads: 8), rx: (worker_threads: 16))";

/// How long Zenoh's `close()` of a link waits for a client that does not read, in seconds.
///
/// Zenoh sets `SO_LINGER` to 10 s unless these variables of the build say otherwise, and closes links on the
/// threads that receive from all clients. `.cargo/config.toml` sets them to 0.
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

/// Prepares the process for Zenoh; to be called while it has no other thread. A value of the operator's is kept.
pub fn prepare() {
    process::default_environment("ZENOH_RUNTIME", ZENOH_THREADS);
}

/// Why there is no bus, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// A configuration value that Zenoh refuses.
    #[error("cannot configure the bus: {key} = {value}")]
    Configure {
        /// Its path in Zenoh's configuration.
        key: &'static str,
        /// What it was to be.
        value: String,
        /// What Zenoh said.
        #[source]
        err: BoxError,
    },
    /// An endpoint cannot be listened on.
    #[error("cannot listen on {endpoint} ({hint})")]
    Listen {
        /// As configured.
        endpoint: String,
        /// What to do about it.
        hint: &'static str,
        /// What the kernel said.
        #[source]
        err: io::Error,
    },
    /// The session was not opened.
    #[error("cannot open the Zenoh session ({hint})")]
    Open {
        /// What to do about it.
        hint: &'static str,
        /// What Zenoh said.
        #[source]
        err: BoxError,
    },
    /// A publisher, queryable or token was refused.
    #[error("cannot declare {key}")]
    Declare {
        /// The key expression.
        key: String,
        /// What Zenoh said.
        #[source]
        err: BoxError,
    },
}

/// A message, or part of one, serialised ahead of its publication. Clones share it.
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

/// Answers, with the way back of each.
pub type Answers = Vec<(Reply<TcResponse>, TcResponse)>;

/// What is published together, in this order, each cached for late clients.
#[derive(Debug, Default)]
pub struct Publication {
    /// `presets/list`.
    pub presets: Option<PresetList>,
    /// `interfaces/list`. The liveliness token follows the first one.
    pub list: Option<InterfaceListUpdate<Rendered>>,
    /// `health`.
    pub health: Option<BackendHealthStatus>,
    /// `tc/NS/IF`; after the list, because clients drop what is about unknown interfaces.
    pub tc: Vec<TcPublication>,
    /// `scenario/execution/NS/IF`.
    pub executions: Vec<ExecutionPublication>,
    /// Answers to those who asked for what is published above, given after it.
    pub answers: Answers,
}

impl Publication {
    /// Returns whether there is nothing to do.
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

/// What happens to one `tc/NS/IF`.
#[derive(Debug, Clone, PartialEq)]
pub struct TcPublication {
    /// The namespace.
    pub netns: NamespaceName,
    /// The interface in it.
    pub interface: InterfaceName,
    /// What to publish; `None`: the interface is gone, and its publisher with it.
    pub update: Option<TcConfigUpdate>,
    /// Whether clients that join late get it, for which the key has a publisher of its own.
    pub is_kept: bool,
}

/// What happens to one `scenario/execution/NS/IF`.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecutionPublication {
    /// The namespace.
    pub netns: NamespaceName,
    /// The interface in it.
    pub interface: InterfaceName,
    /// What to publish; `None`: nothing has run there for a while, and the publisher goes.
    pub update: Option<ScenarioExecutionUpdate>,
}

/// To publish.
#[derive(Debug, Clone)]
pub struct BusHandle {
    publications: mpsc::Sender<(Publication, oneshot::Sender<Duration>)>,
}

impl BusHandle {
    /// Publishes and returns how long that took; `None` when the bus is gone.
    pub async fn publish(&self, publication: Publication) -> Option<Duration> {
        let (reply, cost) = oneshot::channel();
        self.publications.send((publication, reply)).await.ok()?;
        cost.await.ok()
    }
}

/// Gives each its answer.
pub fn send(answers: Answers) {
    for (reply, answer) in answers {
        reply.send(answer);
    }
}

/// What comes from clients.
#[derive(Debug)]
pub struct Clients {
    /// Their requests.
    pub requests: mpsc::Receiver<Request>,
    /// Other backends of this name.
    pub namesakes: Namesakes,
    /// A frontend appeared, which may miss what is published before it has the list.
    pub joined: Arc<Notify>,
}

/// What a client asks for, and where the answer goes.
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
    /// Returns whether it asks for a change of anything, on this host or in what is stored.
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

    /// Answers with a failure in the form of its key.
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

/// The way back to the client. Dropped unanswered, the client gets a failure.
pub struct Reply<R> {
    turn: ReplyPriority,
    answer: Option<Box<Answer<R>>>,
}

/// Takes the answer, or `None` when there will be none. Never waits.
type Answer<R> = dyn FnOnce(Option<R>, ReplyPriority) + Send;

impl<R> Reply<R> {
    fn new(answer: impl FnOnce(Option<R>, ReplyPriority) + Send + 'static) -> Self {
        Self {
            turn: ReplyPriority::InOrder,
            answer: Some(Box::new(answer)),
        }
    }

    /// Returns a reply and the end at which its answer arrives.
    pub fn channel() -> (Self, oneshot::Receiver<R>)
    where
        R: Send + 'static,
    {
        let (tx, rx) = oneshot::channel();
        let answer = move |answer, _| {
            if let Some(answer) = answer {
                // Whoever is gone needs no answer.
                tx.send(answer).ok();
            }
        };
        (Self::new(answer), rx)
    }

    /// Lets the answers of others go first.
    #[must_use]
    pub fn yielding(mut self) -> Self {
        self.turn = ReplyPriority::Last;
        self
    }

    /// Answers.
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
