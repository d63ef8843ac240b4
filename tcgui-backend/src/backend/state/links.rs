//! Decisions about switching links: one at a time for each, in the order in which they were asked. Pure.

use tcgui_shared::control::{
    InterfaceControlOperation, InterfaceControlRequest, InterfaceControlResponse,
};
use tcgui_shared::error_kind::ErrorKind;

use super::{Effect, Moment, State};
use crate::backend::link_worker::LinkOrder;
use crate::bus::Reply;
use crate::policy::Permit;
use crate::sockets::Place;

/// A client's wish to switch a link.
#[derive(Debug)]
pub(in crate::backend) struct LinkWish {
    pub(in crate::backend) order: LinkOrder,
    request: InterfaceControlRequest,
    reply: Reply<InterfaceControlResponse>,
}

/// What became of a wish: whether the link is up, as read back, or why not.
#[derive(Debug)]
pub(in crate::backend) struct LinkOutcome {
    pub(in crate::backend) wish: LinkWish,
    pub(in crate::backend) result: Result<bool, (ErrorKind, String)>,
}

impl State {
    pub(super) fn switch_link(
        &mut self,
        request: InterfaceControlRequest,
        permit: Permit,
        reply: Reply<InterfaceControlResponse>,
        effects: &mut Vec<Effect>,
    ) {
        let found = match self.find(&request.namespace, &request.interface) {
            Ok((_, found)) => found,
            Err((kind, message)) => {
                let operation = request.operation;
                return reply.send(InterfaceControlResponse::failure(operation, message, kind));
            }
        };
        let order = LinkOrder {
            place: Place {
                key: found.key,
                ways: found.ways,
                named: found.named,
            },
            ifindex: found.link.ifindex,
            ifname: found.link.ifname,
            up: request.operation == InterfaceControlOperation::Enable,
            permit,
        };
        let lane = (order.place.key, order.ifindex);
        match self.lanes.enter(
            lane,
            LinkWish {
                order,
                request,
                reply,
            },
        ) {
            Ok(begin) => effects.extend(begin.map(Effect::SwitchLink)),
            Err(LinkWish { request, reply, .. }) => reply.send(InterfaceControlResponse::failure(
                request.operation,
                "too many requests wait for this interface, try again",
                ErrorKind::Busy,
            )),
        }
    }

    pub(super) fn link_switched(
        &mut self,
        outcome: LinkOutcome,
        moment: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let LinkOutcome {
            wish:
                LinkWish {
                    order,
                    request,
                    reply,
                },
            result,
        } = outcome;
        effects.extend(
            self.lanes
                .leave(&(order.place.key, order.ifindex))
                .map(Effect::SwitchLink),
        );
        if matches!(&result, Err((ErrorKind::Denied, _))) {
            self.repeat_list();
        }
        reply.send(switched(&order, &request, result));
        self.switch_answered = Some(moment.now);
        // Frontends ignore most answers and show what is listed.
        effects.push(Effect::Recheck(order.place.key));
    }
}

/// The answer has the state that was read back, not the one that was asked for.
fn switched(
    order: &LinkOrder,
    request: &InterfaceControlRequest,
    result: Result<bool, (ErrorKind, String)>,
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
