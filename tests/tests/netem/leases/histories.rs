//! Random histories of links on the real kernel, with leases and scenarios, also while the daemon is stopped.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tcgui_tests::lab::Kind;
use tcgui_tests::links::ip;
use tcgui_tests::random::{Random, any_seed, number};
use tcgui_tests::scene::{SOON, Scene};
use tcgui_tests::wait::wait_for;
use tcgui_tests::{lab_test, measure, netns};

use super::identity::{add_scenario, execution, start, stop};
use super::inside::{delay_request, leases, short_ms};

const NAMESPACES: [&str; 2] = ["blue", "green"];
const NAMES: [&str; 4] = ["x0", "y0", "z0", "w0"];
const INDEXES: [usize; 3] = [1071, 1072, 1073];

/// Returns the links of a namespace: their names, and whether a netem is at the root.
fn links(namespace: &str) -> anyhow::Result<BTreeMap<String, bool>> {
    let listed = ip(namespace, "-j link show")?;
    let listed: Value = serde_json::from_str(&listed)?;
    let links = listed.as_array().context("a list")?.iter();
    let link = |link: &Value| {
        let name = link["ifname"].as_str()?;
        let is_netem = link["qdisc"] == "netem";
        NAMES.contains(&name).then(|| (name.to_owned(), is_netem))
    };
    Ok(links.filter_map(link).collect())
}

/// Makes one random change to a link. The kernel may refuse it, which does not matter.
fn happen(random: &mut Random, scene: &Scene) -> anyhow::Result<()> {
    let namespace = random.pick(&NAMESPACES);
    let other = NAMESPACES[usize::from(namespace == NAMESPACES[0])];
    let (name, new) = (random.pick(&NAMES), random.pick(&NAMES));
    let index = random.pick(&INDEXES);
    let make = |name: &str, index: usize| {
        format!("link add {name} index {index} type veth peer name p{index}")
    };
    let of = |name: &str| {
        let index = ip(namespace, &format!("-j link show {name}")).ok()?;
        let index: Value = serde_json::from_str(&index).ok()?;
        usize::try_from(index[0]["ifindex"].as_u64()?).ok()
    };
    match random.below(12) {
        0 | 1 => drop(ip(namespace, &make(name, index))),
        2 => drop(ip(namespace, &format!("link del {name}"))),
        3 | 4 => drop(ip(namespace, &format!("link set {name} name {new}"))),
        5 | 6 => {
            if let Some(index) = of(name) {
                ip(namespace, &format!("link del {name}")).ok();
                ip(namespace, &make(name, index)).ok();
            }
        }
        7 => drop(ip(namespace, &format!("link set {name} netns {other}"))),
        8 | 9 => {
            let request = delay_request((namespace, name), 5, &json!({ "ttl_ms": short_ms() }));
            scene.client()?.ask("tc", &request)?;
        }
        _ => drop(start(scene, (namespace, name))?),
    }
    Ok(())
}

/// Renames or deletes a link, and creates another one with its name and index.
fn change_unseen(random: &mut Random, namespace: &str, name: &str) {
    let index = random.pick(&INDEXES);
    let line = match random.below(2) {
        0 => format!("link set {name} name v{index}"),
        _ => format!("link del {name}"),
    };
    let made = format!("link add {name} index {index} type veth peer name p{index}");
    // The kernel may refuse this.
    for line in [line, made, format!("link del v{index}")] {
        ip(namespace, &line).ok();
    }
}

/// Returns the interfaces on which scenarios run.
fn active(scene: &Scene) -> anyhow::Result<Vec<(String, String)>> {
    let reply = execution(scene, &json!("ListActive"))?;
    let all = reply["ActiveExecutions"]["executions"].as_array();
    let all = all.context("a list")?.iter();
    let at = |it: &Value| {
        let member = |name: &str| Some(it[name].as_str()?.to_owned());
        Some((member("target_namespace")?, member("target_interface")?))
    };
    Ok(all.filter_map(at).collect())
}

/// Returns the first error in the state after all work is done.
fn wrong(scene: &Scene) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    let active = active(scene)?;
    for (namespace, interface) in &active {
        if !links(namespace)?.contains_key(interface) {
            wrong.push(format!(
                "a scenario on {namespace}/{interface}, which is not there"
            ));
        }
    }
    let state = scene.client()?.state();
    for namespace in NAMESPACES {
        let links = links(namespace)?;
        for (name, is_impaired) in &links {
            let at = (namespace.to_owned(), name.clone());
            if *is_impaired && !active.contains(&at) {
                wrong.push(format!("{at:?} is impaired"));
            }
        }
        for name in NAMES {
            let told = state.tc(namespace, name);
            let told = told.is_some_and(|it| it["has_tc"] == true);
            if told != links.get(name).copied().unwrap_or(false) {
                wrong.push(format!(
                    "{namespace}/{name} is published with has_tc {told}"
                ));
            }
        }
    }
    if leases() != active.len() {
        wrong.push(format!("{} leases, {active:?}", leases()));
    }
    Ok(wrong)
}

lab_test!(
    #[ignore = "needs netem"]
    random_histories_of_links,
    Kind::Lasting(Duration::from_secs(900)),
    |scene| {
        let seed = match number("TCGUI_SEED")? {
            Some(seed) => seed,
            None => any_seed()?,
        };
        measure::report(format!("histories of links with TCGUI_SEED={seed}"))?;
        let mut random = Random::new(seed);
        for namespace in NAMESPACES {
            netns::add(namespace)?;
        }
        scene.start()?;
        add_scenario(scene)?;
        for round in 0..6 {
            for _ in 0..12 {
                happen(&mut random, scene)?;
            }
            // Links change while the daemon is stopped, and steps are due when it continues. The stop is too short for clients to
            // notice it.
            scene.daemon()?.signal(Signal::SIGSTOP)?;
            for _ in 0..2 {
                let namespace = random.pick(&NAMESPACES);
                if let Some(name) = links(namespace)?.keys().next() {
                    change_unseen(&mut random, namespace, name);
                }
            }
            scene.daemon()?.signal(Signal::SIGCONT)?;
            let what = format!("round {round} with TCGUI_SEED={seed} has settled");
            let settled = SOON * 2;
            wait_for(
                &what,
                settled,
                || wrong(scene),
                |wrong| wrong.as_ref().is_ok_and(Vec::is_empty),
            )??;
        }
        for (namespace, interface) in active(scene)? {
            stop(scene, (&namespace, &interface))?;
        }
        let ended = || Ok::<_, anyhow::Error>((active(scene)?, wrong(scene)?));
        wait_for("everything has ended", SOON, ended, |it| {
            it.as_ref()
                .is_ok_and(|it| it.0.is_empty() && it.1.is_empty())
        })??;
        netns::clear()
    }
);
