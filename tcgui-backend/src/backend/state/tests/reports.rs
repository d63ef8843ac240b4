//! What `query/state` reports: what is in force, who set it, and when it ends.

use tcgui_shared::state::{BackendState, InterfaceState, SetBy, StateRequest, StateResponse};
use tcgui_shared::tc::TcRequest;

use super::leases::{observed_netem, outcome, request, work};
use super::*;
use crate::kernel::netem::Netem;
use crate::tc::perform::Outcome;

fn netem(latency_ms: u64) -> Netem {
    Netem {
        limit: 1000,
        latency_ns: latency_ms * 1_000_000,
        ..Netem::default()
    }
}

fn host(netem: Option<Netem>) -> Input {
    let v0 = Link {
        netem,
        ..link(2, "v0", netem.is_some())
    };
    links(NetnsKey::Host, &[link(1, "lo", false), v0])
}

impl Bench {
    fn ask_state(&mut self, request: StateRequest) -> StateResponse {
        let (reply, mut answer) = Reply::channel();
        let effects = self.step(Input::Request(Request::State(request, reply)));
        assert!(effects.is_empty(), "{effects:?}");
        answer.try_recv().expect("answered at once")
    }

    fn reported(&mut self) -> BackendState {
        self.ask_state(StateRequest::default())
            .state
            .expect("a state")
    }

    fn v0(&mut self) -> InterfaceState {
        let mut interfaces = self.reported().interfaces.into_iter();
        interfaces.find(|it| it.interface == "v0").expect("v0")
    }

    /// Carries a request out with this netem as the result.
    fn set(&mut self, request: TcRequest, netem: Option<Netem>) {
        let change = work(self.ask(request).0);
        let mut lease = self.lease_of(&change);
        if let Some(lease) = &mut lease {
            lease.set = vec![netem];
        }
        let outcome = Outcome {
            observed: observed_netem(netem),
            ..outcome()
        };
        self.came_to(change, lease, Ok((outcome, Instant::now())));
    }
}

#[test]
fn nothing_is_reported_before_all_namespaces_are_read() {
    let mut bench = Bench::cold(&[("lab", A)]);
    let answer = bench.ask_state(StateRequest::default());
    assert_eq!(answer.error_kind, Some(ErrorKind::Busy), "{answer:?}");
}

#[test]
fn an_interface_without_a_netem_has_nothing_in_force() {
    let mut bench = Bench::warm();
    let state = bench.reported();
    assert_eq!((state.namespace_count, state.interface_count), (1, 2));
    let names: Vec<_> = state.interfaces.iter().map(|it| &*it.interface).collect();
    assert_eq!(names, ["lo", "v0"]);
    let v0 = bench.v0();
    assert!(!v0.has_tc_qdisc && v0.configuration.is_none() && v0.set_by.is_none());
    let impaired = StateRequest {
        impaired: true,
        ..StateRequest::default()
    };
    let answer = bench.ask_state(impaired);
    assert_eq!(answer.state.unwrap().interfaces, []);
}

#[test]
fn what_a_client_set_is_reported_with_its_name_and_end() {
    let mut bench = Bench::warm();
    let named = TcRequest {
        client: Some("lab script".to_owned()),
        ..request(Some(5_000), None)
    };
    bench.set(named, Some(netem(5)));
    let v0 = bench.v0();
    assert_eq!(v0.configuration.unwrap().netem.delay_ms, Some(5.0));
    assert_eq!(
        (v0.since, v0.expires_at),
        (Some(2_000_000), Some(2_005_000))
    );
    let name = Some("lab script".to_owned());
    assert_eq!(v0.set_by, Some(SetBy::Client { name }));

    bench.set(request(None, None), Some(netem(7)));
    let v0 = bench.v0();
    assert_eq!(v0.expires_at, None);
    assert_eq!(v0.set_by, Some(SetBy::Client { name: None }));
}

#[test]
fn what_another_program_set_is_not_attributed_to_a_client() {
    let mut bench = Bench::warm();
    bench.set(request(None, None), Some(netem(5)));
    bench.step(host(Some(netem(9))));
    let v0 = bench.v0();
    assert_eq!(v0.configuration.unwrap().netem.delay_ms, Some(9.0));
    assert_eq!((v0.since, v0.set_by), (None, Some(SetBy::OtherProgram)));
    bench.step(links(NetnsKey::Host, &[link(1, "lo", false)]));
    assert_eq!(bench.state.origins.len(), 0);
}

#[test]
fn one_interface_is_asked_for_by_its_name() {
    let mut bench = Bench::warm();
    let of = |interface: &str| StateRequest {
        namespace: Some("default".to_owned()),
        interface: Some(interface.to_owned()),
        impaired: false,
    };
    let state = bench.ask_state(of("v0")).state.unwrap();
    assert_eq!(state.interfaces.len(), 1);
    assert_eq!(state.interface_count, 2);
    assert_eq!(bench.ask_state(of("v9")).state.unwrap().interfaces, []);
    let invalid = bench.ask_state(of("a/b"));
    assert_eq!(invalid.error_kind, Some(ErrorKind::Invalid));
}
