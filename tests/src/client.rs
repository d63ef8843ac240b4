//! A frontend that depends only on the wire: Zenoh and JSON, without the types of the product.
//!
//! Session and subscriptions are those of [`frontend`]. A callback receives each sample.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use nix::time::{ClockId, clock_gettime};
use serde_json::Value;
use zenoh::handlers::{Callback, FifoChannelHandler};
use zenoh::query::Reply;
use zenoh::sample::{Sample, SampleKind};
use zenoh::{Session, Wait};

use crate::frontend::{self, Route};
use crate::wait::patience;

/// The query timeout of a released frontend.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Called for every list on a thread of Zenoh, with the time of arrival (`CLOCK_MONOTONIC` in ns) and the list.
type ListHook = Box<dyn Fn(u64, &Value) + Send + Sync>;

/// Options for opening a [`Client`].
pub struct Options {
    backend: String,
    route: Route,
    on_list: Option<ListHook>,
    deaf: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            backend: "default".to_owned(),
            route: Route::default(),
            on_list: None,
            deaf: false,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// The backend whose state the accessors return. The default is `default`.
    #[must_use]
    pub fn backend(mut self, name: &str) -> Self {
        name.clone_into(&mut self.backend);
        self
    }

    /// Joins the bus in another way than a frontend on the host of the daemon.
    #[must_use]
    pub fn route(mut self, route: Route) -> Self {
        self.route = route;
        self
    }

    /// A callback for every interface list, with its time of arrival (`CLOCK_MONOTONIC` in ns).
    #[must_use]
    pub fn on_list(mut self, hook: impl Fn(u64, &Value) + Send + Sync + 'static) -> Self {
        self.on_list = Some(Box::new(hook));
        self
    }

    /// Subscribes to nothing, so that no reply waits behind a list that this client must read.
    #[must_use]
    pub fn deaf(mut self) -> Self {
        self.deaf = true;
        self
    }

    /// Opens the session and subscribes. The daemon may be started later.
    ///
    /// # Errors
    ///
    /// When Zenoh refuses the session or a subscription.
    pub fn open(self) -> anyhow::Result<Client> {
        let session = self.route.open()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                backend: self.backend,
                ..State::default()
            }),
            changed: Condvar::new(),
            on_list: self.on_list,
        });
        if !self.deaf {
            subscribe(&session, &shared).map_err(|error| anyhow!(error).context("subscribe"))?;
        }
        Ok(Client { session, shared })
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds, which is comparable between processes.
///
/// # Errors
///
/// When the clock cannot be read.
pub fn monotonic_ns() -> anyhow::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(now.tv_sec())? * 1_000_000_000 + u64::try_from(now.tv_nsec())?)
}

/// The newest sample of one key.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The payload, or null if it was not JSON.
    pub value: Arc<Value>,
    /// Time of arrival on `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// Number of samples received under the key.
    pub count: usize,
}

/// The state received so far.
#[derive(Clone, Default)]
pub struct State {
    backend: String,
    samples: BTreeMap<String, Seen>,
    alive: BTreeSet<String>,
    faults: Vec<String>,
}

impl State {
    /// The newest sample of a key below `tcgui/BACKEND/`.
    #[must_use]
    pub fn seen(&self, rest: &str) -> Option<&Seen> {
        self.samples.get(&format!("tcgui/{}/{rest}", self.backend))
    }

    /// The same state with accessors for another backend.
    #[must_use]
    pub fn of(&self, backend: &str) -> Self {
        Self {
            backend: backend.to_owned(),
            ..self.clone()
        }
    }

    /// The newest interface list.
    #[must_use]
    pub fn list(&self) -> Option<&Value> {
        self.seen("interfaces/list").map(|seen| &*seen.value)
    }

    /// Number of interface lists received.
    #[must_use]
    pub fn lists(&self) -> usize {
        self.seen("interfaces/list").map_or(0, |seen| seen.count)
    }

    /// The newest health message.
    #[must_use]
    pub fn health(&self) -> Option<&Value> {
        self.seen("health").map(|seen| &*seen.value)
    }

    /// The newest list of presets.
    #[must_use]
    pub fn presets(&self) -> Option<&Value> {
        self.seen("presets/list").map(|seen| &*seen.value)
    }

    /// The newest configuration of one interface.
    #[must_use]
    pub fn tc(&self, namespace: &str, interface: &str) -> Option<&Value> {
        self.seen(&format!("tc/{namespace}/{interface}"))
            .map(|seen| &*seen.value)
    }

    /// Whether the liveliness token of the backend exists.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.alive
            .contains(&format!("tcgui/{}/health", self.backend))
    }

    /// Every key under which a sample was received.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.samples.keys().map(String::as_str)
    }

    /// Payloads that are not JSON, which a released frontend would discard.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// One namespace of the newest list.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&Value> {
        array(self.list()?, "namespaces").find(|namespace| namespace["name"] == name)
    }

    /// One interface of the newest list.
    #[must_use]
    pub fn interface(&self, namespace: &str, name: &str) -> Option<&Value> {
        array(self.namespace(namespace)?, "interfaces").find(|interface| interface["name"] == name)
    }

    /// The names of `/run/netns` in the newest list.
    #[must_use]
    pub fn named(&self) -> BTreeSet<String> {
        self.list().map(named).unwrap_or_default()
    }
}

impl fmt::Debug for State {
    /// Writes a summary that is short enough for the message of a failed wait.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interfaces = |namespace: &Value| {
            let names = array(namespace, "interfaces").map(|interface| interface["name"].clone());
            (namespace["name"].clone(), names.collect::<Vec<_>>())
        };
        let counts: Vec<_> = self
            .samples
            .iter()
            .map(|(key, seen)| (key, seen.count))
            .collect();
        f.debug_struct("State")
            .field("alive", &self.alive)
            .field("samples", &counts)
            .field(
                "namespaces",
                &self.list().map(|list| {
                    array(list, "namespaces")
                        .map(interfaces)
                        .collect::<Vec<_>>()
                }),
            )
            .field("faults", &self.faults)
            .finish()
    }
}

/// The elements of an array member. Empty if the member is missing.
pub fn array<'a>(value: &'a Value, member: &str) -> impl Iterator<Item = &'a Value> {
    value[member].as_array().into_iter().flatten()
}

/// All names of `/run/netns` in a list, including aliases.
#[must_use]
pub fn named(list: &Value) -> BTreeSet<String> {
    let is_named = |name: &&str| {
        *name != "default" && !name.starts_with("container:") && !name.starts_with("pid:")
    };
    array(list, "namespaces")
        .flat_map(|namespace| array(namespace, "aliases").chain([&namespace["name"]]))
        .filter_map(Value::as_str)
        .filter(is_named)
        .map(str::to_owned)
        .collect()
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    on_list: Option<ListHook>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn take(&self, sample: &Sample) {
        let at_ns = monotonic_ns().unwrap_or_default();
        let key = sample.key_expr().as_str();
        let parsed = serde_json::from_slice(&sample.payload().to_bytes());
        if let (Some(hook), Ok(value)) = (&self.on_list, &parsed)
            && key.ends_with("/interfaces/list")
        {
            hook(at_ns, value);
        }
        self.change(|state| {
            let value = parsed.unwrap_or_else(|error| {
                state.faults.push(format!("{key}: {error}"));
                Value::Null
            });
            let count = state.samples.get(key).map_or(0, |seen| seen.count) + 1;
            state.samples.insert(
                key.to_owned(),
                Seen {
                    value: Arc::new(value),
                    at_ns,
                    count,
                },
            );
        });
    }

    fn presence(&self, sample: &Sample) {
        let key = sample.key_expr().as_str();
        self.change(|state| {
            match sample.kind() {
                SampleKind::Put => state.alive.insert(key.to_owned()),
                SampleKind::Delete => state.alive.remove(key),
            };
        });
    }
}

/// An open session with all subscriptions of a released frontend.
pub struct Client {
    session: Session,
    shared: Arc<Shared>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&*self.shared.lock()).finish()
    }
}

impl Client {
    /// Opens a client of the backend `default`.
    ///
    /// # Errors
    ///
    /// As [`Options::open`].
    pub fn open() -> anyhow::Result<Self> {
        Options::default().open()
    }

    /// A copy of the state received so far.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.lock().clone()
    }

    /// The session, for operations without an accessor.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Waits until the received state satisfies the predicate, and returns it.
    ///
    /// # Errors
    ///
    /// When the deadline passes first. The message contains the last state.
    pub fn wait_for(
        &self,
        what: &str,
        deadline: Duration,
        predicate: impl Fn(&State) -> bool,
    ) -> anyhow::Result<State> {
        let deadline = deadline * patience();
        let (state, timeout) = self
            .shared
            .changed
            .wait_timeout_while(self.shared.lock(), deadline, |state| !predicate(state))
            .unwrap_or_else(PoisonError::into_inner);
        ensure!(
            !timeout.timed_out(),
            "not within {deadline:?}: {what}; last state: {state:?}"
        );
        Ok(state.clone())
    }

    /// Queries `tcgui/BACKEND/query/WHAT`, and returns the reply and its duration.
    ///
    /// # Errors
    ///
    /// When there is not exactly one reply on the key of the query, or it is not JSON.
    pub fn ask(&self, what: &str, request: &Value) -> anyhow::Result<(Value, Duration)> {
        self.ask_raw(what, Some(request.to_string().as_bytes()))
    }

    /// [`Self::ask`] with any payload, or without one.
    ///
    /// # Errors
    ///
    /// As [`Self::ask`].
    pub fn ask_raw(&self, what: &str, payload: Option<&[u8]>) -> anyhow::Result<(Value, Duration)> {
        let key = format!("tcgui/{}/query/{what}", self.shared.lock().backend);
        self.query(&key, payload)
    }

    /// [`Self::ask_raw`] with the whole key, for other backends.
    ///
    /// # Errors
    ///
    /// As [`Self::ask`].
    pub fn query(&self, key: &str, payload: Option<&[u8]>) -> anyhow::Result<(Value, Duration)> {
        let start = Instant::now();
        let value = self.begin(key, payload)?.reply()?;
        Ok((value, start.elapsed()))
    }

    /// Sends a query. [`Asked::reply`] waits for its reply.
    ///
    /// # Errors
    ///
    /// When it cannot be sent.
    pub fn begin(&self, key: &str, payload: Option<&[u8]>) -> anyhow::Result<Asked> {
        let query = self.session.get(key).timeout(QUERY_TIMEOUT);
        let query = match payload {
            Some(payload) => query.payload(payload),
            None => query,
        };
        let replies = query
            .wait()
            .map_err(|error| anyhow!(error).context("send the query"))?;
        Ok(Asked {
            key: key.to_owned(),
            replies,
        })
    }

    /// Returns how many liveliness tokens match a key expression.
    ///
    /// # Errors
    ///
    /// When the query fails.
    pub fn tokens(&self, key: &str) -> anyhow::Result<usize> {
        let tokens = self.session.liveliness().get(key).wait();
        let tokens = tokens.map_err(|error| anyhow!(error).context("ask for tokens"))?;
        Ok(tokens.iter().filter(|token| token.result().is_ok()).count())
    }

    /// Closes the session. Dropping the client also closes it, but reports no error.
    ///
    /// # Errors
    ///
    /// When Zenoh reports a failure.
    pub fn close(self) -> anyhow::Result<()> {
        self.session
            .close()
            .wait()
            .map_err(|error| anyhow!(error).context("close the session"))
    }
}

/// A query that was sent.
#[derive(Debug)]
pub struct Asked {
    key: String,
    replies: FifoChannelHandler<Reply>,
}

impl Asked {
    /// Waits for the one reply.
    ///
    /// # Errors
    ///
    /// When there is not exactly one reply on the key of the query, or it is not JSON.
    pub fn reply(self) -> anyhow::Result<Value> {
        let key = self.key;
        let replies: Vec<_> = self.replies.iter().collect();
        let [reply] = &replies[..] else {
            bail!("{} replies from {key}, expected one", replies.len());
        };
        let sample = reply
            .result()
            .map_err(|error| anyhow!("error reply from {key}: {error:?}"))?;
        ensure!(
            sample.key_expr().as_str() == key,
            "reply on {}",
            sample.key_expr()
        );
        let text = sample.payload().to_bytes();
        serde_json::from_slice(&text)
            .with_context(|| format!("reply of {key}: {}", String::from_utf8_lossy(&text)))
    }
}

fn subscribe(session: &Session, shared: &Arc<Shared>) -> zenoh::Result<()> {
    let sink = || {
        let shared = Arc::clone(shared);
        Callback::from(move |sample: Sample| shared.take(&sample))
    };
    for key in frontend::ADVANCED {
        frontend::subscription(session, key, sink())
            .background()
            .wait()?;
    }
    session
        .declare_subscriber(frontend::PLAIN)
        .with(sink())
        .background()
        .wait()?;
    let presence = Arc::clone(shared);
    session
        .liveliness()
        .declare_subscriber(frontend::LIVELINESS)
        .history(true)
        .callback(move |sample| presence.presence(&sample))
        .background()
        .wait()
}
