//! The image, run as a hardened deployment runs it. `.ci/image` builds it and calls this test:
//! `PAWL_TEST_IMAGE` is its name, `PAWL_TEST_ENGINE` the container engine with its options (default `docker`),
//! `PAWL_TEST_ENGINE_RUN` further options of its `run`.

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::time::Duration;

use crate::support::kafka::free_ports;
use crate::support::{self, Call, Reply, Service, orders, process};

const DEADLINE: Duration = Duration::from_secs(120);
/// The user of the image.
const USER: &str = "65532";

/// What a command has written, both streams.
fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A container engine, and a container of it that is removed with the test.
struct Engine {
    program: Vec<String>,
    /// Options of every `run`.
    run: Vec<String>,
    name: String,
}

impl Engine {
    fn named(name: String) -> Engine {
        let words = |variable: &str, default: &str| -> Vec<String> {
            let text = std::env::var(variable).unwrap_or_else(|_| default.to_owned());
            text.split_whitespace().map(str::to_owned).collect()
        };
        let confined =
            "--network host --read-only --cap-drop ALL --security-opt no-new-privileges --memory 256m";
        let mut run: Vec<String> = confined.split(' ').map(str::to_owned).collect();
        run.extend(words("PAWL_TEST_ENGINE_RUN", ""));
        Engine { program: words("PAWL_TEST_ENGINE", "docker"), run, name }
    }

    fn call(&self, args: &[&str]) -> Output {
        let output = Command::new(&self.program[0]).args(&self.program[1..]).args(args).output();
        output.unwrap_or_else(|error| panic!("{} cannot be started: {error}", self.program[0]))
    }

    /// Runs an image; `args` are options and its name.
    fn run(&self, args: &[&str]) -> Output {
        let run: Vec<&str> = self.run.iter().map(String::as_str).collect();
        self.call(&[&["run"][..], &run, args].concat())
    }

    /// What `inspect` says of the container.
    fn inspect(&self, format: &str) -> String {
        let output = self.call(&["inspect", "--type", "container", "--format", format, &self.name]);
        assert!(output.status.success(), "{}", text(&output));
        text(&output).trim().to_owned()
    }

    fn logs(&self) -> String {
        text(&self.call(&["logs", &self.name]))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the container's log:\n{}", self.logs());
        }
        self.call(&["rm", "--force", "--volumes", &self.name]);
    }
}

/// The fields of `/proc/PID/status`.
fn status(pid: &str) -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let field = |line: &str| {
        let (name, values) = line.split_once(':')?;
        Some((name.to_owned(), values.split_whitespace().map(str::to_owned).collect()))
    };
    text.lines().filter_map(field).collect()
}

/// Whether the file system that a process has mounted there is read-only.
fn is_read_only(pid: &str, mount: &str) -> Option<bool> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("the process runs");
    let line = text.lines().find(|line| line.split(' ').nth(4) == Some(mount))?;
    Some(line.split(' ').nth(5)?.split(',').any(|option| option == "ro"))
}

#[test]
#[ignore = "needs an image: .ci/image builds one and runs this"]
fn the_image_runs_without_rights_on_a_read_only_root_and_processes_the_orders() {
    let Some(broker) = support::broker() else { return };
    let image = std::env::var("PAWL_TEST_IMAGE").expect("PAWL_TEST_IMAGE names the image");
    let (topic, events) = (support::topic(broker, "orders", 4), orders::events());
    let lines: String = events.iter().map(|event| format!("{}\n", event.line)).collect();
    let places = ["--key", "json:/orderId", "--event-id", "json:/eventId"];
    let to = ["publish", "-b", broker.bootstrap(), "--topic", &topic];
    assert_eq!(support::command(&[&to[..], &places].concat(), lines.as_bytes()).code, 0);

    let service = Service::start(|_| Reply::status(200));
    let (dir, port) = (process::scratch("image"), free_ports(1)[0]);
    let settings = format!(
        "instance = \"image\"\n[kafka]\nbootstrap_servers = [\"{}\"]\n\
         [store]\ndir = \"/var/lib/pawl/pawl-data\"\n[admin]\nlisten = \"127.0.0.1:{port}\"\n\
         [handler.billing]\ntopic = \"{topic}\"\ngroup = \"{}\"\nevent_id = \"header:ce_id\"\n\
         http = {{ url = \"{}\" }}\n",
        broker.bootstrap(),
        support::unique("billing"),
        service.url()
    );
    std::fs::write(dir.join("pawl.toml"), settings).expect("a writable directory");
    let mount = format!("{}:/etc/pawl/pawl.toml:ro", dir.join("pawl.toml").display());
    let engine = Engine::named(support::unique("pawl-image"));
    let started = engine.run(&["--detach", "--name", &engine.name, "--volume", &mount, &image]);
    assert!(started.status.success(), "{}", text(&started));

    service.wait("every event, at the service", events.len(), DEADLINE, Call::succeeded);
    check_process(&engine.inspect("{{.State.Pid}}"));
    check_health(&engine);
    check_labels(&engine);
    let stopped = engine.call(&["stop", "--time", "40", &engine.name]);
    assert!(stopped.status.success(), "{}", text(&stopped));
    assert_eq!(engine.inspect("{{.State.ExitCode}}"), "0", "{}", engine.logs());
    assert!(engine.logs().contains("drained, committed and left the group"), "{}", engine.logs());
    let calls = service.calls();
    let mut seen: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for call in &calls {
        seen.entry(&call.received.key).or_default().push(&call.received.event_id);
    }
    assert_eq!(seen, orders::by_order(&events), "each order's events, once and in order");

    let elsewhere = ["--rm", "--volume", &mount, "--env", "PAWL__STORE__DIR=/elsewhere", &image];
    let refused = engine.run(&elsewhere);
    let said = text(&refused);
    assert!(!refused.status.success() && said.contains("Read-only file system"), "{said}");
    let _ = std::fs::remove_dir_all(&dir);
}

/// The kernel's own word: no root, no capability, no way to either, and one place to write to.
fn check_process(pid: &str) {
    let status = status(pid);
    assert_eq!((&status["Uid"], &status["Gid"]), (&vec![USER.to_owned(); 4], &vec![USER.to_owned(); 4]));
    for capabilities in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status[capabilities], ["0000000000000000"], "{capabilities}");
    }
    assert_eq!(status["NoNewPrivs"], ["1"]);
    assert_eq!(is_read_only(pid, "/"), Some(true));
    assert_eq!(is_read_only(pid, "/var/lib/pawl"), Some(false));
}

/// The labels say what is in it: this version, of a commit.
fn check_labels(engine: &Engine) {
    let labels: BTreeMap<String, String> =
        serde_json::from_str(&engine.inspect("{{json .Config.Labels}}")).expect("labels");
    let label = |name: &str| labels.get(&format!("org.opencontainers.image.{name}")).map(String::as_str);
    assert_eq!(label("title"), Some("pawl"), "{labels:?}");
    assert_eq!(label("version"), Some(env!("CARGO_PKG_VERSION")), "{labels:?}");
    assert_eq!(label("licenses"), Some(env!("CARGO_PKG_LICENSE")), "{labels:?}");
    let is_commit = |text: &str| text.len() == 40 && text.chars().all(|one| one.is_ascii_hexdigit());
    assert!(label("revision").is_some_and(is_commit), "{labels:?}");
}

/// The health check that is written into the image says that the process is healthy.
fn check_health(engine: &Engine) {
    let test = engine.inspect("{{json .Config.Healthcheck.Test}}");
    let test: Vec<String> = serde_json::from_str(&test).unwrap_or_else(|error| panic!("{test}: {error}"));
    let [kind, command @ ..] = &test[..] else { panic!("no health check in the image") };
    assert_eq!(kind, "CMD");
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let healthy = engine.call(&[&["exec", &engine.name][..], &command].concat());
    assert!(healthy.status.success() && text(&healthy).trim() == "live", "{}", text(&healthy));
}
