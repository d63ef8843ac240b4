//! The terms of a change: when it ends, as the request states it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tcgui_shared::tc::{LONGEST_CLIENT, LONGEST_TOKEN, TcOperation, TcRequest};

use super::{BootTime, Owner};
use crate::tc::desired::{TcInputError, Unit};

/// The longest time to live: 30 days.
pub const LONGEST_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// The longest time until a confirmation: one day.
const LONGEST_CONFIRMATION: Duration = Duration::from_secs(24 * 3600);

/// The events that end a change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Terms {
    /// The lifetime.
    pub ttl: Option<Duration>,
    /// The time within which the change must be confirmed.
    pub confirm_within: Option<Duration>,
    /// The scenario with which the change ends.
    pub scenario: Option<String>,
    /// The client that asks for it.
    pub holder: LeaseHolder,
}

/// The client that holds a lease, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseHolder {
    /// The token by which only this client can renew the lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// What the client calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

impl LeaseHolder {
    /// Returns whether nothing is known of it.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    /// Returns whether this is its token.
    pub fn has(&self, token: &str) -> bool {
        self.token.as_deref() == Some(token)
    }

    /// Returns what a request says of its client.
    ///
    /// # Errors
    /// The message for the client: a text is too long, or has characters that are not permitted.
    pub fn of_request(request: &TcRequest) -> Result<Self, String> {
        let is_permitted = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if let Some(token) = &request.lease_token
            && !((1..=LONGEST_TOKEN).contains(&token.len()) && token.chars().all(is_permitted))
        {
            return Err(format!(
                "lease_token must be 1 to {LONGEST_TOKEN} ASCII letters, digits, '-', '_' and '.'"
            ));
        }
        if let Some(client) = &request.client
            && (client.len() > LONGEST_CLIENT || client.chars().any(char::is_control))
        {
            return Err(format!(
                "client must have at most {LONGEST_CLIENT} bytes and no control characters"
            ));
        }
        Ok(Self {
            token: request.lease_token.clone(),
            client: request.client.clone(),
        })
    }
}

/// The terms with absolute times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The origin of the change.
    pub owner: Owner,
    /// The time at which the change ends.
    pub expires: Option<BootTime>,
    /// The time at which the change ends unless it is confirmed.
    pub confirm_by: Option<BootTime>,
    /// The client that it is granted to.
    #[serde(default, skip_serializing_if = "LeaseHolder::is_unknown")]
    pub holder: LeaseHolder,
}

impl Terms {
    /// Returns the terms of a client's request. `default_ttl` applies to requests that install a netem and set no
    /// lifetime.
    ///
    /// # Errors
    /// A time is out of range, or the request is a confirmation, which has no times.
    pub fn of_request(
        request: &TcRequest,
        default_ttl: Option<Duration>,
    ) -> Result<Self, TcInputError> {
        let ttl = period("ttl_ms", request.ttl_ms, LONGEST_TTL)?;
        let confirm_within = period(
            "confirm_within_ms",
            request.confirm_within_ms,
            LONGEST_CONFIRMATION,
        )?;
        let said = match (ttl, confirm_within) {
            (Some(_), _) => Some("ttl_ms"),
            (None, Some(_)) => Some("confirm_within_ms"),
            (None, None) => None,
        };
        if let (TcOperation::Confirm, Some(field)) = (&request.operation, said) {
            let other = "Confirm";
            return Err(TcInputError::Excluded { field, other });
        }
        let installs = matches!(
            request.operation,
            TcOperation::Apply(_) | TcOperation::ApplyConfig { .. }
        );
        Ok(Self {
            ttl: ttl.or(default_ttl.filter(|_| installs && confirm_within.is_none())),
            confirm_within,
            ..Self::default()
        })
    }

    /// Returns the terms of a step of a scenario.
    pub fn of_scenario(id: impl Into<String>) -> Self {
        Self {
            scenario: Some(id.into()),
            ..Self::default()
        }
    }

    /// Returns whether no event ends the change.
    pub fn stay(&self) -> bool {
        self.ttl.is_none() && self.confirm_within.is_none() && self.scenario.is_none()
    }

    /// Returns the grant for a change that is made now. `None`: the change has no end.
    pub fn grant(&self, now: BootTime) -> Option<Grant> {
        let owner = match (&self.scenario, self.confirm_within, self.ttl) {
            (Some(id), ..) => Owner::Scenario { id: id.clone() },
            (None, Some(_), _) => Owner::Confirm,
            (None, None, Some(_)) => Owner::Plain,
            (None, None, None) => return None,
        };
        Some(Grant {
            owner,
            expires: self.ttl.map(|ttl| now.plus(ttl)),
            confirm_by: self.confirm_within.map(|within| now.plus(within)),
            holder: self.holder.clone(),
        })
    }
}

/// Checks a time in ms.
fn period(
    field: &'static str,
    ms: Option<u64>,
    longest: Duration,
) -> Result<Option<Duration>, TcInputError> {
    let Some(ms) = ms else {
        return Ok(None);
    };
    let given = Duration::from_millis(ms);
    if ms == 0 || given > longest {
        let in_ms = |time: Duration| time.as_secs_f64() * 1000.0;
        return Err(TcInputError::OutOfRange {
            field,
            value: in_ms(given),
            min: 1.0,
            max: in_ms(longest),
            unit: Unit::MILLISECONDS,
        });
    }
    Ok(Some(given))
}
