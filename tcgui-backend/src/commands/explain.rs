//! `explain`: explains why a namespace is listed or not.

use std::ffi::OsStr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use tcgui_backend::cli::ExplainArgs;
use tcgui_backend::client::ClientError;
use tcgui_backend::explain::{Source, explain_invalid, text};
use tcgui_backend::standalone;
use tcgui_shared::explain::{ExplainRequest, ExplainResponse, Explanation};
use tcgui_shared::keys::Keys;
use tcgui_shared::names::{BackendName, NameError, NamespaceName};

use super::{Reach, block_on, find_daemons, print, tell};

/// Timeout for the reply of a daemon, which reads a few files.
const ANSWER: Duration = Duration::from_secs(2);
/// Exit status for a name that is not listed.
const NOT_LISTED: u8 = 1;

/// Prints the explanation. The exit status shows whether the name is listed.
pub(super) fn run(args: &ExplainArgs, backend: &str, reach: Reach) -> anyhow::Result<ExitCode> {
    let name = match name(&args.namespace) {
        Ok(name) => name,
        Err(err) => {
            // No namespace can have this name, so no daemon is queried.
            let given = args.namespace.to_string_lossy();
            let explanation = understood(explain_invalid(&given, &err))?;
            print(&rendered(&explanation, &Source::Own, args.json)?)?;
            return Ok(ExitCode::from(NOT_LISTED));
        }
    };
    let backend: BackendName = backend.parse().context("--backend")?;
    block_on(async {
        let (explanation, source) = match ask(&reach, &backend, &name).await? {
            Ok(explanation) => (explanation, Source::Daemon(backend.to_string())),
            Err(why) => {
                tell(&format!("{why}, looking without one"));
                let answer =
                    standalone::explain(name, reach.watch, reach.containers, reach.processes)
                        .await?;
                (understood(answer)?, Source::Own)
            }
        };
        print(&rendered(&explanation, &source, args.json)?)?;
        Ok(if explanation.listed {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(NOT_LISTED)
        })
    })
}

/// Parses a name in the form of the wire. Bytes that are not UTF-8 are the name of an entry.
fn name(given: &OsStr) -> Result<NamespaceName, NameError> {
    match given.to_str() {
        Some(text) => NamespaceName::from_wire(text),
        None => NamespaceName::named(given),
    }
}

/// Queries the daemon. The inner error is the reason why it cannot be queried.
async fn ask(
    reach: &Reach,
    backend: &BackendName,
    name: &NamespaceName,
) -> anyhow::Result<Result<Explanation, String>> {
    let client = match find_daemons(&reach.endpoint, Some(backend.as_str())).await? {
        Ok((client, _)) => client,
        Err(why) => return Ok(Err(why)),
    };
    let request = ExplainRequest {
        namespace: name.to_wire(),
    };
    let key = Keys::new(backend).query_explain();
    let answer = client.ask(&key, &request, ANSWER).await;
    client.close().await;
    match answer {
        Ok(answer) => understood(answer).map(Ok),
        Err(ClientError::Unanswered { .. } | ClientError::TimedOut { .. }) => Ok(Err(format!(
            "the daemon {:?} does not answer questions like this (an older version?)",
            backend.as_str()
        ))),
        Err(err) => Err(err.into()),
    }
}

fn understood(answer: ExplainResponse) -> anyhow::Result<Explanation> {
    match answer.explanation {
        Some(explanation) if answer.success => Ok(explanation),
        _ => bail!("{}", answer.message),
    }
}

fn rendered(explanation: &Explanation, source: &Source, json: bool) -> anyhow::Result<String> {
    if !json {
        return Ok(text(explanation, source));
    }
    #[derive(Serialize)]
    struct Line<'a> {
        backend: Option<&'a str>,
        #[serde(flatten)]
        explanation: &'a Explanation,
    }
    let backend = match source {
        Source::Daemon(name) => Some(name.as_str()),
        Source::Own => None,
    };
    let line = Line {
        backend,
        explanation,
    };
    let json = serde_json::to_string(&line).context("cannot write JSON")?;
    Ok(json + "\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn names_are_taken_as_on_the_wire_and_bytes_as_they_are() {
        let named = |bytes: &[u8]| name(OsStr::from_bytes(bytes));
        assert_eq!(named(b"default"), Ok(NamespaceName::host()));
        assert_eq!(named(b"container:web"), NamespaceName::container("web"));
        let odd = NamespaceName::named(OsStr::from_bytes(b"a\xff")).unwrap();
        assert_eq!(named(b"a\\xff"), Ok(odd.clone()));
        assert_eq!(named(b"a\xff"), Ok(odd));
        for wrong in ["", "..", "a/b", "../../etc"] {
            named(wrong.as_bytes()).unwrap_err();
        }
    }
}
