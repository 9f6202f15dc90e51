//! `docs/proofs.md` names, for each claim, tests and files that exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Every Rust file of the project.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.expect("an entry of a directory").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names of all functions in a source text.
fn functions(text: &str) -> impl Iterator<Item = String> {
    text.split("fn ").skip(1).map(|rest| {
        rest.chars().take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_').collect()
    })
}

/// What stands between backticks.
fn quoted(page: &str) -> impl Iterator<Item = &str> {
    page.split('`').skip(1).step_by(2)
}

#[test]
fn every_test_and_file_that_the_proofs_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for dir in ["src", "actors/src", "actors/tests", "tests", "benches"] {
        sources(&root.join(dir), &mut files);
    }
    let known: BTreeSet<String> = files
        .iter()
        .flat_map(|file| functions(&std::fs::read_to_string(file).expect("a source")).collect::<Vec<_>>())
        .collect();
    let page = std::fs::read_to_string(root.join("docs/proofs.md")).expect("the page");
    // Settings and metrics are quoted as well, but have fewer words than the name of a test.
    let is_test = |text: &&str| {
        text.matches('_').count() >= 3
            && !text.starts_with("pawl_")
            && text
                .chars()
                .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
    };
    let tests: Vec<&str> = quoted(&page).filter(is_test).collect();
    assert!(tests.len() > 100, "the page names {} tests", tests.len());
    let missing: Vec<&&str> = tests.iter().filter(|name| !known.contains(**name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
    let is_file = |text: &&str| text.ends_with(".rs") || text.ends_with('/');
    let gone: Vec<&str> = quoted(&page).filter(is_file).filter(|path| !root.join(path).exists()).collect();
    assert!(gone.is_empty(), "no such files: {gone:#?}");
}
