//! A ledger, written to a changelog without Pawl.

use std::path::Path;

use bytes::{Bytes, BytesMut};
use pawl::kafka::admin::Admin;
use pawl::settings::Settings;
use pawl_actors::ledger::{Head, PartitionRow, Row};
use pawl_actors::record::Offset;

use super::Load;
use super::support::clients::Publisher;
use super::support::{self, Broker, Out};

/// Creates the changelog of the settings' one handler and fills it. Returns the bytes of its rows.
pub fn fill(broker: &Broker, settings: &str, load: Load) -> u64 {
    let none: [(&str, &str); 0] = [];
    let settings = Settings::parse(Path::new("pawl.toml"), settings, none).expect("good settings");
    let (name, handler) = settings.handler.first_key_value().expect("one handler");
    let changelog = handler.changelog_topic(name);
    support::topic_with(broker, &changelog, load.partitions, &[("cleanup.policy", "compact")]);
    let admin = Admin::new(&settings.kafka).expect("a client");
    let input = admin.describe(&handler.topic).expect("the broker answers").expect("the topic is there");
    let topic_id = input.id.expect("a broker that knows ids");
    let publisher = Publisher::new(broker);
    let mut bytes = 0;
    let mut send = |partition: i32, row: Row| {
        let value = row.value.expect("no row is removed");
        bytes += (row.key.len() + value.len()) as u64;
        publisher.send(&changelog, &Out::new(row.key, value).at(partition));
    };
    let mut out = BytesMut::new();
    for partition in 0..load.partitions {
        let row = PartitionRow::new(topic_id.clone(), 0, 0, handler.identity_fingerprint(), [7; 16]);
        send(partition, row.row(&mut out));
    }
    let state = Bytes::from(vec![b's'; load.state_bytes]);
    for n in 0..load.keys {
        // Multiplied by an odd number: every key once, in no order that an engine could gain from.
        let key = format!("order-{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let head = Head { taken: Offset(n as i64), state: Some(state.clone()), ..Head::default() };
        send((n % load.partitions as u64) as i32, head.row(Some(key.as_bytes()), &mut out));
    }
    publisher.flush();
    bytes
}
