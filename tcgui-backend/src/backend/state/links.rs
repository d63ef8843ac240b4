//! Decisions about bringing links up and down. Pure.

use tcgui_shared::control::{
    InterfaceControlOperation, InterfaceControlRequest, InterfaceControlResponse,
};
use tcgui_shared::error_kind::ErrorKind;

use super::work::{PendingLinkChange, Work};
use super::{Effect, LANE_FULL, Moment, State};
use crate::backend::orders::{LinkOrder, LinkResult};
use crate::bus::Reply;
use crate::policy::Permit;
use crate::sockets::NetnsTarget;

/// The result of a change of a link.
#[derive(Debug)]
pub(in crate::backend) struct LinkOutcome {
    pub(in crate::backend) change: Box<PendingLinkChange>,
    pub(in crate::backend) result: LinkResult,
}

impl State {
    pub(super) fn change_link(
        &mut self,
        request: InterfaceControlRequest,
        permit: Permit,
        reply: Reply<InterfaceControlResponse>,
        moment: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let operation = request.operation;
        let refuse = |message, kind| InterfaceControlResponse::failure(operation, message, kind);
        let found = match self.find(&request.namespace, &request.interface) {
            Ok((_, found)) => found,
            Err((kind, message)) => return reply.send(refuse(message, kind)),
        };
        if self.lanes.is_full((found.key, found.link.ifindex)) {
            return reply.send(refuse(LANE_FULL.to_owned(), ErrorKind::Busy));
        }
        let order = LinkOrder {
            place: NetnsTarget {
                key: found.key,
                netns_refs: found.netns_refs,
                named: found.named,
            },
            ifindex: found.link.ifindex,
            ifname: found.link.ifname,
            up: operation == InterfaceControlOperation::Enable,
            permit,
        };
        let change = PendingLinkChange {
            order,
            request,
            reply,
        };
        self.enter(Work::Link(Box::new(change)), moment, effects);
    }

    pub(super) fn link_changed(
        &mut self,
        outcome: LinkOutcome,
        moment: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let LinkOutcome { change, result } = outcome;
        let lane = change.lane();
        let PendingLinkChange {
            order,
            request,
            reply,
        } = *change;
        if matches!(&result, Err((ErrorKind::Denied, _))) {
            self.repeat.wanted = true;
        }
        reply.send(response(&order, &request, result));
        self.link_answered = Some(moment.now);
        self.begin_next(lane, moment, effects);
        // Frontends ignore most replies and show the list, so dump the links again.
        effects.push(Effect::Recheck(order.place.key));
    }
}

/// Returns the response with the state that was read back, not the requested one.
fn response(
    order: &LinkOrder,
    request: &InterfaceControlRequest,
    result: LinkResult,
) -> InterfaceControlResponse {
    let (operation, interface) = (request.operation, &request.interface);
    match result {
        Ok(up) if up == order.up => {
            let state = if up { "up" } else { "down" };
            InterfaceControlResponse::success(operation, format!("{interface} is {state}"))
        }
        Ok(_) => InterfaceControlResponse::failure(
            operation,
            format!("{interface} was switched back by somebody else"),
            ErrorKind::Busy,
        ),
        Err((kind, message)) => InterfaceControlResponse::failure(operation, message, kind),
    }
}
