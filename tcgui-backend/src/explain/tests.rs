//! Tests of each reason with the facts that lead to it.

use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use tcgui_shared::explain::ReasonCode;
use tcgui_shared::names::{NamespaceName, NetnsName};

use super::*;
use crate::kernel::netns::NetnsFiles;
use crate::namespace_watcher::{DoorbellStatus, EntryStatus};

const ID: MountedNamespaceId = MountedNamespaceId::from_parts(4, 7, 1, 2);

fn watcher(entry: EntryStatus) -> WatcherStatus {
    WatcherStatus {
        directory_exists: true,
        unreadable: false,
        doorbells: vec![DoorbellStatus {
            doorbell: Doorbell::MountTable,
            state: DoorbellState::Works,
            last_rang: None,
        }],
        sweep_interval: Duration::from_secs(30),
        last_sweep: None,
        entry,
    }
}

fn entry(kind: EntryKind) -> EntryFacts {
    EntryFacts {
        path: "/run/netns/x".into(),
        directory_exists: true,
        kind,
        link_target: None,
        file_system: Some("tmpfs".into()),
        mount: None,
        propagation: Some(Propagation {
            text: "shared:5".into(),
            receives: true,
        }),
    }
}

/// Returns the facts about a listed namespace. Each test changes some of them.
fn facts(kind: EntryKind, status: EntryStatus) -> Facts {
    Facts {
        name: NamespaceName::named("x").unwrap(),
        entry: Some(entry(kind)),
        host: HostFacts {
            mounts_of_init: Some(true),
            ..HostFacts::default()
        },
        watcher: Ok(watcher(status)),
        aliases: Vec::new(),
        links: LinkFacts::Unknown,
        netlink: None,
        now: Instant::now(),
    }
}

fn namespace() -> Facts {
    let kind = Some("net");
    facts(
        EntryKind::Namespace { id: ID, kind },
        EntryStatus::Network(ID),
    )
}

fn seen(shown: &[&str], count: usize) -> LinkFacts {
    LinkFacts::Seen {
        shown: shown.iter().map(|name| (*name).to_owned()).collect(),
        count,
        began: Instant::now(),
    }
}

/// Returns whether the name is listed, the reason codes, and all texts.
fn verdict(facts: &Facts) -> (bool, Vec<ReasonCode>, String) {
    let explanation = explain(facts).explanation.expect("explained");
    let codes = explanation.reasons.iter().map(|it| it.code).collect();
    let texts: Vec<_> = explanation.reasons.into_iter().map(|it| it.text).collect();
    (explanation.listed, codes, texts.join("\n"))
}

#[test]
fn each_kind_of_entry_has_its_reason() {
    use EntryStatus::{GivenUp, OtherNamespace, Pending, Unknown};
    let file = |len, mode| EntryKind::File { len, mode };
    let uts = EntryKind::Namespace {
        id: ID,
        kind: Some("uts"),
    };
    let cases = [
        (
            EntryKind::Nothing,
            Unknown,
            ReasonCode::NoEntry,
            "there is no /run/netns/x",
        ),
        (
            file(0, 0),
            Pending { looks: 3 },
            ReasonCode::Placeholder,
            "looked at 3 times",
        ),
        (
            file(0, 0),
            GivenUp,
            ReasonCode::Placeholder,
            "no namespace appeared in time",
        ),
        (file(0, 0o644), GivenUp, ReasonCode::Placeholder, "mode 644"),
        (
            file(9, 0o644),
            GivenUp,
            ReasonCode::NotANamespace,
            "9 bytes",
        ),
        (
            uts,
            OtherNamespace(ID),
            ReasonCode::OtherType,
            "a uts namespace",
        ),
        (
            EntryKind::DanglingLink,
            GivenUp,
            ReasonCode::DanglingLink,
            "has ended",
        ),
        (
            EntryKind::Other("a FIFO"),
            GivenUp,
            ReasonCode::NotANamespace,
            "is a FIFO",
        ),
        (
            EntryKind::Other("a directory"),
            GivenUp,
            ReasonCode::NotANamespace,
            "directory",
        ),
        (
            EntryKind::Unreachable("permission denied".into()),
            Unknown,
            ReasonCode::Unreadable,
            "permission denied",
        ),
    ];
    for (kind, status, code, words) in cases {
        let case = format!("{kind:?}");
        let (listed, codes, text) = verdict(&facts(kind, status));
        assert!(!listed, "{case}");
        assert_eq!(codes, [code], "{case}");
        assert!(text.contains(words), "{case}: {text}");
    }
}

#[test]
fn a_namespace_is_listed_with_its_interfaces_and_never_without() {
    let cases = [
        (
            seen(&["lo", "v0"], 2),
            true,
            ReasonCode::Listed,
            "2 interfaces",
        ),
        (seen(&["lo"], 1), true, ReasonCode::Listed, "1 interface"),
        (
            seen(&[], 1),
            false,
            ReasonCode::NoInterfaces,
            "--exclude-loopback",
        ),
        (
            seen(&[], 0),
            false,
            ReasonCode::NoInterfaces,
            "no interfaces",
        ),
        (
            LinkFacts::NotSeen,
            false,
            ReasonCode::NotSeenYet,
            "not been read yet",
        ),
        (
            LinkFacts::Unreadable("no".into()),
            false,
            ReasonCode::Unreadable,
            "no",
        ),
        (
            LinkFacts::Unknown,
            false,
            ReasonCode::Unnoticed,
            "not noticed",
        ),
    ];
    for (links, expected, code, words) in cases {
        let facts = Facts {
            links,
            ..namespace()
        };
        let (listed, codes, text) = verdict(&facts);
        assert_eq!((listed, &codes[..]), (expected, &[code][..]), "{text}");
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn names_without_an_entry_are_explained_too() {
    let host = Facts {
        name: NamespaceName::host(),
        entry: None,
        links: seen(&["lo"], 1),
        ..namespace()
    };
    assert_eq!(verdict(&host).1, [ReasonCode::Listed]);
    let container = Facts {
        name: NamespaceName::container("web").unwrap(),
        entry: None,
        ..namespace()
    };
    assert_eq!(verdict(&container).1, [ReasonCode::NoContainer]);
    let process = Facts {
        name: NamespaceName::process(7, b"sleep").unwrap(),
        ..container
    };
    assert_eq!(verdict(&process).1, [ReasonCode::NoProcess]);
}

#[test]
fn a_directory_that_is_missing_or_unreadable_comes_first() {
    let mut missing = facts(EntryKind::Nothing, EntryStatus::Unknown);
    missing.entry.as_mut().expect("one").directory_exists = false;
    assert_eq!(verdict(&missing).1, [ReasonCode::NoDirectory]);
    let unreadable = Facts {
        watcher: Err("cannot read the netns directory".into()),
        ..facts(EntryKind::Nothing, EntryStatus::Unknown)
    };
    let (_, codes, text) = verdict(&unreadable);
    assert_eq!(codes, [ReasonCode::DirectoryUnreadable]);
    assert_eq!(text, "cannot read the netns directory");
}

#[test]
fn an_invalid_name_is_explained() {
    let err = NamespaceName::from_wire("a/b").unwrap_err();
    let explanation = explain_invalid("a/b", &err).explanation.expect("explained");
    assert!(!explanation.listed && explanation.entry.is_none());
    let [reason] = &explanation.reasons[..] else {
        panic!("{explanation:?}")
    };
    assert_eq!(reason.code, ReasonCode::InvalidName);
    assert!(reason.text.contains("contains '/'"), "{}", reason.text);
    let lines = text(&explanation, &Source::Own);
    assert!(lines.starts_with("a/b: not listed"), "{lines}");
}

#[test]
fn missing_doorbells_and_capabilities_are_always_reported() {
    let mut listed = Facts {
        links: seen(&["lo"], 1),
        ..namespace()
    };
    listed.host.missing_capabilities = vec!["CAP_NET_ADMIN"];
    let Ok(status) = &mut listed.watcher else {
        panic!()
    };
    status.sweep_interval = Duration::from_secs(1);
    status.doorbells = vec![DoorbellStatus {
        doorbell: Doorbell::DirectoryWatch,
        state: DoorbellState::Missing {
            reason: Some("cannot watch: too many open files".into()),
        },
        last_rang: None,
    }];
    let (is_listed, codes, text) = verdict(&listed);
    assert!(is_listed);
    assert_eq!(
        codes,
        [
            ReasonCode::Listed,
            ReasonCode::DoorbellMissing,
            ReasonCode::CapabilityMissing
        ]
    );
    for words in [
        "too many open files",
        "max_user_instances",
        "every 1 s",
        "CAP_NET_ADMIN",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn private_mounts_are_suspected_only_for_placeholders() {
    let file = || EntryKind::File { len: 0, mode: 0 };
    let mut placeholder = facts(file(), EntryStatus::GivenUp);
    let private = Propagation {
        text: "private".into(),
        receives: false,
    };
    placeholder.entry.as_mut().expect("one").propagation = Some(private);
    assert_eq!(verdict(&placeholder).1, [ReasonCode::Placeholder]);
    placeholder.host.mounts_of_init = Some(false);
    assert_eq!(
        verdict(&placeholder).1,
        [ReasonCode::Placeholder, ReasonCode::NotPropagated]
    );
}

#[test]
fn entries_are_examined_without_opening_them() {
    let files = NetnsFiles::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("empty"), "").unwrap();
    std::fs::write(at("text"), "text").unwrap();
    std::fs::create_dir(at("dir")).unwrap();
    nix::unistd::mkfifo(&at("fifo"), Mode::S_IRUSR).unwrap();
    symlink("/nowhere/at/all", at("dangling")).unwrap();
    symlink("/dev/null", at("null")).unwrap();
    symlink("/proc/self/ns/net", at("net")).unwrap();
    symlink("/proc/self/ns/uts", at("uts")).unwrap();
    let look = |name: &str| entry_facts(&files, dir.path(), &NetnsName::new(name).unwrap());
    let words = |name: &str| look(name).kind.words();
    for (name, expected) in [
        ("missing", "nothing"),
        ("empty", "empty file"),
        ("text", "file of 4 bytes"),
        ("dir", "directory"),
        ("fifo", "FIFO"),
        ("dangling", "link that leads nowhere"),
        ("null", "device"),
        ("net", "network namespace"),
        ("uts", "uts namespace"),
    ] {
        assert_eq!(words(name), expected, "{name}");
    }
    let net = look("net");
    assert_eq!(net.link_target.as_deref(), Some("/proc/self/ns/net"));
    assert!(net.file_system.is_some() && net.propagation.is_some());
    assert_eq!((net.mount, look("missing").file_system), (None, None));
    let gone = entry_facts(&files, &at("gone"), &NetnsName::new("x").unwrap());
    assert!(!gone.directory_exists && gone.kind == EntryKind::Nothing);
}

#[test]
fn limits_and_capabilities_are_read_from_the_machine() {
    let host = host_facts();
    let known = |name: &str| {
        host.limits
            .iter()
            .any(|(it, value)| *it == name && value.is_some())
    };
    assert!(known("fs.inotify.max_user_instances"), "{host:?}");
    assert!(known("fs.inotify.max_user_watches"), "{host:?}");
}

#[test]
fn the_text_is_complete_and_has_no_control_characters() {
    let mut odd = Facts {
        name: NamespaceName::named("a\u{1b}[2Jb").unwrap(),
        links: seen(&["lo"], 1),
        aliases: vec!["other".into()],
        netlink: Some(Some(Instant::now())),
        ..namespace()
    };
    odd.entry.as_mut().expect("one").mount = Some("41 30 0:4 net:[7] /run/netns/x".into());
    let explanation = explain(&odd).explanation.expect("explained");
    let lines = text(&explanation, &Source::Daemon("default".into()));
    for words in [
        "listed by the daemon \"default\"",
        "because",
        "network namespace, on tmpfs",
        "identity    4:7@1.000000002",
        "mount       41 30 0:4",
        "also        other",
        "interfaces  lo (read 0 ms ago)",
        "mount table: works, not yet",
        "netlink events",
        "none missing",
        "shared:5",
    ] {
        assert!(lines.contains(words), "{words}: {lines}");
    }
    assert!(!lines.contains('\u{1b}'));
    let own = text(&explanation, &Source::Own);
    assert!(own.contains("would run"), "{own}");
}
