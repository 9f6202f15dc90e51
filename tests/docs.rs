//! `docs/proofs.md` names, for each claim, tests and files that exist.

use std::collections::BTreeSet;
use std::path::Path;

/// The names of all functions in a source text, in Rust or in Python.
fn functions<'a>(text: &'a str, keyword: &'a str) -> impl Iterator<Item = &'a str> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    text.split(keyword).skip(1).filter_map(move |rest| rest.split(|letter| !is_name(letter)).next())
}

/// What stands between backticks.
fn quoted(page: &str) -> impl Iterator<Item = &str> {
    page.split('`').skip(1).step_by(2)
}

#[test]
fn every_test_and_file_that_the_proofs_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/proofs.md")).expect("the page");
    // Settings and metrics are quoted as well, but have fewer words than the name of a test.
    let is_test = |text: &&str| {
        text.matches('_').count() >= 3
            && !text.starts_with("pawl_")
            && text
                .chars()
                .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
    };
    // Tests are named before the file that they are in.
    let (mut named, mut count) = (Vec::new(), 0);
    for text in quoted(&page) {
        if is_test(&text) {
            named.push(text);
        } else if text.ends_with(".rs") || text.ends_with(".py") {
            let source =
                std::fs::read_to_string(root.join(text)).unwrap_or_else(|error| panic!("{text}: {error}"));
            let known: BTreeSet<&str> =
                functions(&source, if text.ends_with(".py") { "def " } else { "fn " }).collect();
            count += named.len();
            let missing: Vec<&str> = named.drain(..).filter(|name| !known.contains(name)).collect();
            assert!(missing.is_empty(), "{text} has no such tests: {missing:#?}");
        } else if text.ends_with('/') {
            assert!(root.join(text).exists(), "there is no {text}");
        }
    }
    assert!(named.is_empty(), "these stand in no file: {named:#?}");
    assert!(count > 100, "the page names {count} tests");
}
