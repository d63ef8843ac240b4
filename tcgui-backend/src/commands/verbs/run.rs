//! `run`: impairs interfaces while a command runs.
//!
//! The impairment is a lease with a token and a short time to live, which is renewed after each third of that time. However
//! this program ends, the daemon restores what was there before. When the command ends, each lease is renewed for a
//! millisecond, which ends it, and this program waits until it has ended.
//!
//! The command is in the process group of this program, so the terminal sends its signals to both. Signals that this
//! program alone receives are passed on.

mod child;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tcgui_backend::cli::verbs::RunArgs;
use tcgui_shared::netem::FlatNetem;
use tcgui_shared::state::StateRequest;
use tcgui_shared::tc::{TcOperation, TcRequest};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::apply::{base, done, ms, named};
use super::failure::{Failure, Status};
use super::impairment::{self, describe, does_nothing, with_options};
use super::output::Output;
use super::session::Session;
use super::targets::{Interface, Loopback, Outcome, each, resolve, wait_until_present};
use super::{runtime, tell};

/// The interface could not be impaired.
const NOT_IMPAIRED: u8 = 125;
/// The command is there and cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// There is no such command.
const NO_COMMAND: u8 = 127;
/// The shortest time to live: three renewals have to fit into it.
const SHORTEST_TTL: Duration = Duration::from_secs(1);
/// The pause before a failed renewal is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How long the restoration may take before a note says that it is not complete.
const RESTORED_WITHIN: Duration = Duration::from_secs(5);
/// How often it is asked whether the restoration is complete.
const RESTORED_POLL: Duration = Duration::from_millis(20);

/// Runs the command, and returns its exit status.
pub(super) fn run(args: RunArgs) -> ExitCode {
    let done = match runtime() {
        Ok(runtime) => {
            let done = runtime.block_on(impaired(args));
            runtime.shutdown_background();
            done
        }
        Err(failure) => Err(failure),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            if !failure.message.is_empty() {
                tell(&format!("run: {}", failure.message));
            }
            ExitCode::from(NOT_IMPAIRED)
        }
    }
}

async fn impaired(args: RunArgs) -> Result<u8, Failure> {
    let output = Output::of(&args.client);
    if impairment::is_empty(&args.netem) {
        let message = "name at least one parameter, such as --delay 100ms or --preset ID";
        return Err(Failure::new(Status::Usage, message));
    }
    if args.ttl < SHORTEST_TTL {
        return Err(Failure::new(Status::Usage, "--ttl must be at least 1s"));
    }
    // From here on a signal ends the command, or this program after it has restored the interfaces.
    let mut signals = child::Signals::catch()
        .map_err(|err| Failure::new(Status::Failed, format!("cannot catch signals: {err}")))?;
    let file = args
        .netem
        .file
        .as_deref()
        .map(|path| impairment::read_preset(path, output))
        .transpose()?;
    let session = Arc::new(Session::open(&args.client).await?);
    if let Some(time) = args.wait {
        wait_until_present(&session, &args.on.targets, time, output.quiet).await?;
    }
    let netem = with_options(base(&session, &args.netem, file).await?, &args.netem);
    if does_nothing(&netem) {
        return Err(Failure::new(Status::Usage, "the parameters impair nothing"));
    }
    let interfaces = resolve(&session, &args.on.targets, Loopback::Excluded).await?;
    let holder = Holder {
        token: token(),
        client: client(&args),
        ttl: args.ttl,
    };
    let mut leases = hold(&session, output, interfaces, netem, &holder).await?;
    let result = match child::spawn(&args.command) {
        Ok(child) => attend(&session, &mut leases, &holder, child, &mut signals).await,
        Err(err) => {
            let program = args
                .command
                .first()
                .map(|it| it.to_string_lossy().into_owned());
            tell(&format!(
                "run: cannot execute {:?}: {err}",
                program.unwrap_or_default()
            ));
            Ok(if err.kind() == io::ErrorKind::NotFound {
                NO_COMMAND
            } else {
                NOT_EXECUTABLE
            })
        }
    };
    release(&session, output, &leases, &holder).await;
    result
}

/// What this run is known by.
#[derive(Debug)]
struct Holder {
    token: String,
    client: String,
    ttl: Duration,
}

/// A lease of this run.
#[derive(Debug)]
struct Lease {
    interface: Interface,
    /// The daemon has confirmed that it holds until then.
    until: Instant,
    /// It was reported that it does not hold any more.
    is_lost: bool,
}

/// Returns a text that no other run has: of this process, at this time.
fn token() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = now.map_or(0, |time| time.as_nanos());
    format!("run-{}-{nanos:x}", std::process::id())
}

/// Returns what the daemon shows as the holder.
fn client(args: &RunArgs) -> String {
    let program = args
        .command
        .first()
        .map(|it| it.to_string_lossy().into_owned());
    let program = program.unwrap_or_default();
    named(&format!("run (process {}): {program}", std::process::id()))
}

fn request(
    holder: &Holder,
    (namespace, interface): &Interface,
    operation: TcOperation,
    ttl: Duration,
) -> TcRequest {
    TcRequest {
        ttl_ms: Some(ms(ttl)),
        lease_token: Some(holder.token.clone()),
        client: Some(holder.client.clone()),
        ..TcRequest::new(namespace, interface, operation)
    }
}

/// Impairs all interfaces. If one cannot be impaired, the others are restored.
async fn hold(
    session: &Arc<Session>,
    output: Output,
    interfaces: Vec<Interface>,
    netem: FlatNetem,
    holder: &Holder,
) -> Result<Vec<Lease>, Failure> {
    let begun = Instant::now();
    let (token, client, ttl) = (holder.token.clone(), holder.client.clone(), holder.ttl);
    let act = move |session: Arc<Session>, interface: Interface| {
        let holder = Holder {
            token: token.clone(),
            client: client.clone(),
            ttl,
        };
        async move {
            let apply = request(&holder, &interface, TcOperation::Apply(netem), ttl);
            Ok(done(&session.tc(&apply).await?))
        }
    };
    let outcomes = each(session, interfaces, "applying", output.quiet, act).await;
    let mut leases = Vec::new();
    let mut failed = None;
    for (interface, outcome) in outcomes {
        let target = super::names::target(&interface);
        match outcome {
            Outcome::Done(done) => {
                if let Some(netem) = &done.netem {
                    output.note(&format!("{target}: {}", describe(netem)));
                }
                done.notes
                    .iter()
                    .for_each(|note| output.note(&format!("{target}: {note}")));
                let until = begun + holder.ttl;
                leases.push(Lease {
                    interface,
                    until,
                    is_lost: false,
                });
            }
            Outcome::Failed(failure) => failed = Some(failure.within(&target)),
        }
    }
    match failed {
        None => Ok(leases),
        Some(failure) => {
            release(session, output, &leases, holder).await;
            Err(failure)
        }
    }
}

/// Renews the leases and passes signals on until the command has ended. Returns its exit status.
async fn attend(
    session: &Arc<Session>,
    leases: &mut [Lease],
    holder: &Holder,
    mut child: child::Running,
    signals: &mut child::Signals,
) -> Result<u8, Failure> {
    let mut renewals = JoinSet::new();
    let mut due = Instant::now() + holder.ttl / 3;
    loop {
        tokio::select! {
            ended = child.ended() => {
                return ended.map_err(|err| {
                    Failure::new(Status::Failed, format!("cannot wait for the command: {err}"))
                });
            }
            signal = signals.next() => child.pass_on(signal),
            () = tokio::time::sleep_until(due), if renewals.is_empty() => {
                for (index, lease) in leases.iter().enumerate().filter(|(_, it)| !it.is_lost) {
                    let renewal = request(holder, &lease.interface, TcOperation::Renew, holder.ttl);
                    let (session, limit) = (Arc::clone(session), holder.ttl / 3);
                    renewals.spawn(async move { (index, renew(&session, &renewal, limit).await) });
                }
                due = Instant::now() + holder.ttl / 3;
            }
            Some(renewed) = renewals.join_next() => {
                if let Ok((index, result)) = renewed
                    && let Some(lease) = leases.get_mut(index)
                    && !lease.renewed(result, holder)
                {
                    due = due.min(Instant::now() + RETRY_PAUSE);
                }
            }
        }
    }
}

/// Renews a lease once. Returns since when it holds for its whole time to live.
async fn renew(
    session: &Session,
    request: &TcRequest,
    limit: Duration,
) -> Result<Instant, Failure> {
    let begun = Instant::now();
    match tokio::time::timeout(limit, session.tc(request)).await {
        Ok(renewed) => renewed.map(|_| begun),
        Err(_) => Err(Failure::new(Status::Busy, "the daemon does not answer")),
    }
}

impl Lease {
    /// Takes in the result of a renewal, and returns whether it succeeded.
    fn renewed(&mut self, result: Result<Instant, Failure>, holder: &Holder) -> bool {
        let failure = match result {
            Ok(begun) => {
                self.until = begun + holder.ttl;
                return true;
            }
            Err(failure) => failure,
        };
        // A daemon that restarts does not know the interface at first, or is not there. Renewals are tried until the
        // lease has ended.
        if Instant::now() >= self.until {
            self.is_lost = true;
            let target = super::names::target(&self.interface);
            tell(&format!(
                "run: {target} is not impaired by this command any more: {}",
                failure.message
            ));
        }
        false
    }
}

/// Ends all leases and waits until they have ended.
async fn release(session: &Arc<Session>, output: Output, leases: &[Lease], holder: &Holder) {
    let held: Vec<_> = leases.iter().filter(|lease| !lease.is_lost).collect();
    let mut ending = Vec::new();
    for lease in held {
        let end = request(
            holder,
            &lease.interface,
            TcOperation::Renew,
            Duration::from_millis(1),
        );
        match session.tc(&end).await {
            Ok(_) => ending.push(&lease.interface),
            // Another client has changed the interface since, and what it did stays.
            Err(failure) if failure.status == Status::NotFound => {}
            Err(failure) => {
                let target = super::names::target(&lease.interface);
                let time = humantime::format_duration(holder.ttl);
                tell(&format!(
                    "run: {target} is restored within {time}: {}",
                    failure.message
                ));
            }
        }
    }
    let deadline = Instant::now() + RESTORED_WITHIN;
    for interface in ending {
        while is_held(session, interface, holder).await {
            if Instant::now() >= deadline {
                let target = super::names::target(interface);
                output.note(&format!(
                    "{target} is not restored yet, the daemon goes on with it"
                ));
                break;
            }
            tokio::time::sleep(RESTORED_POLL).await;
        }
    }
}

/// Returns whether an interface is still impaired by this run.
async fn is_held(session: &Session, (namespace, interface): &Interface, holder: &Holder) -> bool {
    let request = StateRequest {
        namespace: Some(namespace.clone()),
        interface: Some(interface.clone()),
        impaired: true,
    };
    let Ok(state) = session.state(&request).await else {
        return false;
    };
    state.interfaces.iter().any(|it| match &it.set_by {
        Some(tcgui_shared::state::SetBy::Client { name }) => name.as_ref() == Some(&holder.client),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_permitted_and_differ() {
        let (first, second) = (token(), token());
        assert!(first.len() <= tcgui_shared::tc::LONGEST_TOKEN, "{first}");
        assert!(first.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
        assert_ne!(first, second);
    }
}
