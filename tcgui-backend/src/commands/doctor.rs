//! `doctor`: what is wrong with this machine, one line for each check.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use tcgui_backend::bus;
use tcgui_backend::cli::Args;
use tcgui_backend::config::{self, Config};
use tcgui_backend::containers::ContainersConfig;
use tcgui_backend::doctor::{self, EndpointState, Finding, MODULES, Verdict, look};
use tcgui_backend::error::chain;
use tcgui_backend::explain::{HostFacts, host_facts};
use tcgui_backend::kernel::{machine, modules, process, socket_file};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::{block_on, find_daemons, print};

/// Time limit for a connection to a router.
const CONNECT: Duration = Duration::from_secs(2);

/// Checks this machine for a daemon with these options. The exit status is 1 if there is a fault.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut findings = Vec::new();
    findings.extend(modules()?);
    let host = host_facts();
    let optional =
        process::missing_optional_capabilities().context("cannot read own capabilities")?;
    findings.push(doctor::capabilities(&host.missing_capabilities, &optional));
    findings.push(doctor::inotify(&look::watch(), &host.limits));
    findings.push(netns_directory(&args, &host));
    findings.extend(engines(config::containers(&args)));
    findings.push(doctor::state_directory(&look::state_directory(
        &args.state_dir,
    )));
    match Config::try_from(args) {
        Ok(config) => findings.extend(block_on(endpoints(config))?),
        Err(err) => findings.push(Finding {
            verdict: Verdict::Fault,
            text: "options: the daemon does not start".to_owned(),
            remedy: chain(&err).to_string(),
        }),
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let clock = doctor::clock(now.unwrap_or_default(), machine::is_clock_synchronised());
    findings.push(clock);
    let lines: String = findings
        .iter()
        .map(|finding| format!("{finding}\n"))
        .collect();
    print(&lines)?;
    let is_faulty = findings
        .iter()
        .any(|finding| finding.verdict == Verdict::Fault);
    Ok(if is_faulty {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn modules() -> anyhow::Result<Vec<Finding>> {
    let release = modules::release().context("cannot read the release of the kernel")?;
    let found = modules::look(&MODULES.map(|(module, _)| module)).context("cannot read modules")?;
    let needs = MODULES.iter().map(|(_, need)| *need);
    let findings = found
        .into_iter()
        .zip(needs)
        .map(|((module, presence), need)| doctor::module(&release, module, presence, need));
    Ok(findings.collect())
}

fn netns_directory(args: &Args, host: &HostFacts) -> Finding {
    let mounts_of_init = host.mounts_of_init == Some(true);
    doctor::netns_directory(&look::netns_directory(&args.netns_dir, mounts_of_init))
}

/// Checks the sockets at which engines may listen. Most of these files do not exist.
fn engines(config: Option<ContainersConfig>) -> Vec<Finding> {
    let line = |verdict, text: String, remedy: &str| Finding {
        verdict,
        text,
        remedy: remedy.to_owned(),
    };
    let Some(config) = config else {
        let text = "container engines: not followed (--no-containers)";
        return vec![line(Verdict::Ok, text.to_owned(), "")];
    };
    let mut findings: Vec<_> = config
        .sockets
        .iter()
        .filter_map(|path| {
            // The usual paths may contain symbolic links: /var/run leads to /run.
            let place = path.canonicalize();
            let place = place.as_deref().unwrap_or(path);
            doctor::engine(path, &socket_file::look(place))
        })
        .collect();
    findings.extend(config.unusable.iter().map(|host| {
        let text = format!("container engine {host}: not a Unix socket");
        line(
            Verdict::Warning,
            text,
            "set it to unix:///PATH, or use --container-socket",
        )
    }));
    if findings.is_empty() {
        let text = "container engines: no socket exists, so no containers are shown";
        findings.push(line(Verdict::Ok, text.to_owned(), ""));
    }
    findings
}

/// Checks the endpoints on which the daemon listens, and those to which it connects.
async fn endpoints(config: Config) -> anyhow::Result<Vec<Finding>> {
    let mut states = Vec::new();
    for endpoint in &config.bus.listen {
        let state = match bus::try_bind(endpoint).await {
            Ok(()) => EndpointState::Free,
            Err(err) => match find_daemons(endpoint, None).await? {
                Ok((client, present)) => {
                    client.close().await;
                    EndpointState::Answered(present)
                }
                Err(_) => EndpointState::Refused(look::plain(&err)),
            },
        };
        states.push((endpoint, state));
    }
    let is_answered = |(_, state): &(_, _)| matches!(state, EndpointState::Answered(_));
    let others_answer = states.iter().any(is_answered);
    let mut findings: Vec<_> = states
        .iter()
        .map(|(endpoint, state)| doctor::endpoint(endpoint, state, others_answer))
        .collect();
    for endpoint in &config.bus.connect {
        findings.push(doctor::router(endpoint, &reach(endpoint).await));
    }
    Ok(findings)
}

/// Connects to an endpoint. Those without connections (`udp/`, `quic/`) only have their name resolved.
async fn reach(endpoint: &str) -> Result<(), String> {
    let (protocol, address) = endpoint.split_once('/').unwrap_or_default();
    let connecting = async {
        match protocol {
            "tcp" | "tls" => TcpStream::connect(address).await.map(drop),
            "unixsock-stream" => tokio::net::UnixStream::connect(address).await.map(drop),
            _ => lookup_host(address).await.map(drop),
        }
    };
    match timeout(CONNECT, connecting).await {
        Ok(done) => done.map_err(|err| look::plain(&err)),
        Err(_) => Err("no answer".to_owned()),
    }
}
