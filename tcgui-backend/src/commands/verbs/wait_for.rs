//! `wait-for`: returns as soon as a condition holds.

use std::time::Duration;

use tcgui_backend::cli::target::Target;
use tcgui_backend::cli::verbs::{Condition, WaitForArgs, WaitLimit};
use tcgui_shared::interface::InterfaceListUpdate;
use tcgui_shared::names::NamespaceName;
use tcgui_shared::scenario::{
    ExecutionTarget, ScenarioExecutionRequest, ScenarioExecutionResponse,
};
use tokio::time::Instant;

use super::failure::{Failure, Status};
use super::lists::{interfaces, wait_for_list};
use super::progress::Progress;
use super::session::Session;

/// How often an execution is asked for.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Waits.
pub(super) async fn wait_for(args: WaitForArgs) -> Result<(), Failure> {
    match args.condition {
        Condition::Namespace { name, limit } => {
            let name = NamespaceName::from_wire(&name)
                .map_err(|err| Failure::new(Status::Usage, err.to_string()))?
                .to_wire();
            let what = format!("namespace {name}");
            let is_listed = move |list: &InterfaceListUpdate| {
                let mut namespaces = list.namespaces.iter();
                namespaces.any(|it| it.name == name || it.aliases.contains(&name))
            };
            until(&limit, &what, is_listed).await
        }
        Condition::Interface { target, limit } => {
            let what = format!("interface {target}");
            until(&limit, &what, |list| {
                interfaces(list, &target).next().is_some()
            })
            .await
        }
        Condition::Clear { target, limit } => {
            let what = format!("{target} to have no impairment");
            let is_clear = |list: &InterfaceListUpdate| {
                let mut found = interfaces(list, &target).peekable();
                found.peek().is_some() && found.all(|it| !it.has_tc_qdisc)
            };
            until(&limit, &what, is_clear).await
        }
        Condition::Scenario { target, limit } => scenario(&limit, &target).await,
    }
}

async fn open(limit: &WaitLimit) -> Result<Session, Failure> {
    let endpoint = limit.connect.as_deref();
    Session::choose(endpoint, limit.backend.as_deref(), limit.timeout).await
}

fn timed_out(limit: &WaitLimit, what: &str) -> Failure {
    let time = humantime::format_duration(limit.timeout);
    let message = format!("waited {time} for {what}; `tcgui-backend show` shows what is there");
    Failure::new(Status::Busy, message)
}

/// Waits until a list of the daemon satisfies a condition.
async fn until(
    limit: &WaitLimit,
    what: &str,
    holds: impl Fn(&InterfaceListUpdate) -> bool,
) -> Result<(), Failure> {
    let deadline = Instant::now() + limit.timeout;
    let session = open(limit).await?;
    let following = session.client.follow(Some(&session.backend)).await?;
    let missing =
        |list: Option<&InterfaceListUpdate>| (!list.is_some_and(&holds)).then(|| what.to_owned());
    match wait_for_list(&session, following, deadline, limit.quiet, missing).await? {
        None => {
            session.close().await;
            Ok(())
        }
        Some(_) => Err(timed_out(limit, what)),
    }
}

/// Waits until no scenario runs on an interface.
async fn scenario(limit: &WaitLimit, target: &Target) -> Result<(), Failure> {
    let Some((namespace, interface)) = target.exact() else {
        let message = "wait-for scenario takes one interface, not a pattern";
        return Err(Failure::new(Status::Usage, message));
    };
    let deadline = Instant::now() + limit.timeout;
    let session = open(limit).await?;
    let progress = Progress::share(limit.quiet);
    let request = ScenarioExecutionRequest::Status(ExecutionTarget {
        namespace: namespace.to_owned(),
        interface: interface.to_owned(),
    });
    loop {
        let ScenarioExecutionResponse::Status { execution } = session.execution(&request).await?
        else {
            return Err(Failure::new(
                Status::Failed,
                "the daemon gave another answer than asked for",
            ));
        };
        let Some(execution) = execution.filter(|it| !it.state.is_terminal()) else {
            session.close().await;
            return Ok(());
        };
        progress.percent(execution.stats.progress_percent, &execution.scenario.name);
        if Instant::now() >= deadline {
            return Err(timed_out(
                limit,
                &format!("the scenario on {target} to end"),
            ));
        }
        tokio::time::sleep(POLL_INTERVAL.min(deadline.saturating_duration_since(Instant::now())))
            .await;
    }
}
