//! The lists of namespaces and interfaces that a daemon publishes.

use std::time::Duration;

use tcgui_backend::cli::target::Target;
use tcgui_backend::client::Following;
use tcgui_shared::interface::{InterfaceListUpdate, NetworkInterface};
use tokio::time::Instant;

use super::failure::{Failure, Status};
use super::progress::Progress;
use super::session::Session;

/// How often the progress is drawn.
const TICK: Duration = Duration::from_secs(1);

/// Returns the interfaces of a list that a target means.
pub(super) fn interfaces<'a>(
    list: &'a InterfaceListUpdate,
    target: &'a Target,
) -> impl Iterator<Item = &'a NetworkInterface> {
    list.namespaces.iter().flat_map(move |namespace| {
        let interfaces = namespace.interfaces.iter();
        interfaces.filter(move |it| {
            let aliases = namespace.aliases.iter().map(String::as_str);
            let names = std::iter::once(namespace.name.as_str()).chain(aliases);
            target.matches(names, &it.name)
        })
    })
}

/// Waits until nothing is missing in the list of the daemon. Returns what is still missing at the deadline.
///
/// `missing` gets the newest list. `None`: there is none yet.
pub(super) async fn wait_for_list(
    session: &Session,
    mut following: Following,
    deadline: Instant,
    quiet: bool,
    missing: impl Fn(Option<&InterfaceListUpdate>) -> Option<String>,
) -> Result<Option<String>, Failure> {
    let progress = Progress::new(None, quiet);
    loop {
        let missing = missing(
            following
                .lists
                .borrow_and_update()
                .get(session.backend.as_str())
                .map(AsRef::as_ref),
        );
        let Some(missing) = missing else {
            return Ok(None);
        };
        progress.say(&format!("waiting for {missing}"));
        tokio::select! {
            changed = following.lists.changed() => {
                changed.map_err(|_| Failure::new(Status::NoDaemon, "the session was closed"))?;
            }
            () = tokio::time::sleep_until(deadline.min(Instant::now() + TICK)) => {
                if Instant::now() >= deadline {
                    return Ok(Some(missing));
                }
            }
        }
    }
}
