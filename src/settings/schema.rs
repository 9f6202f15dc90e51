//! The JSON schema of the settings, for editors and for `shape`.
//!
//! It is generated from the types and kept in `config/pawl.schema.json`; after a change of the types
//! `UPDATE_SCHEMA=1 cargo test -p pawl --lib settings` writes it anew.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::time::Duration;

use pawl_actors::policy::NullKey;
use pawl_actors::supervisor::Attempts;
use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use serde_json::{Value, json};

use super::limits::{self, Limit};
use super::{HandlerSettings, Http, Program, Retry, RetryOn, Settings};

/// The name that stands for every handler's, and for every code's, where the schema is walked.
const ANY_NAME: &str = "*";

/// The JSON schema (draft 2020-12) of a settings file. Unknown keys are denied; durations, sizes and
/// places in a record are strings with a pattern and examples.
pub fn json_schema() -> Value {
    let generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .with_transform(Tidy)
        .into_generator();
    let mut schema = generator.into_root_schema_for::<Settings>().to_value();
    schema["title"] = json!("Pawl's settings");
    for (path, limit) in limits::all(&every_setting()) {
        if let (Limit::Whole(_) | Limit::Real(_), Some(field)) = (limit, field(&mut schema, path.names())) {
            let [_, low, high] = limit.texts();
            for (keyword, text) in [("minimum", low), ("maximum", high)] {
                field[keyword] = text.parse().expect("a limit is a JSON number");
            }
        }
    }
    schema
}

/// Settings with every table present and every value that may be absent, one handler and one code standing
/// for all.
fn every_setting() -> Settings {
    let (number, time) = (Some(1.0), Some(Duration::from_secs(1)));
    let on = RetryOn {
        class: None,
        attempts: Some(Attempts::Limited(1)),
        initial: time,
        max: time,
        multiplier: number,
        delays: None,
        jitter: number,
        max_elapsed: time,
    };
    let on = BTreeMap::from([(ANY_NAME.to_owned(), on)]);
    let handler = HandlerSettings {
        null_key: NullKey::Spread(NonZeroU16::MIN),
        retry: Retry { max_elapsed: time, on, ..Retry::default() },
        http: Some(Http::default()),
        program: Some(Program::default()),
        ..HandlerSettings::default()
    };
    Settings { handler: BTreeMap::from([(ANY_NAME.to_owned(), handler)]), ..Settings::default() }
}

/// The schema of one setting.
fn field<'a, 'b>(schema: &'a mut Value, path: impl Iterator<Item = &'b str>) -> Option<&'a mut Value> {
    let mut field = schema;
    for name in path {
        field = match name {
            ANY_NAME => field.get_mut("additionalProperties")?,
            _ => field.get_mut("properties")?.get_mut(name)?,
        };
    }
    Some(field)
}

/// Takes out what TOML has no use for: null, Rust's number formats, defaults that are tables, and the
/// empty defaults of keys that must be set.
#[derive(Clone)]
struct Tidy;

impl Transform for Tidy {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        without_null(schema);
        let Some(object) = schema.as_object_mut() else { return };
        object.remove("format");
        if object.get("default").is_some_and(|value| value.is_null() || value.is_object()) {
            object.remove("default");
        }
        let required = object.get("required").cloned().unwrap_or_default();
        for name in required.as_array().into_iter().flatten().filter_map(Value::as_str) {
            if let Some(Value::Object(property)) = object.get_mut("properties").and_then(|p| p.get_mut(name))
            {
                property.remove("default");
            }
        }
    }
}

fn without_null(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(types) = object.get("type").and_then(Value::as_array) {
        let kept: Vec<Value> = types.iter().filter(|kind| *kind != "null").cloned().collect();
        object.insert("type".into(), if kept.len() == 1 { kept[0].clone() } else { kept.into() });
    }
    if let Some(Value::Array(options)) = object.get("anyOf") {
        let mut kept = options.iter().filter(|option| option["type"] != "null");
        if let (Some(Value::Object(only)), None) = (kept.next().cloned(), kept.next()) {
            object.remove("anyOf");
            for (keyword, value) in only {
                object.entry(keyword).or_insert(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/pawl.schema.json");

    #[test]
    fn the_committed_schema_is_that_of_the_types() {
        let current = format!("{:#}\n", json_schema());
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(FILE, &current).expect("config/pawl.schema.json can be written");
        }
        let committed = std::fs::read_to_string(FILE).unwrap_or_default();
        assert!(
            committed == current,
            "config/pawl.schema.json is not that of the types; write it anew with: \
             UPDATE_SCHEMA=1 cargo test -p pawl --lib settings"
        );
    }

    #[test]
    fn the_documentation_of_a_field_tells_its_bounds_and_its_default() {
        let mut schema = json_schema();
        for (path, limit) in limits::all(&every_setting()) {
            let [default, low, high] = limit.texts();
            let field = field(&mut schema, path.names()).unwrap_or_else(|| panic!("{path} is in the schema"));
            let told = field["description"].as_str().unwrap_or_default().replace('\n', " ");
            let bounds = format!("Bounds: {low} to {high}.");
            assert!(told.contains(&bounds), "{path}: \"{bounds}\" is missing in: {told}");
            // What may be absent has none.
            let default = if field["default"].is_null() { "" } else { &format!("{default}.") };
            let default = format!("Default: {default}");
            assert!(told.contains(&default), "{path}: \"{default}\" is missing in: {told}");
        }
    }

    #[test]
    fn every_number_duration_and_size_has_a_bound() {
        fn bounded(schema: &Value, path: String, found: &mut Vec<String>) {
            let kinds = ["duration", "byte size", "attempts"];
            let number = ["integer", "number"].iter().any(|kind| schema["type"] == *kind);
            if number || kinds.iter().any(|kind| schema["title"] == *kind) {
                found.push(path.clone());
            }
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                bounded(property, format!("{path}.{name}"), found);
            }
            if schema["additionalProperties"].is_object() {
                bounded(&schema["additionalProperties"], format!("{path}.{ANY_NAME}"), found);
            }
        }
        let mut found = Vec::new();
        bounded(&json_schema(), String::new(), &mut found);
        let mut limited: Vec<String> = limits::all(&every_setting())
            .iter()
            .map(|(path, _)| path.names().map(|name| format!(".{name}")).collect())
            .collect();
        found.sort();
        limited.sort();
        assert_eq!(found, limited);
    }

    #[test]
    fn every_key_is_described_and_every_table_denies_unknown_ones() {
        fn check(schema: &Value, path: String) {
            let Some(properties) = schema["properties"].as_object() else { return };
            assert_eq!(schema["additionalProperties"], json!(false), "{path} takes unknown keys");
            for (name, property) in properties {
                let path = format!("{path}.{name}");
                assert!(property["description"].is_string(), "{path} is not described");
                check(property, path.clone());
                check(&property["additionalProperties"], path);
            }
        }
        check(&json_schema(), String::new());
    }
}
