//! Sentences about reading settings: what is taken, and what a person is told otherwise.

mod admin;
mod reading;
mod reference;
mod refusing;
mod reports;
mod retries;
mod security;
mod variables;

use std::path::Path;

use pawl_actors::supervisor::Attempts;

use super::*;

/// A file that is right; tests add to it or replace a line of it.
const GOOD: &str = r#"
[kafka]
bootstrap_servers = ["localhost:9092"]

[handler.billing]
topic = "orders"
http = { url = "http://localhost:8080/events" }
"#;

fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    Settings::parse(Path::new("pawl.toml"), text, variables.iter().copied())
}

fn good(text: &str, variables: &[(&str, &str)]) -> Settings {
    parse(text, variables).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The lines of the report's problems, without numbers and excerpts.
fn problems(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let error = parse(text, variables).expect_err(text);
    error.problems().iter().map(ToString::to_string).collect()
}

/// The settings with one line more in the handler's table.
fn in_handler(line: &str) -> String {
    GOOD.replace("topic = \"orders\"\n", &format!("topic = \"orders\"\n{line}\n"))
}

/// The settings with one line more in Kafka's table.
fn in_kafka(line: &str) -> String {
    GOOD.replace("[kafka]\n", &format!("[kafka]\n{line}\n"))
}

/// Checks that a file has one problem, and what is told about it.
fn refused(text: &str, expected: &str) {
    let found = problems(text, &[]);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains(expected), "{}\n  lacks: {expected}", found[0]);
}
