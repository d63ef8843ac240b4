//! The actor's life: cancelling, a consumer that goes away, directories that cannot be watched.
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
async fn cancelling_ends_it_at_once_also_while_an_entry_is_pending() {
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
async fn a_dropped_handle_ends_it() {
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
async fn a_slow_consumer_loses_nothing() {
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
        assert!(seen.insert(name), "told twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn says_what_it_makes_of_a_name_and_when_it_heard_of_it() {
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
        // Nothing was mounted.
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
    timeout(SOON, ended)
        .await
        .expect("a watcher that ended says nothing");
}

#[tokio::test]
async fn a_panic_of_the_actor_is_not_mistaken_for_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let (_, mut watcher, task) = open(config(directory.path())).await.unwrap();
    watcher.own(async move {
        drop(task);
        panic!("told to");
    });
    let mut waiting = tokio::task::JoinSet::new();
    waiting.spawn(async move { watcher.next().await });
    let ended = waiting.join_next().await.expect("one waits");
    assert!(ended.is_err_and(|err| err.is_panic()));
}
