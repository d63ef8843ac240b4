//! The start and end of the actor: cancellation, a dropped consumer, directories that cannot be watched.
//!
//! These tests watch temporary directories without mounts. The `tests` crate tests real namespaces end to end, in private mount
//! namespaces.

use std::os::unix::fs::symlink;
use std::path::Path;

use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(5);

fn config(directory: &Path) -> WatchConfig {
    WatchConfig {
        directory: directory.to_owned(),
        ..WatchConfig::default()
    }
}

#[expect(clippy::disallowed_methods, reason = "the test is the supervisor")]
fn run(task: Task, stop: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(task.run(stop))
}

async fn next(watcher: &mut NamespaceWatcherHandle) -> NamespaceEvent {
    timeout(SOON, watcher.next())
        .await
        .expect("an event in time")
        .expect("the watcher runs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn follows_the_directory_through_delete_and_recreate() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("netns");
    let stop = CancellationToken::new();
    let (now, mut watcher) = list_and_watch(config(&directory), stop).await.unwrap();
    assert_eq!(now, []);
    for _ in 0..20 {
        std::fs::create_dir(&directory).unwrap();
        symlink("/proc/self/ns/net", directory.join("own")).unwrap();
        assert_eq!(next(&mut watcher).await, NamespaceEvent::DirectoryAppeared);
        let NamespaceEvent::Added { name, id } = next(&mut watcher).await else {
            panic!()
        };
        assert_eq!(name, "own");
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(
            next(&mut watcher).await,
            NamespaceEvent::Removed { name, id }
        );
        assert_eq!(next(&mut watcher).await, NamespaceEvent::DirectoryVanished);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancellation_ends_the_watcher_at_once_while_an_entry_is_pending() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("placeholder"), "").unwrap();
    let (_, watcher, task) = open(config(directory.path())).await.unwrap();
    let stop = CancellationToken::new();
    let running = run(task, stop.clone());
    std::fs::write(directory.path().join("another"), "").unwrap();
    tokio::task::yield_now().await;
    let cancelled = std::time::Instant::now();
    stop.cancel();
    timeout(SOON, running).await.expect("it ends").unwrap();
    assert!(
        cancelled.elapsed() < Duration::from_millis(50),
        "{:?}",
        cancelled.elapsed()
    );
    drop(watcher);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_handle_ends_the_watcher() {
    let directory = tempfile::tempdir().unwrap();
    let (_, watcher, task) = open(config(directory.path())).await.unwrap();
    let running = run(task, CancellationToken::new());
    drop(watcher);
    timeout(SOON, running).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn a_path_that_is_no_directory_is_refused_with_the_reason() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    std::fs::write(&file, "").unwrap();
    let err = open(config(&file)).await.unwrap_err();
    assert!(matches!(err, WatchError::ReadDirectory { .. }), "{err:?}");
    for path in ["/", "netns", "/run/.."] {
        let err = open(config(Path::new(path))).await.unwrap_err();
        assert!(
            matches!(err, WatchError::Unwatchable { .. }),
            "{path}: {err:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_consumer_gets_every_namespace() {
    let directory = tempfile::tempdir().unwrap();
    let (_, mut watcher) = list_and_watch(config(directory.path()), CancellationToken::new())
        .await
        .unwrap();
    let names: std::collections::BTreeSet<OsString> =
        (0..EVENTS * 3).map(|n| format!("n{n}").into()).collect();
    for name in &names {
        symlink("/proc/self/ns/net", directory.path().join(name)).unwrap();
    }
    let mut seen = std::collections::BTreeSet::new();
    while seen != names {
        let NamespaceEvent::Added { name, .. } = next(&mut watcher).await else {
            panic!()
        };
        assert!(seen.insert(name), "added twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_has_the_entry_and_the_last_events() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("netns");
    let (_, mut watcher) = list_and_watch(config(&directory), CancellationToken::new())
        .await
        .unwrap();
    let asked = watcher.status();
    let status = asked.ask(Some("own".into())).await.unwrap();
    assert!(!status.directory_exists && status.last_sweep.is_some());
    assert_eq!(status.entry, EntryStatus::Unknown);
    let state = |status: &WatcherStatus, doorbell| {
        let found = status.doorbells.iter().find(|it| it.doorbell == doorbell);
        found.map(|it| it.state.clone()).unwrap()
    };
    assert_eq!(
        state(&status, Doorbell::DirectoryWatch),
        DoorbellState::NothingToWatch
    );

    std::fs::create_dir(&directory).unwrap();
    assert_eq!(next(&mut watcher).await, NamespaceEvent::DirectoryAppeared);
    symlink("/proc/self/ns/net", directory.join("own")).unwrap();
    symlink("/proc/self/ns/uts", directory.join("uts")).unwrap();
    let NamespaceEvent::Added { id, .. } = next(&mut watcher).await else {
        panic!()
    };
    let status = asked.ask(Some("own".into())).await.unwrap();
    assert_eq!(status.entry, EntryStatus::Network(id));
    for bell in &status.doorbells {
        assert_eq!(bell.state, DoorbellState::Works, "{bell:?}");
        // No mount happened.
        let rang = bell.doorbell != Doorbell::MountTable;
        assert!(bell.last_rang.is_some() || !rang, "{bell:?}");
    }
    let seen = timeout(SOON, async {
        loop {
            let status = asked.ask(Some("uts".into())).await.unwrap();
            if status.entry != EntryStatus::Unknown {
                break status.entry;
            }
        }
    });
    assert!(matches!(
        seen.await.unwrap(),
        EntryStatus::OtherNamespace(_)
    ));
    drop(watcher);
    let ended = async { while asked.ask(None).await.is_some() {} };
    timeout(SOON, ended).await.expect("no status after the end");
}

#[tokio::test]
async fn a_panic_of_the_actor_reaches_the_consumer() {
    let directory = tempfile::tempdir().unwrap();
    let (_, mut watcher, task) = open(config(directory.path())).await.unwrap();
    watcher.own(async move {
        drop(task);
        panic!("on purpose");
    });
    let mut waiting = tokio::task::JoinSet::new();
    waiting.spawn(async move { watcher.next().await });
    let ended = waiting.join_next().await.expect("one waits");
    assert!(ended.is_err_and(|err| err.is_panic()));
}

/// Creates a directory in which one name leads to a namespace.
fn netns_directory(path: &Path, name: &str) {
    std::fs::create_dir_all(path).unwrap();
    symlink("/proc/self/ns/net", path.join(name)).unwrap();
}

/// Replaces a symbolic link by another one.
fn replace_link(target: &Path, link: &Path) {
    let new = link.with_extension("new");
    symlink(target, &new).unwrap();
    std::fs::rename(new, link).unwrap();
}

async fn expect(watcher: &mut NamespaceWatcherHandle, changes: &[(&str, bool)]) {
    for (expected, is_added) in changes {
        match (next(watcher).await, is_added) {
            (NamespaceEvent::Added { name, .. }, true)
            | (NamespaceEvent::Removed { name, .. }, false)
                if name == *expected => {}
            (event, _) => panic!("{event:?}, not {expected} added: {is_added}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_link_in_the_middle_of_the_path_is_noticed() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    for version in ["v1", "v2", "v3"] {
        netns_directory(&at(version).join("lib/netns"), version);
    }
    symlink("v1", at("current")).unwrap();
    symlink(at("current"), at("outer")).unwrap();
    let config = config(&at("outer/lib/netns"));
    let (now, mut watcher) = list_and_watch(config, CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(now.len(), 1);
    // Replace the target of a link behind another link, then that of the first link.
    replace_link(Path::new("v2"), &at("current"));
    expect(&mut watcher, &[("v1", false), ("v2", true)]).await;
    replace_link(&at("v3"), &at("outer"));
    expect(&mut watcher, &[("v2", false), ("v3", true)]).await;
    // A change outside the route has no effect. A change on the new route has one.
    replace_link(Path::new("v1"), &at("current"));
    symlink("/proc/self/ns/net", at("v3/lib/netns/more")).unwrap();
    expect(&mut watcher, &[("more", true)]).await;

    // A directory in the middle of the path is renamed and replaced.
    std::fs::rename(at("v3"), at("old")).unwrap();
    let events = [next(&mut watcher).await, next(&mut watcher).await];
    assert!(
        events
            .iter()
            .all(|it| matches!(it, NamespaceEvent::Removed { .. })),
        "{events:?}"
    );
    assert_eq!(next(&mut watcher).await, NamespaceEvent::DirectoryVanished);
    std::fs::rename(at("v2"), at("v3")).unwrap();
    assert_eq!(next(&mut watcher).await, NamespaceEvent::DirectoryAppeared);
    expect(&mut watcher, &[("v2", true)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_does_not_exist_yet_is_followed_as_it_is_created() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("a/b/netns");
    let (_, mut watcher) = list_and_watch(config(&directory), CancellationToken::new())
        .await
        .unwrap();
    let status = watcher.status().ask(None).await.unwrap();
    let missing = |bell: &&DoorbellStatus| matches!(bell.state, DoorbellState::Missing { .. });
    assert_eq!(status.doorbells.iter().find(missing), None);
    std::fs::create_dir(root.path().join("a")).unwrap();
    std::fs::create_dir(root.path().join("a/b")).unwrap();
    netns_directory(&directory, "own");
    assert_eq!(next(&mut watcher).await, NamespaceEvent::DirectoryAppeared);
    expect(&mut watcher, &[("own", true)]).await;
    std::fs::rename(root.path().join("a"), root.path().join("moved")).unwrap();
    expect(&mut watcher, &[("own", false)]).await;
    assert_eq!(next(&mut watcher).await, NamespaceEvent::DirectoryVanished);
}

/// A random change of the directories and links of a path.
#[derive(Debug, Clone, Copy)]
enum Act {
    Link(usize, usize),
    Exchange(usize, usize),
    Remove(usize),
    Fill(usize),
}

fn act() -> impl proptest::strategy::Strategy<Value = Act> {
    use proptest::prelude::*;
    prop_oneof![
        (0..3_usize, 0..6_usize).prop_map(|(link, target)| Act::Link(link, target)),
        (0..3_usize, 0..3_usize).prop_map(|(from, to)| Act::Exchange(from, to)),
        (0..3_usize).prop_map(Act::Remove),
        (0..3_usize).prop_map(Act::Fill),
    ]
}

/// Performs the change. An impossible change has no effect.
fn perform(root: &Path, act: Act, number: usize) {
    // The path begins at the first link. Links may lead to each other and form loops.
    let link = |number: usize| root.join(format!("l{number}"));
    let version = |number: usize| root.join(format!("v{number}"));
    match act {
        Act::Link(from, to) if to < 3 => replace_link(&version(to), &link(from)),
        Act::Link(from, to) => replace_link(Path::new(&format!("l{}", to - 3)), &link(from)),
        Act::Exchange(from, to) => {
            let aside = root.join("aside");
            std::fs::rename(version(from), &aside).ok();
            std::fs::rename(version(to), version(from)).ok();
            std::fs::rename(&aside, version(to)).ok();
        }
        Act::Remove(number) => drop(std::fs::remove_dir_all(version(number))),
        Act::Fill(version_number) => {
            let netns = version(version_number).join("netns");
            std::fs::create_dir_all(&netns).unwrap();
            symlink("/proc/self/ns/net", netns.join(format!("n{number}"))).unwrap();
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(24))]

    /// The watcher follows the path without a sweep.
    #[test]
    fn the_watcher_follows_any_change_of_the_path(
        acts in proptest::collection::vec(act(), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let root = tempfile::tempdir().unwrap();
            let directory = root.path().join("l0/netns");
            let (_, mut watcher) = list_and_watch(config(&directory), CancellationToken::new())
                .await
                .unwrap();
            let mut known = std::collections::BTreeSet::new();
            for (number, act) in acts.into_iter().enumerate() {
                perform(root.path(), act, number);
                let names = std::fs::read_dir(&directory).into_iter().flatten();
                let there: std::collections::BTreeSet<OsString> =
                    names.map(|entry| entry.unwrap().file_name()).collect();
                while known != there {
                    match next(&mut watcher).await {
                        NamespaceEvent::Added { name, .. } => drop(known.insert(name)),
                        NamespaceEvent::Removed { name, .. } => drop(known.remove(&name)),
                        _ => {}
                    }
                }
            }
        });
    }
}
