//! A service that is down for everybody, and a record that is poisoned.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::service::Received;
use crate::support::{self, Call, Out, Pawl, Reply, Service};

const DEADLINE: Duration = Duration::from_secs(90);
const KEYS: usize = 200;

/// The n-th event of an order; each has five.
fn event(n: usize) -> Out {
    Out::new(format!("ORD-{}", n % KEYS), format!("{}", n / KEYS)).header("ce_id", n.to_string())
}

#[test]
fn an_outage_spends_no_attempt_and_no_letter_and_order_is_kept_while_a_poisoned_key_is_given_up() {
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "orders", 2), support::unique("outage"));
    let is_down = Arc::new(AtomicBool::new(false));
    let service = Service::start({
        let is_down = is_down.clone();
        move |call: &Received| match is_down.load(Ordering::Relaxed) {
            true => Reply::status(503),
            false if call.key == "POISONED" => Reply::status(503),
            false => Reply::status(200),
        }
    });
    let more = format!(
        "event_id = \"header:ce_id\"\nhttp = {{ url = \"{}\" }}\nretry = {{ attempts = 3, initial = \"300ms\", max = \
         \"300ms\", jitter = 0.0 }}\nbreaker = {{ probe_every = \"100ms\" }}",
        service.url()
    );
    let mut pawl = Pawl::new(&support::settings(broker, &input, &group, &more));
    pawl.start().wait_ready();
    let metric = |name: &str| pawl.metric(name);

    // One key that fails, between others that do not.
    support::produce(broker, &input, (0..KEYS).map(event).chain([Out::new("POISONED", "p")]));
    let letters = format!("{input}-dlt");
    let dead = support::read_until(broker, &letters, DEADLINE, |seen| seen.len() == 1);
    assert_eq!(dead[0].key.as_deref(), Some(&b"POISONED"[..]));
    assert_eq!(metric("pawl_breaker_opened_total"), Some(0.0), "{}", pawl.log());

    is_down.store(true, Ordering::Relaxed);
    support::produce(broker, &input, (KEYS..5 * KEYS).map(event));
    let open = || (metric("pawl_breaker_open") == Some(1.0)).then_some(());
    support::until("the breaker to open", DEADLINE, open);
    let (_, ready) = pawl.get("/ready").expect("it answers");
    assert!(ready.contains("5 keys failed in a row and none succeeded"), "{ready}");
    // Each key's three attempts would be over many times meanwhile.
    let probes = service.calls().len() + 60;
    support::until("some probes", DEADLINE, || (service.calls().len() >= probes).then_some(()));
    assert_eq!(support::read_all(broker, &letters).len(), 1, "nothing is dead-lettered in an outage");

    is_down.store(false, Ordering::Relaxed);
    support::clients::wait_for_end(broker, &group, &input, DEADLINE);
    let empty = || (metric("pawl_parked_records") == Some(0.0)).then_some(());
    support::until("the end of the waiting", DEADLINE, empty);
    assert_eq!(metric("pawl_breaker_open"), Some(0.0));
    assert_eq!(support::read_all(broker, &letters).len(), 1);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    pawl.audit();

    let calls = service.calls();
    let of_orders = || calls.iter().filter(|call| call.received.key != "POISONED");
    for key in 0..KEYS {
        let done: Vec<String> = of_orders()
            .filter(|call| call.received.key == format!("ORD-{key}") && call.succeeded())
            .map(|call| String::from_utf8_lossy(&call.received.body).into_owned())
            .collect();
        assert_eq!(done, ["0", "1", "2", "3", "4"], "ORD-{key}");
    }
    let latest = of_orders().map(|call: &Call| call.received.attempt).max();
    assert!(latest.is_some_and(|latest| latest <= 2), "attempts are given back: {latest:?}");
}
