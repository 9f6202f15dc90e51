//! `docs/settings-reference.md` is what the JSON schema says, and so what the types say.
//!
//! After a change of the types `UPDATE_SCHEMA=1 cargo test -p pawl --lib settings` writes both anew.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::*;

const HEAD: &str = "\
# Settings reference

Every key of the settings file, as the program's types have it: this page is generated from them, like the JSON schema
[`config/pawl.schema.json`](../config/pawl.schema.json). How values are written, how variables set them and what belongs
together is told in [Settings](settings.md).
";

/// The page for a schema: one section for each table, one row for each of its keys.
fn page(schema: &Value) -> String {
    let mut page = HEAD.to_owned();
    section(&mut page, schema, &[]);
    page
}

fn section(page: &mut String, table: &Value, path: &[&str]) {
    let keys = table["properties"].as_object().expect("a table of settings has keys");
    let title = if path.is_empty() { "At the top".to_owned() } else { format!("`[{}]`", path.join(".")) };
    write!(page, "\n## {title}\n\n").expect("a String takes all");
    if let Some(meaning) = table["description"].as_str().filter(|_| !path.is_empty()) {
        write!(page, "{}\n\n", joined(meaning)).expect("a String takes all");
    }
    if keys.values().any(|key| inner(key).is_none()) {
        page.push_str("| key | value | meaning |\n|---|---|---|\n");
    }
    let required = table["required"].as_array().map_or(&[][..], Vec::as_slice);
    for (name, key) in keys.iter().filter(|(_, key)| inner(key).is_none()) {
        let text = meaning(key);
        let untold = required.contains(&name.as_str().into()) && !text.contains("Must be set.");
        let must = if untold { " Must be set." } else { "" };
        writeln!(page, "| `{name}` | {} | {text}{must} |", value(key)).expect("a String takes all");
    }
    for (name, key) in keys {
        let (Some(table), path) = (inner(key), [path, &[name.as_str()]].concat()) else { continue };
        match table.as_object().is_some_and(|table| table.contains_key("properties")) {
            true => section(page, table, &path),
            false => section(page, &table["additionalProperties"], &[&path[..], &["NAME"]].concat()),
        }
    }
}

/// The schema of a key that is a table of its own, and not a value that may be written as one.
fn inner(key: &Value) -> Option<&Value> {
    let named = key["additionalProperties"].get("properties").is_some();
    (key["type"] == "object" && (named || key.get("properties").is_some())).then_some(key)
}

/// What may stand for a key.
fn value(key: &Value) -> String {
    let quoted = |value: &Value| format!("`{value}`");
    let constants = |options: &Value| -> Vec<String> {
        options.as_array().into_iter().flatten().map(|option| quoted(&option["const"])).collect()
    };
    match (&key["title"], &key["oneOf"], &key["type"]) {
        (Value::String(title), ..) => title.clone(),
        (_, options @ Value::Array(_), _) => constants(options).join(", "),
        (.., Value::String(kind)) if kind == "array" => format!("list of {}", value(&key["items"])),
        (.., Value::String(kind)) => kind.replace("object", "table").replace("boolean", "`true`, `false`"),
        (.., Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ => "any".to_owned(),
    }
}

/// The description of a key, and of each of the words that may stand for it.
fn meaning(key: &Value) -> String {
    let mut text = joined(key["description"].as_str().unwrap_or_default());
    for option in key["oneOf"].as_array().into_iter().flatten() {
        if let Some(meaning) = option["description"].as_str() {
            write!(text, "<br>`{}`: {}", option["const"], joined(meaning)).expect("a String takes all");
        }
    }
    text
}

/// A text of several lines in one, as a cell of a table.
fn joined(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[test]
fn the_reference_is_what_the_types_say() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings-reference.md");
    let current = page(&json_schema());
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(&file, &current).expect("the page can be written");
    }
    let committed = fs::read_to_string(&file).expect("the page can be read");
    assert!(
        committed == current,
        "docs/settings-reference.md is out of date: UPDATE_SCHEMA=1 cargo test -p pawl --lib settings"
    );
}

#[test]
fn the_reference_has_every_key_of_the_settings() {
    let page = page(&json_schema());
    for row in [
        "## At the top",
        "| `instance` | string |",
        "## `[kafka]`",
        "| `bootstrap_servers` | list of string |",
        "## `[handler.NAME]`",
        "| `topic` | string | The input topic; one for each handler. Must be set. |",
        "| `guarantee` | `\"exactly-once\"`, `\"at-least-once\"` |",
        "## `[handler.NAME.retry]`",
        "| `initial` | duration |",
        "## `[handler.NAME.retry.on.NAME]`",
        "## `[log]`",
    ] {
        assert!(page.contains(row), "{row} is missing in\n{page}");
    }
}

/// Counts the keys of a table, and of the tables in it, by their names; a secret has that of its variable.
fn count(table: &Value, path: &[&str], names: &mut BTreeMap<String, usize>) {
    for (name, key) in table["properties"].as_object().into_iter().flatten() {
        let path = [path, &[name.as_str()]].concat();
        // What stands behind it is the name of a handler.
        let key = if name == "handler" { &key["additionalProperties"] } else { key };
        let name = match key["title"] == "secret" {
            true => format!("PAWL__{}", path.join("__").to_uppercase()),
            false => name.clone(),
        };
        *names.entry(name).or_default() += 1;
        count(key, &path, names);
    }
}

#[test]
fn the_settings_file_with_every_key_has_every_key() {
    let file = include_str!("../../../config/pawl.toml");
    let mut names = BTreeMap::new();
    count(&json_schema(), &[], &mut names);
    assert!(names.remove("handler").is_some() && names["timeout"] > 1, "{names:?}");
    for (name, times) in names {
        let begins = |at: usize| !file[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let ends = |at: usize| [" =", "]"].iter().any(|end| file[at + name.len()..].starts_with(end));
        let shown = file.match_indices(&name).filter(|(at, _)| begins(*at) && ends(*at)).count();
        let variable = name.starts_with("PAWL__") && file.contains(&name);
        assert!(
            shown >= times || variable,
            "config/pawl.toml has {shown} of {times} keys with the name {name}"
        );
    }
}
