//! What the demo's producer writes: life cycles of orders, many at a time, with producer's
//! duplicates; and which orders the service will find hard to take.
//!
//! Pure: everything follows from the number of orders and the seed. Every draw is a hash of the seed
//! and of what is drawn (SipHash-1-3, which never changes), so a seed means the same in every
//! version and on every machine.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use pawl_actors::record::Header;
use serde::Serialize;
use siphasher::sip::SipHasher13;

/// An event of an order. Its text (`ORD-000017-3`) is the event id on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// Which order, from 0 on.
    pub order: u32,
    /// Its place in the order's life, from 1 on.
    pub sequence: u8,
}

/// How the service takes the events of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temper {
    /// Takes each at once.
    Steady,
    /// Is busy once or twice before it takes one.
    Flaky,
    /// Refuses all of them, always.
    Poisonous,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Workload {
    seed: u64,
    reminders: Vec<u8>,
    stream: Vec<EventId>,
}

/// Time between two new orders, in ticks: only the order in which events are written follows from it.
const TICKS_BETWEEN_ORDERS: u64 = 10;
/// Time from one event of an order to the next: with it some 600 orders are alive at a time.
const TICKS_BETWEEN_EVENTS: (u64, u64) = (100, 2_100);
/// How long after the original a duplicate may be written.
const TICKS_TO_DUPLICATE: u64 = 1_500;
const MOST_REMINDERS: u64 = 5;
const DUPLICATES_PERCENT: u64 = 5;
const FLAKY_PERCENT: u64 = 2;

/// What is drawn; part of the hash, so that no two draws depend on each other.
#[derive(Clone, Copy)]
enum Draw {
    Reminders,
    Pause(u8),
    Duplicated(u8),
    DuplicateAfter(u8),
    Flaky,
    Refusals(u8),
    Poisonous,
    Price,
}

impl Draw {
    fn bytes(self) -> [u8; 2] {
        match self {
            Draw::Reminders => [0, 0],
            Draw::Pause(sequence) => [1, sequence],
            Draw::Duplicated(sequence) => [2, sequence],
            Draw::DuplicateAfter(sequence) => [3, sequence],
            Draw::Flaky => [4, 0],
            Draw::Refusals(sequence) => [5, sequence],
            Draw::Poisonous => [6, 0],
            Draw::Price => [7, 0],
        }
    }
}

impl Workload {
    /// The life cycles of this many orders, at least one.
    pub fn new(orders: u32, seed: u64) -> Self {
        let mut workload = Workload { seed, reminders: Vec::new(), stream: Vec::new() };
        let mut timed = Vec::new();
        for order in 0..orders.max(1) {
            workload.reminders.push(workload.draw(order, Draw::Reminders, MOST_REMINDERS + 1) as u8);
            let mut at = u64::from(order) * TICKS_BETWEEN_ORDERS;
            for sequence in 1..=workload.last(order) {
                let id = EventId { order, sequence };
                timed.push((at, id));
                if workload.is_duplicated(id) {
                    let after = 1 + workload.draw(order, Draw::DuplicateAfter(sequence), TICKS_TO_DUPLICATE);
                    timed.push((at + after, id));
                }
                let (shortest, longest) = TICKS_BETWEEN_EVENTS;
                at += shortest + workload.draw(order, Draw::Pause(sequence), longest - shortest);
            }
        }
        timed.sort_unstable();
        workload.stream = timed.into_iter().map(|(_, id)| id).collect();
        workload
    }

    /// Number of orders.
    pub fn orders(&self) -> u32 {
        self.reminders.len() as u32
    }

    /// The records in the order of writing, duplicates included.
    pub fn stream(&self) -> &[EventId] {
        &self.stream
    }

    /// How often each event is among the first `records` of the stream.
    pub fn copies(&self, records: usize) -> BTreeMap<EventId, u64> {
        let mut copies = BTreeMap::new();
        for &id in self.stream.iter().take(records) {
            *copies.entry(id).or_default() += 1;
        }
        copies
    }

    /// The record's key: all events of an order have the same.
    pub fn key(&self, id: EventId) -> String {
        order_name(id.order)
    }

    /// The record's value, JSON.
    pub fn value(&self, id: EventId) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Event {
            event_id: String,
            order_id: String,
            sequence: u8,
            r#type: &'static str,
            price: f64,
        }
        let event = Event {
            event_id: id.to_string(),
            order_id: order_name(id.order),
            sequence: id.sequence,
            r#type: self.kind(id),
            price: (500 + self.draw(id.order, Draw::Price, 200_000)) as f64 / 100.0,
        };
        serde_json::to_vec(&event).expect("a struct of plain fields can be written as JSON")
    }

    /// The record's headers: CloudEvents attributes.
    pub fn headers(&self, id: EventId) -> Vec<Header> {
        vec![
            Header::new("ce_specversion", "1.0"),
            Header::new("ce_id", id.to_string()),
            Header::new("ce_type", self.kind(id)),
            Header::new("ce_source", "/pawl/demo"),
            Header::new("content-type", "application/json"),
        ]
    }

    /// How the service takes the events of an order. Exactly one is poisonous, and from two orders on
    /// at least one is flaky.
    pub fn temper(&self, order: u32) -> Temper {
        let poisonous = self.draw(0, Draw::Poisonous, u64::from(self.orders())) as u32;
        if order == poisonous {
            Temper::Poisonous
        } else if order == (poisonous + 1) % self.orders()
            || self.draw(order, Draw::Flaky, 100) < FLAKY_PERCENT
        {
            Temper::Flaky
        } else {
            Temper::Steady
        }
    }

    /// How often the service says that it is busy before it takes this event of a flaky order.
    pub fn refusals(&self, id: EventId) -> u32 {
        match self.temper(id.order) {
            Temper::Flaky => 1 + self.draw(id.order, Draw::Refusals(id.sequence), 2) as u32,
            Temper::Steady | Temper::Poisonous => 0,
        }
    }

    /// The very first event always has a duplicate, so that the smallest run has one.
    fn is_duplicated(&self, id: EventId) -> bool {
        id == EventId { order: 0, sequence: 1 }
            || self.draw(id.order, Draw::Duplicated(id.sequence), 100) < DUPLICATES_PERCENT
    }

    fn kind(&self, id: EventId) -> &'static str {
        match id.sequence {
            1 => "place order",
            2 => "confirm order",
            sequence if sequence == self.last(id.order) => "pay order",
            _ => "payment reminder",
        }
    }

    /// An order is placed, confirmed, reminded of and paid.
    fn last(&self, order: u32) -> u8 {
        3 + self.reminders[order as usize]
    }

    /// A number below `bound`.
    fn draw(&self, order: u32, what: Draw, bound: u64) -> u64 {
        let mut bytes = [0; 6];
        bytes[..4].copy_from_slice(&order.to_le_bytes());
        bytes[4..].copy_from_slice(&what.bytes());
        SipHasher13::new_with_keys(self.seed, 0).hash(&bytes) % bound
    }
}

fn order_name(order: u32) -> String {
    format!("ORD-{order:06}")
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", order_name(self.order), self.sequence)
    }
}

/// The text is no event id of the demo.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAnEventId;

impl FromStr for EventId {
    type Err = NotAnEventId;

    fn from_str(text: &str) -> Result<Self, NotAnEventId> {
        let (order, sequence) =
            text.strip_prefix("ORD-").and_then(|rest| rest.split_once('-')).ok_or(NotAnEventId)?;
        let order = order.parse().map_err(|_| NotAnEventId)?;
        let sequence = sequence.parse().map_err(|_| NotAnEventId)?;
        Ok(EventId { order, sequence })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_records_and_another_seed_others() {
        let records = |seed| {
            let workload = Workload::new(200, seed);
            let values = workload.stream().iter().map(|&id| workload.value(id));
            values.collect::<Vec<_>>()
        };
        assert_eq!(records(7), records(7));
        assert_ne!(records(7), records(8));
    }

    #[test]
    fn the_events_of_an_order_are_written_in_sequence_and_a_duplicate_after_its_original() {
        let workload = Workload::new(500, 3);
        let mut written: BTreeMap<u32, BTreeSet<u8>> = BTreeMap::new();
        for id in workload.stream() {
            let known = written.entry(id.order).or_default();
            assert!(known.contains(&id.sequence) || id.sequence as usize == known.len() + 1, "{id}");
            known.insert(id.sequence);
        }
        for (order, sequences) in written {
            assert!((3..=8).contains(&sequences.len()), "place, confirm, 0 to 5 reminders, pay");
            let last = EventId { order, sequence: sequences.len() as u8 };
            assert_eq!(workload.kind(last), "pay order");
        }
    }

    #[test]
    fn one_event_in_twenty_is_written_twice_and_none_more_often() {
        let workload = Workload::new(2_000, 11);
        let copies = workload.copies(usize::MAX);
        assert!(copies.values().all(|&copies| copies <= 2));
        let share = (workload.stream().len() - copies.len()) as f64 / copies.len() as f64;
        assert!((0.04..0.06).contains(&share), "{share}");
    }

    #[test]
    fn orders_overlap_so_that_there_is_something_to_keep_in_order() {
        let workload = Workload::new(2_000, 5);
        let middle = &workload.stream()[5_000..6_000];
        let orders: BTreeSet<u32> = middle.iter().map(|id| id.order).collect();
        assert!(orders.len() > 300, "{}", orders.len());
    }

    #[test]
    fn the_smallest_run_has_a_poisonous_order_a_flaky_one_and_a_duplicate() {
        for seed in 0..50 {
            let workload = Workload::new(10, seed);
            let count = |temper| (0..10).filter(|&order| workload.temper(order) == temper).count();
            assert_eq!(count(Temper::Poisonous), 1);
            assert!(count(Temper::Flaky) >= 1);
            assert!(workload.stream().len() > workload.copies(usize::MAX).len());
        }
    }

    #[test]
    fn only_flaky_orders_are_refused_at_first_and_never_as_often_as_pawl_tries() {
        let workload = Workload::new(1_000, 2);
        for &id in workload.stream() {
            let flaky = workload.temper(id.order) == Temper::Flaky;
            assert_eq!((1..=2).contains(&workload.refusals(id)), flaky, "{id}");
        }
    }

    #[test]
    fn an_event_id_comes_back_from_its_text() {
        for id in [EventId { order: 0, sequence: 1 }, EventId { order: 1_234_567, sequence: 8 }] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for text in ["", "ORD-1", "ORD-x-1", "ORD-1-300", "1-1"] {
            assert_eq!(text.parse::<EventId>(), Err(NotAnEventId), "{text}");
        }
    }
}
