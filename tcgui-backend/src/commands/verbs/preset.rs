//! `preset`: impairments with a name.

use std::time::Duration;

use tcgui_backend::cli::verbs::PresetVerb;
use tcgui_shared::netem::TcNetemConfig;
use tcgui_shared::preset::{CustomPreset, PresetList};

use super::documents::{PresetDocument, PresetsDocument, SCHEMA};
use super::failure::{Failure, Status};
use super::impairment::{self, describe};
use super::output::{Output, print, table};
use super::session::Session;

/// How long the daemon has to send the list that it keeps for new subscribers.
const LIST_WITHIN: Duration = Duration::from_secs(5);

/// Lists presets, or shows one.
pub(super) async fn preset(verb: PresetVerb) -> Result<(), Failure> {
    let (client, id) = match &verb {
        PresetVerb::List(args) => (&args.client, None),
        PresetVerb::Show(args) => (&args.client, Some(&args.id)),
    };
    let output = Output::of(client);
    let session = Session::open(client).await?;
    let mut list = list(&session).await?;
    if let Some(id) = id {
        list.presets.retain(|preset| preset.id == *id);
        if list.presets.is_empty() {
            return Err(missing(id));
        }
    }
    let presets: Vec<_> = list.presets.iter().map(document).collect();
    if output.is_table() {
        let rows = presets.iter().map(|it| {
            let netem = describe(&it.netem);
            vec![it.id.clone(), it.name.clone(), netem]
        });
        print(&table(&["ID", "NAME", "IMPAIRMENT"], rows.collect()))?;
    }
    let document = PresetsDocument {
        schema: SCHEMA,
        backend: session.backend.to_string(),
        presets,
    };
    output.document(&document, &document.presets)?;
    session.close().await;
    Ok(())
}

/// Returns the presets of the daemon, as it publishes them.
pub(super) async fn list(session: &Session) -> Result<PresetList, Failure> {
    let key = session.keys.presets_list();
    let mut samples = session.client.subscribe_cached::<PresetList>(&key).await?;
    match tokio::time::timeout(LIST_WITHIN, samples.next()).await {
        Ok(Some(list)) => Ok(list),
        Ok(None) | Err(_) => Err(Failure::new(
            Status::Busy,
            "the daemon has not sent its presets; try again",
        )),
    }
}

/// Returns what a preset does.
pub(super) fn find(list: &PresetList, id: &str) -> Result<TcNetemConfig, Failure> {
    tcgui_backend::preset::find(&list.presets, id).ok_or_else(|| missing(id))
}

fn missing(id: &str) -> Failure {
    let message = format!("no preset {id:?}; `tcgui-backend preset list` lists the presets");
    Failure::new(Status::NotFound, message)
}

fn document(preset: &CustomPreset) -> PresetDocument {
    PresetDocument {
        id: preset.id.clone(),
        name: preset.name.clone(),
        description: preset.description.clone(),
        netem: impairment::document(&impairment::flat(&preset.config)),
    }
}
