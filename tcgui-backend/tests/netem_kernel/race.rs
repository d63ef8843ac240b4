//! Tests in which another program changes the root qdisc while the daemon replaces it, on a kernel with netem.

mod with_netem {
    use std::process::Command;

    use nix::net::if_::if_nametoindex;
    use nix::sched::{CloneFlags, unshare};
    use tcgui_backend::kernel::netem::{Distribution, Netem};
    use tcgui_backend::kernel::qdisc::{BottleneckChange, Install, RootChange};
    use tcgui_backend::kernel::rtnetlink::RequestSocket;
    use tcgui_backend::tc::desired::Desired;
    use tcgui_backend::tc::error::TcError;
    use tcgui_backend::tc::observed::{QdiscName, Root};
    use tcgui_backend::tc::perform::{Order, Outcome, observe, perform, perform_recorded};
    use tcgui_backend::tc::plan::{ForeignQdiscs, Refusal};

    fn sh(command: &str) {
        let output = Command::new("sh").args(["-c", command]).output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
    }

    /// A dummy link in its own network namespace. It ends with the thread and the socket.
    struct Link {
        socket: RequestSocket,
        ifindex: u32,
    }

    impl Link {
        fn new() -> Self {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            sh("ip link add y type dummy && ip link set y up");
            Self {
                socket: RequestSocket::open().unwrap(),
                ifindex: if_nametoindex("y").unwrap(),
            }
        }

        fn order(&self, distribution: Option<Distribution>) -> Order {
            let netem = Netem {
                limit: 1000,
                latency_ns: 20_000_000,
                jitter_ns: 1_000_000,
                distribution,
                ..Netem::default()
            };
            Order {
                ifindex: self.ifindex,
                desired: Desired {
                    netem: Some(netem),
                    notes: Vec::new(),
                },
                foreign: ForeignQdiscs::Keep,
            }
        }

        /// Installs a netem of the daemon that the next change must replace.
        fn prepare(&mut self) {
            let order = self.order(Some(Distribution::Normal));
            perform(&mut self.socket, order).unwrap();
        }

        /// Replaces the netem, while another program runs `command` once between the read and the change. Returns the
        /// recorded roots, and the result.
        fn replace(&mut self, command: &str) -> (Vec<Root>, Result<Outcome, TcError>) {
            let order = self.order(None);
            let before = observe(&mut self.socket, self.ifindex).unwrap();
            let mut recorded = Vec::new();
            let result = perform_recorded(&mut self.socket, order, before, |observed| {
                if recorded.is_empty() {
                    sh(command);
                }
                recorded.push(observed.root.clone());
                Ok::<_, TcError>(())
            });
            (recorded, result)
        }

        fn root(&mut self) -> Root {
            observe(&mut self.socket, self.ifindex).unwrap().root
        }
    }

    #[test]
    #[ignore = "needs netem"]
    fn a_root_that_another_program_installs_meanwhile_is_refused_and_kept() {
        let mut link = Link::new();
        link.prepare();
        let (recorded, result) = link.replace("tc qdisc replace dev y root handle 1: htb");
        assert!(matches!(recorded[..], [Root::Own { .. }]), "{recorded:?}");
        let htb = QdiscName {
            kind: "htb".into(),
            handle: 1 << 16,
        };
        match result {
            Err(TcError::Refused(Refusal::Foreign(found))) => assert_eq!(found, htb),
            other => panic!("{other:?}"),
        }
        assert_eq!(link.root(), Root::Foreign(htb));
    }

    #[test]
    #[ignore = "needs netem"]
    fn a_child_that_another_program_adds_meanwhile_is_refused_and_kept() {
        let mut link = Link::new();
        link.prepare();
        let before = link.root();
        let parent = before.handle() >> 16;
        let add = format!("tc qdisc add dev y parent {parent:x}:1 handle 30: pfifo");
        let (_, result) = link.replace(&add);
        let refused = matches!(result, Err(TcError::Refused(Refusal::Child { .. })));
        assert!(refused, "{result:?}");
        let observed = observe(&mut link.socket, link.ifindex).unwrap();
        assert_eq!((observed.root, observed.children.len()), (before, 1));
    }

    #[test]
    #[ignore = "needs netem"]
    fn a_netem_that_another_program_installs_meanwhile_is_recorded_and_taken_over() {
        let mut link = Link::new();
        link.prepare();
        // The netem duplicates, so the daemon changes it before it replaces it.
        let install = "tc qdisc replace dev y root handle 2: netem delay 7ms \
            && tc qdisc change dev y root handle 2: netem delay 7ms duplicate 1%";
        let (recorded, result) = link.replace(install);
        let [Root::Own { .. }, Root::ForeignNetem { handle, netem }] = recorded[..] else {
            panic!("{recorded:?}")
        };
        assert_eq!((handle, netem.latency_ns), (2 << 16, 7_000_000));
        let wanted = link.order(None).desired.netem.unwrap();
        let netem = *result.unwrap().observed.netem().unwrap();
        assert_eq!(netem.latency_ns, wanted.latency_ns);
    }

    #[test]
    #[ignore = "needs netem"]
    fn the_kernel_reports_the_replaced_qdisc() {
        let mut link = Link::new();
        let netem = Netem {
            limit: 9,
            ..Netem::default()
        };
        let install = |install, handle| RootChange::Install {
            install,
            handle,
            netem,
            bottleneck: BottleneckChange::Keep,
        };
        let (ours, next) = (0x7c60_0000, 0x7c70_0000);
        let (socket, ifindex) = (&mut link.socket, link.ifindex);
        let added = socket.change_root(ifindex, &install(Install::Add, ours));
        assert_eq!(added.unwrap().destroyed, None);
        let (replaced, now) = socket
            .change_root_and_read(ifindex, &install(Install::Replace, next))
            .unwrap();
        let replaced = replaced.destroyed.unwrap();
        assert_eq!((replaced.handle, replaced.ifindex), (ours, ifindex));
        assert!(replaced.is_root() && replaced.netem.is_some_and(|it| it.limit == 9));
        assert!(now.unwrap().iter().any(|it| it.handle == next));
        sh("tc qdisc replace dev y root handle 1: htb");
        let replaced = socket.change_root(ifindex, &install(Install::Replace, ours));
        let htb = replaced.unwrap().destroyed.unwrap();
        assert_eq!((htb.kind.as_str(), htb.handle), ("htb", 1 << 16));
        let changed = socket.change_root(ifindex, &install(Install::Change, ours));
        assert_eq!(changed.unwrap().destroyed, None);
    }
}
