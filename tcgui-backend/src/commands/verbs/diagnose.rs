//! `diagnose`: link, reachability and latency of an interface.

use tcgui_backend::cli::target::target_text;
use tcgui_backend::cli::verbs::DiagnoseArgs;
use tcgui_backend::listing::printable;
use tcgui_shared::diagnostics::{DiagnosticsRequest, DiagnosticsResponse};

use super::apply::ms;
use super::documents::{DiagnosisDocument, SCHEMA};
use super::failure::{Failure, Status};
use super::impairment::{self, describe, number};
use super::output::{Output, print};
use super::session::Session;

/// Checks an interface and prints the result.
pub(super) async fn diagnose(args: DiagnoseArgs) -> Result<(), Failure> {
    let output = Output::of(&args.client);
    let Some((namespace, interface)) = args.target.exact() else {
        let message = "diagnose takes one interface, not a pattern";
        return Err(Failure::new(Status::Usage, message));
    };
    let session = Session::open(&args.client).await?;
    let request = DiagnosticsRequest {
        namespace: namespace.to_owned(),
        interface: interface.to_owned(),
        target: args.to.clone(),
        timeout_ms: u32::try_from(ms(args.client.timeout)).unwrap_or(u32::MAX),
    };
    let key = session.keys.query_diagnostics();
    let response: DiagnosticsResponse = session.ask(&key, &request).await?;
    if !response.success {
        return Err(Failure::of_reply(response.error_kind, response.message));
    }
    let target = target_text(namespace, interface);
    let document = document(&session, target, &response);
    if output.is_table() {
        print(&text(&document))?;
    }
    output.single(&document)?;
    session.close().await;
    Ok(())
}

fn document(
    session: &Session,
    target: String,
    response: &DiagnosticsResponse,
) -> DiagnosisDocument {
    let results = &response.results;
    let latency = results.latency.as_ref();
    let connectivity = results.connectivity.as_ref();
    let netem = results.configured_tc.as_ref();
    DiagnosisDocument {
        schema: SCHEMA,
        backend: session.backend.to_string(),
        target,
        message: response.message.clone(),
        up: results.link_status.is_up,
        carrier: results.link_status.has_carrier,
        mtu: results.link_status.mtu,
        address: connectivity.map(|it| it.target.clone()),
        reachable: connectivity.map(|it| it.reachable),
        min_ms: latency.map(|it| it.min_ms),
        mean_ms: latency.map(|it| it.avg_ms),
        max_ms: latency.map(|it| it.max_ms),
        lost_percent: latency.map(|it| it.packet_loss_percent),
        netem: netem.map(|config| impairment::document(&impairment::flat(config))),
    }
}

fn text(document: &DiagnosisDocument) -> String {
    let link = match (document.up, document.carrier) {
        (false, _) => "down",
        (true, false) => "up, no carrier",
        (true, true) => "up, carrier",
    };
    let mut lines = vec![
        format!("{}: {}", document.target, document.message),
        format!("link     {link}, MTU {}", document.mtu),
    ];
    if let Some(address) = &document.address {
        let state = match document.reachable {
            Some(true) => "reachable",
            _ => "no answer",
        };
        lines.push(format!("address  {address}, {state}"));
    }
    if let (Some(min), Some(mean), Some(max)) = (document.min_ms, document.mean_ms, document.max_ms)
    {
        let lost = number(document.lost_percent.unwrap_or_default());
        let times = [min, mean, max].map(number).join(" / ");
        lines.push(format!(
            "latency  {times} ms (shortest / mean / longest), {lost} % lost"
        ));
    }
    if let Some(netem) = &document.netem {
        lines.push(format!("netem    {}", describe(netem)));
    }
    lines.iter().map(|line| printable(line) + "\n").collect()
}
