//! The verbs that talk to a running daemon. They change nothing themselves.

mod apply;
mod backends;
mod change;
mod diagnose;
mod documents;
mod failure;
mod impairment;
mod lists;
mod names;
mod output;
mod preset;
mod progress;
mod run;
mod scenario;
#[cfg(test)]
mod schemas;
mod session;
mod shell;
mod show;
mod targets;
mod times;
mod wait_for;

use std::process::ExitCode;

use tcgui_backend::cli::verbs::Verb;

use failure::{Failure, Status};

use super::tell;

/// Carries a verb out and returns the exit status.
pub(super) fn run(verb: Verb) -> ExitCode {
    let done = match verb {
        Verb::Run(args) => return run::run(*args),
        Verb::Completions { shell } => shell::completions(shell),
        Verb::Man { directory } => shell::manual(&directory),
        verb => match runtime() {
            Ok(runtime) => {
                let done = runtime.block_on(talk(verb));
                runtime.shutdown_background();
                done
            }
            Err(failure) => Err(failure),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                tell(&failure.message);
            }
            ExitCode::from(failure.status.code())
        }
    }
}

/// Starts the threads. Zenoh needs more than one.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let built = builder.worker_threads(2).enable_all().build();
    built.map_err(|err| {
        let message = format!("cannot start the threads of the program: {err}");
        Failure::new(Status::Failed, message)
    })
}

async fn talk(verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Apply(args) => apply::apply(*args).await,
        Verb::Clear(args) => change::clear(args).await,
        Verb::Confirm(args) => change::confirm(args).await,
        Verb::Up(args) => change::switch(args, true).await,
        Verb::Down(args) => change::switch(args, false).await,
        Verb::Show(args) => show::show(args).await,
        Verb::Diagnose(args) => diagnose::diagnose(args).await,
        Verb::Scenario(verb) => scenario::scenario(verb).await,
        Verb::Preset(verb) => preset::preset(verb).await,
        Verb::WaitFor(args) => wait_for::wait_for(args).await,
        Verb::Backends(args) => backends::backends(args).await,
        // These are carried out without a session of this kind.
        Verb::Run(_) | Verb::Completions { .. } | Verb::Man { .. } => Ok(()),
    }
}
