//! Leases: records of impairments that end, and of how to undo them.
//!
//! A lease is written to the state directory before the first change reaches the kernel. It has the configuration
//! before the change, the configurations set since, its owner and its end. At its end the earlier configuration is
//! restored. If another program has changed the interface in the meantime, it is left unchanged, and the log contains
//! this.
//!
//! ```text
//! request ──terms──▶ Grant ─┐                 ┌─▶ journal: one file per lease
//! kernel ──observed──▶ Before ┴──▶ Lease ─────┤
//!                                             └─▶ ledger: which lease ends when ──▶ restore ──▶ kernel
//! ```
//!
//! A lease identifies its interface by the kernel's identity of the namespace and by the ifindex, never by names. It is
//! valid for one boot: after the next boot there is nothing to restore. All modules except [`journal`] and
//! [`offline_restore`] are pure.

pub mod failed_change;
pub mod journal;
pub mod ledger;
mod netns;
pub mod offline_restore;
pub mod restore;
pub mod terms;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::boot;
use crate::kernel::link::LinkIdentity;
use crate::kernel::netem::Netem;
use crate::kernel::netns::NetnsRef;
use crate::tc::observed::{Observed, Root};
pub use netns::{Home, LeaseNetns};
use terms::{Grant, LeaseHolder};

/// The largest number of netems that a lease records as its own. Each change that fails halfway adds one. The current
/// netem is always among the newest.
const CANDIDATES: usize = 8;

/// The largest number of references that a lease has in addition to the first one. A container engine could report any
/// number.
const MAX_WAYS: usize = 64;
/// The largest number of lost qdiscs that a lease names. Their names are only shown to people.
const MAX_LOST: usize = 64;

/// A time in ms since the boot. It also runs while the machine is suspended.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct BootTime(u64);

impl BootTime {
    /// Returns the current time.
    pub fn now() -> Self {
        Self::after_boot(boot::time_since_boot())
    }

    /// Returns the time `time` after the boot.
    pub fn after_boot(time: Duration) -> Self {
        Self(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    /// Returns the time `time` later, or the latest possible time.
    #[must_use]
    pub fn plus(self, time: Duration) -> Self {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(ms))
    }

    /// Returns the time from `other` to this one. 0: `other` is later.
    pub fn since(self, other: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(other.0))
    }
}

/// The origin of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Owner {
    /// A request with a lifetime.
    Plain,
    /// A request that must be confirmed.
    Confirm,
    /// A scenario. The lease ends with the scenario, at the latest when the daemon ends.
    Scenario {
        /// The id of the scenario or of its execution.
        id: String,
    },
}

/// The root of a link before the first change under a lease.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Before {
    /// The netem and its handle. `None`: the kernel's default.
    pub netem: Option<(u32, Netem)>,
    /// The qdiscs that cannot be restored, as `tc` shows them. The operator permitted to replace them.
    pub lost: Vec<String>,
}

impl Before {
    /// Returns the state that is to be restored later.
    pub fn of(observed: &Observed) -> Self {
        let children = observed.children.iter().map(ToString::to_string);
        match &observed.root {
            Root::Absent | Root::Default { .. } => Self::default(),
            // A change in place keeps children that other programs have added to the daemon's netem.
            Root::Own { handle, netem } => Self {
                netem: Some((*handle, *netem)),
                lost: Vec::new(),
            },
            Root::ForeignNetem { handle, netem } => Self {
                netem: Some((*handle, *netem)),
                // A bottleneck is restored with its netem.
                lost: bounded(children.skip(netem.bottleneck.iter().len()).collect()),
            },
            Root::Foreign(name) => Self {
                netem: None,
                lost: vec![name.to_string()],
            },
        }
    }
}

/// Returns the first [`MAX_LOST`] names, and the number of the others.
fn bounded(mut names: Vec<String>) -> Vec<String> {
    let surplus = names.len().saturating_sub(MAX_LOST);
    if surplus > 0 {
        names.truncate(MAX_LOST);
        names.push(format!("{surplus} more"));
    }
    names
}

/// Whether a link is the link of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkMatch {
    /// It is the same link.
    Same,
    /// It may be another link: its hardware address or its peer differs. If it has a netem with a handle of the daemon
    /// and the values of the lease, this netem belongs to the lease. Otherwise nothing is installed on the link.
    Unsure,
    /// It is another link: its kind differs.
    Another,
}

/// An impairment that ends, and how to undo it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The namespace, by the reference that was seen first.
    pub netns: LeaseNetns,
    /// The other references to the namespace. After a restart the daemon may see one of them first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<LeaseNetns>,
    /// The ifindex of the interface.
    pub ifindex: u32,
    /// The current name of the interface, as on the wire. It is only shown to people.
    pub ifname: String,
    /// The identity of the link, as the kernel reported it. `None`: an earlier version wrote the lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkIdentity>,
    /// The cookie of the namespace (`SO_NETNS_COOKIE`). It identifies the namespace under another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<u64>,
    /// The state to restore.
    pub before: Before,
    /// The netems that were set since and may be in force, the newest last. `None` is the kernel's default. There are
    /// several while it is unknown whether the newest took effect.
    pub set: Vec<Option<Netem>>,
    /// The origin.
    pub owner: Owner,
    /// The time at which the lease ends.
    pub expires: Option<BootTime>,
    /// The time at which the lease ends unless it is confirmed.
    pub confirm_by: Option<BootTime>,
    /// The client that asked for it.
    #[serde(default, skip_serializing_if = "LeaseHolder::is_unknown")]
    pub holder: LeaseHolder,
    /// The terms that the scenario suspended. They apply again when the scenario releases the interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under: Option<Grant>,
    /// The root that was in force on the suspended terms when the scenario took the interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beneath: Option<Before>,
}

impl Lease {
    /// Returns the lease for setting `wanted` in place of `observed`. An existing lease continues and keeps the state
    /// to restore, unless another program has changed the root.
    pub fn record(
        held: Option<&Self>,
        (netns, ifindex, ifname): (LeaseNetns, u32, String),
        observed: &Observed,
        wanted: Option<Netem>,
        grant: Grant,
    ) -> Self {
        let held = held.filter(|held| restore::knows(held, observed));
        let mut lease = Self {
            netns,
            also: Vec::new(),
            ifindex,
            ifname,
            link: None,
            cookie: None,
            before: held.map_or_else(|| Before::of(observed), |held| held.before.clone()),
            set: held.map_or_else(Vec::new, |held| held.set.clone()),
            owner: grant.owner,
            expires: grant.expires,
            confirm_by: grant.confirm_by,
            holder: grant.holder,
            under: None,
            beneath: None,
        };
        if lease.is_of_a_scenario()
            && let Some(held) = held
        {
            lease.under = held.terms_beneath();
            lease.beneath = match held.is_of_a_scenario() {
                true => held.beneath.clone(),
                false => Some(Before::of(observed)),
            };
        }
        lease.may_be(wanted);
        lease
    }

    /// Returns whether the lease ends with a scenario.
    pub fn is_of_a_scenario(&self) -> bool {
        matches!(self.owner, Owner::Scenario { .. })
    }

    /// Returns whether the lease ends with this scenario.
    pub fn is_of(&self, scenario: &str) -> bool {
        matches!(&self.owner, Owner::Scenario { id } if id == scenario)
    }

    /// Returns the terms that a scenario suspends when it begins or continues.
    fn terms_beneath(&self) -> Option<Grant> {
        if self.is_of_a_scenario() {
            return self.under.clone();
        }
        Some(Grant {
            owner: self.owner.clone(),
            expires: self.expires,
            confirm_by: self.confirm_by,
            holder: self.holder.clone(),
        })
    }

    /// Returns the lease that applies after its scenario has released the interface. `None`: there is none.
    pub fn released(self) -> Option<Self> {
        let Grant {
            owner,
            expires,
            confirm_by,
            holder,
        } = self.under?;
        Some(Self {
            owner,
            expires,
            confirm_by,
            holder,
            under: None,
            beneath: None,
            ..self
        })
    }

    /// Returns the lease in the form in which it ends now, and the lease that applies afterwards. The latter exists if
    /// a scenario was killed and cannot restore what it suspended: that state then continues on its own terms.
    pub fn ending(&self, now: BootTime) -> (Self, Option<Self>) {
        let ended = self.for_good();
        let left = ended.clone().released();
        let left = left.filter(|left| left.ends().is_none_or(|ends| ends > now));
        match (left, &self.beneath) {
            (Some(left), Some(beneath)) => {
                let before = beneath.clone();
                (Self { before, ..ended }, Some(left))
            }
            _ => (ended, None),
        }
    }

    /// Returns the lease in the form that also ends the suspended terms. The suspended state may already be restored,
    /// because an earlier end was interrupted or was not written to disk.
    #[must_use]
    pub fn for_good(&self) -> Self {
        let mut ended = self.clone();
        if let Some(beneath) = &self.beneath {
            ended.may_be(beneath.netem.map(|(_, netem)| netem));
        }
        ended
    }

    /// Returns the lease for another link that has replaced its own. The earlier state belongs to the old link, so it
    /// is not restored. Only a netem of the daemon is removed.
    #[must_use]
    pub fn for_another_link(&self) -> Self {
        let mut ended = self.for_good();
        ended.set.retain(Option::is_some);
        Self {
            before: Before::default(),
            under: None,
            beneath: None,
            link: None,
            ..ended
        }
    }

    /// Returns the lease in the form in which it ends when the last reference to its namespace is removed. The
    /// suspended terms also end.
    #[must_use]
    pub fn for_departure(&self) -> Self {
        Self {
            under: None,
            beneath: None,
            ..self.for_good()
        }
    }

    /// Compares a link with the link of the lease, by the identity that the kernel reports.
    pub fn compare(&self, link: Option<&LinkIdentity>) -> LinkMatch {
        match (&self.link, link) {
            (Some(known), Some(link)) if known.kind != link.kind => LinkMatch::Another,
            (Some(known), Some(link)) if known != link => LinkMatch::Unsure,
            _ => LinkMatch::Same,
        }
    }

    /// Returns whether the lease was made in the namespace with this cookie. `cookie` is called only if the lease has a
    /// cookie.
    pub fn is_in(&self, cookie: impl FnOnce() -> Option<u64>) -> bool {
        self.cookie.is_none() || self.cookie == cookie()
    }

    /// Records the current references to the namespace, at most `MAX_WAYS`. Returns whether they have changed.
    pub fn led_to_by(&mut self, netns_refs: &[NetnsRef]) -> bool {
        let also = netns_refs.iter().map(|netns_ref| match netns_ref {
            NetnsRef::Name { id, .. } => LeaseNetns::from(*id),
            NetnsRef::Process(id) => LeaseNetns::from(*id),
        });
        let mut also: Vec<_> = also.filter(|netns_ref| *netns_ref != self.netns).collect();
        // Several mounts of one namespace have the same identity.
        also.dedup();
        also.truncate(MAX_WAYS);
        let news = self.also != also;
        self.also = also;
        news
    }

    /// Returns all references by which the namespace may be known.
    pub fn netns_refs(&self) -> impl Iterator<Item = LeaseNetns> {
        [self.netns].into_iter().chain(self.also.iter().copied())
    }

    /// Records a netem that may be in force from now on.
    pub fn may_be(&mut self, netem: Option<Netem>) {
        self.set.retain(|known| *known != netem);
        self.set.push(netem);
        let surplus = self.set.len().saturating_sub(CANDIDATES);
        self.set.drain(..surplus);
    }

    /// Returns the time at which the lease ends by itself.
    pub fn ends(&self) -> Option<BootTime> {
        [self.expires, self.confirm_by].into_iter().flatten().min()
    }

    /// Returns who holds the interface with a token: itself, or the change that a scenario interrupts.
    pub fn token_holder(&self) -> Option<&LeaseHolder> {
        let under = self.under.as_ref().map(|grant| &grant.holder);
        let holders = [Some(&self.holder), under].into_iter().flatten();
        holders.into_iter().find(|holder| holder.token.is_some())
    }

    /// Returns it with another end for the change that this token names. `None`: the token names another change.
    pub fn renewed(&self, token: &str, expires: BootTime) -> Option<Self> {
        let mut renewed = self.clone();
        if renewed.holder.has(token) {
            renewed.expires = Some(expires);
            return Some(renewed);
        }
        let under = renewed.under.as_mut()?;
        if !under.holder.has(token) {
            return None;
        }
        under.expires = Some(expires);
        Some(renewed)
    }

    /// Returns the confirmed lease. `None`: nothing else ends it.
    pub fn confirmed(&self) -> Option<Self> {
        self.expires?;
        Some(Self {
            owner: Owner::Plain,
            confirm_by: None,
            ..self.clone()
        })
    }
}
