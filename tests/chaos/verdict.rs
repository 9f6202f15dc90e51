//! The verdict, from what Kafka's own console consumer and tools read: no code of Pawl's takes part but the
//! definition of the tally and, for the books, the decoding of their row.

use std::collections::{BTreeMap, BTreeSet};

use pawl_actors::ledger::{PARTITION_KEY, PartitionRow};

use super::support::clients;
use super::support::kafka::Broker;
use super::tally::{Link, Temper, temper};
use super::world::{Outcome, PARTITIONS, World};

/// A record as the console consumer prints it.
struct Read {
    partition: i32,
    offset: i64,
    key: String,
    value: String,
}

/// Everything that is not as it must be.
pub fn reach(world: &World, outcome: &Outcome) -> Vec<String> {
    let broker = &world.broker;
    let mut findings = outcome.findings.clone();
    let dead_letters = format!("{}-dlt", world.input);
    let [input, output, letters] = std::thread::scope(|scope| {
        let topics = [&world.input, &world.output, &dead_letters];
        topics
            .map(|topic| scope.spawn(|| read(broker, topic)))
            .map(|read| read.join().expect("Kafka's consumer reads"))
    });
    println!(
        "{} events, read {} of the input, {} of the output, {} dead letters",
        outcome.sent,
        input.len(),
        output.len(),
        letters.len()
    );
    judge_chains(&input, &output, outcome, &mut findings);
    judge_letters(&input, &letters, outcome, &mut findings);
    judge_books(world, &input, outcome, &mut findings);
    judge_transactions(broker, &mut findings);
    findings
}

/// The fold of the input, key by key, held against the output.
fn judge_chains(input: &[Read], output: &[Read], outcome: &Outcome, findings: &mut Vec<String>) {
    let mut found: BTreeMap<&str, Vec<&Read>> = BTreeMap::new();
    for read in output {
        found.entry(&read.key).or_default().push(read);
    }
    let applied: BTreeSet<&str> = output.iter().filter_map(|read| id_of(&read.value)).collect();
    let mut expected: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut states: BTreeMap<&str, Link> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for read in input {
        let id = read.value.as_str();
        // What an operator skipped may be missing, all else must be there.
        let optional = outcome.skipped.get(&read.partition).is_some_and(|range| range.contains(&read.offset));
        if temper(id) == Temper::Poison || (optional && !applied.contains(id)) || !seen.insert(id) {
            continue;
        }
        let state = states.entry(&read.key).or_default();
        *state = state.then(id);
        expected.entry(&read.key).or_default().push(format!("{state} {id}"));
    }
    for (key, links) in &expected {
        let found = found.remove(key).unwrap_or_default();
        let found: Vec<&str> = found.iter().map(|read| read.value.as_str()).collect();
        let agree = found.len() == links.len()
            && found.iter().zip(links).all(|(found, link)| found.starts_with(&format!("{link} ")));
        if !agree {
            let first = (0..found.len().max(links.len()))
                .find(|n| !matches!((found.get(*n), links.get(*n)), (Some(a), Some(b)) if a.starts_with(b.as_str())));
            let first = first.unwrap_or_default();
            let around = &found[first.saturating_sub(2).min(found.len())..(first + 3).min(found.len())];
            findings.push(format!(
                "{key}: {} links instead of {}; the first that differs is number {first}: expected {:?}, found around it {around:?}",
                found.len(),
                links.len(),
                links.get(first)
            ));
        }
    }
    findings.extend(found.keys().map(|key| format!("{key}: in the output, but not in the input")));
}

/// Each poisonous event has one letter (each of its copies one), and nothing else has.
fn judge_letters(input: &[Read], letters: &[Read], outcome: &Outcome, findings: &mut Vec<String>) {
    let mut expected: BTreeMap<&str, usize> = BTreeMap::new();
    let mut optional: BTreeMap<&str, usize> = BTreeMap::new();
    for read in input.iter().filter(|read| temper(&read.value) == Temper::Poison) {
        let skipped = outcome.skipped.get(&read.partition).is_some_and(|range| range.contains(&read.offset));
        *if skipped { &mut optional } else { &mut expected }.entry(&read.value).or_default() += 1;
    }
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for letter in letters {
        *found.entry(&letter.value).or_default() += 1;
    }
    for id in expected.keys().chain(optional.keys()).chain(found.keys()).collect::<BTreeSet<_>>() {
        let least = expected.get(*id).copied().unwrap_or_default();
        let most = least + optional.get(*id).copied().unwrap_or_default();
        let found = found.get(*id).copied().unwrap_or_default();
        if !(least..=most).contains(&found) {
            findings.push(format!("{id}: {found} dead letters instead of {least}"));
        }
    }
}

/// Every partition's books balance, and count every record of the input.
fn judge_books(world: &World, input: &[Read], outcome: &Outcome, findings: &mut Vec<String>) {
    let mut rows: BTreeMap<i32, PartitionRow> = BTreeMap::new();
    for record in clients::read_all(&world.broker, "tally-changelog") {
        if record.key.as_deref() == Some(PARTITION_KEY) {
            let row = PartitionRow::decode(record.value.as_deref().unwrap_or_default());
            rows.insert(record.partition, row.expect("a partition row"));
        }
    }
    for partition in 0..PARTITIONS {
        let Some(row) = rows.get(&partition) else {
            findings.push(format!("partition {partition}: no row in the changelog"));
            continue;
        };
        let records = input.iter().filter(|read| read.partition == partition).count() as u64;
        let skipped = outcome.skipped.get(&partition).map_or(0, |range| (range.end - range.start) as u64);
        let books = &row.books;
        if !books.balance() || !(records.saturating_sub(skipped)..=records).contains(&books.received) {
            findings.push(format!("partition {partition}: {records} records, but its books say {books:?}"));
        }
    }
}

/// No transaction is left open.
fn judge_transactions(broker: &Broker, findings: &mut Vec<String>) {
    let args = ["--bootstrap-server", broker.bootstrap(), "list"];
    let output = broker.java_tool("org.apache.kafka.tools.TransactionsCommand", &args, b"");
    let output = output.expect("Java is there");
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || !text.contains("TransactionState") {
        findings.push(format!("the transactions cannot be listed: {text}"));
    }
    let open = text.lines().skip(1).filter(|line| !line.contains("Complete") && !line.contains("Empty"));
    findings.extend(
        open.filter(|line| !line.trim().is_empty()).map(|line| format!("a transaction is open: {line}")),
    );
}

fn id_of(value: &str) -> Option<&str> {
    value.split(' ').nth(2)
}

/// All that a reader of committed records gets of a topic, partition by partition, in order.
fn read(broker: &Broker, topic: &str) -> Vec<Read> {
    let args = [
        ["--bootstrap-server", broker.bootstrap()],
        ["--topic", topic],
        ["--isolation-level", "read_committed"],
        // Until nothing more comes.
        ["--timeout-ms", "15000"],
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

/// Partition, offset, key and value, with tabs in between.
fn parse(line: &str) -> Read {
    let mut fields = line.splitn(4, '\t');
    let mut field = |name: &str| {
        let field = fields.next().unwrap_or_else(|| panic!("no {name}: {line}"));
        field.strip_prefix(name).unwrap_or(field).to_owned()
    };
    Read {
        partition: field("Partition:").parse().expect("a partition"),
        offset: field("Offset:").parse().expect("an offset"),
        key: field(""),
        value: field(""),
    }
}
