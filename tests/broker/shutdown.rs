//! How a run ends: drained and committed, out of the group at once, within its deadline.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::support::{self, Broker, Call, Out, Pawl, Reply, Service};

const DEADLINE: Duration = Duration::from_secs(60);

/// A handler that posts to the service; a member that does not leave is missed only long
/// after `DEADLINE`.
fn posting(broker: &Broker, input: &str, group: &str, service: &Service, more: &str) -> Pawl {
    let more = format!("http = {{ url = \"{}\", timeout = \"60s\" }}\n{more}", service.url());
    let settings = support::settings(broker, input, group, &more);
    Pawl::new(&settings.replace("session_timeout = \"6s\"", "session_timeout = \"180s\""))
}

fn held(service: &Service, count: usize) {
    service.wait("running calls", count, DEADLINE, |call| call.ended.is_none());
}

#[test]
fn calls_that_run_end_and_are_committed_and_the_next_instance_begins_at_once() {
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "orders", 2), support::unique("billing"));
    let service = Service::start(|_| Reply::status(200).held());
    // Two records a key: the second of each must not begin any more.
    let records = (0..40).map(|n| Out::new(format!("K{}", n % 20), format!("{n}")).at(n % 2));
    support::produce(broker, &input, records);
    let mut pawl = posting(broker, &input, &group, &service, "");
    pawl.start();
    held(&service, 20);
    pawl.signal(libc::SIGTERM);
    let draining = || pawl.log().contains("draining").then_some(());
    support::until("the beginning of the drain", DEADLINE, draining);
    assert!(support::clients::committed(broker, &group, &input).values().all(|next| *next == 0));
    service.release();
    assert_eq!(pawl.wait(), 0, "{}", pawl.log());
    assert!(pawl.log().contains("drained, committed and left the group"), "{}", pawl.log());
    assert_eq!(
        (service.count(Call::succeeded), service.calls().len()),
        (20, 20),
        "nothing begins in a drain"
    );
    let committed: i64 = support::clients::committed(broker, &group, &input).values().sum();
    assert_eq!(committed, 20);

    let mut next = posting(broker, &input, &group, &service, "");
    next.start();
    service.wait("the other half, before a session could end", 40, DEADLINE, Call::succeeded);
    assert_eq!(next.terminate(), 0, "{}", next.log());
    assert_eq!(service.calls().len(), 40, "what was committed is not called again");
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "orders", 1), support::unique("billing"));
    let service = Service::start(|_| Reply::status(200).held());
    support::produce(broker, &input, [Out::new("K", "1")]);
    let mut pawl = posting(broker, &input, &group, &service, "");
    pawl.start();
    held(&service, 1);
    pawl.signal(libc::SIGINT);
    let draining = || pawl.log().contains("draining").then_some(());
    support::until("the beginning of the drain", DEADLINE, draining);
    pawl.signal(libc::SIGTERM);
    assert_eq!(pawl.wait(), 130, "{}", pawl.log());
    assert_eq!(service.count(Call::succeeded), 0, "the call still runs");
}

#[test]
fn a_call_that_outlasts_the_deadline_is_cancelled_and_made_again_by_the_next_instance() {
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "orders", 1), support::unique("billing"));
    let service = Service::start(|call| match call.key.as_str() {
        "hangs" => Reply::status(200).held(),
        _ => Reply::status(200),
    });
    support::produce(broker, &input, [Out::new("hangs", "1"), Out::new("quick", "2")]);
    let mut pawl = posting(broker, &input, &group, &service, "[shutdown]\ndeadline = \"8s\"");
    pawl.start();
    held(&service, 1);
    service.wait("the quick call", 1, DEADLINE, Call::succeeded);
    let code = pawl.terminate();
    assert_eq!(code, 0, "cancelled in time, so the drain was orderly: {}", pawl.log());

    service.release();
    pawl.start();
    let all = || (support::clients::committed(broker, &group, &input)[&0] == 2).then_some(());
    support::until("the commit of both", DEADLINE, all);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    let calls = service.calls();
    let attempts: Vec<u32> =
        calls.iter().filter(|call| call.received.key == "hangs").map(|call| call.received.attempt).collect();
    assert_eq!(attempts, [1, 1], "a cancelled call costs no attempt");
    assert_eq!(calls.iter().filter(|call| call.received.key == "quick").count(), 1);
}

#[test]
fn a_run_that_waits_for_a_retry_or_for_its_broker_ends_at_once() {
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "orders", 1), support::unique("billing"));
    let service = Service::start(|_| Reply::status(503));
    support::produce(broker, &input, [Out::new("K", "1")]);
    let retry = "retry = { initial = \"1h\", max = \"1h\" }";
    let mut pawl = posting(broker, &input, &group, &service, retry);
    pawl.start();
    support::until("the retry", DEADLINE, || (pawl.metric("pawl_parked")? == 1.0).then_some(()));
    let began = Instant::now();
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    assert!(began.elapsed() < Duration::from_secs(20), "a drain does not wait for a retry");

    let nobody = "[kafka]\nbootstrap_servers = [\"127.0.0.1:1\"]\nrequest_timeout = \"1s\"\n\
                  [handler.billing]\ntopic = \"orders\"\nforward = { topic = \"billed\" }\n";
    let mut pawl = Pawl::new(nobody);
    pawl.start();
    let waiting = || pawl.log().contains("trying again").then_some(());
    support::until("a message that no broker answers", DEADLINE, waiting);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
}

#[test]
fn a_stop_in_the_middle_of_a_flood_is_no_error_and_loses_and_doubles_nothing() {
    let Some(broker) = support::broker() else { return };
    let (input, output) = (support::topic(broker, "events", 4), support::topic(broker, "copies", 4));
    let group = support::unique("copy");
    let record = |n: usize| Out::new(format!("K{}", n % 500), format!("{n}"));
    support::produce(broker, &input, (0..60_000).map(record));
    let more = format!("forward = {{ topic = \"{output}\" }}\nintake = {{ max_records = 2000 }}");
    let mut pawl = Pawl::new(&support::settings(broker, &input, &group, &more));
    for round in 1..=2 {
        pawl.start();
        support::until("records of the flood", DEADLINE, || {
            (pawl.metric("pawl_records_applied_total")? >= 3_000.0).then_some(())
        });
        assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
        let written = support::read_all(broker, &output).len();
        assert!(written < 60_000, "stopped on the way, round {round}: {written}");
    }
    pawl.start();
    support::clients::wait_for_end(broker, &group, &input, DEADLINE);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    assert!(!pawl.log().contains("ERROR"), "{}", pawl.log());
    let copies = support::read_all(broker, &output);
    let each: BTreeSet<&str> = copies.iter().map(|copy| copy.text()).collect();
    assert_eq!((copies.len(), each.len()), (60_000, 60_000));
}
