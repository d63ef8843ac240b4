//! The common behaviour of all released frontends: how they join the bus, and their subscriptions.
//!
//! They use mode peer, connect to `tcp/127.0.0.1:7447`, listen on a free port, and have advanced subscriptions with history,
//! recovery and detection. There are two differences: no multicast scouting, and a connection attempt every 50 ms, so that a test
//! does not wait for the session.

use std::path::PathBuf;

use anyhow::anyhow;
use serde_json::json;
use zenoh::handlers::IntoHandler;
use zenoh::sample::Sample;
use zenoh::{Config, Session, Wait};
use zenoh_ext::{
    AdvancedSubscriberBuilder, AdvancedSubscriberBuilderExt, HistoryConfig, RecoveryConfig,
};

/// The subscriptions with history, recovery and detection.
pub const ADVANCED: [&str; 7] = [
    "tcgui/*/interfaces/list",
    "tcgui/*/bandwidth/*/**",
    "tcgui/*/interfaces/events",
    "tcgui/*/health",
    "tcgui/*/tc/*/*",
    "tcgui/*/scenario/execution/*/*",
    "tcgui/*/presets/list",
];

/// The only plain subscription.
pub const PLAIN: &str = "tcgui/*/tc/stats/*/*";

/// The liveliness tokens of backends.
pub const LIVELINESS: &str = "tcgui/*/health";

const RETRY_MS: u32 = 50;

/// The files that a member of the bus uses for encrypted links.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// The authority that signed the daemon's certificate.
    pub root: Option<PathBuf>,
    /// Certificate and key for client authentication.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// How a member joins the bus. The default is a frontend on the host of the daemon.
#[derive(Debug, Clone)]
pub struct Route {
    mode: &'static str,
    connect: Option<String>,
    listen: Option<String>,
    priorities: bool,
    tls: Tls,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            mode: "peer",
            connect: Some("tcp/127.0.0.1:7447".to_owned()),
            listen: Some("tcp/127.0.0.1:0".to_owned()),
            priorities: true,
            tls: Tls::default(),
        }
    }
}

impl Route {
    /// A frontend that connects to this endpoint.
    #[must_use]
    pub fn peer(endpoint: &str) -> Self {
        Self {
            connect: Some(endpoint.to_owned()),
            ..Self::default()
        }
    }

    /// A client that connects to this endpoint.
    #[must_use]
    pub fn client(endpoint: &str) -> Self {
        Self {
            mode: "client",
            connect: Some(endpoint.to_owned()),
            listen: None,
            priorities: true,
            tls: Tls::default(),
        }
    }

    /// A router that listens at this endpoint.
    #[must_use]
    pub fn router(endpoint: &str) -> Self {
        Self {
            mode: "router",
            connect: None,
            listen: Some(endpoint.to_owned()),
            priorities: true,
            tls: Tls::default(),
        }
    }

    /// Uses these files for encrypted links.
    #[must_use]
    pub fn encrypted(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// Uses links with one queue for messages of all priorities.
    #[must_use]
    pub fn without_priorities(mut self) -> Self {
        self.priorities = false;
        self
    }

    /// Opens a session.
    ///
    /// # Errors
    ///
    /// When Zenoh refuses it.
    pub fn open(&self) -> anyhow::Result<Session> {
        let retry = json!({"period_init_ms": RETRY_MS, "period_max_ms": RETRY_MS});
        let endpoints = |endpoint: &Option<String>| json!(endpoint.iter().collect::<Vec<_>>());
        let settings = [
            ("mode", json!(self.mode)),
            ("connect/endpoints", endpoints(&self.connect)),
            ("connect/retry", retry),
            ("listen/endpoints", endpoints(&self.listen)),
            ("scouting/multicast/enabled", json!(false)),
            ("transport/unicast/qos/enabled", json!(self.priorities)),
        ];
        let mut settings = settings.to_vec();
        if let Some(root) = &self.tls.root {
            settings.push(("transport/link/tls/root_ca_certificate", json!(root)));
        }
        if let Some((cert, key)) = &self.tls.identity {
            settings.extend([
                ("transport/link/tls/enable_mtls", json!(true)),
                ("transport/link/tls/connect_certificate", json!(cert)),
                ("transport/link/tls/connect_private_key", json!(key)),
            ]);
        }
        let mut config = Config::default();
        for (key, value) in settings {
            config
                .insert_json5(key, &value.to_string())
                .map_err(|error| anyhow!(error).context(format!("set {key}")))?;
        }
        zenoh::open(config)
            .wait()
            .map_err(|error| anyhow!(error).context("open a session"))
    }
}

/// Builds one of the [`ADVANCED`] subscriptions.
pub fn subscription<'a, Handler: IntoHandler<Sample>>(
    session: &'a Session,
    key: &'static str,
    handler: Handler,
) -> AdvancedSubscriberBuilder<'a, 'static, 'static, Handler> {
    session
        .declare_subscriber(key)
        .with(handler)
        .history(HistoryConfig::default().detect_late_publishers())
        .recovery(RecoveryConfig::default().heartbeat())
        .subscriber_detection()
}
