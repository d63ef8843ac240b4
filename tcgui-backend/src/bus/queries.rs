//! The queryables: decode requests within limits, pass them to the backend, and reply in every case.

use std::borrow::Cow;
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tcgui_shared::control::{InterfaceControlOperation, InterfaceControlResponse};
use tcgui_shared::diagnostics::DiagnosticsResponse;
use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::explain::ExplainResponse;
use tcgui_shared::keys::Keys;
use tcgui_shared::scenario::{ScenarioError, ScenarioExecutionResponse, ScenarioResponse};
use tcgui_shared::state::StateResponse;
use tcgui_shared::tc::TcResponse;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tracing::{Level, debug, enabled, trace};
use zenoh::query::{Query, Queryable};
use zenoh::{Session, Wait};

use super::admission::{Admission, Permit};
use super::replies::{Link, Replies, ReplyPriority, strip};
use super::{BusError, Reply, Request};

/// The largest request in bytes: ten times the largest useful scenario.
const LARGEST_REQUEST: usize = 64 * 1024;
/// The longest error text in bytes. The text may repeat a part of the request.
const LARGEST_EXPLANATION: usize = 300;
/// Limit of queries whose reply has not been written yet. Further ones are answered "busy". One link can use half of
/// this limit and of the limits below: see [`Admission`].
const OPEN: usize = 512;
/// Limit of checks that run or wait.
const CHECKS: usize = 64;
/// Limit of explanations that run. Each reads the mount table on a blocking thread. Only people request them.
const EXPLANATIONS: usize = 8;
/// Limit of reports of the state that run. Each may list thousands of interfaces.
const REPORTS: usize = 8;
/// Limit of "busy" replies that wait to be written. Further queries end without a reply. No other query does.
const REFUSALS: usize = 1024;

/// The text for [`ErrorKind::Busy`].
const TOO_MANY: &str = "too many requests at once, try again";

/// The failure reply of a response type.
trait Refusal: Serialize + Send + 'static {
    fn refusal(message: String, kind: ErrorKind) -> Self;
}

impl Refusal for TcResponse {
    fn refusal(message: String, kind: ErrorKind) -> Self {
        Self::failure(message, kind)
    }
}

impl Refusal for InterfaceControlResponse {
    fn refusal(message: String, kind: ErrorKind) -> Self {
        // The requested operation is unknown. This one makes the reply state that the interface is down.
        Self::failure(InterfaceControlOperation::Enable, message, kind)
    }
}

impl Refusal for DiagnosticsResponse {
    fn refusal(message: String, kind: ErrorKind) -> Self {
        Self::failure(message, kind)
    }
}

impl Refusal for ExplainResponse {
    fn refusal(message: String, kind: ErrorKind) -> Self {
        Self::failure(message, kind)
    }
}

impl Refusal for StateResponse {
    fn refusal(message: String, kind: ErrorKind) -> Self {
        Self::failure(message, kind)
    }
}

impl Refusal for ScenarioResponse {
    fn refusal(message: String, kind: ErrorKind) -> Self {
        ScenarioError::new(kind.into(), message).into()
    }
}

impl Refusal for ScenarioExecutionResponse {
    fn refusal(message: String, kind: ErrorKind) -> Self {
        ScenarioError::new(kind.into(), message).into()
    }
}

/// The declared queryables. Dropping them withdraws them.
#[derive(Debug)]
pub(super) struct Queries {
    _declared: [Queryable<()>; 7],
}

impl Queries {
    pub(super) fn declare(
        session: &Session,
        keys: &Keys,
        requests: mpsc::Sender<Request>,
        replies: Replies,
    ) -> Result<Self, BusError> {
        let desk = QueryContext {
            requests,
            replies,
            open: Admission::new(OPEN),
            refusing: Admission::new(REFUSALS),
        };
        // A check takes seconds. So checks have their own limit, and do not use up that of other requests.
        let checks = QueryContext {
            open: Admission::new(CHECKS),
            ..desk.clone()
        };
        let explanations = QueryContext {
            open: Admission::new(EXPLANATIONS),
            ..desk.clone()
        };
        let reports = QueryContext {
            open: Admission::new(REPORTS),
            ..desk.clone()
        };
        Ok(Self {
            _declared: [
                desk.serve(session, keys.query_tc(), |request, reply| {
                    Request::Tc(Box::new(request), reply)
                })?,
                desk.serve(session, keys.query_interface(), Request::Interface)?,
                desk.serve(session, keys.query_scenario(), Request::Scenario)?,
                desk.serve(session, keys.query_scenario_execution(), Request::Execution)?,
                checks.serve(session, keys.query_diagnostics(), Request::Diagnostics)?,
                explanations.serve(session, keys.query_explain(), Request::Explain)?,
                reports.serve(session, keys.query_state(), Request::State)?,
            ],
        })
    }
}

/// Takes queries on Zenoh's threads. Never waits for the backend.
#[derive(Debug, Clone)]
struct QueryContext {
    requests: mpsc::Sender<Request>,
    replies: Replies,
    open: Admission,
    refusing: Admission,
}

impl QueryContext {
    fn serve<Q, R>(
        &self,
        session: &Session,
        key: String,
        request: fn(Q, Reply<R>) -> Request,
    ) -> Result<Queryable<()>, BusError>
    where
        Q: DeserializeOwned + 'static,
        R: Refusal,
    {
        let desk = self.clone();
        let reply_key = key.clone();
        session
            .declare_queryable(key.clone())
            .callback(move |query| desk.take(query, &reply_key, request))
            .wait()
            .map_err(|err| BusError::Declare { key, err })
    }

    fn take<Q, R>(&self, query: Query, key: &str, request: fn(Q, Reply<R>) -> Request)
    where
        Q: DeserializeOwned,
        R: Refusal,
    {
        let received = Instant::now();
        let link = Link::of_current_query();
        let Some(permit) = self.open.admit(link) else {
            return self.refuse_busy::<R>(link, query, key, received);
        };
        let body = read(&query).and_then(|payload| decode(&payload));
        let is_exact = query.key_expr().as_str() == key;
        let reply = self.reply(query, key, received, permit);
        let request = match body {
            Ok(body) => request(body, reply),
            Err(explanation) => return reply.send(R::refusal(explanation, ErrorKind::Invalid)),
        };
        // A rule of Zenoh's access control applies only to queries whose key is in the key expression of the rule. A
        // query with a wildcard bypasses it.
        if request.is_change() && !is_exact {
            let message = format!("changes are made only by a query on exactly the key {key}");
            return request.refuse(ErrorKind::Invalid, message);
        }
        match self.requests.try_send(request) {
            // The backend is stopping. A request that is dropped gets the failure reply of [`dropped`].
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(request)) => {
                request.refuse(ErrorKind::Busy, TOO_MANY.to_owned());
            }
        }
    }

    fn refuse_busy<R: Refusal>(&self, link: Link, query: Query, key: &str, received: Instant) {
        let Some(permit) = self.refusing.admit(link) else {
            return self.replies.discard(link, query);
        };
        let reply = self.reply(query, key, received, permit);
        reply.send(busy::<R>());
    }

    /// Returns the reply to a query. Its payload is dropped at once. `permit` is released when the reply has been
    /// written.
    fn reply<R: Refusal>(
        &self,
        mut query: Query,
        key: &str,
        received: Instant,
        permit: Permit,
    ) -> Reply<R> {
        strip(&mut query);
        let link = permit.link();
        let (replies, key) = (self.replies.clone(), key.to_owned());
        Reply::new(move |answer, turn: ReplyPriority| {
            let answer = answer.unwrap_or_else(dropped);
            replies.enqueue(link, turn, move || {
                write(&query, &key, &answer);
                let elapsed = enabled!(Level::TRACE).then(|| received.elapsed());
                // Ends the query together with the reply, for clients that wait for its end.
                drop(query);
                drop(permit);
                let elapsed_us = elapsed.unwrap_or_default().as_micros();
                trace!(key, elapsed_us, "query answered");
            });
        })
    }
}

fn dropped<R: Refusal>() -> R {
    R::refusal(
        "the backend dropped the request, probably stopping".to_owned(),
        ErrorKind::Internal,
    )
}

fn busy<R: Refusal>() -> R {
    R::refusal(TOO_MANY.to_owned(), ErrorKind::Busy)
}

/// Replies on the declared key. The key of the query may have a wildcard, and a reply cannot have one.
fn write(query: &Query, key: &str, answer: &impl Serialize) {
    let json = match serde_json::to_vec(answer) {
        Ok(json) => json,
        Err(error) => return debug!(%error, key, "answer not serialised"),
    };
    if let Err(error) = query.reply(key, json).wait() {
        debug!(%error, key, "reply not delivered");
    }
}

/// Returns the payload, at most [`LARGEST_REQUEST`] bytes, or the error text for the client.
fn read(query: &Query) -> Result<Cow<'_, [u8]>, String> {
    let payload = query.payload().filter(|payload| !payload.is_empty());
    let payload = payload.ok_or("the request is empty")?;
    if payload.len() > LARGEST_REQUEST {
        let length = payload.len();
        return Err(format!(
            "the request has {length} bytes, more than the {LARGEST_REQUEST} allowed"
        ));
    }
    Ok(payload.to_bytes())
}

/// Parses a request, or returns the error text for the client.
fn decode<Q: DeserializeOwned>(payload: &[u8]) -> Result<Q, String> {
    let text = std::str::from_utf8(payload).map_err(|_| "the request is not UTF-8 text")?;
    let mut parser = serde_json::Deserializer::from_str(text);
    let read = serde_path_to_error::deserialize(&mut parser).map_err(|err| explain(&err));
    let read = read.and_then(|request| match parser.end() {
        Ok(()) => Ok(request),
        Err(err) => Err(err.to_string()),
    });
    read.map_err(|explanation| {
        let mut explanation = format!("the request is not understood: {explanation}");
        if explanation.len() > LARGEST_EXPLANATION {
            explanation.truncate(explanation.floor_char_boundary(LARGEST_EXPLANATION));
            explanation.push('…');
        }
        explanation
    })
}

/// Returns the error text with the path of the wrong field. A line and a column would not help, because a request has
/// only one line.
fn explain(err: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let (path, inner) = (err.path().to_string(), err.inner());
    let mut explanation = inner.to_string();
    if inner.is_data() && path != "." {
        let suffix = format!(" at line {} column {}", inner.line(), inner.column());
        explanation.truncate(
            explanation.len() - suffix.len() * usize::from(explanation.ends_with(&suffix)),
        );
        format!("{path}: {explanation}")
    } else {
        explanation
    }
}

#[cfg(test)]
mod tests {
    use tcgui_shared::tc::TcRequest;

    use super::*;

    #[test]
    fn errors_are_explained_in_few_words() {
        let error = |payload: &[u8]| decode::<TcRequest>(payload).unwrap_err();
        assert!(error(b"\xff").contains("UTF-8"));
        assert!(error(b"{\"namespace\":3}").contains("not understood"));
        let deep = format!("{{\"x\":{}", "[".repeat(LARGEST_REQUEST - 8));
        assert!(
            error(deep.as_bytes()).contains("not understood"),
            "deep nesting is survived"
        );
        let long = format!(
            "{{\"namespace\":\"x\",\"interface\":\"y\",\"operation\":\"{}\"}}",
            "ä".repeat(9000)
        );
        assert!(error(long.as_bytes()).len() < LARGEST_EXPLANATION + 8);
        for (operation, expected) in [
            (
                r#"{"Apply":{"loss":0,"reorder_gap":2.5}}"#,
                "operation.Apply.reorder_gap: invalid type: floating point `2.5`, expected an integer from 0",
            ),
            (
                r#"{"Apply":{"loss":"1"}}"#,
                "operation.Apply.loss: invalid type: string",
            ),
            (
                r#"{"Apply":{"loss":0,"slot":{"packets":-1}}}"#,
                "operation.Apply.slot.packets: invalid value: integer `-1`, expected an integer from 0",
            ),
            (
                r#"{"Apply":{"loss":0,"rate_limit_kbps":"1mbps"}}"#,
                "operation.Apply.rate_limit_kbps: invalid type: string \"1mbps\", expected a number in kbit/s",
            ),
        ] {
            let request = format!(r#"{{"namespace":"x","interface":"y","operation":{operation}}}"#);
            let error = error(request.as_bytes());
            assert!(
                error.contains(expected) && !error.contains("column"),
                "{error}"
            );
        }
        assert!(error(b"{} {}").contains("not understood"));
        let fine = br#"{"namespace":"default","interface":"lo","operation":"Remove"}"#;
        assert_eq!(decode::<TcRequest>(fine).unwrap().interface, "lo");
    }
}
