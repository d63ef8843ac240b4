//! Validates documents against the JSON schemas in `docs/schema`.
//!
//! The schemas are written by schemars, which uses few keywords for the documents of the verbs. A schema with another keyword
//! is an error. So is a property that the schema does not name: an output has no field that is not documented.

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// Checks a document.
///
/// # Errors
///
/// The place and the reason of the first mistake, or a keyword that is not supported.
pub fn validate(schema: &Value, document: &Value) -> anyhow::Result<()> {
    check(schema, schema, document, "$")
}

/// Checks one item of the array `items` of a document.
///
/// # Errors
///
/// As [`validate`].
pub fn validate_item(schema: &Value, items: &str, item: &Value) -> anyhow::Result<()> {
    let of_item = &schema["properties"][items]["items"];
    ensure!(of_item.is_object(), "the schema has no array {items}");
    check(schema, of_item, item, items)
}

fn check(root: &Value, schema: &Value, value: &Value, place: &str) -> anyhow::Result<()> {
    let keywords = schema.as_object().context("a schema is an object")?;
    for (keyword, wanted) in keywords {
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "format" => {}
            "$ref" => check(root, referenced(root, wanted)?, value, place)?,
            "type" => ensure!(has_type(wanted, value), "{place}: not {wanted}: {value}"),
            "const" => ensure!(value == wanted, "{place}: not {wanted}: {value}"),
            "minimum" => {
                let is_less = value.as_f64() < wanted.as_f64();
                ensure!(
                    value.is_null() || !is_less,
                    "{place}: less than {wanted}: {value}"
                );
            }
            "maximum" => {
                let is_more = value.as_f64() > wanted.as_f64();
                ensure!(!is_more, "{place}: more than {wanted}: {value}");
            }
            "required" => {
                for name in wanted.as_array().into_iter().flatten() {
                    let name = name.as_str().context("the name of a property")?;
                    ensure!(value.get(name).is_some(), "{place}: no {name}: {value}");
                }
            }
            "properties" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    let place = format!("{place}.{name}");
                    let schema = wanted.get(name);
                    let schema = schema.with_context(|| format!("{place} is not documented"))?;
                    check(root, schema, value, &place)?;
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, wanted, item, &format!("{place}[{index}]"))?;
                }
            }
            "anyOf" => {
                let mut alternatives = wanted.as_array().into_iter().flatten();
                let is_any = alternatives.any(|schema| check(root, schema, value, place).is_ok());
                ensure!(is_any, "{place}: none of {wanted}: {value}");
            }
            other => bail!("{place}: the keyword {other} is not supported"),
        }
    }
    Ok(())
}

/// Returns the schema that a reference of the form `#/$defs/Name` names.
fn referenced<'a>(root: &'a Value, reference: &Value) -> anyhow::Result<&'a Value> {
    let pointer = reference.as_str().and_then(|text| text.strip_prefix('#'));
    let found = pointer.and_then(|pointer| root.pointer(pointer));
    found.with_context(|| format!("{reference} is not in the schema"))
}

fn has_type(wanted: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        Some("string") => value.is_string(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => false,
    };
    match wanted.as_array() {
        Some(names) => names.iter().any(is),
        None => is(wanted),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mistakes_are_found_at_their_place() {
        let schema = json!({
            "title": "T", "type": "object", "required": ["schema", "all"],
            "properties": {
                "schema": {"type": "string", "const": "v/1"},
                "all": {"type": "array", "items": {"$ref": "#/$defs/One"}},
                "last": {"anyOf": [{"$ref": "#/$defs/One"}, {"type": "null"}]}
            },
            "$defs": {"One": {"type": "object", "required": ["n"], "properties": {
                "n": {"type": ["integer", "null"], "format": "uint32", "minimum": 0}}}}
        });
        let good = json!({"schema": "v/1", "all": [{"n": 1}, {"n": null}], "last": {"n": 2}});
        validate(&schema, &good).unwrap();
        validate_item(&schema, "all", &json!({"n": 3})).unwrap();
        for (wrong, place) in [
            (json!([]), "$: "),
            (json!({"schema": "v/2", "all": []}), "$.schema"),
            (json!({"schema": "v/1"}), "no all"),
            (
                json!({"schema": "v/1", "all": [{"n": 1}, {"n": "2"}]}),
                "$.all[1].n",
            ),
            (json!({"schema": "v/1", "all": [{"n": -1}]}), "less than 0"),
            (json!({"schema": "v/1", "all": [{"n": 1.5}]}), "$.all[0].n"),
            (
                json!({"schema": "v/1", "all": [{"n": 1, "m": 1}]}),
                "$.all[0].m",
            ),
            (json!({"schema": "v/1", "all": [], "last": 7}), "$.last"),
        ] {
            let error = format!("{:#}", validate(&schema, &wrong).unwrap_err());
            assert!(error.contains(place), "{wrong}: {error}");
        }
        let unknown = json!({"pattern": "x"});
        validate(&unknown, &json!("x")).unwrap_err();
    }
}
