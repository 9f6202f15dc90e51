//! The verdict, from what Kafka's own console consumer and tools read: no code of Pawl's takes part but the
//! definition of the tally, the names of headers and, for the books, the decoding of their row.

use std::collections::{BTreeMap, BTreeSet};

use pawl_actors::ledger::{PARTITION_KEY, PartitionRow};

use super::pipeline::{NUMBERED, PARTITIONS, Pipeline, TALLY};
use super::read::{Letter, Read, effect, letters, read};
use super::support::clients;
use super::support::kafka::Broker;
use super::tally::Link;
use super::world::{Outcome, World};
use super::{Gap, Options, attempts, sequence};

/// From so many events on there must have been letters, and from ten times as many on those of every kind.
const MANY: u64 = 15_000;

/// What was found of a handler.
struct Found<'a> {
    pipeline: &'a Pipeline,
    input: Vec<Read>,
    output: Vec<Read>,
    letters: Vec<Letter>,
}

/// Everything that is not as it must be.
pub fn reach(world: &World, outcome: &Outcome, options: &Options) -> Vec<String> {
    let broker = &world.broker;
    let mut findings = outcome.findings.clone();
    let [tally, numbered] = std::thread::scope(|scope| {
        let pipelines = world.pipelines.each_ref();
        let gather = |pipeline| scope.spawn(move || gather(broker, pipeline));
        pipelines.map(gather).map(|gathered| gathered.join().expect("Kafka's consumer reads"))
    });
    let noted = world.service.noted();
    let gap = options.gap.unwrap_or(Gap::DeadLetter);
    tell(world, outcome, [&tally, &numbered], noted.len());
    if let Some(update) = &outcome.update {
        update.tell(&tally.output, &mut findings);
    }
    judge_chains(&tally, outcome, &mut findings);
    sequence::judge(&numbered.input, &numbered.output, &numbered.letters, gap, &mut findings);
    attempts::judge(&noted, &mut findings);
    for found in [&tally, &numbered] {
        let Found { pipeline, input, letters, .. } = found;
        super::letters::judge(pipeline, input, letters, &noted, &mut findings);
        judge_books(broker, found, outcome, &mut findings);
        if !options.rolling {
            judge_mix(found, gap, outcome.sent[0], &mut findings);
        }
    }
    judge_transactions(broker, &mut findings);
    findings
}

fn gather<'a>(broker: &Broker, pipeline: &'a Pipeline) -> Found<'a> {
    std::thread::scope(|scope| {
        let topics = [&pipeline.input, &pipeline.output];
        let [input, output] = topics
            .map(|topic| scope.spawn(|| read(broker, topic)))
            .map(|read| read.join().expect("Kafka's consumer reads"));
        Found { pipeline, input, output, letters: letters(broker, &pipeline.letters()) }
    })
}

fn tell(world: &World, outcome: &Outcome, found: [&Found<'_>; 2], noted: usize) {
    for (Found { pipeline, input, output, letters }, sent) in found.into_iter().zip(outcome.sent) {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for letter in letters {
            *kinds.entry(&letter.disposition).or_default() += 1;
        }
        let (name, input, output) = (pipeline.name, input.len(), output.len());
        println!(
            "{name}: {sent} events, read {input} of the input, {output} of the output, letters {kinds:?}"
        );
    }
    let operator = &world.operator;
    println!("{noted} calls of events that fail; {} commands, {} killed", operator.done, operator.killed);
}

/// The fold of the input, key by key, held against the output.
fn judge_chains(found: &Found<'_>, outcome: &Outcome, findings: &mut Vec<String>) {
    let Found { input, output, .. } = found;
    let mut found: BTreeMap<&str, Vec<&Read>> = BTreeMap::new();
    for read in output {
        found.entry(&read.key).or_default().push(read);
    }
    let applied = output.iter().filter_map(|read| effect(&read.value));
    let applied: BTreeSet<&str> = applied.map(|effect| effect.event_id).collect();
    let mut expected: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut states: BTreeMap<&str, Link> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for read in input {
        let id = read.value.as_str();
        // What an operator skipped may be missing, all else must be there.
        let optional = outcome.skipped.get(&read.partition).is_some_and(|range| range.contains(&read.offset));
        if (optional && !applied.contains(id)) || !seen.insert(id) {
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

/// Every partition's books balance, count every record of the input, and know no letter that nobody has dealt
/// with; nothing waits.
fn judge_books(broker: &Broker, found: &Found<'_>, outcome: &Outcome, findings: &mut Vec<String>) {
    let Found { pipeline, input, letters, .. } = found;
    let mut rows: BTreeMap<i32, PartitionRow> = BTreeMap::new();
    for record in clients::read_all(broker, &pipeline.changelog()) {
        if record.key.as_deref() == Some(PARTITION_KEY) {
            let row = PartitionRow::decode(record.value.as_deref().unwrap_or_default());
            rows.insert(record.partition, row.expect("a partition row"));
        }
    }
    for partition in 0..PARTITIONS {
        let name = format!("{} partition {partition}", pipeline.name);
        let Some(row) = rows.get(&partition) else {
            findings.push(format!("{name}: no row in the changelog"));
            continue;
        };
        let records = input.iter().filter(|read| read.partition == partition).count() as u64;
        let letters = letters.iter().filter(|letter| letter.partition == partition).count() as u64;
        let skipped = outcome.skipped.get(&partition).filter(|_| pipeline.name == TALLY);
        let skipped = skipped.map_or(0, |range| (range.end - range.start) as u64);
        let books = &row.books;
        let counted = (records.saturating_sub(skipped)..=records).contains(&books.received);
        if !books.balance() || !counted {
            findings.push(format!("{name}: {records} records, but its books say {books:?}"));
        }
        if (books.dead_lettered, books.parked, books.replayed) != (0, 0, letters) {
            findings.push(format!("{name}: {letters} letters, but its books say {books:?}"));
        }
    }
}

/// What the run is there for has happened.
fn judge_mix(found: &Found<'_>, gap: Gap, sent: u64, findings: &mut Vec<String>) {
    let Found { pipeline, letters, .. } = found;
    if sent >= MANY && letters.is_empty() {
        findings.push(format!("{}: there were no letters: the run shows nothing of them", pipeline.name));
    }
    let kinds: &[&str] = match (pipeline.name, gap) {
        _ if sent < 10 * MANY => &[],
        // In quarantine what is late follows like anything else.
        (NUMBERED, Gap::DeadLetter) => &["follower", "sequence-gap"],
        (NUMBERED, Gap::Skip) => &["sequence-late"],
        _ => &["poison", "exhausted", "follower"],
    };
    for kind in kinds.iter().filter(|kind| !letters.iter().any(|letter| letter.disposition == **kind)) {
        findings.push(format!("{}: no letter is a {kind}: the run shows nothing of it", pipeline.name));
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
