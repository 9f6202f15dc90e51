//! `forward` end to end: what was read is written once, in order for each key.

use std::time::Duration;

use crate::support::{self, Out, Pawl};

#[test]
fn forwarded_records_arrive_once_and_in_order_by_key() {
    let Some(broker) = support::broker() else { return };
    let (input, output) = (support::topic(broker, "orders", 2), support::topic(broker, "billed", 2));
    let group = support::unique("billing");
    let records = (0..500).map(|n| {
        let event = if n % 10 == 9 { n - 1 } else { n };
        Out::new(format!("ORD-{}", event % 7), format!("{event}")).header("ce_id", format!("e{event}"))
    });
    support::produce(broker, &input, records);
    let mut pawl = Pawl::new(&format!(
        "[kafka]\nbootstrap_servers = [\"{}\"]\n[handler.billing]\ntopic = \"{input}\"\ngroup = \"{group}\"\n\
         event_id = \"header:ce_id\"\nforward = {{ topic = \"{output}\" }}\n",
        broker.bootstrap()
    ));
    pawl.start().wait_ready();
    let seen = support::read_until(broker, &output, Duration::from_secs(30), |seen| seen.len() >= 450);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    assert_eq!(support::read_all(broker, &output).len(), 450, "each event once");
    let mut last = std::collections::BTreeMap::new();
    for record in &seen {
        let (key, n) = (record.key.clone(), record.text().parse::<u32>().expect("a number"));
        assert!(last.insert(key, n).is_none_or(|before| before < n), "in order");
    }
}
