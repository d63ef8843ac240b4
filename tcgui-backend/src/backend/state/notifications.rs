//! What the service manager is told, and when: readiness, status, watchdog and stop. Pure.
//!
//! One message is under way at a time, so that they arrive in order. What changes meanwhile is in the next one.

use std::time::{Duration, Instant};

use super::{Effect, Moment, State};

/// The shortest interval between two changes of the counts in the status. Each change wakes up the service manager.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// The terms of the service manager, and what it was told last.
#[derive(Debug, Default)]
pub(in crate::backend) struct Notifications {
    /// A service manager is present.
    is_enabled: bool,
    /// Interval of watchdog messages. `None`: the service manager expects none.
    watchdog: Option<Duration>,
    /// A message is under way.
    is_sending: bool,
    told: Told,
    /// When the next watchdog message is due. `None`: it is due at once, or there is no watchdog.
    watchdog_due: Option<Instant>,
    /// When the counts may be told again.
    status_due: Option<Instant>,
}

/// What the service manager was told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Told {
    stage: Stage,
    is_on_bus: bool,
    /// Number of namespaces and of interfaces.
    counts: (usize, usize),
}

/// The stages of the daemon's life. They only advance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    #[default]
    Starting,
    Ready,
    Stopping,
}

impl Notifications {
    /// Returns notifications for a service manager that is present. `watchdog` is the interval of watchdog messages.
    pub(in crate::backend) fn enabled(watchdog: Option<Duration>) -> Self {
        Self {
            is_enabled: true,
            watchdog,
            ..Self::default()
        }
    }

    /// Returns the message that is due. `None`: there is none, or one is under way.
    fn take_due(&mut self, facts: Told, now: Instant) -> Option<String> {
        if !self.is_enabled || self.is_sending {
            return None;
        }
        let mut lines = Vec::new();
        if facts.stage > self.told.stage {
            match facts.stage {
                Stage::Starting => {}
                Stage::Ready => lines.push("READY=1".to_owned()),
                Stage::Stopping => lines.push("STOPPING=1".to_owned()),
            }
        }
        if facts.stage != Stage::Starting {
            lines.extend(self.status(facts, now));
            lines.extend(self.watchdog(now));
        }
        self.is_sending = !lines.is_empty();
        self.is_sending.then(|| lines.join("\n"))
    }

    /// Returns the status if it changed. A change of the counts alone waits for [`STATUS_INTERVAL`].
    fn status(&mut self, facts: Told, now: Instant) -> Option<String> {
        let is_urgent = (facts.stage, facts.is_on_bus) != (self.told.stage, self.told.is_on_bus);
        let may_follow = self.status_due.is_none_or(|due| due <= now);
        if facts == self.told || !(is_urgent || may_follow) {
            return None;
        }
        self.status_due = Some(now + STATUS_INTERVAL);
        let status = facts.status();
        self.told = facts;
        Some(status)
    }

    /// Returns the watchdog message if it is due.
    fn watchdog(&mut self, now: Instant) -> Option<String> {
        let interval = self.watchdog?;
        if self.watchdog_due.is_some_and(|due| now < due) {
            return None;
        }
        self.watchdog_due = Some(now + interval);
        Some("WATCHDOG=1".to_owned())
    }

    /// Returns when a message is due without a further input. `None`: never.
    fn due_at(&self, facts: &Told) -> Option<Instant> {
        if self.is_sending {
            return None;
        }
        let status = self.status_due.filter(|_| *facts != self.told);
        self.watchdog_due.into_iter().chain(status).min()
    }
}

impl Told {
    fn status(&self) -> String {
        let (namespaces, interfaces) = self.counts;
        let namespaces = counted(namespaces, "network namespace");
        let interfaces = counted(interfaces, "interface");
        match (self.stage, self.is_on_bus) {
            (Stage::Stopping, _) => "STATUS=Stopping".to_owned(),
            (_, true) => format!("STATUS=On the bus: {namespaces}, {interfaces}"),
            (_, false) => format!("STATUS=Not on the bus yet: {namespaces}, {interfaces}"),
        }
    }
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

impl State {
    /// Enables notifications of a service manager.
    pub(in crate::backend) fn notify(&mut self, notifications: Notifications) {
        self.notifications = notifications;
    }

    /// Records that the message under way was sent, or could not be sent.
    pub(super) fn notified(&mut self) {
        self.notifications.is_sending = false;
    }

    /// Returns the message to the service manager that is due now.
    pub(super) fn due_notification(&mut self, moment: Moment) -> Option<Effect> {
        let facts = self.facts();
        let message = self.notifications.take_due(facts, moment.now)?;
        Some(Effect::Notify(message))
    }

    /// Returns when the next message is due. `None`: never.
    pub(super) fn notification_due_at(&self) -> Option<Instant> {
        self.notifications.due_at(&self.facts())
    }

    fn facts(&self) -> Told {
        let stage = match (self.is_ending, self.is_published) {
            (true, _) => Stage::Stopping,
            (false, true) => Stage::Ready,
            (false, false) => Stage::Starting,
        };
        Told {
            stage,
            is_on_bus: self.is_on_bus,
            counts: self.counts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: Told = Told {
        stage: Stage::Ready,
        is_on_bus: true,
        counts: (2, 1),
    };

    /// Takes the due message and completes it.
    fn send(notifications: &mut Notifications, facts: Told, now: Instant) -> Option<String> {
        let message = notifications.take_due(facts, now);
        notifications.is_sending = false;
        message
    }

    #[test]
    fn nothing_is_sent_without_a_service_manager() {
        let mut notifications = Notifications::default();
        assert_eq!(send(&mut notifications, READY, Instant::now()), None);
        assert_eq!(notifications.due_at(&Told::default()), None);
    }

    #[test]
    fn readiness_comes_once_and_before_the_watchdog() {
        let now = Instant::now();
        let mut notifications = Notifications::enabled(Some(Duration::from_secs(15)));
        assert_eq!(send(&mut notifications, Told::default(), now), None);
        assert_eq!(notifications.due_at(&Told::default()), None);
        let first = "READY=1\nSTATUS=On the bus: 2 network namespaces, 1 interface\nWATCHDOG=1";
        assert_eq!(send(&mut notifications, READY, now).as_deref(), Some(first));
        assert_eq!(send(&mut notifications, READY, now), None);
        let stopping = Told {
            stage: Stage::Stopping,
            ..READY
        };
        let last = "STOPPING=1\nSTATUS=Stopping";
        let message = send(&mut notifications, stopping, now);
        assert_eq!(message.as_deref(), Some(last));
        assert_eq!(send(&mut notifications, stopping, now), None);
    }

    #[test]
    fn the_watchdog_comes_at_its_interval() {
        let (start, interval) = (Instant::now(), Duration::from_secs(15));
        let mut notifications = Notifications::enabled(Some(interval));
        send(&mut notifications, READY, start).unwrap();
        for count in 1..5 {
            let due = start + interval * count;
            assert_eq!(notifications.due_at(&READY), Some(due));
            let early = due.checked_sub(Duration::from_nanos(1)).unwrap();
            assert_eq!(send(&mut notifications, READY, early), None);
            let message = send(&mut notifications, READY, due);
            assert_eq!(message.as_deref(), Some("WATCHDOG=1"));
        }
    }

    #[test]
    fn counts_are_told_at_an_interval_and_the_bus_at_once() {
        let now = Instant::now();
        let mut notifications = Notifications::enabled(None);
        let off = Told {
            is_on_bus: false,
            ..READY
        };
        let message = send(&mut notifications, off, now).unwrap();
        assert!(message.contains("Not on the bus yet"), "{message}");
        let message = send(&mut notifications, READY, now).unwrap();
        assert!(message.contains("On the bus"), "{message}");
        let more = Told {
            counts: (3, 1),
            ..READY
        };
        assert_eq!(notifications.due_at(&READY), None);
        assert_eq!(send(&mut notifications, more, now), None);
        let due = now + STATUS_INTERVAL;
        assert_eq!(notifications.due_at(&more), Some(due));
        let message = send(&mut notifications, more, due).unwrap();
        assert!(message.contains("3 network namespaces"), "{message}");
        assert_eq!(notifications.due_at(&more), None);
    }

    #[test]
    fn one_message_is_under_way_at_a_time() {
        let now = Instant::now();
        let mut notifications = Notifications::enabled(Some(Duration::from_secs(15)));
        notifications.take_due(READY, now).unwrap();
        let stopping = Told {
            stage: Stage::Stopping,
            ..READY
        };
        assert_eq!(notifications.take_due(stopping, now), None);
        assert_eq!(notifications.due_at(&stopping), None);
        notifications.is_sending = false;
        let message = notifications.take_due(stopping, now).unwrap();
        assert!(message.starts_with("STOPPING=1"), "{message}");
    }
}
