//! Tests of scenarios that clients store over the bus.

use tcgui_shared::scenario::ScenarioStep;

use super::store::{Store, file_name};
use super::*;

fn wire(id: &str, name: &str) -> NetworkScenario {
    NetworkScenario {
        id: id.to_owned(),
        name: name.to_owned(),
        description: String::new(),
        steps: vec![ScenarioStep {
            duration_ms: 1500,
            tc_config: tcgui_shared::netem::TcNetemConfig::default(),
            description: "a step".to_owned(),
        }],
        loop_scenario: false,
        created_at: 1,
        modified_at: 2,
        metadata: tcgui_shared::scenario::ScenarioMetadata::default(),
        cleanup_on_failure: true,
    }
}

impl Bench {
    async fn add(&self, scenario: NetworkScenario) -> ScenarioResponse {
        self.handle.request(ScenarioRequest::Add(scenario)).await
    }

    async fn update(&self, scenario: NetworkScenario) -> ScenarioResponse {
        self.handle.request(ScenarioRequest::Update(scenario)).await
    }

    async fn remove_stored(&self, id: &str) -> ScenarioResponse {
        self.handle
            .request(ScenarioRequest::Remove { id: id.to_owned() })
            .await
    }

    fn name(&self, id: &str) -> Option<String> {
        name_of(&self.handle.snapshot(), id)
    }

    fn store(&self) -> std::path::PathBuf {
        config(self.root.path()).store
    }

    fn stored_files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.store()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().display().to_string())
            .collect();
        names.sort();
        names
    }
}

fn error(response: ScenarioResponse) -> ScenarioError {
    match response {
        ScenarioResponse::Error { error } => error,
        other => panic!("no error but {other:?}"),
    }
}

#[tokio::test]
async fn stored_scenarios_are_kept_after_a_restart() {
    let bench = Bench::new().await;
    let added = bench.add(wire("my own: größer", "first")).await;
    assert_eq!(
        added,
        ScenarioResponse::Added {
            id: "my own: größer".to_owned()
        }
    );
    assert_eq!(
        bench.name("my own: größer").as_deref(),
        Some("first"),
        "before the answer"
    );
    let stored = bench.handle.snapshot().scenario("my own: größer").unwrap();
    assert!(stored.created_at > 2 && stored.modified_at == stored.created_at);
    assert_eq!(stored.metadata.duration_ms, 1500);

    let bench = bench.restart().await;
    assert_eq!(bench.name("my own: größer").as_deref(), Some("first"));
    let updated = bench.update(wire("my own: größer", "second")).await;
    assert_eq!(updated, ScenarioResponse::Updated { success: true });

    let bench = bench.restart().await;
    let again = bench.handle.snapshot().scenario("my own: größer").unwrap();
    assert_eq!(
        (again.name.as_str(), again.created_at),
        ("second", stored.created_at)
    );
    let removed = bench.remove_stored("my own: größer").await;
    assert_eq!(removed, ScenarioResponse::Removed { success: true });
    assert_eq!(bench.name("my own: größer"), None);

    let bench = bench.restart().await;
    assert_eq!(bench.handle.snapshot().scenarios.len(), 6);
    let removed = bench.remove_stored("my own: größer").await;
    assert_eq!(removed, ScenarioResponse::Removed { success: false });
    bench.end().await;
}

#[tokio::test]
async fn list_and_get_return_the_snapshot() {
    let bench = Bench::new().await;
    let listed = bench.handle.request(ScenarioRequest::List).await;
    let ScenarioResponse::Listed {
        scenarios,
        load_errors,
    } = listed
    else {
        panic!("no list but {listed:?}");
    };
    assert_eq!((scenarios.len(), load_errors.len()), (6, 0));
    let get = |id: &str| {
        bench
            .handle
            .request(ScenarioRequest::Get { id: id.to_owned() })
    };
    let scenario = Some(scenarios[5].clone());
    assert_eq!(
        get("fast-degradation").await,
        ScenarioResponse::Retrieved { scenario }
    );
    assert_eq!(
        get("no/such").await,
        ScenarioResponse::Retrieved { scenario: None }
    );
    bench.end().await;
}

#[tokio::test]
async fn stored_scenarios_hide_files_and_do_not_change_them() {
    let bench = Bench::new().await;
    let refused = error(bench.add(wire("load-testing", "mine")).await);
    assert_eq!(refused.category, ErrorCategory::Permanent);
    assert_eq!(
        bench.update(wire("load-testing", "mine")).await,
        ScenarioResponse::Updated { success: true }
    );
    assert_eq!(bench.name("load-testing").as_deref(), Some("mine"));
    assert_eq!(
        bench.handle.snapshot().scenarios[4].id,
        "load-testing",
        "in its place"
    );
    let removed = bench.remove_stored("load-testing").await;
    assert_eq!(removed, ScenarioResponse::Removed { success: true });
    assert_eq!(
        bench.name("load-testing").as_deref(),
        Some("Load Testing Conditions")
    );
    let refused = error(bench.remove_stored("load-testing").await);
    assert!(refused.message.contains("comes from a file"), "{refused:?}");
    assert_eq!(
        bench.update(wire("unknown", "x")).await,
        ScenarioResponse::Updated { success: false }
    );
    bench.end().await;
}

#[tokio::test]
async fn nothing_invalid_is_stored() {
    let bench = Bench::new().await;
    let mut wrong = Vec::new();
    for id in ["", "..", "../../etc/passwd", "a/b", "a*", "a\0b"] {
        wrong.push((wire(id, "x"), "id: "));
    }
    let mut empty = wire("x", "x");
    empty.steps.clear();
    wrong.push((empty, "steps: there must be"));
    let mut short = wire("x", "x");
    short.steps[0].duration_ms = 0;
    wrong.push((short, "steps[0].duration: is shorter"));
    let mut range = wire("x", "x");
    range.steps[0].tc_config.loss.percentage = 100.5;
    wrong.push((range, "steps[0].tc_config.loss.percentage"));
    let mut many = wire("x", "x");
    many.steps = vec![many.steps[0].clone(); 10_001];
    wrong.push((many, "steps: there are 10001"));
    wrong.push((wire("x", ""), "name: is empty"));
    for (scenario, message) in wrong {
        for response in [
            bench.add(scenario.clone()).await,
            bench.update(scenario).await,
        ] {
            let refused = error(response);
            assert_eq!(refused.category, ErrorCategory::Validation, "{refused:?}");
            assert!(refused.message.starts_with(message), "{refused:?}");
        }
    }
    assert!(!bench.store().exists());
    bench.end().await;
}

#[tokio::test]
async fn damaged_files_are_set_aside_and_never_lost() {
    let bench = Bench::new().await;
    bench.add(wire("good", "good")).await;
    bench.add(wire("bad", "bad")).await;
    fs::write(bench.store().join("bad.json"), "{\"id\": \"bad\",").unwrap();
    fs::copy(
        bench.store().join("good.json"),
        bench.store().join("other.json"),
    )
    .unwrap();
    fs::write(bench.store().join(".unfinished"), "{").unwrap();

    let bench = bench.restart().await;
    assert_eq!(
        (bench.name("good").as_deref(), bench.name("bad")),
        (Some("good"), None)
    );
    assert_eq!(
        bench.stored_files(),
        [
            ".unfinished",
            "bad.1.damaged",
            "good.json",
            "other.1.damaged"
        ]
    );
    let kept = fs::read_to_string(bench.store().join("bad.1.damaged")).unwrap();
    assert_eq!(kept, "{\"id\": \"bad\",");
    let messages = |bench: &Bench| {
        let errors = bench.handle.snapshot().load_errors.clone();
        errors
            .into_iter()
            .map(|it| it.error.message)
            .collect::<Vec<_>>()
    };
    assert!(
        messages(&bench)
            .iter()
            .any(|it| it.contains("set aside as")),
        "{:?}",
        messages(&bench)
    );

    // They are reported as long as they exist. A second damaged file of the same name gets another number.
    bench.add(wire("bad", "new")).await;
    fs::write(bench.store().join("bad.json"), "").unwrap();
    let bench = bench.restart().await;
    assert!(bench.stored_files().contains(&"bad.2.damaged".to_owned()));
    assert_eq!(messages(&bench).len(), 3);
    bench.end().await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_a_clear_error() {
    let bench = Bench::new().await;
    // A file at the path of the directory: even root cannot write there.
    fs::write(bench.root.path().join("state"), "").unwrap();
    let refused = error(bench.add(wire("x", "x")).await);
    assert!(
        refused.message.starts_with("cannot make the directory"),
        "{refused:?}"
    );
    assert!(
        refused
            .suggestion
            .is_some_and(|it| it.contains("--state-dir"))
    );
    assert_eq!(bench.name("x"), None);
    assert_eq!(bench.handle.snapshot().scenarios.len(), 6);
    bench.end().await;
}

#[test]
fn a_failed_write_keeps_the_earlier_content() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::new(root.path().join("s"));
    store.write(&wire("x", "old")).unwrap();
    // The unfinished file cannot be created while a directory has its name.
    fs::create_dir_all(root.path().join("s/.unfinished/full")).unwrap();
    store.write(&wire("x", "new")).unwrap_err();
    let read = store.read();
    let [(_, Ok(scenario))] = &read[..] else {
        panic!("{read:?}");
    };
    assert_eq!(scenario.name, "old");
}

#[test]
fn file_names_are_unique_and_stay_in_the_directory() {
    assert_eq!(file_name("load-testing_2"), "load-testing_2.json");
    assert_eq!(file_name("A"), "=QQ.json");
    assert_eq!(file_name(".."), "=Li4.json");
    let ids = [
        "a", "A", "=QQ", "..", "../x", "a.json", "a b", "ä", "", "QQ", "a/b", "b", "\u{0}",
    ];
    let names: std::collections::HashSet<_> = ids.iter().map(|id| file_name(id)).collect();
    assert_eq!(names.len(), ids.len());
    assert!(
        names
            .iter()
            .all(|name| !name.contains(['/', '\0']) && !name.starts_with('.'))
    );
    assert!(file_name(&"ü".repeat(64)).len() < 255);
}

proptest::proptest! {
    #[test]
    fn different_ids_have_different_files(one in ".{1,40}", other in ".{1,40}") {
        proptest::prop_assert_eq!(one == other, file_name(&one) == file_name(&other));
    }
}
