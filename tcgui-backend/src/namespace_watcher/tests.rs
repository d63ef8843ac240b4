//! The actor's life: cancelling, a consumer that goes away, directories that cannot be watched.
//!
//! What it sees of real namespaces is tested end to end in the `tests` crate, in mount namespaces of
//! its own; here it watches temporary directories, into which nothing is mounted.

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
