//! What facts mean: pure, and the one place that says what agrees and what does not.
//!
//! Facts are measured at the last committed partition row. What cannot be known (records that
//! retention or compaction removed, offsets that somebody skipped) widens what is agreed to, and is
//! said; it is never guessed.

use pawl_actors::ledger::{Books, PartitionRow};

use super::facts::{Facts, Letters, OpenTransaction, PartitionFacts};
use super::finding::{Check, Finding};
use super::ledger;

/// What is wrong where the books are not what the topics hold.
const REPORT: &str = "keep the topics as they are, and report it with this output: it should not happen";

/// Everything that can be said about a handler.
pub fn handler(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts.partitions.iter().flat_map(|one| partition(facts, one)).collect();
    findings.extend(facts.open.iter().map(|open| open_transaction(facts, open)));
    findings.extend(output(facts));
    findings.extend(ledger::partitions(facts));
    findings
}

fn partition(facts: &Facts, one: &PartitionFacts) -> Vec<Finding> {
    let Some(row) = &one.row else { return vec![ledger::without_books(facts, one)] };
    if let Some(foreign) = ledger::foreign(facts, one, row) {
        // Offsets and lanes of another topic or of other settings cannot be compared.
        return vec![foreign];
    }
    let mut findings = vec![balance(facts, one, &row.books), received(facts, one, row)];
    findings.extend(parked(facts, one, row.books.parked));
    findings.extend(letters(facts, one, row));
    findings.extend(ledger::judge(facts, one, row));
    findings
}

fn balance(facts: &Facts, one: &PartitionFacts, books: &Books) -> Finding {
    let at = Finding::at(facts, one, Check::Books);
    let sum = format!("{} received, {books}", books.received);
    if books.balance() { at.ok(sum) } else { at.error(format!("the books do not balance: {sum}"), REPORT) }
}

/// Received records against those that lie in the input.
fn received(facts: &Facts, one: &PartitionFacts, row: &PartitionRow) -> Finding {
    let at = Finding::at(facts, one, Check::Received);
    let (input, received) = (&one.input, row.books.received);
    // Beside what lies in the input from there on.
    let carried = row.rewinds.last().map_or(0, |last| last.parked);
    let counted = input.below + input.ahead;
    let removed = (input.low - row.began).max(0).unsigned_abs().saturating_sub(row.books.removed_offsets);
    let least = (counted + carried).saturating_sub(row.books.skipped_offsets);
    let most = if input.compacted { u64::MAX } else { (counted + carried).saturating_add(removed) };
    let kept = match carried {
        0 => String::new(),
        records => format!(", {records} were parked when the partition was rewound"),
    };
    let holds = format!(
        "the input holds {counted} records of the books: {} from {} up to the watermark {}, {} finished ahead of it{kept}",
        input.below,
        row.began.max(input.low),
        row.watermark,
        input.ahead
    );
    let unknown = unknown(one, row, removed);
    if (least..=most).contains(&received) {
        return match unknown.is_empty() {
            true => at.ok(format!("{received} received, and {holds}")),
            false => at.note(format!("{received} received can be judged only in part: {holds}; {unknown}")),
        };
    }
    let besides = if unknown.is_empty() { String::new() } else { format!("; {unknown}") };
    let what = format!("{received} received, but {holds}{besides}");
    if !facts.transactional && received < least {
        return at.note(format!("{what}: at-least-once may count less than was done after a crash"));
    }
    at.error(what, REPORT)
}

/// Parked records against the rows that keep them; nothing where there are none.
fn parked(facts: &Facts, one: &PartitionFacts, booked: u64) -> Option<Finding> {
    let at = Finding::at(facts, one, Check::Parked);
    let (named, gone) = (one.heads.parked, one.heads.unparked);
    if gone > 0 {
        return Some(at.error(
            format!("keys wait for a retry of {named} records, but the changelog has no row for {gone} of them"),
            "these records are lost unless the changelog can be restored; the partition is not taken in like this",
        ));
    }
    let what = format!("{booked} parked, and keys wait for a retry of {named} records");
    match booked == named {
        true => (booked > 0).then(|| at.ok(what)),
        false if !facts.transactional => {
            Some(at.note(format!("{what}: after a crash at-least-once may count less than was done")))
        }
        false => Some(at.error(what, REPORT)),
    }
}

/// Why the input cannot tell exactly what was received.
fn unknown(one: &PartitionFacts, row: &PartitionRow, removed: u64) -> String {
    let mut reasons = Vec::new();
    if removed > 0 {
        reasons.push(format!(
            "retention removed what lay at {removed} offsets from {} on after it was received",
            row.began
        ));
    }
    if one.input.compacted {
        reasons.push("the input is compacted, and keeps only the last records of a key".into());
    }
    if row.books.skipped_offsets > 0 {
        reasons.push(format!("{} offsets were skipped by an operator", row.books.skipped_offsets));
    }
    reasons.join("; ")
}

fn letters(facts: &Facts, one: &PartitionFacts, row: &PartitionRow) -> Vec<Finding> {
    let at = || Finding::at(facts, one, Check::DeadLetters);
    let Books { dead_lettered, replayed, discarded, lost_letters, .. } = row.books;
    let expected = dead_lettered + replayed + discarded + lost_letters;
    let Some(letters) = &one.letters else {
        return match expected {
            0 => Vec::new(),
            _ => vec![at().error(
                format!("{expected} dead-lettered, but there is no topic {}", facts.letters_topic),
                "these records are lost unless the topic can be restored",
            )],
        };
    };
    let dealt_with = match expected - dead_lettered {
        0 => String::new(),
        some => format!(" ({some} of them dealt with)"),
    };
    let mut findings = vec![letter_count(facts, one, letters, expected, &dealt_with)];
    if letters.missing > 0 {
        let first = letters.first_missing.unwrap_or_default();
        let what = format!(
            "{} dead letters name originals that do not lie in {}, the first at {first}",
            letters.missing, facts.topic
        );
        findings.push(match (one.input.compacted, one.input.second_pass > 0) {
            (true, _) => at().note(format!("{what}: the input is compacted")),
            (_, true) => {
                at().note(format!("{what}: records came back with the headers of an earlier letter"))
            }
            _ => at().error(what, "see them: pawl dlt list; something else than Pawl has written there"),
        });
    }
    if letters.beyond > 0 && one.is_settled() {
        let first = letters.first_beyond.unwrap_or_default();
        let what = format!(
            "{} dead letters name originals that the ledger has not taken, the first at {first}",
            letters.beyond
        );
        findings.push(match facts.transactional {
            true => at().error(what, "see them: pawl dlt list; something else than Pawl has written there"),
            false => at().note(format!("{what}: at-least-once writes letters before the ledger")),
        });
    }
    findings.extend(besides(facts, one, letters));
    findings
}

fn letter_count(
    facts: &Facts,
    one: &PartitionFacts,
    letters: &Letters,
    expected: u64,
    dealt_with: &str,
) -> Finding {
    let at = Finding::at(facts, one, Check::DeadLetters);
    let Letters { tied, distinct, low, .. } = *letters;
    let of = if tied == distinct { String::new() } else { format!(" of {distinct} records") };
    let what = format!("{expected} dead-lettered{dealt_with}, {tied} letters{of} in {}", facts.letters_topic);
    if tied == expected && distinct == tied {
        return at.ok(what);
    }
    // A record that came back with a letter's headers names its first original, wherever that lay.
    let returned = one.input.second_pass;
    if returned >= expected.abs_diff(tied) && returned >= tied - distinct && returned > 0 {
        return at
            .note(format!("{what}: {returned} records came back with the headers of an earlier letter"));
    }
    if tied < expected && low > 0 && distinct == tied {
        return at.note(format!("{what}; those below offset {low} were removed, by retention or by hand"));
    }
    if !facts.transactional && tied >= expected {
        return at
            .note(format!("{what}: after a crash at-least-once may write a letter twice, or count less"));
    }
    let remedy = match tied < expected {
        true => "letters are missing: were records of the topic deleted?",
        false => "see them: pawl dlt list; something else than Pawl has written there",
    };
    at.error(what, remedy)
}

/// Letters that are no part of these books.
fn besides(facts: &Facts, one: &PartitionFacts, letters: &Letters) -> Option<Finding> {
    let mut parts = Vec::new();
    if letters.before > 0 {
        parts.push(format!("{} of records from before the books began", letters.before));
    }
    if letters.elsewhere > 0 {
        parts.push(format!("{} whose original lies in another topic or partition", letters.elsewhere));
    }
    let text = format!("letters of this group besides: {}", parts.join("; "));
    (!parts.is_empty()).then(|| Finding::at(facts, one, Check::DeadLetters).note(text))
}

fn open_transaction(facts: &Facts, open: &OpenTransaction) -> Finding {
    let OpenTransaction { topic, partition, from, to, waited, own } = open;
    let at = Finding::of(facts, Some(*partition), Check::Transactions);
    let waited = humantime::format_duration(std::time::Duration::from_secs(waited.as_secs()));
    let what = format!(
        "a transaction is open in {topic}[{partition}] from offset {from} (the end is {to}) for more than {waited}: \
         readers of committed records wait there"
    );
    match own {
        true => at.error(
            what,
            "find it with kafka-transactions.sh find-hanging, end it with kafka-transactions.sh abort",
        ),
        // Others write there too, and theirs may take as long as they like.
        false => at.note(format!("{what}; kafka-transactions.sh find-hanging tells whose it is")),
    }
}

/// The output of a handler that writes one record for each applied one.
fn output(facts: &Facts) -> Option<Finding> {
    let output = facts.output.as_ref()?;
    let at = Finding::of(facts, None, Check::Output);
    let rows = facts.partitions.iter().filter_map(|one| one.row.as_ref());
    // Letters of other groups that were replayed are in no books, and were written all the same.
    let applied: u64 = rows.map(|row| row.books.applied + row.books.foreign).sum();
    let what = format!("{applied} applied, {} records in {}", output.records, output.topic);
    // Nothing in a forwarded record names its original, so only the number can be held against it.
    Some(if output.records == applied {
        at.ok(what)
    } else if output.records > applied {
        at.note(format!("{what}: others write there too, or more was written since"))
    } else if output.removed {
        at.note(format!("{what}: retention or compaction removed some, so this is not judged"))
    } else {
        at.error(what, "records are missing there, unless forward.topic was changed or made anew meanwhile")
    })
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
