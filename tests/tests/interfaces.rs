//! Links as a frontend sees them: their attributes, and changes in all namespaces.

#[cfg(test)]
mod tests {
    use std::path::Path;

    use anyhow::{Context, ensure};
    use nix::net::if_::if_nametoindex;
    use serde_json::json;
    use tcgui_tests::client::array;
    use tcgui_tests::links::{attribute, gone, ip, life_of_a_link, prompt};
    use tcgui_tests::{lab_test, netns};

    lab_test!(attributes_of_every_kind_of_link, |scene| {
        netns::ip_line("link add v0 type veth peer name v1")?;
        scene.start()?;
        netns::ip_line("link add br0 type bridge")?;
        netns::ip_line("tuntap add tap0 mode tap")?;
        netns::ip_line("tuntap add tun0 mode tun")?;
        netns::ip_line("link add ifb9 type ifb")?;
        let kinds = [
            ("lo", "Loopback"),
            ("v0", "Veth"),
            ("v1", "Veth"),
            ("br0", "Bridge"),
            ("tap0", "Tap"),
            ("tun0", "Tun"),
            ("ifb9", "Virtual"),
        ];
        for (name, kind) in kinds {
            attribute(scene, ("default", name), "interface_type", kind)?;
            attribute(scene, ("default", name), "index", if_nametoindex(name)?)?;
            attribute(scene, ("default", name), "namespace", "default")?;
            attribute(scene, ("default", name), "is_up", name == "lo")?;
            attribute(scene, ("default", name), "has_tc_qdisc", false)?;
        }
        let state = scene.client()?.state();
        let host = state
            .namespace("default")
            .context("the host is not listed")?;
        ensure!(
            host["namespace_type"] == "Default" && host["is_active"] == true,
            "{host}"
        );
        let count = array(host, "interfaces").count();
        ensure!(count == kinds.len(), "{count} interfaces: {host}");
        Ok(())
    });

    lab_test!(carrier_follows_the_other_end, |scene| {
        netns::add("blue")?;
        scene.start()?;
        netns::ip_line("link add near type veth peer name far netns blue")?;
        ip("default", "link set near up")?;
        attribute(scene, ("default", "near"), "is_up", true)?;
        attribute(scene, ("default", "near"), "is_oper_up", false)?;
        ip("blue", "link set far up")?;
        attribute(scene, ("default", "near"), "is_oper_up", true)?;
        attribute(scene, ("blue", "far"), "is_oper_up", true)?;
        ip("blue", "link set far down")?;
        attribute(scene, ("default", "near"), "is_oper_up", false)?;
        attribute(scene, ("default", "near"), "is_up", true)?;
        attribute(scene, ("blue", "far"), "is_up", false)
    });

    lab_test!(life_of_a_link_in_the_host, |scene| {
        scene.start()?;
        life_of_a_link(scene, "default")
    });

    lab_test!(
        life_of_a_link_in_a_namespace_older_than_the_daemon,
        |scene| {
            netns::add("blue")?;
            scene.start()?;
            life_of_a_link(scene, "blue")
        }
    );

    lab_test!(
        life_of_a_link_in_a_namespace_younger_than_the_daemon,
        |scene| {
            scene.start()?;
            netns::add("blue")?;
            scene.wait_named(&["blue"])?;
            life_of_a_link(scene, "blue")?;
            // Another namespace with the same name.
            netns::del("blue")?;
            netns::add("blue")?;
            prompt(scene, "the new one is listed", |state| {
                state.interface("blue", "lo").is_some()
            })?;
            life_of_a_link(scene, "blue")
        }
    );

    lab_test!(link_moves_between_namespaces, |scene| {
        netns::add("blue")?;
        netns::add("red")?;
        scene.start()?;
        netns::ip_line("link add stays type veth peer name moves")?;
        attribute(scene, ("default", "moves"), "interface_type", "Veth")?;
        for (from, to) in [("default", "blue"), ("blue", "red")] {
            ip(from, &format!("link set moves netns {to}"))?;
            attribute(scene, (to, "moves"), "namespace", to)?;
            gone(scene, from, "moves")?;
        }
        ip("default", "link del stays")?;
        gone(scene, "red", "moves")?;
        gone(scene, "default", "stays")
    });

    lab_test!(
        one_namespace_is_listed_once_and_found_by_each_name,
        |scene| {
            scene.start()?;
            netns::add("a")?;
            netns::touch(&netns::path("b"))?;
            netns::bind(&netns::path("a"), &netns::path("b"))?;
            scene.wait_named(&["a", "b"])?;
            netns::ip_line("-n a link add one type veth peer name two")?;
            attribute(scene, ("a", "one"), "namespace", "a")?;
            let state = scene.client()?.state();
            ensure!(state.namespace("b").is_none(), "listed twice: {state:?}");
            let a = state.namespace("a").context("a is not listed")?;
            ensure!(a["aliases"] == json!(["b"]), "{a}");
            for (name, operation) in [("b", "Enable"), ("a", "Disable"), ("b", "Enable")] {
                let request =
                    json!({"namespace": name, "interface": "one", "operation": operation});
                let (reply, _) = scene.client()?.ask("interface", &request)?;
                ensure!(reply["success"] == true, "{name}: {reply}");
                attribute(scene, ("a", "one"), "is_up", operation == "Enable")?;
            }
            netns::del("a")?;
            scene.wait_named(&["b"])?;
            netns::ip_line("-n b link set one down")?;
            attribute(scene, ("b", "one"), "is_up", false)?;
            let state = scene.client()?.state();
            let b = state.namespace("b").context("b is not listed")?;
            ensure!(b.get("aliases").is_none(), "{b}");
            Ok(())
        }
    );

    lab_test!(a_name_of_the_daemons_own_namespace_is_an_alias, |scene| {
        netns::add("other")?;
        netns::touch(&netns::path("home"))?;
        netns::bind(Path::new("/proc/self/ns/net"), &netns::path("home"))?;
        scene.start()?;
        scene.wait_named(&["home", "other"])?;
        let state = scene.client()?.state();
        let host = state.namespace("default").context("no host")?;
        ensure!(host["aliases"] == json!(["home"]), "{host}");
        netns::del("home")?;
        scene.wait_named(&["other"])?;
        attribute(scene, ("default", "lo"), "is_up", true)
    });

    lab_test!(hundreds_of_links_in_one_namespace, |scene| {
        scene.start()?;
        netns::add("full")?;
        for number in 0..150 {
            ip(
                "full",
                &format!("link add l{number} type veth peer name r{number}"),
            )?;
        }
        prompt(scene, "all 301 links are listed", |state| {
            state
                .namespace("full")
                .is_some_and(|full| array(full, "interfaces").count() == 301)
        })?;
        ip("full", "link del l77")?;
        gone(scene, "full", "r77")?;
        let state = scene.client()?.state();
        ensure!(state.interface("full", "l78").is_some(), "{state:?}");
        Ok(())
    });

    lab_test!(loopback_excluded_on_demand, |scene| {
        netns::add("old")?;
        scene.start_with(&["--exclude-loopback"])?;
        netns::add("new")?;
        scene.wait_for("namespaces are counted in health", |state| {
            state
                .health()
                .is_some_and(|health| health["namespace_count"] == 3)
        })?;
        ensure!(
            scene.client()?.state().named().is_empty(),
            "lists namespaces without links"
        );
        netns::ip_line("link add near type veth peer name far netns new")?;
        attribute(scene, ("new", "far"), "interface_type", "Veth")?;
        attribute(scene, ("default", "near"), "interface_type", "Veth")?;
        let state = scene.client()?.state();
        for namespace in ["default", "new"] {
            ensure!(
                state.interface(namespace, "lo").is_none(),
                "lo of {namespace} is listed"
            );
        }
        netns::ip_line("link del near")?;
        gone(scene, "new", "far")?;
        scene.wait_named::<&str>(&[])
    });
}
