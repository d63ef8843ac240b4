//! `namespaces`: lists the namespaces of daemons, or scans this host if there is no daemon. Optionally follows changes.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use tcgui_backend::cli::NamespacesArgs;
use tcgui_backend::client::{Client, Lists};
use tcgui_backend::listing::{self, Change, Picture};
use tcgui_backend::standalone::StandaloneScan;
use tcgui_shared::names::BackendName;

use super::{Reach, block_on, find_daemons, print, tell};

/// Timeout for the cached list of a daemon.
const FIRST_LIST: Duration = Duration::from_secs(3);
/// Timeout for the first scan without a daemon. A thousand namespaces take a second.
const FIRST_LOOK: Duration = Duration::from_secs(10);

/// Prints namespaces and their interfaces.
pub(super) fn run(args: &NamespacesArgs, reach: Reach) -> anyhow::Result<ExitCode> {
    block_on(async {
        let wanted = args.backend.as_deref();
        let backend: Option<BackendName> =
            wanted.map(str::parse).transpose().context("--backend")?;
        match find_daemons(&reach.endpoint, wanted).await? {
            Ok((client, present)) => {
                follow(&client, backend.as_ref(), &present, args).await?;
                client.close().await;
            }
            Err(why) => {
                tell(&format!("{why}, looking without one"));
                look(args, reach).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Prints the lists of daemons.
async fn follow(
    client: &Client,
    backend: Option<&BackendName>,
    present: &[String],
    args: &NamespacesArgs,
) -> anyhow::Result<()> {
    let mut following = client.follow(backend).await?;
    let lists = &mut following.lists;
    let has_all = |lists: &Lists| present.iter().all(|name| lists.contains_key(name));
    let first = lists.wait_for(has_all);
    let first = match tokio::time::timeout(FIRST_LIST, first).await {
        Ok(first) => picture(&*first.context("the subscription has ended")?),
        Err(_) => bail!(
            "{} sent no list within {FIRST_LIST:?}",
            present.join(" or ")
        ),
    };
    let mut printer = Printer::new(args);
    let mut goes_on = printer.first(first)?;
    while goes_on && args.watch {
        lists
            .changed()
            .await
            .context("the subscription has ended")?;
        let next = picture(&lists.borrow_and_update());
        goes_on = printer.next(next)?;
    }
    Ok(())
}

fn picture(lists: &Lists) -> Picture {
    let mut picture = Picture::new();
    for (backend, list) in lists {
        listing::put(&mut picture, Some(backend), &list.namespaces);
    }
    picture
}

/// Prints the result of a scan of this host.
async fn look(args: &NamespacesArgs, reach: Reach) -> anyhow::Result<()> {
    let mut printer = Printer::new(args);
    let mut look = StandaloneScan::open(reach.watch).await?;
    if let Some(problem) = look.problem() {
        tell(&format!("interfaces are left out: {problem}"));
    }
    let first = tokio::time::timeout(FIRST_LOOK, look.next_picture()).await;
    let mut seen = first.with_context(|| format!("not all was seen within {FIRST_LOOK:?}"))?;
    let mut is_first = true;
    while let Some(namespaces) = seen {
        let mut picture = Picture::new();
        listing::put(&mut picture, None, &namespaces);
        let goes_on = if is_first {
            printer.first(picture)?
        } else {
            printer.next(picture)?
        };
        is_first = false;
        if !goes_on || !args.watch {
            return Ok(());
        }
        look.changed().await;
        seen = look.next_picture().await;
    }
    bail!("the watcher has ended")
}

/// Prints a first picture and then the differences between pictures.
struct Printer {
    json: bool,
    watch: bool,
    last: Picture,
}

impl Printer {
    fn new(args: &NamespacesArgs) -> Self {
        Self {
            json: args.json,
            watch: args.watch,
            last: Picture::new(),
        }
    }

    /// Prints the first picture. Returns whether standard output is still open.
    fn first(&mut self, picture: Picture) -> anyhow::Result<bool> {
        let text = if self.json || self.watch {
            let all = picture
                .iter()
                .map(|(place, it)| (Change::Present, place, it));
            lines(self.json, all)?
        } else {
            listing::table(&picture)
        };
        self.last = picture;
        print(&text)
    }

    /// Prints the differences. Returns whether standard output is still open.
    fn next(&mut self, picture: Picture) -> anyhow::Result<bool> {
        let text = lines(self.json, listing::changes(&self.last, &picture))?;
        self.last = picture;
        print(&text)
    }
}

fn lines<'a>(
    json: bool,
    changes: impl IntoIterator<
        Item = (
            Change,
            &'a listing::NamespaceRow,
            &'a tcgui_shared::interface::NetworkNamespace,
        ),
    >,
) -> anyhow::Result<String> {
    let lines = changes.into_iter().map(|(change, place, it)| {
        if json {
            listing::json(change, place, it).context("cannot write JSON")
        } else {
            Ok(listing::line(change, place, it))
        }
    });
    lines.collect()
}
