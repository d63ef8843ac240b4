//! Another program changes the root while it is being replaced, on the running kernel.

use crate::kernel::lab::PrivateNetns;
use crate::kernel::netem::Netem;
use crate::kernel::rtnetlink::RequestSocket;
use crate::tc::desired::Desired;
use crate::tc::error::TcError;
use crate::tc::observed::{QdiscName, Root};
use crate::tc::perform::{Order, observe, perform_recorded};
use crate::tc::plan::ForeignQdiscs;

/// Another program changes the root between the look and the replacement.
#[test]
fn a_root_that_is_not_the_expected_one_is_recorded_and_not_destroyed_unseen() {
    let netns = PrivateNetns::new();
    netns.ip("link add y type veth peer name z");
    netns.tc("qdisc add dev y root handle 1: pfifo");
    let mut socket = netns.inside(RequestSocket::open).unwrap();
    let ifindex = netns.inside(|| nix::net::if_::if_nametoindex("y")).unwrap();
    let roots = |foreign: ForeignQdiscs, then: &[&str], socket: &mut RequestSocket| {
        let netem = Some(Netem::default());
        let desired = Desired {
            netem,
            notes: Vec::new(),
        };
        let order = Order {
            ifindex,
            desired,
            foreign,
        };
        let before = observe(socket, ifindex).unwrap();
        let (mut recorded, mut then) = (Vec::new(), then.iter());
        let result = perform_recorded(socket, order, before, |observed| {
            recorded.push(observed.root.clone());
            then.next().into_iter().for_each(|line| netns.tc(line));
            Ok::<_, TcError>(())
        });
        (recorded, result)
    };
    let foreign = |kind: &str, handle: u32| {
        let kind = kind.to_owned();
        Root::Foreign(QdiscName { kind, handle })
    };

    // The record says what was really there.
    let change = ["qdisc replace dev y root handle 5: bfifo"];
    let (recorded, result) = roots(ForeignQdiscs::Replace, &change, &mut socket);
    let expected = [foreign("pfifo", 1 << 16), foreign("bfifo", 5 << 16)];
    assert_eq!(recorded, expected);
    match result {
        Ok(outcome) => assert_eq!(outcome.observed.netem(), Some(&Netem::default())),
        // On a kernel without netem, the replacement fails after all looks.
        Err(err) => assert!(matches!(err, TcError::NoNetem(_)), "{err:?}"),
    }

    // A program that goes on changing the root is not overrun.
    netns.tc("qdisc replace dev y root handle 1: pfifo");
    let changes = [
        "qdisc replace dev y root handle 2: pfifo",
        "qdisc replace dev y root handle 3: pfifo",
        "qdisc replace dev y root handle 4: pfifo",
    ];
    let (recorded, result) = roots(ForeignQdiscs::Replace, &changes, &mut socket);
    assert_eq!(recorded.len(), 3);
    let err = result.unwrap_err();
    assert!(err.to_string().contains("try again"), "{err}");
    let left = observe(&mut socket, ifindex).unwrap();
    assert_eq!(left.root, foreign("pfifo", 4 << 16));
}
