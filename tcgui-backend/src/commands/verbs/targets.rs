//! Which interfaces are meant, and what became of each.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tcgui_backend::cli::target::{Target, target_text};
use tcgui_shared::interface::{InterfaceListUpdate, InterfaceType};
use tcgui_shared::state::{BackendState, InterfaceState, StateRequest};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::documents::{ChangeDocument, ErrorDocument, NetemDocument, ResultDocument, SCHEMA};
use super::failure::{Failure, Status, of_several};
use super::impairment;
use super::lists::{interfaces, wait_for_list};
use super::output::{Output, print_line};
use super::progress::Progress;
use super::session::Session;
use super::tell;
use super::times::{clock, rfc3339};

/// Requests under way at once. The daemon accepts 256 of one client.
const AT_ONCE: usize = 64;

/// An interface, by wire texts.
pub(super) type Interface = (String, String);

/// What became of one target.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Done(Done),
    Failed(Failure),
}

/// What is in force on a target.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Done {
    /// What was done, if that is not an impairment.
    pub(super) text: Option<String>,
    pub(super) netem: Option<Box<NetemDocument>>,
    pub(super) expires_at: Option<u64>,
    pub(super) is_to_confirm: bool,
    pub(super) notes: Vec<String>,
}

/// Whether patterns match loopback interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loopback {
    /// They do: the verb only reads, or removes.
    Included,
    /// They do not: to impair `lo` breaks more than its namespace.
    Excluded,
}

/// Returns the interfaces that the targets name, each once. The state is read only if a pattern needs it.
pub(super) async fn resolve(
    session: &Session,
    targets: &[Target],
    loopback: Loopback,
) -> Result<Vec<Interface>, Failure> {
    let state = if targets.iter().any(|target| target.exact().is_none()) {
        Some(session.state(&StateRequest::default()).await?)
    } else {
        None
    };
    let mut found = Vec::new();
    for target in targets {
        match (target.exact(), &state) {
            (Some((namespace, interface)), _) => {
                found.push((namespace.to_owned(), interface.to_owned()));
            }
            (None, Some(state)) => found.extend(expand(target, state, loopback)?),
            (None, None) => {}
        }
    }
    let mut seen = BTreeSet::new();
    found.retain(|interface| seen.insert(interface.clone()));
    Ok(found)
}

/// Returns the interfaces that match a pattern.
fn expand(
    target: &Target,
    state: &BackendState,
    loopback: Loopback,
) -> Result<Vec<Interface>, Failure> {
    let is_wanted = |it: &&InterfaceState| {
        matches(target, it)
            && (loopback == Loopback::Included || it.interface_type != InterfaceType::Loopback)
    };
    let found: Vec<_> = state
        .interfaces
        .iter()
        .filter(is_wanted)
        .map(|it| (it.namespace.clone(), it.interface.clone()))
        .collect();
    if found.is_empty() {
        return Err(Failure::new(
            Status::NotFound,
            format!("no interface matches {target}; `tcgui-backend show` lists the interfaces"),
        ));
    }
    Ok(found)
}

/// Returns whether a target means this interface.
pub(super) fn matches(target: &Target, state: &InterfaceState) -> bool {
    let aliases = state.namespace_aliases.iter().map(String::as_str);
    let names = std::iter::once(state.namespace.as_str()).chain(aliases);
    target.matches(names, &state.interface)
}

/// Waits until all targets exist, at most this long.
pub(super) async fn wait_until_present(
    session: &Session,
    targets: &[Target],
    time: Duration,
    quiet: bool,
) -> Result<(), Failure> {
    let following = session.client.follow(Some(&session.backend)).await?;
    let deadline = Instant::now() + time;
    let missing = |list: Option<&InterfaceListUpdate>| {
        let is_present =
            |target: &&Target| list.is_some_and(|list| interfaces(list, target).next().is_some());
        let missing = targets.iter().find(|target| !is_present(target));
        missing.map(ToString::to_string)
    };
    match wait_for_list(session, following, deadline, quiet, missing).await? {
        None => Ok(()),
        Some(missing) => {
            let message = format!(
                "{missing} has not appeared within {}; `tcgui-backend explain NAMESPACE` says why a namespace is not listed",
                humantime::format_duration(time)
            );
            Err(Failure::new(Status::Busy, message))
        }
    }
}

/// Does the same to several interfaces, many at once, and returns what became of each in their order.
pub(super) async fn each<F, R>(
    session: &Arc<Session>,
    interfaces: Vec<Interface>,
    what: &str,
    quiet: bool,
    act: F,
) -> Vec<(Interface, Outcome)>
where
    F: Fn(Arc<Session>, Interface) -> R,
    R: Future<Output = Result<Done, Failure>> + Send + 'static,
{
    let total = u64::try_from(interfaces.len()).unwrap_or(u64::MAX);
    let progress = Progress::new(Some(total), quiet);
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut work = JoinSet::new();
    let mut outcomes: Vec<Option<Outcome>> = vec![None; interfaces.len()];
    for (index, interface) in interfaces.iter().enumerate() {
        let acting = act(Arc::clone(session), interface.clone());
        let room = Arc::clone(&room);
        work.spawn(async move {
            let _permit = room.acquire_owned().await;
            (index, acting.await)
        });
    }
    progress.say(what);
    while let Some(ended) = work.join_next().await {
        if let Ok((index, result)) = ended
            && let Some(outcome) = outcomes.get_mut(index)
        {
            *outcome = Some(match result {
                Ok(done) => Outcome::Done(done),
                Err(failure) => Outcome::Failed(failure),
            });
        }
        progress.advance();
    }
    let broken = || {
        Outcome::Failed(Failure::new(
            Status::Failed,
            "the request was not completed",
        ))
    };
    let outcomes = outcomes
        .into_iter()
        .map(|outcome| outcome.unwrap_or_else(broken));
    interfaces.into_iter().zip(outcomes).collect()
}

/// Prints what became of each target. Fails with the status of the failures.
pub(super) fn report(
    session: &Session,
    output: Output,
    outcomes: &[(Interface, Outcome)],
    dry_run: bool,
) -> Result<(), Failure> {
    let failures: Vec<_> = outcomes
        .iter()
        .filter_map(|(_, outcome)| match outcome {
            Outcome::Failed(failure) => Some(failure.status),
            Outcome::Done(_) => None,
        })
        .collect();
    let results: Vec<_> = outcomes.iter().map(result).collect();
    if output.is_table() {
        for (interface, outcome) in outcomes {
            let target = target_text(&interface.0, &interface.1);
            match outcome {
                Outcome::Done(done) => {
                    print_line(&format!("{target}: {}", line(done)))?;
                    done.notes
                        .iter()
                        .for_each(|note| output.note(&format!("{target}: {note}")));
                }
                Outcome::Failed(failure) => tell(&format!("{target}: {}", failure.message)),
            }
        }
    }
    let document = ChangeDocument {
        schema: SCHEMA,
        backend: session.backend.to_string(),
        dry_run,
        results,
    };
    output.document(&document, &document.results)?;
    match of_several(outcomes.len(), &failures) {
        None => Ok(()),
        Some(status) => Err(Failure::new(status, "")),
    }
}

fn result((interface, outcome): &(Interface, Outcome)) -> ResultDocument {
    let target = target_text(&interface.0, &interface.1);
    match outcome {
        Outcome::Done(done) => ResultDocument {
            target,
            ok: true,
            netem: done.netem.as_deref().cloned(),
            expires_at: done.expires_at.map(rfc3339),
            notes: done.notes.clone(),
            error: None,
        },
        Outcome::Failed(failure) => ResultDocument {
            target,
            ok: false,
            netem: None,
            expires_at: None,
            notes: Vec::new(),
            error: Some(ErrorDocument {
                status: failure.status.code(),
                message: failure.message.clone(),
            }),
        },
    }
}

fn line(done: &Done) -> String {
    let mut line = match (&done.text, &done.netem) {
        (Some(text), _) => text.clone(),
        (None, Some(netem)) => impairment::describe(netem),
        (None, None) => "no impairment".to_owned(),
    };
    if let Some(at) = done.expires_at {
        line.push_str(&format!("; ends at {}", clock(at)));
        if done.is_to_confirm {
            line.push_str(" unless it is confirmed");
        }
    }
    line
}
