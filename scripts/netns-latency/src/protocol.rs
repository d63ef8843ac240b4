//! The messages between the processes of a run: one line of JSON each, over standard input and output.
//!
//! | to | it reads | it writes |
//! |---|---|---|
//! | mounter | [`Order`] | [`Message::Done`] with its time zero, or [`Message::Failed`] |
//! | observer | [`Thing`]: the next thing to wait for | [`Message::Done`]; at any time [`Message::Saw`] and [`Message::Listed`] |
//!
//! A process sends [`Message::Done`] once when it is ready, and ends at the end of its input.

use std::fmt;
use std::io::{self, BufRead, Write};

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// An order for a mounter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// The system calls of `ip netns add`.
    Add { name: String },
    /// The system calls of `ip netns del`.
    Del { name: String },
    /// [`Order::Add`] for each of these names without a pause.
    AddAll { names: Vec<String> },
    /// [`Order::Del`] for each of these names without a pause.
    DelAll { names: Vec<String> },
    /// Removes the netns directory and all mounts in it.
    Clear,
    /// [`Order::Clear`], immediately followed by [`Order::Add`].
    Recreate { name: String },
    /// Runs the real `ip netns add`.
    IpAdd { name: String },
    /// Runs the real `ip netns del`.
    IpDel { name: String },
    /// Opens a netlink socket in a named namespace, for the orders about links.
    Enter { netns: String },
    /// Closes that socket, which keeps the namespace alive.
    Leave,
    /// Creates a veth.
    LinkAdd { name: String },
    /// Sets it up.
    LinkUp { name: String },
    /// Deletes it.
    LinkDel { name: String },
    /// Starts a program of this name in a new network namespace without a name. Time zero is the moment when its process is seen
    /// in that namespace.
    Hold { name: String },
    /// [`Order::Hold`], and immediately moves a link there. Time zero is just before the link is moved.
    HoldAndMove { name: String },
    /// Kills that program.
    Release { name: String },
    /// Starts a container engine.
    StartEngine { engine: Engine },
    /// Stops it.
    StopEngine,
    /// Starts a container with the default network of the engine. Time zero is the time in the engine's event `start`.
    Run { name: String },
    /// Removes it. Time zero is the time in the engine's event `die`.
    Remove { name: String },
}

/// A container engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Engine {
    Docker,
    Podman,
}

impl fmt::Display for Order {
    /// Writes a short text, even for a thousand names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddAll { names } => write!(f, "add {} namespaces", names.len()),
            Self::DelAll { names } => write!(f, "delete {} namespaces", names.len()),
            other => write!(f, "{other:?}"),
        }
    }
}

/// A thing that exists or does not exist.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Thing {
    /// The netns directory.
    Directory,
    /// A usable namespace. If only a process holds it, the name is that of its program.
    Namespace { name: String },
    /// A link in a namespace.
    Link { netns: String, name: String },
    /// A link in a namespace, while it is up.
    LinkUp { netns: String, name: String },
}

/// A change that an observer noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sight {
    pub(crate) thing: Thing,
    /// Whether the thing exists from now on.
    pub(crate) present: bool,
    /// The time on `CLOCK_MONOTONIC`.
    pub(crate) at_ns: u64,
}

/// A message from a process of a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Message {
    /// The order was carried out.
    Done {
        /// Its time zero on `CLOCK_MONOTONIC`. For several orders, that of the last one.
        at_ns: u64,
    },
    /// The order failed.
    Failed { error: String },
    /// A list arrived on the bus. Its changes follow.
    Listed {
        /// The time on `CLOCK_MONOTONIC`.
        at_ns: u64,
    },
    /// A thing appeared or disappeared.
    Saw(Sight),
}

impl Message {
    /// Returns the time zero of a completed order.
    pub(crate) fn done(self) -> anyhow::Result<u64> {
        match self {
            Self::Done { at_ns } => Ok(at_ns),
            Self::Failed { error } => bail!(error),
            unasked => bail!("an answer expected, not {unasked:?}"),
        }
    }
}

/// Sends a message to the parent process.
pub(crate) fn send(message: &Message) -> anyhow::Result<()> {
    send_all(std::slice::from_ref(message))
}

/// Writes several messages with one system call, which delays the writer least.
pub(crate) fn send_all(messages: &[Message]) -> anyhow::Result<()> {
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

/// Returns a message that a thing appeared or disappeared.
pub(crate) fn sight_message(thing: Thing, present: bool, at_ns: u64) -> Message {
    Message::Saw(Sight {
        thing,
        present,
        at_ns,
    })
}

/// Sends a message that a thing appeared or disappeared.
pub(crate) fn send_sight(thing: Thing, present: bool, at_ns: u64) -> anyhow::Result<()> {
    send(&sight_message(thing, present, at_ns))
}

/// Reports that this process is ready, and handles orders until the end of its input.
pub(crate) fn serve<T: DeserializeOwned>(
    mut handle: impl FnMut(T) -> anyhow::Result<u64>,
) -> anyhow::Result<()> {
    send(&Message::Done { at_ns: 0 })?;
    for line in io::stdin().lock().lines() {
        let order = parse(&line.context("read from standard input")?)?;
        send(&match handle(order) {
            Ok(at_ns) => Message::Done { at_ns },
            Err(error) => Message::Failed {
                error: format!("{error:#}"),
            },
        })?;
    }
    Ok(())
}

/// Parses a line.
pub(crate) fn parse<T: DeserializeOwned>(line: &str) -> anyhow::Result<T> {
    serde_json::from_str(line).with_context(|| format!("not understood: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_parsed_as_they_were_written() {
        let said = [
            Message::Done { at_ns: 17 },
            Message::Failed {
                error: "a\nb".to_owned(),
            },
            Message::Listed { at_ns: 0 },
            sight_message(
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
    fn an_invalid_message_is_quoted_in_the_error() {
        let error = parse::<Order>("hello").unwrap_err().to_string();
        assert!(error.contains("hello"), "{error}");
    }
}
