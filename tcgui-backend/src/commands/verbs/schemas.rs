//! The JSON schemas in `docs/schema`, compared with the types.
//!
//! `TCGUI_WRITE_SCHEMAS=1 cargo test -p tcgui-backend --bin tcgui-backend schemas` writes them.

use std::path::PathBuf;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::documents::{
    BackendsDocument, ChangeDocument, DiagnosisDocument, PresetsDocument, ScenariosDocument,
    ShowDocument,
};

/// Returns the schema of what is written, in which a field that may be left out is not required.
fn schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let schema = settings.into_generator().into_root_schema_for::<T>();
    schema.to_value()
}

fn all() -> [(&'static str, Value); 6] {
    [
        ("backends", schema::<BackendsDocument>()),
        ("change", schema::<ChangeDocument>()),
        ("diagnose", schema::<DiagnosisDocument>()),
        ("preset", schema::<PresetsDocument>()),
        ("scenario", schema::<ScenariosDocument>()),
        ("show", schema::<ShowDocument>()),
    ]
}

fn path(name: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
    directory.join(format!("{name}.json"))
}

#[test]
fn schemas_in_the_documentation_are_those_of_the_types() {
    let is_writing = std::env::var_os("TCGUI_WRITE_SCHEMAS").is_some();
    for (name, schema) in all() {
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        let path = path(name);
        if is_writing {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let written = std::fs::read_to_string(&path)
            .unwrap_or_else(|err| panic!("{}: {err}", path.display()));
        assert_eq!(written, text, "{name}: see the head of this file");
    }
}
