//! The wall: `actors/` decides and never touches the world. Its manifest names no crate that does,
//! and none of its dependencies brings one along. Nor does it read a clock, but in its shells.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Crates that may only be used on this side of the wall, with what they would bring to the other.
const BANNED: &[(&str, &str)] = &[
    ("rdkafka", "a Kafka client"),
    ("rdkafka-sys", "a Kafka client"),
    ("sled", "a store on disk"),
    ("fjall", "a store on disk"),
    ("fjall", "a store on disk"),
    ("config", "settings"),
    ("clap", "a command line"),
    ("toml", "settings"),
    ("axum", "an HTTP server"),
    ("actix-web", "an HTTP server"),
    ("actix-http", "an HTTP server"),
    ("hyper", "HTTP"),
    ("hyper-util", "HTTP"),
    ("reqwest", "an HTTP client"),
    ("ureq", "an HTTP client"),
    ("prometheus-client", "metrics"),
    ("opentelemetry", "tracing"),
];

/// Where a clock is read or something awaited: shells of actors, and what they share. All else decides by what it is
/// given, so that tests need no time.
const SHELLS: [&str; 15] = [
    "clock.rs",
    "epoch/committer.rs",
    "order/actor.rs",
    "order/gaps.rs",
    "order/hearing.rs",
    "order/shelf.rs",
    "partition/actor.rs",
    "partition/care.rs",
    "partition/commands.rs",
    "partition/restoring.rs",
    "partition/rewinding.rs",
    "pipeline.rs",
    "supervisor/actor.rs",
    "supervisor/outage.rs",
    "supervisor/restarts.rs",
];

/// The files of a directory and of those in it.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("the directory is there");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn read(path: &str) -> toml::Table {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).expect("the file is there").parse().expect("valid TOML")
}

/// Package names in every dependency table of a manifest, those of `[target.*]` included; a renamed
/// dependency counts by its real name.
fn named(manifest: &toml::Table) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (table, value) in manifest {
        let Some(entries) = value.as_table() else { continue };
        if table.ends_with("dependencies") {
            names.extend(entries.iter().map(|(name, entry)| {
                entry.get("package").and_then(|name| name.as_str()).unwrap_or(name).to_owned()
            }));
        } else if table == "target" {
            names.extend(entries.values().filter_map(toml::Value::as_table).flat_map(named));
        }
    }
    names
}

/// Every package that `root` needs, by the lock file.
fn reachable(lock: &toml::Table, root: &str) -> BTreeSet<String> {
    let mut needs: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in lock["package"].as_array().expect("an array of packages") {
        let dependencies = package.get("dependencies").and_then(toml::Value::as_array);
        let names = dependencies.into_iter().flatten().filter_map(toml::Value::as_str);
        // An entry is "name", or "name version" where there are several.
        let names = names.map(|entry| entry.split(' ').next().expect("split gives at least one"));
        needs.entry(package["name"].as_str().expect("a name")).or_default().extend(names);
    }
    let (mut found, mut open) = (BTreeSet::new(), vec![root]);
    while let Some(name) = open.pop() {
        if found.insert(name.to_owned()) {
            open.extend(needs.get(name).into_iter().flatten());
        }
    }
    found
}

fn banned(names: &BTreeSet<String>) -> Vec<String> {
    let hits = BANNED.iter().filter(|(name, _)| names.contains(*name));
    hits.map(|(name, what)| format!("{name} ({what})")).collect()
}

#[test]
fn the_actors_name_no_crate_that_touches_the_world() {
    let names = named(&read("actors/Cargo.toml"));
    assert!(names.contains("actix"), "the manifest is read: {names:?}");
    assert_eq!(banned(&names), Vec::<String>::new(), "actors/Cargo.toml must not name these");
}

#[test]
fn nothing_that_the_actors_need_brings_such_a_crate() {
    let names = reachable(&read("Cargo.lock"), "pawl-actors");
    assert!(names.contains("actix-rt"), "the lock file is read: {names:?}");
    assert_eq!(banned(&names), Vec::<String>::new(), "pawl-actors must not depend on these");
}

#[test]
fn only_the_shells_of_the_actors_read_a_clock_or_await() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("actors/src");
    let in_time = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).expect("a source file");
        let code = text.split("#[cfg(test)]\nmod tests {").next().expect("split gives at least one");
        ["Instant::now()", "SystemTime::now()", "clock::now()", ".await"]
            .iter()
            .any(|what| code.contains(what))
    };
    let name = |path: PathBuf| path.strip_prefix(&source).expect("within it").to_str().map(str::to_owned);
    let mut found: Vec<_> = files(&source).into_iter().filter(in_time).filter_map(name).collect();
    found.sort_unstable();
    assert_eq!(found, SHELLS);
}

#[test]
fn the_check_sees_renamed_and_platform_dependencies() {
    let manifest = "[target.'cfg(unix)'.dependencies]\nstore = { package = \"sled\", version = \"1\" }";
    assert_eq!(banned(&named(&manifest.parse().expect("valid TOML"))), ["sled (a store on disk)"]);
    assert!(!banned(&reachable(&read("Cargo.lock"), "pawl")).is_empty(), "the program itself uses them");
}
