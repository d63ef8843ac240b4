//! HTTP over the socket of an engine: four questions and a stream, each within bounds.
//!
//! A connection for each question: to connect to a Unix socket takes 50 µs, and there is no pool whose
//! connections could be stale after the engine has restarted.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::task::Poll;

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper::header::{HOST, HeaderMap};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::answers::{self, ContainerId, Listing};
use super::limits::{ANSWER, MAX_BUFFER, MAX_HEADERS, MAX_INSPECT, MAX_LIST, MAX_PING};
use super::lines::LineTooLong;
use crate::blocking;
use crate::error::BoxError;
use crate::netns_holders::Runtime;

/// Why an engine could not be asked, or gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    /// No program listens, or the process has no descriptor left.
    #[error("cannot connect to the socket")]
    Connect(#[source] io::Error),
    /// The socket is closed to the user and the groups of the daemon.
    #[error(
        "no permission to connect to the socket: add its group to the daemon (SupplementaryGroups= in the \
         unit), see \"Engines of users\" in docs/containers.md"
    )]
    Permission(#[source] io::Error),
    /// The request was refused or cut off, or the answer is no HTTP.
    #[error("cannot ask for {question}")]
    Ask {
        /// What was asked for.
        question: &'static str,
        /// What went wrong.
        #[source]
        err: hyper::Error,
    },
    /// It did not answer.
    #[error("no answer within {ANSWER:?} when asked for {question}")]
    Silent {
        /// What was asked for.
        question: &'static str,
    },
    /// It does not want to answer.
    #[error("answers {status} when asked for {question}")]
    Refused {
        /// What was asked for.
        question: &'static str,
        /// Its status.
        status: StatusCode,
    },
    /// The answer was cut off, or no HTTP.
    #[error("cannot read the answer to {question}")]
    Read {
        /// What was asked for.
        question: &'static str,
        /// What went wrong.
        #[source]
        err: BoxError,
    },
    /// The answer is longer than any answer should be.
    #[error("sends more than {limit} bytes when asked for {question}")]
    TooLong {
        /// What was asked for.
        question: &'static str,
        /// The most that is read, in bytes.
        limit: usize,
    },
    /// The answer is not what was asked for.
    #[error("does not answer as an engine when asked for {question}")]
    Strange {
        /// What was asked for.
        question: &'static str,
        /// What is wrong with it.
        #[source]
        err: serde_json::Error,
    },
    /// The other side is not Docker or Podman.
    #[error("is no container engine")]
    NotAnEngine,
    /// An event does not end.
    #[error(transparent)]
    Event(#[from] LineTooLong),
    /// The engine has ended, or does not want to go on.
    #[error("the engine has closed the connection")]
    Closed,
}

const PING: &str = "its name";
const LIST: &str = "its containers";
const INSPECT: &str = "a container";
const EVENTS: &str = "events";

/// A reply, and whether root serves the engine that sent it.
///
/// Each request uses its own connection, and another engine may listen at the path by then. Therefore this is known
/// for each reply, not for the path. It comes from the credentials of the process that called `listen`
/// (`SO_PEERCRED` in `man 7 unix`); with socket activation that is systemd. The owner of the socket file is not used: a
/// user may put a link to another socket at the path.
#[derive(Debug)]
pub(super) struct Reply<T> {
    pub(super) content: T,
    pub(super) of_root: bool,
}

/// An engine that listens on a socket.
#[derive(Debug, Clone)]
pub(super) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(super) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Asks which engine it is.
    pub(super) async fn ping(&self) -> Result<Runtime, EngineError> {
        let (headers, _) = self.get("/_ping", PING, MAX_PING).await?.content;
        runtime(&headers).ok_or(EngineError::NotAnEngine)
    }

    /// Asks for the running containers.
    pub(super) async fn list(&self) -> Result<Reply<Listing>, EngineError> {
        let reply = self.get("/containers/json", LIST, MAX_LIST).await?;
        let (_, body) = reply.content;
        // A long one takes long to read.
        let listing = blocking::run(move || answers::listing(&body)).await;
        let content = listing.map_err(|err| EngineError::Strange {
            question: LIST,
            err,
        })?;
        Ok(Reply {
            content,
            of_root: reply.of_root,
        })
    }

    /// Asks for the description of a container; `None` if there is no such container.
    pub(super) async fn inspect(
        &self,
        id: &ContainerId,
    ) -> Result<Option<Reply<Bytes>>, EngineError> {
        let path = format!("/containers/{}/json", id.as_str());
        match self.get(&path, INSPECT, MAX_INSPECT).await {
            Ok(Reply {
                content: (_, content),
                of_root,
            }) => Ok(Some(Reply { content, of_root })),
            Err(EngineError::Refused { status, .. }) if status == StatusCode::NOT_FOUND => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// Subscribes to events of containers, from `since` on, in seconds since the Unix epoch.
    ///
    /// Engines repeat what they remember since then, so that it does not matter whether a subscription
    /// counts from the moment of the answer.
    ///
    /// It waits for the answer without a limit: some engines send nothing, not even the head, before the first
    /// event. The head of an answer that has begun must be complete within [`ANSWER`].
    pub(super) async fn events(&self, since: u64) -> Result<EventStream, EngineError> {
        // {"type":["container"]}
        let filter = "%7B%22type%22%3A%5B%22container%22%5D%7D";
        let path = format!("/events?since={since}&filters={filter}");
        let stream = self.connect().await?;
        let begun = stream.as_fd().try_clone_to_owned();
        let begun = begun.and_then(|fd| UnixStream::from_std(fd.into()));
        let begun = begun.map_err(EngineError::Connect)?;
        let mut answer = pin!(ask(stream, &path, EVENTS));
        let Exchange {
            response,
            sender,
            connection,
        } = tokio::select! {
            biased;
            // First, because polling it sends the request. It is polled again below if it is not done.
            answer = &mut answer => answer?,
            // Cancel-safe: being readable is a state.
            _ = begun.readable() => {
                let answer = timeout(ANSWER, answer).await;
                answer.map_err(|_| EngineError::Silent { question: EVENTS })??
            }
        };
        Ok(EventStream {
            body: response.into_body(),
            connection,
            _sender: sender,
        })
    }

    async fn connect(&self) -> Result<UnixStream, EngineError> {
        let stream = UnixStream::connect(&self.socket).await;
        stream.map_err(|err| match err.kind() {
            io::ErrorKind::PermissionDenied => EngineError::Permission(err),
            _ => EngineError::Connect(err),
        })
    }

    async fn get(
        &self,
        path: &str,
        question: &'static str,
        limit: usize,
    ) -> Result<Reply<(HeaderMap, Bytes)>, EngineError> {
        let exchange = async {
            let stream = self.connect().await?;
            let peer = stream.peer_cred().map_err(EngineError::Connect)?;
            let mut exchange = ask(stream, path, question).await?;
            let (head, body) = exchange.response.into_parts();
            let body = Limited::new(body, limit).collect();
            let body = drive(&mut exchange.connection, body).await;
            let read = |err: BoxError| match err.downcast::<LengthLimitError>() {
                Ok(_) => EngineError::TooLong { question, limit },
                Err(err) => EngineError::Read { question, err },
            };
            Ok(Reply {
                content: (head.headers, body.map_err(read)?.to_bytes()),
                of_root: peer.uid() == 0,
            })
        };
        let answer = timeout(ANSWER, exchange).await;
        answer.map_err(|_| EngineError::Silent { question })?
    }
}

/// Sends a request over a new connection and waits for the head of the answer.
async fn ask(
    stream: UnixStream,
    path: &str,
    question: &'static str,
) -> Result<Exchange, EngineError> {
    let failed = |err| EngineError::Ask { question, err };
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_BUFFER)
        .max_headers(MAX_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let request = Request::get(path)
        .header(HOST, "localhost")
        .body(Empty::new())
        .expect("paths are made of digits and constants");
    let mut connection = Some(Box::pin(connection));
    let response = drive(&mut connection, sender.send_request(request)).await;
    let response = response.map_err(failed)?;
    match response.status() {
        StatusCode::OK => Ok(Exchange {
            response,
            sender,
            connection,
        }),
        status => Err(EngineError::Refused { question, status }),
    }
}

/// Whether a stream has simply ended, as it does when its engine stops.
fn is_end(err: &hyper::Error) -> bool {
    let cause = err.source().and_then(|err| err.downcast_ref::<io::Error>());
    cause.is_some_and(|err| {
        matches!(
            err.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
        )
    })
}

/// Tells the engines apart: Podman answers as Docker does and adds its own version.
fn runtime(headers: &HeaderMap) -> Option<Runtime> {
    if headers.contains_key("libpod-api-version") {
        Some(Runtime::Podman)
    } else {
        headers
            .contains_key("api-version")
            .then_some(Runtime::Docker)
    }
}

type Driver = Option<Pin<Box<Connection<TokioIo<UnixStream>, Empty<Bytes>>>>>;

/// A request that was answered; the body is still to come.
struct Exchange {
    response: Response<Incoming>,
    sender: SendRequest<Empty<Bytes>>,
    connection: Driver,
}

/// Waits for `work`, and lets the connection do its part meanwhile. How a connection ends is told by `work`.
async fn drive<T>(connection: &mut Driver, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Some(driver) = connection
            && let Poll::Ready(_told_by_work) = driver.as_mut().poll(cx)
        {
            *connection = None;
        }
        work.as_mut().poll(cx)
    })
    .await
}

/// Events as they come.
pub(super) struct EventStream {
    body: Incoming,
    connection: Driver,
    /// The connection ends when this is dropped.
    _sender: SendRequest<Empty<Bytes>>,
}

impl EventStream {
    /// Waits for the next piece of the stream, however long that takes. Not cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Bytes, EngineError> {
        loop {
            let frame = drive(&mut self.connection, self.body.frame()).await;
            let frame = frame.ok_or(EngineError::Closed)?;
            let frame = frame.map_err(|err| {
                if err.is_incomplete_message() || is_end(&err) {
                    return EngineError::Closed;
                }
                EngineError::Read {
                    question: EVENTS,
                    err: err.into(),
                }
            })?;
            // Trailers are of no interest.
            if let Ok(piece) = frame.into_data() {
                return Ok(piece);
            }
        }
    }
}
