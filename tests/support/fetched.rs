//! Programs of others that tests need: fetched once into a cache below the target directory, and said
//! aloud where the tool that fetches them is missing.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The directory `name/inside` of the cache, which `fetch` fills if it is not there. It is moved into
/// place when it is complete, so that an interrupted fetch leaves nothing half done, and only one
/// process fetches at a time.
pub fn once(name: &str, inside: &str, fetch: impl FnOnce(&Path)) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("tmp lies in the target directory");
    let home = target.join(name);
    std::fs::create_dir_all(&home).expect("the target directory can be written");
    let lock = File::create(home.join("lock")).expect("the target directory can be written");
    lock.lock().expect("a file can be locked");
    let there = home.join(inside);
    if !there.exists() {
        let part = home.join("part");
        fetch(&part);
        std::fs::rename(&part, &there).expect("a directory can be renamed");
    }
    there
}

/// Whether a tool answers to this argument.
pub fn runs(tool: &str, argument: &str) -> bool {
    let status = Command::new(tool).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Says what is skipped and why.
///
/// # Panics
/// With `CI=true`, where nothing may be skipped.
pub fn skip_aloud(text: &str) {
    let text = format!("\n*** {}\n", text.replace('\n', "\n*** "));
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!ci, "{text}*** With CI=true that is a failure.");
    // Not eprintln!, whose text the harness swallows when a test passes.
    std::io::stderr().write_all(text.as_bytes()).expect("stderr can be written");
}
