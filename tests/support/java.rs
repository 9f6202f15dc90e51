//! Java programs: their jars come by Maven into a cache below the target directory, once.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use super::{fetched, process};

/// The jars that a pom below `tests/` names, with this version of the artifact whose version the pom leaves
/// open, fetched by the first process that needs them. `None`, said aloud, where Java or Maven is missing.
pub fn jars(pom: &str, artifact: &str, version: &str) -> Option<PathBuf> {
    static MISSING: OnceLock<Vec<&str>> = OnceLock::new();
    let missing = MISSING.get_or_init(|| {
        let missing: Vec<_> =
            ["java", "mvn"].into_iter().filter(|tool| !fetched::runs(tool, "-version")).collect();
        if !missing.is_empty() {
            fetched::skip_aloud(&format!(
                "TESTS THAT NEED JAVA ARE SKIPPED, those on a real broker among them: {} not found.\n\
                 Install Java 17+ and Maven, or name a running broker, where no more than one is needed:\n\
                 PAWL_TEST_KAFKA=host:port cargo test --workspace",
                missing.join(" and ")
            ));
        }
        missing
    });
    let property = format!("-D{artifact}.version={version}");
    let fetch =
        || fetched::once(&format!("{artifact}-{version}"), "libs", |part| maven(pom, &property, part));
    missing.is_empty().then(fetch)
}

fn maven(pom: &str, property: &str, to: &Path) {
    let output = Command::new("mvn")
        .args(["-B", "-q", "-f"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(pom))
        .arg("org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies")
        .args(["-DincludeScope=runtime", property])
        .arg(format!("-DoutputDirectory={}", to.display()))
        .output()
        .expect("mvn can be started");
    assert!(
        output.status.success(),
        "Maven could not fetch what {pom} names with {property}:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Java with these jars; what to run is the next argument.
pub fn command(libs: &Path, heap: &str) -> Command {
    command_with(libs, None, heap)
}

/// The same, with classes that lie in a directory of their own.
pub fn command_with(libs: &Path, classes: Option<&Path>, heap: &str) -> Command {
    let mut command = Command::new("java");
    command.args([heap, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp"]);
    let jars = libs.join("*");
    match classes {
        None => command.arg(jars),
        Some(classes) => command.arg(format!("{}:{}", jars.display(), classes.display())),
    };
    command
}

/// Compiles a class into a directory, by the compiler that a Java runtime has as a module.
///
/// # Panics
/// With what the compiler says.
pub fn compile(libs: &Path, source: &Path, to: &Path) {
    let mut command = command(libs, "-Xmx256m");
    // The second module is what it reads jars with.
    command.args(["--add-modules", "jdk.zipfs", "-m", "jdk.compiler/com.sun.tools.javac.Main"]);
    let jars = std::fs::read_dir(libs).expect("the jars can be listed");
    let jars: Vec<String> =
        jars.map(|jar| jar.expect("a jar").path().to_str().expect("UTF-8").to_owned()).collect();
    command.arg("-cp").arg(jars.join(":"));
    command.arg("-d").arg(to).arg(source);
    let output = run(command, b"");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a program with `stdin` as its standard input, and waits for its end.
pub fn run(mut command: Command, stdin: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = process::spawn(command).expect("java can be started");
    child.stdin.take().expect("stdin is piped").write_all(stdin).expect("the program reads its input");
    child.wait_with_output().expect("the program ends")
}
