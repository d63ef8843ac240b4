//! Parses the replies and events of engines, within limits. Pure. Any reply may be false or malformed.
//!
//! Only the needed fields are read, so changes of other fields between versions do not matter. The number of
//! elements is limited in addition to the bytes: a list of empty objects takes thirty times its size in memory.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer, IgnoredAny, SeqAccess, Visitor};
use tcgui_shared::names::ContainerName;

use super::limits::{MAX_CONTAINERS, MAX_IMAGE, MAX_NAME, MAX_NAMES};
use crate::netns_holders::{Container, Runtime};

/// The id of a container: 12 to 64 hexadecimal digits, safe as part of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ContainerId(Box<str>);

/// Number of digits in the short id.
const SHORT: usize = 12;

impl ContainerId {
    /// Returns the id if the text is one.
    pub(super) fn new(text: &str) -> Option<Self> {
        let digits = text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (digits && (SHORT..=64).contains(&text.len())).then(|| Self(text.into()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the short id, as `docker ps` shows it.
    pub(super) fn short(&self) -> &str {
        self.0.get(..SHORT).unwrap_or(&self.0)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

impl<'de> Deserialize<'de> for ContainerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).ok_or_else(|| de::Error::custom("not the id of a container"))
    }
}

/// An event after which a container is inspected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// The container.
    pub(super) id: ContainerId,
    /// The change that may have happened.
    pub(super) kind: EventKind,
}

/// A change that may have happened to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventKind {
    /// It may have a new process or a new name.
    Changed,
    /// Its process may have ended.
    Ended,
}

/// Returns the change that an action stands for. `None`: the action does not matter. Podman has its own names for
/// some actions.
///
/// When Podman sends `init`, the container already has its network, and its program has not started yet. `kill`
/// reports that a signal was sent, which does not necessarily end the container.
fn meaning(action: &str) -> Option<EventKind> {
    match action {
        "start" | "started" | "init" | "restart" | "rename" | "unpause" => Some(EventKind::Changed),
        "die" | "died" | "stop" | "destroy" | "remove" | "cleanup" => Some(EventKind::Ended),
        _ => None,
    }
}

/// Parses one event. `None`: the event does not matter.
///
/// # Errors
/// The line is not an event of an engine.
pub(super) fn event(line: &[u8]) -> serde_json::Result<Option<Event>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Wire {
        r#type: String,
        action: String,
        actor: Actor,
    }
    #[derive(Deserialize)]
    struct Actor {
        #[serde(rename = "ID")]
        id: String,
    }
    let Wire {
        r#type,
        action,
        actor,
    } = serde_json::from_slice(line)?;
    let kind = (r#type == "container").then(|| meaning(&action)).flatten();
    kind.map(|kind| match ContainerId::new(&actor.id) {
        Some(id) => Ok(Event { id, kind }),
        None => Err(de::Error::custom("an event of a container without an id")),
    })
    .transpose()
}

/// Parses one line of Podman's events file. `None`: the line is not an event, or does not matter.
pub(super) fn logged_event(line: &[u8]) -> Option<Event> {
    #[derive(Deserialize)]
    struct Wire {
        #[serde(rename = "ID")]
        id: ContainerId,
        #[serde(rename = "Type")]
        r#type: String,
        #[serde(rename = "Status")]
        status: String,
    }
    // Events of the system have no id, and those of networks have an id of another form.
    let Wire { id, r#type, status } = serde_json::from_slice(line).ok()?;
    let kind = (r#type == "container")
        .then(|| meaning(&status))
        .flatten()?;
    Some(Event { id, kind })
}

/// The running containers from a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Listing {
    /// Each container with its names.
    pub(super) containers: Vec<(ContainerId, Vec<String>)>,
    /// The list has more containers than the limit.
    pub(super) more: bool,
}

/// Parses a list of containers.
///
/// # Errors
/// The body is not such a list.
pub(super) fn listing(body: &[u8]) -> serde_json::Result<Listing> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Wire {
        id: ContainerId,
        names: Option<First<String, MAX_NAMES>>,
    }
    let First { items, more }: First<Wire, MAX_CONTAINERS> = serde_json::from_slice(body)?;
    let names =
        |names: Option<First<String, MAX_NAMES>>| names.map_or(Vec::new(), |first| first.items);
    let entry = |wire: Wire| {
        let plain = names(wire.names)
            .into_iter()
            .map(|name| plain(&name).to_owned());
        (wire.id, plain.collect())
    };
    Ok(Listing {
        containers: items.into_iter().map(entry).collect(),
        more,
    })
}

/// An engine's description of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Description {
    /// Its first process. `None`: it has no process.
    pub(super) pid: Option<i32>,
    /// The other properties.
    pub(super) container: Container,
}

/// Parses the description of the container `id`.
///
/// # Errors
/// The body is not a description, or describes another container.
pub(super) fn description(
    body: &[u8],
    id: &ContainerId,
    runtime: Runtime,
) -> serde_json::Result<Description> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Wire {
        id: ContainerId,
        name: Option<String>,
        state: State,
        config: Option<Config>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct State {
        pid: i64,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Config {
        image: Option<String>,
    }
    let wire: Wire = serde_json::from_slice(body)?;
    if wire.id != *id {
        return Err(de::Error::custom("the description of another container"));
    }
    let image = wire.config.and_then(|config| config.image);
    Ok(Description {
        pid: i32::try_from(wire.state.pid).ok().filter(|pid| *pid > 0),
        container: Container {
            name: name(wire.name.as_deref().unwrap_or(""), id),
            runtime,
            of_root: false,
            short_id: id.short().to_owned(),
            image: image.map_or_else(|| "unknown".to_owned(), |image| shortened(&image)),
        },
    })
}

/// Removes the slash that engines put before a name. It dates from names with several parts.
fn plain(name: &str) -> &str {
    name.strip_prefix('/').unwrap_or(name)
}

/// Returns the container's name if it has the form that engines require (`[a-zA-Z0-9][a-zA-Z0-9_.-]*`), otherwise
/// its short id.
fn name(given: &str, id: &ContainerId) -> ContainerName {
    let usable = |name: &str| {
        name.len() <= MAX_NAME
            && name.starts_with(|first: char| first.is_ascii_alphanumeric())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
    };
    let chosen = Some(plain(given)).filter(|name| usable(name));
    ContainerName::new(chosen.unwrap_or(id.short())).expect("an id is never empty")
}

/// Returns an image name without control characters, and shortened to [`MAX_IMAGE`] bytes.
fn shortened(image: &str) -> String {
    let end = image.floor_char_boundary(MAX_IMAGE);
    image[..end]
        .chars()
        .filter(|character| !character.is_control())
        .collect()
}

/// The first `N` elements of a sequence. The others are skipped.
struct First<T, const N: usize> {
    items: Vec<T>,
    more: bool,
}

impl<'de, T: DeserializeOwned, const N: usize> Deserialize<'de> for First<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T, const N: usize>(PhantomData<T>);
        impl<'de, T: DeserializeOwned, const N: usize> Visitor<'de> for Elements<T, N> {
            type Value = First<T, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while items.len() < N {
                    match seq.next_element()? {
                        Some(item) => items.push(item),
                        None => return Ok(First { items, more: false }),
                    }
                }
                let mut more = false;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    more = true;
                }
                Ok(First { items, more })
            }
        }
        deserializer.deserialize_seq(Elements(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "5f48d01435f3ceb46d9dc24a9ca0fe6ea17fe78fd13e07c1e8d4e09e76bd3719";

    fn id() -> ContainerId {
        ContainerId::new(ID).unwrap()
    }

    fn described(value: &Value) -> serde_json::Result<Description> {
        description(value.to_string().as_bytes(), &id(), Runtime::Docker)
    }

    #[test]
    fn events_of_docker_20_and_podman_4_are_read() {
        // As captured from the engines.
        let docker = br#"{"status":"start","id":"5f48d01435f3ceb46d9dc24a9ca0fe6ea17fe78fd13e07c1e8d4e09e76bd3719","from":"tiny","Type":"container","Action":"start","Actor":{"ID":"5f48d01435f3ceb46d9dc24a9ca0fe6ea17fe78fd13e07c1e8d4e09e76bd3719","Attributes":{"image":"tiny","name":"one"}},"scope":"local","time":1795574237,"timeNano":1795574237001207652}"#;
        let podman = br#"{"status":"cleanup","id":"5f48d01435f3ceb46d9dc24a9ca0fe6ea17fe78fd13e07c1e8d4e09e76bd3719","from":"localhost/tiny:latest","Type":"container","Action":"cleanup","Actor":{"ID":"5f48d01435f3ceb46d9dc24a9ca0fe6ea17fe78fd13e07c1e8d4e09e76bd3719","Attributes":{"containerExitCode":"0","image":"localhost/tiny:latest","name":"one","podId":""}},"scope":"local","time":1795574441,"timeNano":1795574441894026800}"#;
        let of = |kind| Some(Event { id: id(), kind });
        assert_eq!(event(docker).unwrap(), of(EventKind::Changed));
        assert_eq!(event(podman).unwrap(), of(EventKind::Ended));
        let exec = br#"{"Type":"container","Action":"exec_create: sleep 0","Actor":{"ID":"5f48d01435f3"}}"#;
        assert_eq!(event(exec).unwrap(), None);
        let image = br#"{"Type":"image","Action":"remove","Actor":{"ID":"sha256:7"}}"#;
        assert_eq!(event(image).unwrap(), None);
        for wrong in [
            r#"{"Type":"container","Action":"start","Actor":{"ID":"../../x"}}"#,
            r#"{"Type":"container","Action":"start"}"#,
            r#"{"Type":7,"Action":"start","Actor":{"ID":"5f48d01435f3"}}"#,
            "[]",
            "",
        ] {
            assert!(event(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_events_file_of_podman_4_is_read() {
        // As captured from the file.
        let died = br#"{"ID":"5f48d01435f3ceb46d9dc24a9ca0fe6ea17fe78fd13e07c1e8d4e09e76bd3719","Image":"localhost/tiny:latest","Name":"loving_kalam","Status":"died","Time":"2026-11-25T03:25:18.298891503Z","Type":"container","Attributes":{}}"#;
        let kind = EventKind::Ended;
        assert_eq!(logged_event(died), Some(Event { id: id(), kind }));
        for ignored in [
            r#"{"Status":"refresh","Time":"2026-11-25T03:25:17.868328633Z","Type":"system","Attributes":null}"#,
            r#"{"ID":"5f48d01435f3ceb46d9dc24a9ca0fe6ea17fe78fd13e07c1e8d4e09e76bd3719","Name":"tiny","Status":"remove","Type":"image"}"#,
            "",
        ] {
            assert_eq!(logged_event(ignored.as_bytes()), None, "{ignored}");
        }
    }

    #[test]
    fn an_invalid_description_is_refused() {
        let good =
            json!({"Id": ID, "Name": "/web", "State": {"Pid": 6320}, "Config": {"Image": "tiny"}});
        let Description { pid, container } = described(&good).unwrap();
        assert_eq!((pid, container.name.as_str()), (Some(6320), "web"));
        assert_eq!(
            (container.short_id.as_str(), container.image.as_str()),
            (&ID[..12], "tiny")
        );
        for pid in [
            0,
            -1,
            i64::from(i32::MIN),
            i64::from(i32::MAX) + 1,
            i64::MAX,
        ] {
            let mut lie = good.clone();
            lie["State"]["Pid"] = pid.into();
            assert_eq!(described(&lie).unwrap().pid, None, "{pid}");
        }
        for (member, lie) in [
            ("State", json!({"Pid": "6320"})),
            ("State", json!({"Pid": 1.5e300})),
            ("State", Value::Null),
            ("Id", json!(ID.replace('5', "6"))),
            ("Name", json!(["web"])),
        ] {
            let mut wrong = good.clone();
            wrong[member] = lie;
            assert!(described(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_invalid_name_is_replaced_by_the_id() {
        let of = |name: &str| super::name(name, &id()).as_str().to_owned();
        assert_eq!(of("/a.b-c_D9"), "a.b-c_D9");
        let long = "x".repeat(MAX_NAME + 1);
        for wrong in [
            "", "/", "//x", "a/b", "-a", ".", "..", "a b", "a*", "ä", "a\0", &long,
        ] {
            assert_eq!(of(wrong), &ID[..12], "{wrong:?}");
        }
        assert_eq!(shortened(&"ä".repeat(200)), "ä".repeat(128));
        assert_eq!(shortened("a\x1b[31m\nb"), "a[31mb");
    }

    #[test]
    fn a_list_is_read_up_to_the_limits() {
        let one =
            |n: usize| json!({"Id": format!("{n:064x}"), "Names": ["/a", "/b"], "x": {"y": 1}});
        let list = |len| Value::from_iter((0..len).map(one)).to_string();
        let read = listing(list(2).as_bytes()).unwrap();
        assert_eq!(read.containers[1].1, ["a", "b"]);
        assert_eq!((read.containers.len(), read.more), (2, false));
        let most = listing(list(MAX_CONTAINERS).as_bytes()).unwrap();
        assert!(!most.more);
        let read = listing(list(MAX_CONTAINERS + 3).as_bytes()).unwrap();
        assert_eq!((read.containers.len(), read.more), (MAX_CONTAINERS, true));
        assert_eq!(listing(b"[]").unwrap(), Listing::default());
        let nameless = format!(r#"[{{"Id":"{ID}","Names":null}}]"#);
        assert_eq!(
            listing(nameless.as_bytes()).unwrap().containers[0].1,
            [""; 0]
        );
        for wrong in [
            "{}",
            "null",
            "[{}]",
            r#"[{"Id":""}]"#,
            "[[[",
            &"[".repeat(100_000),
        ] {
            listing(wrong.as_bytes()).unwrap_err();
        }
    }

    /// Damaged replies.
    fn damaged() -> impl Strategy<Value = Vec<u8>> {
        let answers = [
            json!({"Id": ID, "Name": "/web", "State": {"Pid": 6320}, "Config": {"Image": "tiny"}}),
            json!([{"Id": ID, "Names": ["/web"]}]),
            json!({"Type": "container", "Action": "start", "Actor": {"ID": ID}}),
        ];
        let texts = answers.map(|answer| answer.to_string().into_bytes());
        let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
        (prop::sample::select(texts.to_vec()), changes).prop_map(|(mut text, changes)| {
            for (at, byte) in changes {
                let at = at.index(text.len());
                text[at] = byte;
            }
            text
        })
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(bytes in prop_oneof![any::<Vec<u8>>(), damaged()]) {
            event(&bytes).ok();
            logged_event(&bytes);
            if let Ok(read) = listing(&bytes) {
                prop_assert!(read.containers.len() <= MAX_CONTAINERS);
            }
            if let Ok(read) = description(&bytes, &id(), Runtime::Podman) {
                prop_assert!(read.pid.is_none_or(|pid| pid > 0));
                prop_assert!(read.container.image.len() <= MAX_IMAGE);
                prop_assert!(read.container.name.as_str().len() <= MAX_NAME);
            }
        }
    }
}
