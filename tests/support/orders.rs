//! Events of orders: the real ones of a published event log where they lie beside the repository,
//! else those of the demo.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use pawl::commands::demo::workload::Workload;
use serde_json::Value;

/// One event of one order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub id: String,
    pub order: String,
    /// The JSON line that is published.
    pub line: String,
}

/// All events, in the order in which they happened. `PAWL_TEST_ORDERS` names another file.
pub fn events() -> Vec<Event> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/orders.jsonl");
    let path = std::env::var_os("PAWL_TEST_ORDERS").map_or(path, Into::into);
    match std::fs::read_to_string(&path) {
        Ok(text) => text.lines().map(Event::parse).collect(),
        Err(error) => {
            let text = format!("\n*** {}: {error}; the demo's orders stand in for it\n", path.display());
            // Not eprintln!, whose text the harness swallows when a test passes.
            std::io::stderr().write_all(text.as_bytes()).expect("stderr can be written");
            made_up(1_200)
        }
    }
}

/// The same events as a producer that repeats itself sends them: every 20th (5 %) comes again some
/// places later, under its id.
pub fn with_repeats(events: &[Event]) -> Vec<Event> {
    let mut sent = Vec::with_capacity(events.len() + events.len() / 20);
    for (n, event) in events.iter().enumerate() {
        sent.push(event.clone());
        if n % 20 == 19 {
            sent.push(events[n - n % 7].clone());
        }
    }
    sent
}

/// The ids of each order's events, in their order.
pub fn by_order(events: &[Event]) -> BTreeMap<&str, Vec<&str>> {
    let mut orders: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for event in events {
        orders.entry(&event.order).or_default().push(&event.id);
    }
    orders
}

impl Event {
    fn parse(line: &str) -> Event {
        let json: Value = serde_json::from_str(line).expect("a line of JSON");
        let text = |key: &str| json[key].as_str().expect("a text").to_owned();
        Event { id: text("eventId"), order: text("orderId"), line: line.to_owned() }
    }
}

/// The demo's lifecycles of so many orders, without the repeats that it writes.
fn made_up(orders: u32) -> Vec<Event> {
    let workload = Workload::new(orders, 1);
    let mut known = BTreeSet::new();
    let first = workload.stream().iter().filter(|id| known.insert(**id));
    let line = |id| String::from_utf8(workload.value(id)).expect("JSON is text");
    first.map(|id| Event::parse(&line(*id))).collect()
}
