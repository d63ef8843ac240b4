//! Leases: nothing that the daemon does to an interface outlives its reason.
//!
//! A lease is written to the state directory before the first change reaches the kernel. It has the configuration before the
//! change, the configurations set since, its owner and its end. At its end the earlier configuration is restored. If the
//! interface was changed by other means since, it is left as it is, and the log says so.
//!
//! ```text
//!  request ──terms──▶ Grant ─┐                 ┌─▶ journal: one file per lease
//!  kernel ──observed──▶ Before ┴──▶ Lease ─────┤
//!                                              └─▶ ledger: which lease ends when ──▶ restore ──▶ kernel
//! ```
//!
//! A lease is bound to the kernel's identity of a namespace and to an ifindex, never to names, and to one
//! boot: after the next one nothing of it is left to put back. All but [`journal`] and [`offline_restore`] is pure.

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

/// How many netems a lease knows as its own. Each change that fails half-way adds one, and what is there is
/// always among the newest.
const CANDIDATES: usize = 8;

/// The most ways to a namespace that a lease has beside the first one. A container engine could report any number.
const MAX_WAYS: usize = 64;
/// The most qdiscs that a lease names which cannot be put back. Their names are for people only.
const MAX_LOST: usize = 64;

/// A time in ms since the boot, which goes on while the machine sleeps.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct BootTime(u64);

impl BootTime {
    /// Returns the time now.
    pub fn now() -> Self {
        Self::after_boot(boot::time_since_boot())
    }

    /// Returns the time so long after the boot.
    pub fn after_boot(time: Duration) -> Self {
        Self(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    /// Returns the time so much later; the end of time if that is earlier.
    #[must_use]
    pub fn plus(self, time: Duration) -> Self {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(ms))
    }

    /// Returns how long after `other` it is; 0 when it is before.
    pub fn since(self, other: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(other.0))
    }
}

/// What a lease is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Owner {
    /// A request that said how long it holds.
    Plain,
    /// A request that has to be confirmed.
    Confirm,
    /// A scenario: it ends with it, and does not outlive the daemon.
    Scenario {
        /// Of the scenario or its execution.
        id: String,
    },
}

/// What was at the root before the first change under a lease.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Before {
    /// The netem and its handle; `None` is the kernel's default.
    pub netem: Option<(u32, Netem)>,
    /// What cannot be put back, as `tc` names it: other qdiscs, which the operator allowed to replace.
    pub lost: Vec<String>,
}

impl Before {
    /// Returns what is to be put back one day.
    pub fn of(observed: &Observed) -> Self {
        let children = observed.children.iter().map(ToString::to_string);
        match &observed.root {
            Root::Absent | Root::Default { .. } => Self::default(),
            // Children that others have added to our netem stay when it is changed in place.
            Root::Own { handle, netem } => Self {
                netem: Some((*handle, *netem)),
                lost: Vec::new(),
            },
            Root::ForeignNetem { handle, netem } => Self {
                netem: Some((*handle, *netem)),
                // A bottleneck comes back with its netem.
                lost: bounded(children.skip(netem.bottleneck.iter().len()).collect()),
            },
            Root::Foreign(name) => Self {
                netem: None,
                lost: vec![name.to_string()],
            },
        }
    }
}

/// Returns the first names, and how many others there are.
fn bounded(mut names: Vec<String>) -> Vec<String> {
    let surplus = names.len().saturating_sub(MAX_LOST);
    if surplus > 0 {
        names.truncate(MAX_LOST);
        names.push(format!("{surplus} more"));
    }
    names
}

/// Whether a link is the one of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkMatch {
    /// It is.
    Same,
    /// It may be: its hardware address or its peer is another one. A netem with our handle and the values of the
    /// lease is ours, but nothing is put onto a link without one.
    Unsure,
    /// It is not: its kind is another one.
    Another,
}

/// What is impaired on condition, and how to undo it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The namespace, by the way that was seen first.
    pub netns: LeaseNetns,
    /// The other ways to it: after a restart of the daemon another one may be seen first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<LeaseNetns>,
    /// The interface in it.
    pub ifindex: u32,
    /// The name that the interface has, as on the wire: for people only.
    pub ifname: String,
    /// What the kernel said of the link; `None`: an earlier version wrote the lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkIdentity>,
    /// The kernel's number for the namespace (`SO_NETNS_COOKIE`), by which it is recognised under another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<u64>,
    /// What is put back.
    pub before: Before,
    /// What was set since and may be there, the newest last; `None` is the kernel's default. There is
    /// more than one while it is not known whether the newest took effect.
    pub set: Vec<Option<Netem>>,
    /// Whose it is.
    pub owner: Owner,
    /// When it ends.
    pub expires: Option<BootTime>,
    /// When it ends unless it is confirmed.
    pub confirm_by: Option<BootTime>,
    /// The client that asked for it.
    #[serde(default, skip_serializing_if = "LeaseHolder::is_unknown")]
    pub holder: LeaseHolder,
    /// The terms that hold again when the scenario gives the interface back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under: Option<Grant>,
    /// What was there on these terms when the scenario took the interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beneath: Option<Before>,
}

impl Lease {
    /// Returns the lease for setting `wanted` where `observed` is. A lease that exists already goes on, with its previous
    /// configuration, unless the root was changed by other means since.
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

    /// Returns whether it ends with a scenario.
    pub fn is_of_a_scenario(&self) -> bool {
        matches!(self.owner, Owner::Scenario { .. })
    }

    /// Returns whether it ends with this scenario.
    pub fn is_of(&self, scenario: &str) -> bool {
        matches!(&self.owner, Owner::Scenario { id } if id == scenario)
    }

    /// Returns the terms that a scenario which begins now, or goes on, does not end.
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

    /// Returns what holds when its scenario has given the interface back; `None` when nothing does.
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

    /// Returns it as it is to be ended now, and what holds afterwards: a scenario that can no longer put back
    /// what it found, because it was killed, leaves that on its own terms.
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

    /// Returns it as it is to be ended with all that it interrupted. That may be there already: an earlier end
    /// may have been cut short, or not have reached the disk.
    #[must_use]
    pub fn for_good(&self) -> Self {
        let mut ended = self.clone();
        if let Some(beneath) = &self.beneath {
            ended.may_be(beneath.netem.map(|(_, netem)| netem));
        }
        ended
    }

    /// Returns it for another link that has taken the place of its own. Nothing that was on the link of before comes
    /// back there: only a netem of ours goes.
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

    /// Returns it as it is to be ended when its namespace goes out of sight, with all that it interrupted.
    #[must_use]
    pub fn for_departure(&self) -> Self {
        Self {
            under: None,
            beneath: None,
            ..self.for_good()
        }
    }

    /// Returns how sure it is that a link is the one of the lease, by what the kernel says of it.
    pub fn compare(&self, link: Option<&LinkIdentity>) -> LinkMatch {
        match (&self.link, link) {
            (Some(known), Some(link)) if known.kind != link.kind => LinkMatch::Another,
            (Some(known), Some(link)) if known != link => LinkMatch::Unsure,
            _ => LinkMatch::Same,
        }
    }

    /// Returns whether it was taken in the namespace that has this cookie, which is read only if the lease has one.
    pub fn is_in(&self, cookie: impl FnOnce() -> Option<u64>) -> bool {
        self.cookie.is_none() || self.cookie == cookie()
    }

    /// Notes which ways lead to the namespace now, at most `MAX_WAYS`; returns whether that is news.
    pub fn led_to_by(&mut self, netns_refs: &[NetnsRef]) -> bool {
        let also = netns_refs.iter().map(|netns_ref| match netns_ref {
            NetnsRef::Name { id, .. } => LeaseNetns::from(*id),
            NetnsRef::Process(id) => LeaseNetns::from(*id),
        });
        let mut also: Vec<_> = also.filter(|netns_ref| *netns_ref != self.netns).collect();
        // Mounts of one namespace have one identity.
        also.dedup();
        also.truncate(MAX_WAYS);
        let news = self.also != also;
        self.also = also;
        news
    }

    /// Returns all ways by which the namespace may be known.
    pub fn netns_refs(&self) -> impl Iterator<Item = LeaseNetns> {
        [self.netns].into_iter().chain(self.also.iter().copied())
    }

    /// Notes what may be at the root from now on.
    pub fn may_be(&mut self, netem: Option<Netem>) {
        self.set.retain(|known| *known != netem);
        self.set.push(netem);
        let surplus = self.set.len().saturating_sub(CANDIDATES);
        self.set.drain(..surplus);
    }

    /// Returns when it ends by itself.
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

    /// Returns it confirmed; `None` when nothing is left that ends it.
    pub fn confirmed(&self) -> Option<Self> {
        self.expires?;
        Some(Self {
            owner: Owner::Plain,
            confirm_by: None,
            ..self.clone()
        })
    }
}
