//! The queryables: decode within bounds, hand to the backend, reply whatever comes of it.

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

/// The largest request taken: ten times the largest scenario that makes sense.
const LARGEST_REQUEST: usize = 64 * 1024;
/// How much of an error text goes back; it may repeat what the client sent.
const LARGEST_EXPLANATION: usize = 300;
/// Queries that are not answered yet, or whose answer is not written yet; more are answered "busy". One link gets half
/// of each of these, see [`Admission`].
const OPEN: usize = 512;
/// Checks that are under way or wait for their turn.
const CHECKS: usize = 64;
/// Explanations under way: each reads the mount table on a blocking thread, and only people ask.
const EXPLANATIONS: usize = 8;
/// Reports of the state under way: each may list thousands of interfaces.
const REPORTS: usize = 8;
/// "Busy" answers that may wait to be written. A flood beyond that is the only thing left unanswered:
/// its queries end without a reply.
const REFUSALS: usize = 1024;

/// What is said beside [`ErrorKind::Busy`].
const TOO_MANY: &str = "too many requests at once, try again";

/// What a reply says when there is no better answer.
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
        // Which operation was meant is unknown: "not up" promises least.
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

/// The declared queryables; dropping them takes them back.
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
        // A check takes seconds; however many are asked for, other requests are taken.
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

/// Takes queries from Zenoh's threads without ever making them wait for the backend.
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
        // A rule of Zenoh's access control matches only queries on keys that it includes. A wildcard is
        // a way around it.
        if request.is_change() && !is_exact {
            let message = format!("changes are made only by a query on exactly the key {key}");
            return request.refuse(ErrorKind::Invalid, message);
        }
        match self.requests.try_send(request) {
            // The backend stops: a request that is dropped is answered so.
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

    /// Returns the way back to who asked. `permit` is given back when the answer is written. What the query
    /// carries is gone by then.
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
                // Ends the query: who waits for that gets it with the answer.
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

/// Replies on the declared key: the query may have come on a wildcard that cannot be replied on.
fn write(query: &Query, key: &str, answer: &impl Serialize) {
    let json = match serde_json::to_vec(answer) {
        Ok(json) => json,
        Err(error) => return debug!(%error, key, "answer not serialised"),
    };
    if let Err(error) = query.reply(key, json).wait() {
        debug!(%error, key, "reply not delivered");
    }
}

/// Returns the request's bytes, at most [`LARGEST_REQUEST`] of them, or says what is wrong with it.
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

/// Understands a request, or says why not.
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

/// Names the field that is wrong, instead of a column in a text of one line.
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
    fn mistakes_are_explained_in_few_words() {
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
