//! What `docker/compose.yaml` starts, without containers: a broker, both sample services, and Pawl with
//! `docker/pawl.toml`. Where the file names hosts and paths of containers, variables name those of this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::http::request;
use crate::support::kafka::free_ports;
use crate::support::{self, process, python};

const DEADLINE: Duration = Duration::from_secs(120);
const ORDERS: usize = 150;

/// A program that is ended with the test, and its output.
struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    fn start(name: &str, dir: &Path, mut command: Command) -> Program {
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log).expect("a writable directory");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a file handle")).stderr(file);
        Program { child: process::spawn(command).expect("the program can be started"), log }
    }

    fn sample(service: &str, dir: &Path, port: u16, variables: &[(&str, &str)]) -> Program {
        let script = format!("{}/docker/{service}/{service}.py", env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new("python3");
        command.args(["-u", &script]).env("PORT", port.to_string());
        command.envs(variables.iter().copied());
        Program::start(service, dir, command)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGTERM, as an engine ends a container.
    fn end(&mut self) -> i32 {
        process::signal(&self.child, libc::SIGTERM);
        process::code(process::wait("a program", &mut self.child, DEADLINE))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            process::kill(&mut self.child);
        }
        if std::thread::panicking() {
            eprintln!("{} ends:\n{}", self.log.display(), process::tail(&self.log, 20));
        }
    }
}

/// Order and event of a line in which billing says that it has billed something.
fn billed(line: &str) -> Option<(&str, &str)> {
    let (order, rest) = line.strip_prefix("order ")?.split_once(' ')?;
    let event = rest.split_once(" billed: ")?.1.split_once("'eventId': '")?.1.split('\'').next()?;
    Some((order, event))
}

#[test]
fn orders_flow_through_the_services_of_the_compose_file() {
    let Some(broker) = support::broker() else { return };
    let Some(packages) = python::packages("orders", "docker/orders/requirements.txt") else { return };
    let dir = process::scratch("compose");
    let (topic, group) = (support::unique("orders"), support::unique("billing"));
    let ports = free_ports(3);
    let [orders_port, billing_port, admin_port] = ports[..] else { unreachable!("as many as asked for") };

    let mut billing = Program::sample("billing", &dir, billing_port, &[]);
    let healthy = |port| request(port, "GET", "/health", "").ok().filter(|(status, _)| *status == 200);
    support::until("billing", DEADLINE, || healthy(billing_port).map(drop));
    let variables = [
        ("BOOTSTRAP_SERVERS", broker.bootstrap()),
        ("TOPIC", &topic),
        ("PYTHONPATH", packages.to_str().expect("a path in UTF-8")),
        ("ORDERS", &ORDERS.to_string()),
        ("EVENTS_PER_SECOND", "400"),
    ];
    let mut orders = Program::sample("orders", &dir, orders_port, &variables);
    support::until("the order service, which creates its topic", DEADLINE, || healthy(orders_port).map(drop));

    let mut command = support::pawl::program(&dir);
    let settings = format!("{}/docker/pawl.toml", env!("CARGO_MANIFEST_DIR"));
    command.args(["run", "--config", &settings]);
    command.env("PAWL__KAFKA__BOOTSTRAP_SERVERS", broker.bootstrap());
    command.env("PAWL__HANDLER__BILLING__TOPIC", &topic);
    command.env("PAWL__HANDLER__BILLING__GROUP", &group);
    command.env("PAWL__HANDLER__BILLING__HTTP__URL", format!("http://127.0.0.1:{billing_port}/events"));
    command.env("PAWL__STORE__DIR", dir.join("pawl-data"));
    command.env("PAWL__ADMIN__LISTEN", format!("127.0.0.1:{admin_port}"));
    let mut pawl = Program::start("pawl", &dir, command);

    let published = support::until("the last order", DEADLINE, || {
        let (_, body) = healthy(orders_port)?;
        let told: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        let events = usize::try_from(told["events"].as_u64()?).ok()?;
        let records = told["acknowledged"].as_u64()?;
        told["done"].as_bool()?.then_some((events, usize::try_from(records).ok()?))
    });
    let (events, records) = published;
    assert!(events >= ORDERS * 3 && records > events, "{events} events, some of them twice: {records}");
    let calls = |log: &str| log.lines().filter(|line| line.starts_with("order ")).count();
    support::until("all of them at billing", DEADLINE, || (calls(&billing.log()) >= events).then_some(()));
    support::clients::wait_for_end(broker, &group, &topic, DEADLINE);

    assert_eq!(pawl.end(), 0, "{}", pawl.log());
    assert_eq!((orders.end(), billing.end()), (0, 0));
    let log = billing.log();
    let mut seen: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (order, event) in log.lines().filter_map(billed) {
        seen.entry(order).or_default().push(event);
    }
    assert_eq!(
        (seen.len(), calls(&log)),
        (ORDERS, events),
        "each event once, although some were published twice"
    );
    for (order, found) in seen {
        let expected: Vec<String> = (1..=found.len()).map(|n| format!("{order}/{n}")).collect();
        assert_eq!(found, expected, "an order's events come in their sequence");
    }
    let traced = support::read_all(broker, &topic);
    let parents: BTreeSet<&[u8]> = traced.iter().filter_map(|seen| seen.header("traceparent")).collect();
    assert_eq!(parents.len(), records, "each record goes on a trace");
    let _ = std::fs::remove_dir_all(&dir);
}
