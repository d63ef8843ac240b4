//! Builds and parses all key expressions. No other module does.
//!
//! A key consists of `tcgui`, the backend and the subject. The key of an interface also has the key chunks of its namespace and
//! name. Readers take the backend from the key and all other data from the message. Therefore only this crate depends on the
//! encoding of names in chunks.

use std::sync::Arc;

use crate::names::{BackendName, InterfaceName, NamespaceName};

/// The first chunk of every key.
pub const ROOT: &str = "tcgui";

/// The subscriptions of released frontends, identical in 0.4 to 0.8.
pub mod subscription {
    /// Interface lists.
    pub const INTERFACES_LIST: &str = "tcgui/*/interfaces/list";
    /// Interface events.
    pub const INTERFACES_EVENTS: &str = "tcgui/*/interfaces/events";
    /// Health, as messages and as liveliness tokens.
    pub const HEALTH: &str = "tcgui/*/health";
    /// Presets.
    pub const PRESETS_LIST: &str = "tcgui/*/presets/list";
    /// Counters and rates of interfaces.
    pub const BANDWIDTH: &str = "tcgui/*/bandwidth/*/**";
    /// Netem configurations. The expression has five chunks, so that it does not match the qdisc counters.
    pub const TC: &str = "tcgui/*/tc/*/*";
    /// Counters of qdiscs.
    pub const TC_STATS: &str = "tcgui/*/tc/stats/*/*";
    /// Executions of scenarios.
    pub const SCENARIO_EXECUTION: &str = "tcgui/*/scenario/execution/*/*";
}

/// Returns the backend of a key. `None` if the key has another root.
///
/// ```
/// use tcgui_shared::keys::backend_of;
///
/// assert_eq!(backend_of("tcgui/edge1/health"), Some("edge1"));
/// assert_eq!(backend_of("other/edge1/health"), None);
/// ```
pub fn backend_of(key: &str) -> Option<&str> {
    let mut chunks = key.split('/');
    let ours = chunks.next() == Some(ROOT);
    chunks.next().filter(|backend| ours && !backend.is_empty())
}

/// The keys of one backend. Cheap to clone.
///
/// ```
/// use tcgui_shared::keys::Keys;
/// use tcgui_shared::names::{InterfaceName, NameError, NamespaceName};
///
/// let keys = Keys::new(&"edge1".parse()?);
/// let namespace = NamespaceName::named("lab a*b")?;
/// let interface = InterfaceName::new("eth0")?;
/// assert_eq!(keys.tc(&namespace, &interface), "tcgui/edge1/tc/lab a%2Ab/eth0");
/// # Ok::<(), NameError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Keys {
    /// The first two chunks.
    base: Arc<str>,
}

impl Keys {
    /// Returns the keys of this backend.
    pub fn new(backend: &BackendName) -> Self {
        Self {
            base: format!("{ROOT}/{backend}").into(),
        }
    }

    /// Returns the key of the interface list.
    pub fn interfaces_list(&self) -> String {
        self.key("interfaces/list")
    }

    /// Returns the expression that matches the liveliness tokens of zenoh-ext subscribers to the interface list. Every frontend
    /// has one, so a backend detects new frontends with it.
    pub fn interfaces_list_subscribers(&self) -> String {
        self.key("interfaces/list/@adv/sub/**")
    }

    /// Returns the key of interface events.
    pub fn interfaces_events(&self) -> String {
        self.key("interfaces/events")
    }

    /// Returns the key of health messages and of the backend's liveliness token.
    pub fn health(&self) -> String {
        self.key("health")
    }

    /// Returns the key of the presets.
    pub fn presets_list(&self) -> String {
        self.key("presets/list")
    }

    /// Returns the key of the counters and rates of an interface.
    pub fn bandwidth(&self, namespace: &NamespaceName, interface: &InterfaceName) -> String {
        self.interface_key("bandwidth", namespace, interface)
    }

    /// Returns the key of the netem configuration of an interface.
    pub fn tc(&self, namespace: &NamespaceName, interface: &InterfaceName) -> String {
        self.interface_key("tc", namespace, interface)
    }

    /// Returns the key of the qdisc counters of an interface.
    pub fn tc_stats(&self, namespace: &NamespaceName, interface: &InterfaceName) -> String {
        self.interface_key("tc/stats", namespace, interface)
    }

    /// Returns the key of the scenario execution on an interface.
    pub fn scenario_execution(
        &self,
        namespace: &NamespaceName,
        interface: &InterfaceName,
    ) -> String {
        self.interface_key("scenario/execution", namespace, interface)
    }

    /// Returns the key that answers [`TcRequest`](crate::tc::TcRequest).
    pub fn query_tc(&self) -> String {
        self.key("query/tc")
    }

    /// Returns the key that answers
    /// [`InterfaceControlRequest`](crate::control::InterfaceControlRequest).
    pub fn query_interface(&self) -> String {
        self.key("query/interface")
    }

    /// Returns the key that answers [`ScenarioRequest`](crate::scenario::ScenarioRequest).
    pub fn query_scenario(&self) -> String {
        self.key("query/scenario")
    }

    /// Returns the key that answers
    /// [`ScenarioExecutionRequest`](crate::scenario::ScenarioExecutionRequest).
    pub fn query_scenario_execution(&self) -> String {
        self.key("query/scenario/execution")
    }

    /// Returns the key that answers
    /// [`DiagnosticsRequest`](crate::diagnostics::DiagnosticsRequest).
    pub fn query_diagnostics(&self) -> String {
        self.key("query/diagnostics")
    }

    /// Returns the key that answers [`ExplainRequest`](crate::explain::ExplainRequest).
    pub fn query_explain(&self) -> String {
        self.key("query/explain")
    }

    /// Returns the key that answers [`StateRequest`](crate::state::StateRequest).
    pub fn query_state(&self) -> String {
        self.key("query/state")
    }

    fn key(&self, rest: &str) -> String {
        format!("{}/{rest}", self.base)
    }

    fn interface_key(&self, what: &str, netns: &NamespaceName, ifname: &InterfaceName) -> String {
        let (netns, ifname) = (netns.key_chunk(), ifname.key_chunk());
        format!("{}/{what}/{netns}/{ifname}", self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The subset of Zenoh's matching that the subscriptions use: `*` is one chunk, `**` is any number of chunks, and neither
    /// matches a chunk that starts with `@`.
    fn matches(pattern: &[&str], key: &[&str]) -> bool {
        let plain = |chunk: &str| !chunk.starts_with('@');
        match (pattern, key) {
            ([], []) => true,
            (["**", rest @ ..], _) => {
                matches(rest, key)
                    || matches!(key, [first, key @ ..] if plain(first) && matches(pattern, key))
            }
            (["*", rest @ ..], [first, key @ ..]) => plain(first) && matches(rest, key),
            ([chunk, rest @ ..], [first, key @ ..]) => chunk == first && matches(rest, key),
            _ => false,
        }
    }

    fn keys() -> Keys {
        Keys::new(&"edge1".parse().unwrap())
    }

    /// Returns every published key of an interface with its subscription.
    fn published(netns: &NamespaceName, ifname: &InterfaceName) -> Vec<(String, &'static str)> {
        let keys = keys();
        vec![
            (keys.interfaces_list(), subscription::INTERFACES_LIST),
            (keys.interfaces_events(), subscription::INTERFACES_EVENTS),
            (keys.health(), subscription::HEALTH),
            (keys.presets_list(), subscription::PRESETS_LIST),
            (keys.bandwidth(netns, ifname), subscription::BANDWIDTH),
            (keys.tc(netns, ifname), subscription::TC),
            (keys.tc_stats(netns, ifname), subscription::TC_STATS),
            (
                keys.scenario_execution(netns, ifname),
                subscription::SCENARIO_EXECUTION,
            ),
        ]
    }

    #[test]
    fn keys_are_those_of_the_released_system() {
        let netns = NamespaceName::container("web").unwrap();
        let published = published(&netns, &InterfaceName::new("eth0.5").unwrap());
        let published: Vec<_> = published.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(
            published,
            [
                "tcgui/edge1/interfaces/list",
                "tcgui/edge1/interfaces/events",
                "tcgui/edge1/health",
                "tcgui/edge1/presets/list",
                "tcgui/edge1/bandwidth/container:web/eth0.5",
                "tcgui/edge1/tc/container:web/eth0.5",
                "tcgui/edge1/tc/stats/container:web/eth0.5",
                "tcgui/edge1/scenario/execution/container:web/eth0.5",
            ]
        );
        let keys = keys();
        assert_eq!(keys.query_tc(), "tcgui/edge1/query/tc");
        assert_eq!(keys.query_interface(), "tcgui/edge1/query/interface");
        assert_eq!(keys.query_scenario(), "tcgui/edge1/query/scenario");
        assert_eq!(
            keys.query_scenario_execution(),
            "tcgui/edge1/query/scenario/execution"
        );
        assert_eq!(keys.query_diagnostics(), "tcgui/edge1/query/diagnostics");
        assert_eq!(keys.query_explain(), "tcgui/edge1/query/explain");
        assert_eq!(keys.query_state(), "tcgui/edge1/query/state");
        assert_eq!(
            keys.interfaces_list_subscribers(),
            "tcgui/edge1/interfaces/list/@adv/sub/**"
        );
    }

    #[test]
    fn each_key_reaches_its_subscription_and_no_other() {
        for name in ["lab-a", "stats", "execution", "@x", "**", "a#b", "default"] {
            let netns = NamespaceName::named(name).unwrap();
            let published = published(&netns, &InterfaceName::new(name).unwrap());
            for (key, own) in &published {
                let chunks: Vec<_> = key.split('/').collect();
                for (_, pattern) in &published {
                    let parts: Vec<_> = pattern.split('/').collect();
                    assert_eq!(matches(&parts, &chunks), pattern == own, "{pattern} {key}");
                }
                assert_eq!(backend_of(key), Some("edge1"));
            }
        }
    }

    #[test]
    fn keys_with_another_root_have_no_backend() {
        for key in [
            "",
            "tcgui",
            "tcgui/",
            "tcgui//health",
            "x/edge1/health",
            "/tcgui/edge1",
        ] {
            assert_eq!(backend_of(key), None, "{key:?}");
        }
    }
}
