//! The trace, fetched back from the real OpenTelemetry collector.

use std::process::{Child, Command};

use super::{DEADLINE, TRACE, check_the_chain, run_the_chain};
use crate::support::otlp::Collector;
use crate::support::{self, process};

/// The collector as a process: what it takes in it tells in its log and hands on to a receiver.
struct RealCollector {
    child: Child,
    port: u16,
    log: std::path::PathBuf,
    receiver: Collector,
}

impl RealCollector {
    fn start(executable: &str) -> RealCollector {
        let (dir, receiver) = (process::scratch("collector"), Collector::start());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let (config, log) = (dir.join("config.yaml"), dir.join("collector.log"));
        let text = format!(
            "receivers: {{ otlp: {{ protocols: {{ http: {{ endpoint: \"127.0.0.1:{port}\" }} }} }} }}\n\
             exporters:\n  debug: {{ verbosity: detailed }}\n  otlphttp: {{ endpoint: \"{}\", compression: none }}\n\
             service:\n  telemetry: {{ metrics: {{ level: none }} }}\n  pipelines:\n    traces: {{ receivers: [otlp], \
             exporters: [debug, otlphttp] }}\n",
            receiver.url()
        );
        std::fs::write(&config, text).expect("the scratch directory can be written");
        let output = std::fs::File::create(&log).expect("the scratch directory can be written");
        let mut command = Command::new(executable);
        command.arg("--config").arg(&config);
        command.stdout(output.try_clone().expect("a file handle can be cloned")).stderr(output);
        let child = process::spawn(command).expect("the collector can be started");
        let collector = RealCollector { child, port, log, receiver };
        support::until("the collector", DEADLINE, || {
            support::http::request(port, "POST", "/v1/traces", "{}").ok().filter(|(status, _)| *status == 200)
        });
        collector
    }
}

impl Drop for RealCollector {
    fn drop(&mut self) {
        process::kill(&mut self.child);
        if std::thread::panicking() {
            eprintln!("the log of the collector ends:\n{}", process::tail(&self.log, 40));
        }
    }
}

#[test]
#[ignore = "needs the OpenTelemetry collector, which .ci/nightly.d/collector builds"]
fn the_same_trace_is_fetched_back_from_a_real_collector() {
    let Some(broker) = support::broker() else { return };
    let executable = std::env::var("PAWL_TEST_COLLECTOR").expect("PAWL_TEST_COLLECTOR names the collector");
    let collector = RealCollector::start(&executable);
    let (orders, emitted) = run_the_chain(broker, &format!("http://127.0.0.1:{}", collector.port));
    check_the_chain(&orders, &emitted, |what, matching| collector.receiver.wait(what, matching));
    let log = std::fs::read_to_string(&collector.log).expect("its log");
    let told = log.lines().filter(|line| line.contains("Trace ID") && line.ends_with(TRACE)).count();
    assert!(told >= 6, "the collector's own account of it has {told} spans:\n{log}");
}
