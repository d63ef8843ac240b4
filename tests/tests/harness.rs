//! The harness itself, without the daemon: isolation, waiting, and the client with a simulated backend.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ffi::{OsStr, OsString};
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;
    use std::time::Duration;

    use anyhow::{anyhow, ensure};
    use serde_json::{Value, json};
    use tcgui_tests::client::Client;
    use tcgui_tests::scene::SOON;
    use tcgui_tests::wait::{at_rate, holds_for, wait_for};
    use tcgui_tests::{lab_test, names, netns};
    use zenoh::{Config, Session, Wait};
    use zenoh_ext::{AdvancedPublisherBuilderExt, CacheConfig, MissDetectionConfig};

    lab_test!(lab_begins_like_a_fresh_boot, |_| {
        ensure!(
            !Path::new(netns::DIR).exists(),
            "the netns directory is there"
        );
        let links = netns::ip_line("-br link")?;
        ensure!(
            links.lines().count() == 1 && links.starts_with("lo"),
            "links: {links}"
        );
        Ok(())
    });

    lab_test!(reality_contains_exactly_the_namespaces_of_ip, |_| {
        ensure!(
            netns::reality()?.is_empty(),
            "namespaces before the first one"
        );
        netns::add("a")?;
        netns::touch(&netns::path("file"))?;
        netns::touch(&netns::path("uts"))?;
        netns::bind(Path::new("/proc/self/ns/uts"), &netns::path("uts"))?;
        let holder = netns::holder()?;
        netns::attach("held", holder.pid())?;
        let expected = BTreeSet::from(["a", "held"].map(OsString::from));
        ensure!(
            netns::reality()? == expected,
            "reality: {:?}",
            netns::reality()
        );
        netns::enter(OsStr::new("a"))?;
        netns::enter(OsStr::new("file")).map_or(Ok(()), |()| Err(anyhow!("entered a file")))?;

        netns::cover(Path::new(netns::DIR))?;
        ensure!(netns::reality()?.is_empty(), "the cover hides nothing");
        netns::add("on-top")?;
        netns::clear()?;
        ensure!(!Path::new(netns::DIR).exists(), "not cleared");
        Ok(())
    });

    #[test]
    fn waiting_reports_the_last_state() {
        let mut count = 0;
        let mut next = || {
            count += 1;
            count
        };
        let reached = wait_for("three", SOON, &mut next, |count| *count == 3);
        assert_eq!(reached.unwrap(), 3);

        let missed = wait_for("a miracle", Duration::from_millis(20), || "dull", |_| false);
        let message = missed.unwrap_err().to_string();
        assert!(
            message.contains("a miracle") && message.contains("dull"),
            "{message}"
        );

        let mut left = 3;
        let broken = holds_for(
            "it lasts",
            SOON,
            || {
                left -= 1;
                left
            },
            |left| *left > 0,
        );
        assert!(broken.unwrap_err().to_string().contains("it lasts"));

        let times = at_rate(100, Duration::from_millis(200), || Ok(())).unwrap();
        assert!((10..=21).contains(&times), "{times}");
    }

    #[test]
    fn names_are_escaped_as_specified() {
        let cases: [(&[u8], &str); 6] = [
            (b"blue", "blue"),
            (b"a\\b", r"a\\b"),
            (b"x\xff\xfey", r"x\xff\xfey"),
            ("grün *".as_bytes(), "grün *"),
            (b"default", "netns:default"),
            (b"pid:7", "netns:pid:7"),
        ];
        for (name, expected) in cases {
            assert_eq!(names::on_wire(OsStr::from_bytes(name)), expected);
        }
    }

    fn stand_in() -> zenoh::Result<Session> {
        let mut config = Config::default();
        config.insert_json5("listen/endpoints", r#"["tcp/127.0.0.1:7447"]"#)?;
        config.insert_json5("scouting/multicast/enabled", "false")?;
        zenoh::open(config).wait()
    }

    fn publish_and_answer(session: &Session, list: &Value) -> zenoh::Result<()> {
        let publisher = session
            .declare_publisher("tcgui/default/interfaces/list")
            .cache(CacheConfig::default().max_samples(1))
            .sample_miss_detection(
                MissDetectionConfig::default().sporadic_heartbeat(Duration::from_millis(500)),
            )
            .publisher_detection()
            .wait()?;
        publisher
            .put(json!({"namespaces": []}).to_string())
            .wait()?;
        publisher.put(list.to_string()).wait()?;
        session
            .declare_queryable("tcgui/default/query/scenario")
            .callback(|query| {
                let request = query
                    .payload()
                    .map(|payload| payload.to_bytes().into_owned());
                let reply = json!({"got": request.map(|bytes| bytes.len())});
                query
                    .reply(query.key_expr().clone(), reply.to_string())
                    .wait()
                    .unwrap();
            })
            .background()
            .wait()?;
        let token = session
            .liveliness()
            .declare_token("tcgui/default/health")
            .wait()?;
        // Both must live as long as the session.
        std::mem::forget((publisher, token));
        Ok(())
    }

    lab_test!(client_sees_a_backend_that_starts_later, |_| {
        let client = Client::open()?;
        let list = json!({"namespaces": [
            {"name": "default", "namespace_type": "Default", "interfaces": [{"name": "lo"}]},
            {"name": "blue", "namespace_type": "Traditional", "interfaces": []},
        ]});
        for _ in 0..2 {
            let session = stand_in().map_err(|error| anyhow!(error))?;
            publish_and_answer(&session, &list).map_err(|error| anyhow!(error))?;
            let state = client.wait_for("present, with the newest list", SOON, |state| {
                state.alive() && state.list() == Some(&list)
            })?;
            ensure!(
                state.named() == BTreeSet::from(["blue".to_owned()]),
                "{state:?}"
            );
            ensure!(state.interface("default", "lo").is_some(), "{state:?}");
            ensure!(client.ask("scenario", &json!("List"))?.0 == json!({"got": 6}));
            ensure!(client.ask_raw("scenario", None)?.0 == json!({"got": null}));
            ensure!(
                client.ask("nobody", &json!("List")).is_err(),
                "a reply without a backend"
            );
            session.close().wait().map_err(|error| anyhow!(error))?;
            client.wait_for("gone", SOON, |state| !state.alive())?;
        }
        client.close()
    });
}
