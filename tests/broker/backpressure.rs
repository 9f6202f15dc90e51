//! A handler that is slower than its input holds the intake back: memory stays flat, the consumer
//! stays in its group, and nothing is lost.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::support::{self, Call, Out, Pawl, Reply, Service};

const DEADLINE: Duration = Duration::from_secs(120);
const RECORDS: usize = 2_500;
const VALUE_BYTES: usize = 100 * 1024;
/// What the run may grow by: librdkafka's own queue (64 MiB), one intake's bounds, what allocators
/// keep; half of the 250 MB that lie in the topic.
const ROOM_BYTES: f64 = 120.0 * 1024.0 * 1024.0;

#[test]
fn a_slow_handler_pauses_its_partitions_and_nothing_is_lost() {
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "orders", 2), support::unique("billing"));
    let service = Service::start(|_| Reply::status(200).held());
    let more = format!(
        "http = {{ url = \"{}\", timeout = \"60s\", max_in_flight = 8 }}\n\
         intake = {{ max_records = 100, max_bytes = \"4MiB\" }}\n\
         [kafka.properties]\n\"max.poll.interval.ms\" = 6000\n",
        service.url()
    );
    let mut pawl = Pawl::new(&support::settings(broker, &input, &group, &more));
    pawl.start().wait_ready();
    let base = pawl.metric("process_resident_memory_bytes").expect("Linux tells it");
    let value = vec![b'x'; VALUE_BYTES];
    let record = |n: usize| Out::new(format!("K{}", n % 500), value.clone()).header("n", format!("{n}"));
    support::produce(broker, &input, (0..RECORDS).map(record));

    // Nothing ends, for longer than a consumer may go without polling.
    service.wait("as many calls as may run", 8, DEADLINE, |_| true);
    let (began, mut most) = (Instant::now(), 0.0_f64);
    support::until("more than the poll interval", DEADLINE, || {
        most = most.max(pawl.metric("process_resident_memory_bytes")?);
        (began.elapsed() > Duration::from_secs(8)).then_some(())
    });
    assert_eq!(service.calls().len(), 8, "max_in_flight holds");
    let taken_in = pawl.metric("pawl_outstanding_bytes").expect("it runs");
    assert!(taken_in < 12.0 * 1024.0 * 1024.0, "{taken_in} bytes were taken in");

    service.release();
    support::until("the end", DEADLINE, || {
        most = most.max(pawl.metric("process_resident_memory_bytes")?);
        (pawl.metric("pawl_records_applied_total")? >= RECORDS as f64).then_some(())
    });
    assert!(most - base < ROOM_BYTES, "memory grew from {base} to {most} bytes");
    assert_eq!(pawl.metric("pawl_rebalances_total"), Some(1.0), "assigned once, and kept");
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());

    let calls = service.calls();
    let places: BTreeSet<(i32, i64)> =
        calls.iter().map(|call| (call.received.partition, call.received.offset)).collect();
    assert_eq!((calls.len(), places.len()), (RECORDS, RECORDS), "each once");
    assert!(calls.iter().all(Call::succeeded));
}
