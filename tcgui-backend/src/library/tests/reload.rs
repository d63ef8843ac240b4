//! Tests of files that are created, changed, damaged and deleted.

use std::os::unix::fs::symlink;

use super::*;

fn error_of<'a>(library: &'a Library, file: &str) -> Option<&'a LoadError> {
    library
        .load_errors
        .iter()
        .find(|it| it.file_path.ends_with(file))
}

#[tokio::test]
async fn changed_files_are_noticed_without_a_reload() {
    let bench = Bench::new().await;
    bench.write("scenarios/one.json5", &scenario("one", "first"));
    let library = bench
        .wait("a file appears", |it| name_of(it, "one").is_some())
        .await;
    assert_eq!((library.scenarios.len(), library.load_errors.len()), (7, 0));
    assert_eq!(library.scenarios[6].id, "one", "after the shipped ones");

    bench.write("scenarios/one.json5", &scenario("one", "second"));
    bench
        .wait("it changes", |it| {
            name_of(it, "one").as_deref() == Some("second")
        })
        .await;

    bench.write("scenarios/one.json5", "{ id: 'one',\n  name 'third' }");
    let library = bench
        .wait("the invalid edit is reported", |it| {
            !it.load_errors.is_empty()
        })
        .await;
    assert_eq!(
        name_of(&library, "one").as_deref(),
        Some("second"),
        "the last good one stays"
    );
    let error = &error_of(&library, "scenarios/one.json5").unwrap().error;
    assert_eq!(error.category, ErrorCategory::Validation);
    assert!(error.message.starts_with("line 2, column 8: "), "{error:?}");

    bench.remove("scenarios/one.json5");
    let library = bench
        .wait("it is removed", |it| name_of(it, "one").is_none())
        .await;
    assert_eq!(library.load_errors, []);
    bench.end().await;
}

#[tokio::test]
async fn directories_may_be_created_late_and_deleted() {
    let bench = Bench::new().await;
    bench.write("a/b/scenarios/deep.json5", &scenario("deep", "1"));
    bench
        .wait("a directory appears", |it| name_of(it, "deep").is_some())
        .await;
    fs::rename(bench.root.path().join("a"), bench.root.path().join("aside")).unwrap();
    bench
        .wait("its parent is removed", |it| name_of(it, "deep").is_none())
        .await;
    bench.write("a/b/scenarios/deep.json5", &scenario("deep", "2"));
    bench
        .wait("it comes anew", |it| {
            name_of(it, "deep").as_deref() == Some("2")
        })
        .await;
    bench.write("a/b/scenarios/deep.json5", &scenario("deep", "3"));
    bench
        .wait("and is noticed", |it| {
            name_of(it, "deep").as_deref() == Some("3")
        })
        .await;
    fs::remove_dir_all(bench.root.path().join("a")).unwrap();
    bench
        .wait("all of it is removed", |it| name_of(it, "deep").is_none())
        .await;
    bench.end().await;
}

#[tokio::test]
async fn later_directories_hide_earlier_ones() {
    let bench = Bench::new().await;
    bench.write("presets/wifi.json5", &preset("poor-wifi", "1"));
    bench.write("more-presets/wifi.json5", &preset("poor-wifi", "2"));
    bench.write("more-presets/extra.json5", &preset("a-first", "3"));
    let loss = |it: &Library, id| {
        let preset = it.presets.iter().find(|preset| preset.id == id);
        preset.map(|preset| preset.config.loss.percentage)
    };
    let library = bench
        .wait("all are there", |it| {
            loss(it, "poor-wifi") == Some(2.0) && loss(it, "a-first") == Some(3.0)
        })
        .await;
    assert_eq!(
        library.presets[2].id, "poor-wifi",
        "a shipped one keeps its place"
    );
    assert_eq!(
        (library.presets.len(), library.presets[7].id.as_str()),
        (8, "a-first")
    );
    bench.remove("more-presets/wifi.json5");
    bench
        .wait("what was hidden shows", |it| {
            loss(it, "poor-wifi") == Some(1.0)
        })
        .await;
    bench.remove("presets/wifi.json5");
    bench
        .wait("and what was under it", |it| {
            loss(it, "poor-wifi") == Some(8.0)
        })
        .await;
    bench.end().await;
}

#[tokio::test]
async fn scenarios_follow_the_presets_they_name() {
    let bench = Bench::new().await;
    let steps = "steps: [{ duration: '1s', description: '', preset: 'line' }]";
    bench.write(
        "scenarios/x.json5",
        &format!("{{ id: 'x', name: 'x', {steps} }}"),
    );
    let library = bench
        .wait("the preset is missed", |it| !it.load_errors.is_empty())
        .await;
    assert!(
        library.load_errors[0]
            .error
            .message
            .contains("there is no preset \"line\"")
    );
    assert_eq!(library.load_errors[0].error.step_index, Some(0));
    let loss = |it: &Library| Some(it.scenario("x")?.steps[0].tc_config.loss.percentage);
    for percentage in ["3", "4"] {
        bench.write("presets/line.json5", &preset("line", percentage));
        let wanted = percentage.parse().ok();
        bench
            .wait("the preset is taken", |it| loss(it) == wanted)
            .await;
    }
    bench.remove("presets/line.json5");
    let library = bench
        .wait("it is missed again", |it| !it.load_errors.is_empty())
        .await;
    assert_eq!(loss(&library), Some(4.0), "the last good one stays");
    bench.end().await;
}

#[tokio::test]
async fn an_invalid_file_does_not_affect_other_files() {
    let bench = Bench::new().await;
    let root = bench.end().await;
    let write = |name: &str, bytes: &[u8]| {
        let directory = root.path().join("scenarios");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(name), bytes).unwrap();
    };
    write("0-empty.json5", b"");
    write("1-text.json5", b"hello");
    write("2-bytes.json5", b"\xff\xfe");
    write("3-large.json5", &vec![b' '; 2 << 20]);
    write("4-deep.json5", "[".repeat(500_000).as_bytes());
    write("5-good.json5", scenario("good", "good").as_bytes());
    write("6-again.json5", scenario("good", "again").as_bytes());
    write("7-none.json5", b"{ id: 'none', name: 'none', steps: [] }");
    write("8-other.json", b"{");
    write(".hidden.json5", b"{");
    symlink("/dev/zero", root.path().join("scenarios/9-device.json5")).unwrap();
    symlink("nowhere", root.path().join("scenarios/a-dangling.json5")).unwrap();
    let fifo = root.path().join("scenarios/b-pipe.json5");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(root.path().join("scenarios/c-directory.json5")).unwrap();

    let bench = Bench::over(root).await;
    let library = bench.handle.snapshot();
    assert_eq!(name_of(&library, "good").as_deref(), Some("good"));
    assert_eq!(library.scenarios.len(), 7);
    let expected = [
        ("0-empty.json5", "line 1, column 1: "),
        ("1-text.json5", "line 1, column 1: "),
        ("2-bytes.json5", "line 1, column 1: not UTF-8"),
        ("3-large.json5", "more than 1048576 bytes"),
        ("4-deep.json5", "line 1, column 65: nested deeper"),
        ("6-again.json5", "the id \"good\" is already that of"),
        ("7-none.json5", "line 1, column 36: steps: there must be"),
        ("9-device.json5", "is not a regular file"),
        ("a-dangling.json5", "cannot open the file"),
        ("b-pipe.json5", "is not a regular file"),
        ("c-directory.json5", "is not a regular file"),
    ];
    for (file, message) in expected {
        let error = error_of(&library, file).map(|it| it.error.message.as_str());
        assert!(
            error.is_some_and(|it| it.starts_with(message)),
            "{file}: {error:?}"
        );
    }
    assert_eq!(library.load_errors.len(), expected.len());
    bench.end().await;
}

#[tokio::test]
async fn an_unchanged_file_keeps_its_object_and_times() {
    let bench = Bench::new().await;
    bench.write("scenarios/x.json5", &scenario("x", "x"));
    let before = bench
        .wait("it is there", |it| name_of(it, "x").is_some())
        .await;
    bench.write("scenarios/y.json5", &scenario("y", "y"));
    let after = bench
        .wait("another too", |it| name_of(it, "y").is_some())
        .await;
    let [one, same] = [&before, &after].map(|it| it.scenario("x").unwrap());
    assert!(
        Arc::ptr_eq(&one, &same),
        "its times are those of its first reading"
    );
    bench.end().await;
}

#[tokio::test]
async fn a_reload_reads_the_files_without_an_event() {
    // A mount over a directory causes no event. Here no directory is watched.
    let root = tempfile::tempdir().unwrap();
    let link = root.path().join("scenarios");
    for target in ["v1", "v2"] {
        let directory = root.path().join("elsewhere").join(target);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("x.json5"), scenario("x", target)).unwrap();
    }
    let current = root.path().join("elsewhere/current");
    symlink("v1", &current).unwrap();
    symlink("elsewhere/current", &link).unwrap();
    let bench = Bench::over(root).await;
    assert_eq!(
        name_of(&bench.handle.snapshot(), "x").as_deref(),
        Some("v1")
    );
    let renewed = current.with_extension("new");
    symlink("v2", &renewed).unwrap();
    fs::rename(&renewed, &current).unwrap();
    bench.handle.reload();
    bench
        .wait("it was read again", |it| {
            name_of(it, "x").as_deref() == Some("v2")
        })
        .await;
    bench.end().await;
}

/// Prints the time of a pass. The limit applies to a release build on an idle machine.
#[tokio::test]
async fn a_thousand_files_are_read_quickly() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("scenarios")).unwrap();
    for index in 0..1000 {
        let text = include_str!("../../../assets/scenarios/fast-degradation.json5");
        let text = text.replace("fast-degradation", &format!("s{index}"));
        fs::write(root.path().join(format!("scenarios/{index}.json5")), text).unwrap();
    }
    let mut store = LibraryStore::new(config(root.path()));
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let began = std::time::Instant::now();
        assert_eq!(store.read().scenarios.len(), 1006);
        best = best.min(began.elapsed());
    }
    let limit = if cfg!(debug_assertions) { 4000 } else { 200 };
    assert!(best < Duration::from_millis(limit), "{best:?}");
    use std::io::Write;
    writeln!(
        std::io::stderr(),
        "reload of 1000 files of ten steps: {best:?}"
    )
    .unwrap();
}
