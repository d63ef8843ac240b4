//! `scenario`: sequences of impairments, and those that run.

mod start;

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tcgui_backend::cli::target::target_text;
use tcgui_backend::cli::verbs::{FileArgs, IdArgs, ScenarioVerb, StatusArgs, TargetsArgs};
use tcgui_backend::preset::FromFile;
use tcgui_shared::scenario::{
    ExecutionTarget, NetworkScenario, ScenarioExecutionRequest, ScenarioExecutionResponse,
    ScenarioRequest, ScenarioResponse,
};
use tcgui_shared::state::StateRequest;

use super::apply::selected;
use super::documents::{
    LoadErrorDocument, SCHEMA, ScenarioDocument, ScenariosDocument, ShowDocument, StepDocument,
};
use super::failure::{Failure, Status};
use super::impairment::{self, describe, number};
use super::names;
use super::output::{Output, print, print_line, table};
use super::preset;
use super::session::Session;
use super::targets::{Done, Interface, Loopback, each, report, resolve};
use super::times;

/// What is done to an execution.
#[derive(Debug, Clone, Copy)]
enum Action {
    Stop,
    Pause,
    Resume,
}

/// Carries out a verb about scenarios.
pub(super) async fn scenario(verb: ScenarioVerb) -> Result<(), Failure> {
    match verb {
        ScenarioVerb::List(args) => {
            let output = Output::of(&args.client);
            let session = Session::open(&args.client).await?;
            list(&session, output).await
        }
        ScenarioVerb::Show(args) => show(args).await,
        ScenarioVerb::Add(args) => add(args).await,
        ScenarioVerb::Remove(args) => remove(args).await,
        ScenarioVerb::Start(args) => start::start(args).await,
        ScenarioVerb::Stop(args) => act(args, Action::Stop).await,
        ScenarioVerb::Pause(args) => act(args, Action::Pause).await,
        ScenarioVerb::Resume(args) => act(args, Action::Resume).await,
        ScenarioVerb::Status(args) => status(args).await,
    }
}

fn other_answer() -> Failure {
    Failure::new(
        Status::Failed,
        "the daemon gave another answer than asked for; `tcgui-backend backends` shows its version",
    )
}

async fn list(session: &Session, output: Output) -> Result<(), Failure> {
    let ScenarioResponse::Listed {
        scenarios,
        load_errors,
    } = session.scenario(&ScenarioRequest::List).await?
    else {
        return Err(other_answer());
    };
    let load_errors = load_errors.into_iter().map(|it| LoadErrorDocument {
        file: it.file_path,
        message: it.error.message,
    });
    let document = ScenariosDocument {
        schema: SCHEMA,
        backend: session.backend.to_string(),
        scenarios: scenarios.iter().map(|it| document(it)).collect(),
        load_errors: load_errors.collect(),
    };
    if output.is_table() {
        let rows = document.scenarios.iter().map(|it| {
            let time = times::duration(std::time::Duration::from_millis(it.duration_ms));
            let repeats = if it.repeat { "yes" } else { "no" };
            vec![
                it.id.clone(),
                it.name.clone(),
                it.steps.len().to_string(),
                time,
                repeats.to_owned(),
            ]
        });
        print(&table(
            &["ID", "NAME", ">STEPS", "DURATION", "LOOP"],
            rows.collect(),
        ))?;
        for it in &document.load_errors {
            output.note(&format!("{}: {}", it.file, it.message));
        }
    }
    output.document(&document, &document.scenarios).map(drop)
}

fn document(scenario: &NetworkScenario) -> ScenarioDocument {
    let steps = scenario.steps.iter().map(|step| StepDocument {
        description: step.description.clone(),
        duration_ms: step.duration_ms,
        netem: impairment::document(&impairment::flat(&step.tc_config)),
    });
    let durations = scenario.steps.iter().map(|step| step.duration_ms);
    ScenarioDocument {
        id: scenario.id.clone(),
        name: scenario.name.clone(),
        description: scenario.description.clone(),
        duration_ms: durations.fold(0, u64::saturating_add),
        repeat: scenario.loop_scenario,
        steps: steps.collect(),
    }
}

/// Returns a stored scenario.
async fn get(session: &Session, id: &str) -> Result<Arc<NetworkScenario>, Failure> {
    let request = ScenarioRequest::Get { id: id.to_owned() };
    match session.scenario(&request).await? {
        ScenarioResponse::Retrieved {
            scenario: Some(scenario),
        } => Ok(scenario),
        ScenarioResponse::Retrieved { scenario: None } => Err(missing(id)),
        _ => Err(other_answer()),
    }
}

fn missing(id: &str) -> Failure {
    let message = format!("no scenario {id:?}; `tcgui-backend scenario list` lists the scenarios");
    Failure::new(Status::NotFound, message)
}

async fn show(args: IdArgs) -> Result<(), Failure> {
    let output = Output::of(&args.client);
    let session = Session::open(&args.client).await?;
    let scenario = get(&session, &args.id).await?;
    let scenario = document(&scenario);
    if output.is_table() {
        let rows = scenario.steps.iter().enumerate().map(|(index, step)| {
            vec![
                (index + 1).to_string(),
                times::duration(std::time::Duration::from_millis(step.duration_ms)),
                describe(&step.netem),
                step.description.clone(),
            ]
        });
        print_line(&format!("{}: {}", scenario.id, scenario.name))?;
        print(&table(
            &[">STEP", "DURATION", "IMPAIRMENT", "DESCRIPTION"],
            rows.collect(),
        ))?;
    }
    let document = ScenariosDocument {
        schema: SCHEMA,
        backend: session.backend.to_string(),
        scenarios: vec![scenario],
        load_errors: Vec::new(),
    };
    output.document(&document, &document.scenarios).map(drop)
}

async fn add(args: FileArgs) -> Result<(), Failure> {
    let output = Output::of(&args.client);
    let bytes = impairment::read_file(&args.file)?;
    let session = Session::open(&args.client).await?;
    let presets = preset::list(&session).await?;
    let scenario = read(&bytes, &presets.presets, &args.file)?;
    for warning in &scenario.warnings {
        output.note(&format!("{}:{warning}", args.file.display()));
    }
    let scenario = scenario.value;
    let id = scenario.id.clone();
    let added = session
        .scenario(&ScenarioRequest::Add(scenario.clone()))
        .await;
    let is_stored = match added {
        Err(_) if args.replace => {
            let updated = session.scenario(&ScenarioRequest::Update(scenario)).await?;
            matches!(updated, ScenarioResponse::Updated { success: true })
        }
        added => matches!(added?, ScenarioResponse::Added { .. }),
    };
    if !is_stored {
        return Err(other_answer());
    }
    output.note(&format!("scenario {id} is stored"));
    Ok(())
}

fn read(
    bytes: &[u8],
    presets: &[tcgui_shared::preset::CustomPreset],
    path: &Path,
) -> Result<FromFile<NetworkScenario>, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |time| time.as_secs());
    tcgui_backend::scenario::read(bytes, presets, now)
        .map_err(|err| Failure::new(Status::Usage, format!("{}:{err}", path.display())))
}

async fn remove(args: IdArgs) -> Result<(), Failure> {
    let output = Output::of(&args.client);
    let session = Session::open(&args.client).await?;
    let request = ScenarioRequest::Remove {
        id: args.id.clone(),
    };
    match session.scenario(&request).await? {
        ScenarioResponse::Removed { success: true } => {
            output.note(&format!("scenario {} is removed", args.id));
            Ok(())
        }
        ScenarioResponse::Removed { success: false } => Err(missing(&args.id)),
        _ => Err(other_answer()),
    }
}

/// Does something to the executions on interfaces.
async fn act(args: TargetsArgs, action: Action) -> Result<(), Failure> {
    let output = Output::of(&args.client);
    let session = Arc::new(Session::open(&args.client).await?);
    let interfaces = if args
        .on
        .targets
        .iter()
        .all(|target| target.exact().is_some())
    {
        resolve(&session, &args.on.targets, Loopback::Included).await?
    } else {
        running(&session, &args).await?
    };
    let act = move |session: Arc<Session>, interface: Interface| async move {
        control(&session, &interface, action).await
    };
    let outcomes = each(&session, interfaces, "asking", output.quiet, act).await;
    report(&session, output, &outcomes, false)
}

/// Returns the interfaces that the targets mean and on which a scenario runs.
async fn running(session: &Session, args: &TargetsArgs) -> Result<Vec<Interface>, Failure> {
    let state = session.state(&StateRequest::default()).await?;
    let found = selected(&state.interfaces, &args.on.targets).into_iter();
    let found: Vec<_> = found
        .filter(|it| it.scenario.is_some())
        .map(|it| (it.namespace.clone(), it.interface.clone()))
        .collect();
    if found.is_empty() {
        let message = "no scenario runs on these interfaces; `tcgui-backend scenario status` lists those that run";
        return Err(Failure::new(Status::NotFound, message));
    }
    Ok(found)
}

async fn control(
    session: &Session,
    (namespace, interface): &Interface,
    action: Action,
) -> Result<Done, Failure> {
    let target = ExecutionTarget {
        namespace: namespace.clone(),
        interface: interface.clone(),
    };
    let request = match action {
        Action::Stop => ScenarioExecutionRequest::Stop(target),
        Action::Pause => ScenarioExecutionRequest::Pause(target),
        Action::Resume => ScenarioExecutionRequest::Resume(target),
    };
    let (success, text) = match session.execution(&request).await? {
        ScenarioExecutionResponse::Stopped { success } => (success, "stopped"),
        ScenarioExecutionResponse::Paused { success } => (success, "paused"),
        ScenarioExecutionResponse::Resumed { success } => (success, "resumed"),
        _ => return Err(other_answer()),
    };
    if !success {
        let message =
            "no scenario runs there; `tcgui-backend scenario status` lists those that run";
        return Err(Failure::new(Status::NotFound, message));
    }
    Ok(Done {
        text: Some(text.to_owned()),
        ..Done::default()
    })
}

/// Lists the executions.
async fn status(args: StatusArgs) -> Result<(), Failure> {
    let output = Output::of(&args.client);
    let session = Session::open(&args.client).await?;
    let impaired = StateRequest {
        impaired: true,
        ..StateRequest::default()
    };
    let state = session.state(&impaired).await?;
    let running = selected(&state.interfaces, &args.targets).into_iter();
    let running = running.filter(|it| it.scenario.is_some());
    let interfaces: Vec<_> = running.map(names::interface).collect();
    if output.is_table() && interfaces.is_empty() {
        output.note("no scenario runs");
    } else if output.is_table() {
        let rows = interfaces.iter().filter_map(|it| {
            let scenario = it.scenario.as_ref()?;
            let step = match (scenario.step, scenario.steps) {
                (Some(step), Some(steps)) => format!("{step} of {steps}"),
                _ => "starting".to_owned(),
            };
            let percent = scenario
                .progress_percent
                .map(|it| format!("{} %", number(it.round())));
            let state = if scenario.paused { "paused" } else { "running" };
            Some(vec![
                it.target.clone(),
                scenario.id.clone(),
                state.to_owned(),
                step,
                percent.unwrap_or_default(),
                scenario.description.clone().unwrap_or_default(),
            ])
        });
        let heading = [
            "INTERFACE",
            "SCENARIO",
            "STATE",
            "STEP",
            ">DONE",
            "DESCRIPTION",
        ];
        print(&table(&heading, rows.collect()))?;
    }
    let document = ShowDocument {
        schema: SCHEMA,
        backend: state.backend_name.clone(),
        read_at: times::rfc3339(state.timestamp),
        interfaces,
    };
    output.document(&document, &document.interfaces).map(drop)
}

/// Returns an interface as people name it.
fn named((namespace, interface): &Interface) -> String {
    target_text(namespace, interface)
}
