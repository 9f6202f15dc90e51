//! The lines of Pawl: the program itself, as a process.

use std::time::{Duration, Instant};

use super::Load;
use super::measure::{self, Figures};
use super::support::{Broker, Pawl, clients, unique};

const DEADLINE: Duration = Duration::from_secs(180);

/// Runs `pawl run` over the load until everything is durable; `settings` are more of the handler's.
pub fn run(broker: &Broker, input: &str, output: &str, load: Load, settings: &str) -> Figures {
    let group = unique("bench");
    let broker_before = measure::broker_cpu(broker);
    let mut pawl = Pawl::new(&format!(
        "[kafka]\nbootstrap_servers = [\"{}\"]\n[handler.bench]\ntopic = \"{input}\"\ngroup = \"{group}\"\n\
         event_id = \"header:ce_id\"\nforward = {{ topic = \"{output}\" }}\n{settings}\n",
        broker.bootstrap()
    ));
    pawl.start();
    // Intake begins within a millisecond of readiness.
    let ready = wait(&pawl, Duration::from_millis(2), |pawl| {
        pawl.get("/ready").filter(|(status, _)| *status == 200).map(|_| ())
    });
    let done = wait(&pawl, Duration::from_millis(50), |pawl| (received(pawl)? >= load.records).then_some(()));
    let pid = pawl.pid().expect("it runs");
    let figures = Figures {
        per_second: load.records as f64 / (done - ready).as_secs_f64(),
        cpu_us_per_record: measure::cpu_seconds(pid) * 1e6 / load.records as f64,
        peak_mib: measure::peak_mib(pid),
        broker_cpu_us_per_record: (measure::broker_cpu(broker) - broker_before) * 1e6 / load.records as f64,
    };
    if std::env::var_os("PAWL_BENCH_METRICS").is_some() {
        println!("{}", pawl.get("/metrics").expect("it answers").1);
    }
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    for topic in [format!("{group}-changelog"), format!("{input}-dlt")] {
        clients::delete(broker, &topic);
    }
    figures
}

fn received(pawl: &Pawl) -> Option<u64> {
    let (_, metrics) = pawl.get("/metrics")?;
    let line = metrics.lines().find(|line| line.starts_with("pawl_records_received_total"))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn wait(pawl: &Pawl, every: Duration, condition: impl Fn(&Pawl) -> Option<()>) -> Instant {
    let start = Instant::now();
    while condition(pawl).is_none() {
        assert!(start.elapsed() < DEADLINE, "not done in time:\n{}", pawl.log());
        std::thread::sleep(every);
    }
    Instant::now()
}
