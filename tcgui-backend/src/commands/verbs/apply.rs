//! `apply`: impairs interfaces.

use std::sync::Arc;
use std::time::Duration;

use tcgui_backend::cli::netem::NetemArgs;
use tcgui_backend::cli::verbs::ApplyArgs;
use tcgui_backend::tc::desired::{ANY_LINK, Desired};
use tcgui_shared::netem::FlatNetem;
use tcgui_shared::preset::PresetList;
use tcgui_shared::state::{InterfaceState, StateRequest};
use tcgui_shared::tc::{LONGEST_CLIENT, TcOperation, TcRequest, TcResponse};

use super::failure::{Failure, Status};
use super::impairment::{self, does_nothing, with_options};
use super::output::Output;
use super::preset;
use super::session::Session;
use super::targets::{
    Done, Interface, Loopback, each, matches, report, resolve, wait_until_present,
};

/// Returns how this program calls itself in requests: the verb and the user.
pub(super) fn client_name(verb: &str) -> String {
    let names = ["SUDO_USER", "USER", "LOGNAME"].map(std::env::var);
    let name = names.into_iter().flatten().find(|name| !name.is_empty());
    let user = name.unwrap_or_else(|| format!("user {}", nix::unistd::getuid()));
    named(&format!("{verb} by {user}"))
}

/// Returns a text as requests may have it.
pub(super) fn named(text: &str) -> String {
    let mut text: String = text.chars().filter(|c| !c.is_control()).collect();
    text.truncate(text.floor_char_boundary(LONGEST_CLIENT));
    text
}

/// Impairs interfaces, or checks whether that is possible.
pub(super) async fn apply(args: ApplyArgs) -> Result<(), Failure> {
    let output = Output::of(&args.client);
    if impairment::is_empty(&args.netem) {
        let message = "name at least one parameter, such as --delay 100ms or --preset ID; `clear` removes an impairment";
        return Err(Failure::new(Status::Usage, message));
    }
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
    let base = base(&session, &args.netem, file).await?;
    let interfaces = resolve(&session, &args.on.targets, Loopback::Excluded).await?;
    let terms = Terms {
        ttl: args.ttl,
        confirm_within: args.confirm_within,
    };
    let options = Arc::new(args.netem);
    let (is_change, is_dry) = (args.change, args.dry_run);
    let act = move |session: Arc<Session>, interface: Interface| {
        let options = Arc::clone(&options);
        async move {
            let base = match is_change {
                true => in_force(&session, &interface).await?,
                false => base,
            };
            let netem = with_options(base, &options);
            if is_dry {
                return dry_run(&session, &interface, &netem).await;
            }
            if does_nothing(&netem) && !is_change {
                let message = "the parameters impair nothing; `clear` removes an impairment";
                return Err(Failure::new(Status::Usage, message));
            }
            set(&session, &interface, netem, terms).await
        }
    };
    let outcomes = each(&session, interfaces, "applying", output.quiet, act).await;
    report(&session, output, &outcomes, is_dry)
}

/// When a change ends.
#[derive(Debug, Clone, Copy)]
struct Terms {
    ttl: Option<Duration>,
    confirm_within: Option<Duration>,
}

/// Returns what the options are added to: a preset, or nothing.
pub(super) async fn base(
    session: &Session,
    args: &NetemArgs,
    file: Option<FlatNetem>,
) -> Result<FlatNetem, Failure> {
    match (&args.preset, file) {
        (Some(id), _) => {
            let presets: PresetList = preset::list(session).await?;
            Ok(impairment::flat(&preset::find(&presets, id)?))
        }
        (None, Some(netem)) => Ok(netem),
        (None, None) => Ok(FlatNetem::default()),
    }
}

/// Returns the state of one interface.
pub(super) async fn state_of(
    session: &Session,
    (namespace, interface): &Interface,
) -> Result<InterfaceState, Failure> {
    let request = StateRequest {
        namespace: Some(namespace.clone()),
        interface: Some(interface.clone()),
        impaired: false,
    };
    let state = session.state(&request).await?;
    let found = state.interfaces.into_iter().next();
    found.ok_or_else(|| missing(namespace, interface))
}

fn missing(namespace: &str, interface: &str) -> Failure {
    let message = format!(
        "no interface {interface} in network namespace {namespace}; `tcgui-backend show` lists the interfaces"
    );
    Failure::new(Status::NotFound, message)
}

/// Returns what is in force on an interface.
async fn in_force(session: &Session, interface: &Interface) -> Result<FlatNetem, Failure> {
    let state = state_of(session, interface).await?;
    match state.configuration {
        Some(configuration) => Ok(configuration.netem),
        None if state.has_tc_qdisc => Err(Failure::new(
            Status::Failed,
            "the netem that is in force cannot be read, so it cannot be changed; apply without --change",
        )),
        None => Ok(FlatNetem::default()),
    }
}

/// Checks what a request asks for, with the rules of the daemon. Whether a qdisc of another program is in the way is
/// not checked.
async fn dry_run(
    session: &Session,
    interface: &Interface,
    netem: &FlatNetem,
) -> Result<Done, Failure> {
    state_of(session, interface).await?;
    let desired = Desired::from_flat(netem, ANY_LINK);
    let desired = desired.map_err(|err| Failure::new(Status::Failed, err.to_string()))?;
    let netem = (!does_nothing(netem)).then(|| Box::new(impairment::document(netem)));
    Ok(Done {
        netem,
        notes: desired.notes.iter().map(ToString::to_string).collect(),
        ..Done::default()
    })
}

async fn set(
    session: &Session,
    (namespace, interface): &Interface,
    netem: FlatNetem,
    terms: Terms,
) -> Result<Done, Failure> {
    let request = TcRequest {
        ttl_ms: terms.ttl.map(ms),
        confirm_within_ms: terms.confirm_within.map(ms),
        client: Some(client_name("apply")),
        ..TcRequest::new(namespace, interface, TcOperation::Apply(netem))
    };
    let response = session.tc(&request).await?;
    Ok(done(&response))
}

pub(super) fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Returns what a reply says.
pub(super) fn done(response: &TcResponse) -> Done {
    let applied = response.applied_config.as_ref();
    Done {
        text: None,
        netem: applied.map(|applied| Box::new(impairment::document(&applied.netem))),
        expires_at: response.expires_at,
        is_to_confirm: response.message.contains("unless it is confirmed"),
        notes: notes(&response.message),
    }
}

/// Returns the notes in a message of the daemon, without what the result says anyway.
fn notes(message: &str) -> Vec<String> {
    let parts = message.split("; ").skip(1);
    let is_news = |part: &&str| !part.starts_with("it ends in ") && *part != "it stays";
    parts.filter(is_news).map(str::to_owned).collect()
}

/// Returns the interfaces of a state that the targets mean; all without targets.
pub(super) fn selected<'a>(
    interfaces: &'a [InterfaceState],
    targets: &[tcgui_backend::cli::target::Target],
) -> Vec<&'a InterfaceState> {
    let is_wanted = |it: &&InterfaceState| {
        targets.is_empty() || targets.iter().any(|target| matches(target, it))
    };
    interfaces.iter().filter(is_wanted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_name_is_one_that_the_daemon_accepts() {
        assert_eq!(named("apply by a\u{1b}[2Jb"), "apply by a[2Jb");
        assert!(named(&"ä".repeat(500)).len() <= LONGEST_CLIENT);
        assert!(client_name("apply").starts_with("apply by "));
    }

    #[test]
    fn notes_are_what_the_daemon_says_besides_the_result() {
        let message = "netem is in force on eth0 in lab, its queue holds 10 packets; the jitter is limited; it ends in 10s unless it is confirmed";
        assert_eq!(notes(message), ["the jitter is limited"]);
        let response = TcResponse {
            expires_at: Some(7),
            ..TcResponse::success(message, None)
        };
        let done = done(&response);
        assert!(done.is_to_confirm && done.netem.is_none());
        assert_eq!(done.expires_at, Some(7));
    }
}
