//! A member of the bus in one of several roles, for tests that freeze or kill it.
//!
//! ```text
//! bus-peer frontend ENDPOINT                  subscribes and receives like a released frontend
//! bus-peer flood ENDPOINT (KEY COUNT)…        sends queries and never reads a reply
//! bus-peer flood-plain ENDPOINT (KEY COUNT)…  the same over a link without priorities
//! bus-peer router ENDPOINT                    forwards messages
//! ```

use std::io::{self, Write};
use std::{env, thread};

use anyhow::{anyhow, bail};
use serde_json::{Value, json};
use tcgui_tests::client::named;
use tcgui_tests::frontend::{self, Route};
use zenoh::handlers::{DefaultHandler, FifoChannelHandler};
use zenoh::query::ReplyKeyExpr;
use zenoh::sample::{Sample, SampleKind};
use zenoh::{Session, Wait};

fn main() -> anyhow::Result<()> {
    let args: Vec<_> = env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["frontend", endpoint] => receive(&Route::client(endpoint).open()?),
        ["flood", endpoint, ref asks @ ..] => flood(&Route::client(endpoint).open()?, asks),
        ["flood-plain", endpoint, ref asks @ ..] => {
            flood(&Route::client(endpoint).without_priorities().open()?, asks)
        }
        ["router", endpoint] => {
            let _session = Route::router(endpoint).open()?;
            say("listening")?;
            for_ever()
        }
        _ => bail!("bus-peer frontend|flood|router ENDPOINT …, not {args:?}"),
    }
}

fn say(line: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}

fn for_ever() -> ! {
    loop {
        thread::park();
    }
}

/// Declares all subscriptions before it receives anything, as released frontends do. Samples that arrive meanwhile must fit into
/// the queues of the default handler.
fn receive(session: &Session) -> anyhow::Result<()> {
    let failed = |error: zenoh::Error| anyhow!(error).context("declare");
    let mut samples: Vec<FifoChannelHandler<Sample>> = Vec::new();
    let mut subscribers = Vec::new();
    for key in frontend::ADVANCED {
        let subscriber = frontend::subscription(session, key, DefaultHandler::default());
        let subscriber = subscriber.wait().map_err(failed)?;
        samples.push(subscriber.handler().clone());
        subscribers.push(subscriber);
        say(&format!("declared {key}"))?;
    }
    let plain = session.declare_subscriber(frontend::PLAIN).wait();
    let plain = plain.map_err(failed)?;
    samples.push(plain.handler().clone());
    let presence = session
        .liveliness()
        .declare_subscriber(frontend::LIVELINESS);
    let presence = presence.history(true).wait().map_err(failed)?;
    samples.push(presence.handler().clone());
    say("declared everything")?;
    thread::scope(|scope| {
        for queue in samples {
            scope.spawn(move || {
                for sample in queue {
                    // If standard output is closed, the test has ended.
                    tell(&sample).ok();
                }
            });
        }
    });
    Ok(())
}

fn tell(sample: &Sample) -> io::Result<()> {
    let key = sample.key_expr().as_str();
    if sample.kind() == SampleKind::Delete {
        say(&format!("lost {key}"))
    } else if key.ends_with("/interfaces/list") {
        let list: Value = serde_json::from_slice(&sample.payload().to_bytes()).unwrap_or_default();
        say(&format!("listed {}", named(&list).len()))
    } else {
        say(&format!("received {key}"))
    }
}

/// Returns the payload of a query: a list request, or a change of a link that alternates between up and down.
fn question(key: &str, number: u32) -> String {
    if !key.ends_with("/query/interface") {
        return json!("List").to_string();
    }
    let operation = ["Enable", "Disable"][number as usize % 2];
    json!({"namespace": "n0", "interface": "lo", "operation": operation}).to_string()
}

/// Sends queries and never returns from the callback of the first reply, which blocks Zenoh's receiving thread.
fn flood(session: &Session, asks: &[&str]) -> anyhow::Result<()> {
    for ask in asks.chunks_exact(2) {
        for number in 0..ask[1].parse()? {
            session
                .get(ask[0])
                .payload(question(ask[0], number))
                // A stored publication arrives under the key of the publication.
                .accept_replies(ReplyKeyExpr::Any)
                .callback(|_| for_ever())
                .wait()
                .map_err(|error| anyhow!(error).context("ask"))?;
        }
    }
    say("asked")?;
    for_ever()
}
