//! Events of orders: the real ones of a published event log where they lie beside the repository,
//! else lifecycles made up here (place, confirm, remind, pay).

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

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
            let text = format!("\n*** {}: {error}; made-up orders stand in for it\n", path.display());
            // Not eprintln!, whose text the harness swallows when a test passes.
            std::io::stderr().write_all(text.as_bytes()).expect("stderr can be written");
            made_up(2_000)
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

/// Lifecycles of `orders` orders that overlap: 3 to 5 events each.
fn made_up(orders: usize) -> Vec<Event> {
    let mut timed = Vec::new();
    for order in 0..orders {
        let reminders = (order * 7) % 3;
        let steps = ["place order", "confirm order"].into_iter();
        let steps = steps.chain(std::iter::repeat_n("payment reminder", reminders)).chain(["pay order"]);
        for (step, kind) in steps.enumerate() {
            let at = order + step * (11 + order % 13);
            let id = format!("e{order}-{step}");
            let line = json!({"eventId": id, "orderId": format!("{}", 990_000 + order), "type": kind});
            timed.push((at, order, Event::parse(&line.to_string())));
        }
    }
    timed.sort_by_key(|(at, order, _)| (*at, *order));
    timed.into_iter().map(|(_, _, event)| event).collect()
}
