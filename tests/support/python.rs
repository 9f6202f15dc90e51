//! Python programs with the packages that they name: fetched by pip into a cache below the target directory, once.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::fetched;

/// A directory for `PYTHONPATH` with the packages of a requirements file, whose path begins at the repository's
/// root; hashes are checked. `None`, said aloud, where Python or pip is missing.
pub fn packages(name: &str, requirements: &str) -> Option<PathBuf> {
    let pip = ["-m", "pip", "--version"];
    if !Command::new("python3").args(pip).output().is_ok_and(|output| output.status.success()) {
        fetched::skip_aloud(
            "TESTS THAT NEED PYTHON ARE SKIPPED: python3 with pip was not found; install python3 and python3-pip",
        );
        return None;
    }
    Some(fetched::once(&format!("python-{name}"), "packages", |part| install(requirements, part)))
}

fn install(requirements: &str, to: &Path) {
    let output = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"])
        .args(["--require-hashes", "--only-binary", ":all:", "--requirement", requirements, "--target"])
        .arg(to)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("python3 can be started");
    assert!(
        output.status.success(),
        "pip could not fetch what {requirements} names:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
