//! What Kafka's own console consumer reads, and the letters with their headers, which it cannot print: a plain
//! rdkafka client reads those.

use pawl_actors::dead_letter::header;

use super::support::kafka::Broker;
use super::support::{Seen, clients};

/// A record as the console consumer prints it.
pub struct Read {
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub at: i64,
    pub key: String,
    pub value: String,
}

/// All that a reader of committed records gets of a topic, partition by partition, in order.
pub fn read(broker: &Broker, topic: &str) -> Vec<Read> {
    let args = [
        ["--bootstrap-server", broker.bootstrap()],
        ["--topic", topic],
        ["--isolation-level", "read_committed"],
        // Until nothing more comes.
        ["--timeout-ms", "15000"],
        ["--formatter-property", "print.timestamp=true"],
        ["--formatter-property", "print.partition=true"],
        ["--formatter-property", "print.offset=true"],
        ["--formatter-property", "print.key=true"],
    ];
    let args = [&args.concat()[..], &["--from-beginning"]].concat();
    let class = "org.apache.kafka.tools.consumer.ConsoleConsumer";
    let output = broker.java_tool(class, &args, b"").expect("Java is there");
    let text = String::from_utf8(output.stdout).expect("text");
    let mut all: Vec<Read> = text.lines().map(parse).collect();
    all.sort_by_key(|read| (read.partition, read.offset));
    all
}

/// Kind of time stamp and time, partition, offset, key and value, with tabs in between.
fn parse(line: &str) -> Read {
    let fields: Vec<&str> = line.splitn(5, '\t').collect();
    let [at, partition, offset, key, value] = fields[..] else { panic!("not a record: {line}") };
    let number = |field: &str| field.rsplit(':').next().and_then(|text| text.parse::<i64>().ok());
    Read {
        at: number(at).expect("a time"),
        partition: number(partition).and_then(|number| i32::try_from(number).ok()).expect("a partition"),
        offset: number(offset).expect("an offset"),
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

/// A dead letter.
pub struct Letter {
    pub partition: i32,
    /// Where the original lies in the input.
    pub original: i64,
    pub event_id: String,
    pub key: String,
    pub disposition: String,
    /// The quarantine, and the letter's number in it.
    pub place: Option<(i64, i64)>,
    /// The last attempt.
    pub attempt: Option<i32>,
    /// Milliseconds since the epoch.
    pub at: i64,
}

/// All letters of a topic, partition by partition, in order.
pub fn letters(broker: &Broker, topic: &str) -> Vec<Letter> {
    clients::read_all(broker, topic).iter().map(letter).collect()
}

fn letter(seen: &Seen) -> Letter {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let long = |name| seen.header(name).map(|it| i64::from_be_bytes(it.try_into().expect("eight bytes")));
    let int = |name| seen.header(name).map(|it| i32::from_be_bytes(it.try_into().expect("four bytes")));
    Letter {
        partition: int(header::ORIGINAL_PARTITION).expect("a letter tells where it came from"),
        original: long(header::ORIGINAL_OFFSET).expect("a letter tells where it came from"),
        event_id: seen.text().to_owned(),
        key: text(seen.key.as_deref().unwrap_or_default()),
        disposition: text(seen.header(header::DISPOSITION).unwrap_or_default()),
        place: long(header::QUARANTINE).zip(long(header::NUMBER)),
        attempt: int(header::DELIVERY_ATTEMPT),
        at: seen.timestamp.unwrap_or_default(),
    }
}

/// What an output record says.
pub struct Effect<'a> {
    /// The chain after it.
    pub link: &'a str,
    pub event_id: &'a str,
    /// When the call began that had this effect, in milliseconds since the epoch.
    pub at: i64,
    /// The partition of the input.
    pub partition: i32,
}

/// Reads an output record's value: link (two fields), event id, time, the place in the input, and what is for people.
pub fn effect(value: &str) -> Option<Effect<'_>> {
    let second = value.match_indices(' ').nth(1)?.0;
    let mut rest = value[second + 1..].split(' ');
    let (event_id, at) = (rest.next()?, rest.next()?.parse().ok()?);
    let partition = rest.next()?.split_once('@')?.0.parse().ok()?;
    Some(Effect { link: &value[..second], event_id, at, partition })
}
