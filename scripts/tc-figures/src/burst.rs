//! Measures two hundred concurrent Apply requests on one interface, and their effect on queries about other interfaces.
//!
//! A frontend sends one Apply for each step of a slider and waits for none of them. Any query in a burst waits in the link
//! and for the processor. So each Apply on another interface directly follows an empty query, which waits as long. Their
//! difference in a burst, minus their difference at rest, is the delay that the burst adds to work on another interface.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use serde_json::{Value, json};
use tcgui_backend::kernel::rtnetlink::RequestSocket;
use tcgui_tests::client::QUERY_TIMEOUT;
use tcgui_tests::netns;
use zenoh::Wait;

use crate::bench::{
    Bench, EMPTY, Target, apply_request, empty_request, inside_named, is_nothing, rest, veth_pair,
    with_daemon,
};
use crate::figure::{Figure, Unit, median, milliseconds};

const NETNS: &str = "measured";
const LINK: Target<'static> = (NETNS, "va");
/// Enough interfaces that none gets two Apply requests in one burst, of which one would supersede the other.
const OTHERS: [Target<'static>; 5] = [
    ("other", "v0"),
    ("other", "v1"),
    ("other", "v2"),
    ("other", "v3"),
    ("other", "v4"),
];

/// Number of Apply requests in a burst.
const BURST: u32 = 200;

/// After this number of requests, an empty query and an Apply on another interface are inserted.
const STRIDE: u32 = 40;

/// Number of trials for each round: quiet queries, a burst, and a burst with inserted queries.
const TRIALS_PER_ROUND: u32 = 20;

/// Pause in which the remaining work of a burst completes.
const REST: Duration = Duration::from_millis(500);
const SHORT_REST: Duration = Duration::from_millis(100);

/// `RTM_NEWQDISC`, `RTNLGRP_TC` as a mask, and the sizes of `nlmsghdr` and `tcmsg` (rtnetlink(7)).
const NEW_QDISC: u16 = 36;
const TC: u32 = 1 << 3;
const HEADER: usize = 16;
const TCMSG: usize = 20;

/// The queries that were inserted into bursts, in pairs: empty queries, and Apply requests on other interfaces.
#[derive(Debug, Default)]
struct Inside {
    empty: Vec<Duration>,
    other: Vec<Duration>,
}

impl Inside {
    /// Returns how much longer each Apply took than the empty query before it, in ms.
    fn more(&self) -> Vec<f64> {
        let pairs = self.other.iter().zip(&self.empty);
        pairs
            .map(|(other, empty)| milliseconds(*other) - milliseconds(*empty))
            .collect()
    }
}

#[derive(Debug, Default)]
struct Series {
    empty: Vec<Duration>,
    apply: Vec<Duration>,
    burst: Vec<Burst>,
    inside: Inside,
    replaces: Vec<f64>,
}

/// The times of one burst.
#[derive(Debug)]
struct Burst {
    /// From the first query to the last reply.
    total: Duration,
    /// From the last Apply to its reply.
    last: Duration,
    /// The same for the empty query sent directly after it, which waits only for the preceding queries.
    after: Duration,
}

pub(crate) fn measure(trials: u32) -> anyhow::Result<Vec<Figure>> {
    netns::add(NETNS)?;
    veth_pair(Some(NETNS), "va", "vb")?;
    netns::add("other")?;
    for (here, there) in [("v0", "v1"), ("v2", "v3"), ("v4", "v5")] {
        veth_pair(Some("other"), here, there)?;
    }
    let mut watcher = Watcher::open()?;
    with_daemon(&[], |bench| {
        bench.wait_up(&OTHERS)?;
        bench.wait_up(&[LINK])?;
        for target in OTHERS.into_iter().chain([LINK]) {
            bench.apply(target, &json!({"delay_ms": 5.0}))?;
        }
        let mut series = Series::default();
        for number in 0..trials.div_ceil(TRIALS_PER_ROUND) {
            round(bench, &mut watcher, &mut series, number)?;
        }
        Ok(figures(&series))
    })
}

fn round(
    bench: &Bench,
    watcher: &mut Watcher,
    series: &mut Series,
    number: u32,
) -> anyhow::Result<()> {
    // A new delay each round, so that every Apply changes something.
    let delay_ms = f64::from(10 + number % 50);
    for other in OTHERS {
        rest(SHORT_REST);
        series.empty.push(bench.ask_for_nothing()?);
        rest(SHORT_REST);
        let netem = json!({"delay_ms": delay_ms});
        series.apply.push(bench.apply(other, &netem)?);
    }
    rest(REST);
    watcher.replaces()?;
    series.burst.push(burst(bench, None)?);
    rest(REST);
    series.replaces.push(f64::from(watcher.replaces()?));
    watcher.ensure_in_force(BURST)?;
    burst(bench, Some((&mut series.inside, delay_ms + 0.5)))?;
    rest(REST);
    watcher.ensure_in_force(BURST)
}

/// The kind of a query in a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// One of the 200 Apply requests.
    Apply(u32),
    /// The empty query sent after the last of them.
    After,
    /// The inserted queries of the pair with this number.
    Empty(usize),
    Other(usize),
}

impl Asked {
    fn key(self) -> String {
        let what = match self {
            Self::Empty(_) | Self::After => EMPTY,
            Self::Apply(_) | Self::Other(_) => "tc",
        };
        format!("tcgui/default/query/{what}")
    }

    fn is_answered_by(self, reply: &Value) -> bool {
        match self {
            Self::Empty(_) | Self::After => is_nothing(reply),
            Self::Apply(_) | Self::Other(_) => reply["success"] == true,
        }
    }
}

/// Sends 200 Apply requests and an empty query, and waits for every reply. If queries are inserted, the other interfaces get that
/// delay.
fn burst(bench: &Bench, strewn: Option<(&mut Inside, f64)>) -> anyhow::Result<Burst> {
    let (tx, answers) = mpsc::channel();
    let start = Instant::now();
    let send = |asked: Asked, request: &Value| {
        let (tx, sent) = (tx.clone(), Instant::now());
        let session = bench.asker().session();
        session
            .get(asked.key())
            .timeout(QUERY_TIMEOUT)
            .payload(request.to_string())
            .callback(move |reply| {
                let payload = reply.result().map(|it| it.payload().to_bytes().to_vec());
                // The receiver is dropped if the measurement has failed.
                let answer = (asked, sent.elapsed(), payload.unwrap_or_default());
                tx.send(answer).ok();
            })
            .wait()
            .map_err(|error| anyhow!(error).context("send a query of the burst"))
    };
    let mut pairs = OTHERS.into_iter().enumerate();
    for number in 1..=BURST {
        let request = apply_request(LINK, &json!({"delay_ms": f64::from(number)}));
        send(Asked::Apply(number), &request)?;
        if let Some((_, delay_ms)) = &strewn
            && number % STRIDE == STRIDE / 2
            && let Some((pair, other)) = pairs.next()
        {
            send(Asked::Empty(pair), &empty_request())?;
            let request = apply_request(other, &json!({"delay_ms": delay_ms}));
            send(Asked::Other(pair), &request)?;
        }
    }
    send(Asked::After, &empty_request())?;
    drop(tx);
    let mut answered = 0;
    let (mut last, mut after) = (Duration::ZERO, Duration::ZERO);
    let (mut empty, mut other) = (BTreeMap::new(), BTreeMap::new());
    // The loop ends when every query has ended.
    for (asked, elapsed, payload) in answers {
        let reply: Value = serde_json::from_slice(&payload).unwrap_or_default();
        let good = asked.is_answered_by(&reply);
        ensure!(good, "a query of the burst ({asked:?}): {reply}");
        match asked {
            Asked::Apply(number) => {
                answered += 1;
                if number == BURST {
                    last = elapsed;
                }
            }
            Asked::After => after = elapsed,
            Asked::Empty(pair) => drop(empty.insert(pair, elapsed)),
            Asked::Other(pair) => drop(other.insert(pair, elapsed)),
        }
    }
    let total = start.elapsed();
    ensure!(answered == BURST, "{answered} of {BURST} queries answered");
    if let Some((inside, _)) = strewn {
        let count = (empty.len(), other.len());
        let pairs = OTHERS.len();
        ensure!(
            count == (pairs, pairs),
            "{count:?} of {pairs} pairs answered"
        );
        inside.empty.extend(empty.into_values());
        inside.other.extend(other.into_values());
    }
    Ok(Burst { total, last, after })
}

fn figures(series: &Series) -> Vec<Figure> {
    let Series {
        empty,
        apply,
        burst,
        inside,
        replaces,
    } = series;
    let (empty_p50, apply_p50) = (median(empty), median(apply));
    let allowed = f64::from(BURST) * empty_p50 + 10.0 * apply_p50;
    let totals: Vec<_> = burst.iter().map(|it| it.total).collect();
    let share = totals.iter().map(|it| milliseconds(*it) / allowed);
    let waits = burst
        .iter()
        .map(|it| (milliseconds(it.last) - milliseconds(it.after)) / apply_p50);
    let more = Figure::new(
        "Apply on another interface − the empty query before it",
        Unit::Milliseconds,
        inside.more(),
    );
    let adds = more.summary().map_or(f64::NAN, |it| it.p50) - (apply_p50 - empty_p50);
    vec![
        Figure::times("empty query, quiet", empty),
        Figure::times("Apply, quiet", apply),
        Figure::times("200 Apply, first sent to last answered", &totals),
        Figure::new(
            "200 Apply ÷ (200 empty queries + 10 Apply)",
            Unit::Times,
            share.collect(),
        ),
        Figure::new(
            "(the last of 200 Apply − the empty query after it) ÷ Apply",
            Unit::Times,
            waits.collect(),
        ),
        Figure::new(
            "kernel replaces for 200 Apply",
            Unit::Count,
            replaces.clone(),
        ),
        Figure::times("empty query amid 200 Apply", &inside.empty),
        Figure::times("Apply on another interface amid 200 Apply", &inside.other),
        more,
        Figure::value(
            "Apply on another interface, what the burst adds, ÷ Apply",
            Unit::Times,
            adds / apply_p50,
        ),
    ]
}

/// Observes the kernel in the namespace of the burst.
#[derive(Debug)]
struct Watcher {
    events: OwnedFd,
    requests: RequestSocket,
    ifindex: u32,
}

impl Watcher {
    fn open() -> anyhow::Result<Self> {
        inside_named(NETNS, || {
            let events = socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
                SockProtocol::NetlinkRoute,
            )
            .context("open a socket for events")?;
            bind(events.as_raw_fd(), &NetlinkAddr::new(0, TC)).context("listen to qdiscs")?;
            Ok(Self {
                events,
                requests: RequestSocket::open()?,
                ifindex: if_nametoindex(LINK.1).context("find the link of the burst")?,
            })
        })
    }

    /// Returns how often the netem was created or changed since the last call.
    fn replaces(&mut self) -> anyhow::Result<u32> {
        let mut buffer = vec![0; 32 * 1024];
        let mut count = 0;
        loop {
            let length = match recv(self.events.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EAGAIN) => return Ok(count),
                // A lost event would be a replace that is not counted.
                received => received.context("receive events about qdiscs")?,
            };
            let events = buffer.get(..length).unwrap_or_default();
            count += replaces(events, self.ifindex);
        }
    }

    /// Fails if the netem is not that of the last Apply of a burst.
    fn ensure_in_force(&mut self, delay_ms: u32) -> anyhow::Result<()> {
        let qdiscs = self.requests.qdiscs()?;
        let root =
            |it: &&tcgui_backend::kernel::qdisc::Qdisc| it.ifindex == self.ifindex && it.is_root();
        let netem = qdiscs.iter().find(root).and_then(|it| it.netem);
        let delay = netem.map(|it| it.latency_ns);
        ensure!(
            delay == Some(u64::from(delay_ms) * 1_000_000),
            "the last Apply of the burst is not in force: {netem:?}"
        );
        Ok(())
    }
}

/// Counts the messages about a new or changed qdisc of this link.
fn replaces(mut datagram: &[u8], ifindex: u32) -> u32 {
    let mut count = 0;
    while let Some((header, _)) = datagram.split_first_chunk::<HEADER>() {
        let [a, b, c, d, kind_a, kind_b, ..] = *header;
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let Some(message) = datagram.get(..length).filter(|_| length >= HEADER) else {
            break;
        };
        let of_link = message
            .get(HEADER..HEADER + TCMSG)
            .and_then(|it| it.get(4..8)?.try_into().ok())
            .is_some_and(|it| u32::from_ne_bytes(it) == ifindex);
        if of_link && u16::from_ne_bytes([kind_a, kind_b]) == NEW_QDISC {
            count += 1;
        }
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, ifindex: u32) -> Vec<u8> {
        let mut bytes = vec![0; HEADER + TCMSG + 1];
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[HEADER + 4..HEADER + 8].copy_from_slice(&ifindex.to_ne_bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn replaces_of_one_link_are_counted() {
        let datagram = [
            message(NEW_QDISC, 3),
            message(NEW_QDISC, 4),
            message(NEW_QDISC + 1, 3),
            message(NEW_QDISC, 3),
        ]
        .concat();
        assert_eq!(replaces(&datagram, 3), 2);
        assert_eq!(replaces(&datagram[..50], 3), 1);
        assert_eq!(replaces(&[0; 64], 0), 0, "a length of 0 does not loop");
    }
}
