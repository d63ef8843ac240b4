//! What the processes of a run say to each other: JSON, a line each, over standard input and output.
//!
//! | to | it reads | it writes |
//! |---|---|---|
//! | mounter | [`Order`] | [`Message::Done`] with its time zero, or [`Message::Failed`] |
//! | observer | [`Thing`]: what to look out for next | [`Message::Done`]; at any time [`Message::Saw`] and [`Message::Listed`] |
//!
//! A process says [`Message::Done`] once when it is ready, and ends at the end of its input.

use std::fmt;
use std::io::{self, BufRead, Write};

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Something for a mounter to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// The system calls of `ip netns add`.
    Add { name: String },
    /// The system calls of `ip netns del`.
    Del { name: String },
    /// [`Order::Add`] for each of these, at once.
    AddAll { names: Vec<String> },
    /// [`Order::Del`] for each of these, at once.
    DelAll { names: Vec<String> },
    /// Takes the netns directory away, with all that is mounted there.
    Clear,
    /// [`Order::Clear`] and at once [`Order::Add`].
    Recreate { name: String },
    /// The real `ip netns add`.
    IpAdd { name: String },
    /// The real `ip netns del`.
    IpDel { name: String },
    /// Opens a netlink socket in a named namespace, for the orders about links.
    Enter { netns: String },
    /// Closes that socket, which keeps the namespace alive.
    Leave,
    /// Makes a veth.
    LinkAdd { name: String },
    /// Sets it up.
    LinkUp { name: String },
    /// Deletes it.
    LinkDel { name: String },
    /// Starts a program of this name in a network namespace of its own, which has no other name. Time zero is
    /// when its process is seen to be there.
    Hold { name: String },
    /// [`Order::Hold`], and moves a link there at once. Time zero is just before the link is moved.
    HoldAndMove { name: String },
    /// Kills that program.
    Release { name: String },
    /// Starts a container engine.
    StartEngine { engine: Engine },
    /// Stops it.
    StopEngine,
    /// Starts a container with the engine's usual network. Time zero is what the engine's event `start` says.
    Run { name: String },
    /// Removes it. Time zero is what the engine's event `die` says.
    Remove { name: String },
}

/// Which container engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Engine {
    Docker,
    Podman,
}

impl fmt::Display for Order {
    /// Short, also for a thousand names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddAll { names } => write!(f, "add {} namespaces", names.len()),
            Self::DelAll { names } => write!(f, "delete {} namespaces", names.len()),
            other => write!(f, "{other:?}"),
        }
    }
}

/// Something that can be there or not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Thing {
    /// The netns directory.
    Directory,
    /// A usable namespace; one that only a process holds has the name of its program.
    Namespace { name: String },
    /// A link in a namespace.
    Link { netns: String, name: String },
    /// The same, while it is up.
    LinkUp { netns: String, name: String },
}

/// What an observer noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sight {
    pub(crate) thing: Thing,
    /// It is there from now on, or gone.
    pub(crate) present: bool,
    /// `CLOCK_MONOTONIC`.
    pub(crate) at_ns: u64,
}

/// What a process of a lab says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Message {
    /// The order was carried out.
    Done {
        /// Its time zero on `CLOCK_MONOTONIC`; of many, that of the last.
        at_ns: u64,
    },
    /// It was not.
    Failed { error: String },
    /// A list arrived on the bus; what it changes follows.
    Listed {
        /// `CLOCK_MONOTONIC`.
        at_ns: u64,
    },
    /// Something appeared or vanished.
    Saw(Sight),
}

impl Message {
    /// The time zero of what was done.
    pub(crate) fn done(self) -> anyhow::Result<u64> {
        match self {
            Self::Done { at_ns } => Ok(at_ns),
            Self::Failed { error } => bail!(error),
            unasked => bail!("an answer expected, not {unasked:?}"),
        }
    }
}

/// Says something to the process that started this one.
pub(crate) fn say(message: &Message) -> anyhow::Result<()> {
    say_all(std::slice::from_ref(message))
}

/// Writes many messages with one system call, which delays the writer least.
pub(crate) fn say_all(messages: &[Message]) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for message in messages {
        serde_json::to_writer(&mut lines, message)?;
        lines.push(b'\n');
    }
    io::stdout()
        .lock()
        .write_all(&lines)
        .context("write to standard output")
}

/// That something appeared or vanished.
pub(crate) fn saw(thing: Thing, present: bool, at_ns: u64) -> Message {
    Message::Saw(Sight {
        thing,
        present,
        at_ns,
    })
}

/// Says that something appeared or vanished.
pub(crate) fn say_seen(thing: Thing, present: bool, at_ns: u64) -> anyhow::Result<()> {
    say(&saw(thing, present, at_ns))
}

/// Says that this process is ready, and answers what it is told until the end of its input.
pub(crate) fn serve<T: DeserializeOwned>(
    mut handle: impl FnMut(T) -> anyhow::Result<u64>,
) -> anyhow::Result<()> {
    say(&Message::Done { at_ns: 0 })?;
    for line in io::stdin().lock().lines() {
        let told = parse(&line.context("read from standard input")?)?;
        say(&match handle(told) {
            Ok(at_ns) => Message::Done { at_ns },
            Err(error) => Message::Failed {
                error: format!("{error:#}"),
            },
        })?;
    }
    Ok(())
}

/// Takes a line apart.
pub(crate) fn parse<T: DeserializeOwned>(line: &str) -> anyhow::Result<T> {
    serde_json::from_str(line).with_context(|| format!("not understood: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let said = [
            Message::Done { at_ns: 17 },
            Message::Failed {
                error: "a\nb".to_owned(),
            },
            Message::Listed { at_ns: 0 },
            saw(
                Thing::LinkUp {
                    netns: "n".to_owned(),
                    name: "v \"".to_owned(),
                },
                true,
                u64::MAX,
            ),
        ];
        for message in said {
            let line = serde_json::to_string(&message).unwrap();
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(parse::<Message>(&line).unwrap(), message);
        }
    }

    #[test]
    fn orders_are_one_line() {
        let order = Order::Recreate {
            name: "t1".to_owned(),
        };
        let line = serde_json::to_string(&order).unwrap();
        assert_eq!(line, r#"{"recreate":{"name":"t1"}}"#);
        assert_eq!(parse::<Order>(&line).unwrap(), order);
        assert_eq!(parse::<Order>(r#""clear""#).unwrap(), Order::Clear);
    }

    #[test]
    fn nonsense_is_named() {
        let error = parse::<Order>("hello").unwrap_err().to_string();
        assert!(error.contains("hello"), "{error}");
    }
}
