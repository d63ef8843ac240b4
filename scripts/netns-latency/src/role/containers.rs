//! A container engine in the lab, and the times at which it reports the start and the end of its containers.

use std::sync::mpsc::Receiver;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use tcgui_tests::client::monotonic_ns;
use tcgui_tests::engines::{Engine, Event, Kind};

use crate::protocol;

/// Timeout for an event. Podman polls its events file four times a second.
const SOON: Duration = Duration::from_secs(5);

/// A running engine.
#[derive(Debug)]
pub(super) struct Containers {
    engine: Engine,
    events: Receiver<Event>,
}

impl Containers {
    pub(super) fn start(which: protocol::Engine) -> anyhow::Result<Self> {
        let engine = Engine::start(match which {
            protocol::Engine::Docker => Kind::Docker,
            protocol::Engine::Podman => Kind::Podman,
        })?;
        let events = engine.events()?;
        Ok(Self { engine, events })
    }

    pub(super) fn stop(self) -> anyhow::Result<()> {
        self.engine.stop()
    }

    /// Starts a container. Returns the time of the start, as reported by its engine.
    pub(super) fn run(&self, name: &str) -> anyhow::Result<u64> {
        self.engine.start_container(name, &[])?;
        self.time_of_event("start", name)
    }

    /// Removes a container. Returns the time of the end of its process, as reported by its engine.
    pub(super) fn remove(&self, name: &str) -> anyhow::Result<u64> {
        self.engine.remove(&[name])?;
        self.time_of_event("die", name)
    }

    fn time_of_event(&self, action: &str, name: &str) -> anyhow::Result<u64> {
        loop {
            let event = self.events.recv_timeout(SOON);
            let event = event.with_context(|| format!("no event {action} of {name}"))?;
            if event.action == action && event.name == name {
                let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
                let ago = now.checked_sub(event.at);
                let ago = ago.context("the clock was set back, or the engine has another one")?;
                let at = monotonic_ns()?.checked_sub(u64::try_from(ago.as_nanos())?);
                return at.context("the event is older than this boot");
            }
        }
    }
}
