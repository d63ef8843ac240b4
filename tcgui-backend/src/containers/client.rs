//! HTTP over the socket of an engine: three requests and the event stream, all with limits.
//!
//! Each request uses a new connection. Connecting to a Unix socket takes 50 µs, and a pool could contain stale
//! connections after the engine has restarted.

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

/// Why a request failed, or its reply could not be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    /// No program listens on the socket, or this process has no free descriptor.
    #[error("cannot connect to the socket")]
    Connect(#[source] io::Error),
    /// The daemon's user and groups have no permission for the socket.
    #[error(
        "no permission to connect to the socket: add its group to the daemon (SupplementaryGroups= in the \
         unit), see \"Engines of users\" in docs/containers.md"
    )]
    Permission(#[source] io::Error),
    /// The request failed, or the head of the reply is not valid HTTP.
    #[error("cannot ask for {question}")]
    Ask {
        /// The requested content, as in the message.
        question: &'static str,
        /// The HTTP error.
        #[source]
        err: hyper::Error,
    },
    /// There was no reply within the limit.
    #[error("no answer within {ANSWER:?} when asked for {question}")]
    Silent {
        /// The requested content, as in the message.
        question: &'static str,
    },
    /// The reply has an error status.
    #[error("answers {status} when asked for {question}")]
    Refused {
        /// The requested content, as in the message.
        question: &'static str,
        /// The status.
        status: StatusCode,
    },
    /// The body ended early, or is not valid HTTP.
    #[error("cannot read the answer to {question}")]
    Read {
        /// The requested content, as in the message.
        question: &'static str,
        /// The cause.
        #[source]
        err: BoxError,
    },
    /// The body is longer than the limit.
    #[error("sends more than {limit} bytes when asked for {question}")]
    TooLong {
        /// The requested content, as in the message.
        question: &'static str,
        /// The limit in bytes.
        limit: usize,
    },
    /// The content of the reply is not as expected.
    #[error("does not answer as an engine when asked for {question}")]
    Strange {
        /// The requested content, as in the message.
        question: &'static str,
        /// The cause.
        #[source]
        err: serde_json::Error,
    },
    /// The server is neither Docker nor Podman.
    #[error("is no container engine")]
    NotAnEngine,
    /// An event is longer than the limit.
    #[error(transparent)]
    Event(#[from] LineTooLong),
    /// The engine has ended or has closed the connection.
    #[error("the engine has closed the connection")]
    Closed,
}

const PING: &str = "its name";
const LIST: &str = "its containers";
const INSPECT: &str = "a container";
const EVENTS: &str = "events";

/// A reply, and whether root serves the engine that sent it.
///
/// Each request uses its own connection, and another engine may listen at the path by then. Therefore this is a
/// property of each reply, not of the path. It comes from the credentials of the process that called `listen`
/// (`SO_PEERCRED` in `man 7 unix`); with socket activation that is systemd. The owner of the socket file is not
/// used: a user may put a link to another socket at the path.
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

    /// Requests the kind of the engine.
    pub(super) async fn ping(&self) -> Result<Runtime, EngineError> {
        let (headers, _) = self.get("/_ping", PING, MAX_PING).await?.content;
        runtime(&headers).ok_or(EngineError::NotAnEngine)
    }

    /// Requests the running containers.
    pub(super) async fn list(&self) -> Result<Reply<Listing>, EngineError> {
        let reply = self.get("/containers/json", LIST, MAX_LIST).await?;
        let (_, body) = reply.content;
        // On a blocking thread, because parsing a long list takes long.
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

    /// Requests the description of a container. `None`: the container does not exist.
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

    /// Subscribes to the events of containers since `since`, in seconds since the Unix epoch.
    ///
    /// Engines repeat the stored events since then. So no event is lost between the request and the start of the
    /// subscription.
    ///
    /// The reply has no deadline: some engines send nothing, not even the head, before the first event. After the
    /// first byte, the head must be complete within [`ANSWER`].
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
            // First, because polling it sends the request. The branch below polls it again if it is not done.
            answer = &mut answer => answer?,
            // Cancel-safe: readiness is a state.
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

/// Sends a request over a new connection and waits for the head of the reply.
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

/// Returns whether the error means that the engine closed the stream.
fn is_end(err: &hyper::Error) -> bool {
    let cause = err.source().and_then(|err| err.downcast_ref::<io::Error>());
    cause.is_some_and(|err| {
        matches!(
            err.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
        )
    })
}

/// Returns the kind of the engine. Podman sends the same headers as Docker and one with its own version.
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

/// A request with the head of its reply. The body was not read yet.
struct Exchange {
    response: Response<Incoming>,
    sender: SendRequest<Empty<Bytes>>,
    connection: Driver,
}

/// Waits for `work` and polls the connection in the meantime. `work` returns the connection's errors.
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

/// A stream of events.
pub(super) struct EventStream {
    body: Incoming,
    connection: Driver,
    /// The connection ends when this is dropped.
    _sender: SendRequest<Empty<Bytes>>,
}

impl EventStream {
    /// Waits for the next part of the stream, without a deadline. Not cancel-safe.
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
            // Trailers are ignored.
            if let Ok(piece) = frame.into_data() {
                return Ok(piece);
            }
        }
    }
}
