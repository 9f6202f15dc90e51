//! Sound facts, and each of them broken in turn.

use std::time::Duration;

use pawl_actors::ledger::Rewind;

use super::super::facts::{Claim, Heads, Input, Output, Position};
use super::super::finding::Level;
use super::*;
use crate::kafka::commit_metadata::CommitMetadata;

fn metadata(claim: i64, epoch: u64) -> Option<CommitMetadata> {
    Some(CommitMetadata::of(claim, epoch))
}

/// Books from 100 on, a watermark of 200, 93 records below it and 4 ahead.
fn sound() -> Facts {
    let mut row = PartitionRow::new("id".into(), 100, 7, 1, [0; 16]);
    (row.watermark, row.epoch) = (200, 5);
    row.books = Books { received: 97, applied: 90, duplicates: 5, dead_lettered: 2, ..Books::default() };
    let partition = PartitionFacts {
        partition: 0,
        claim: Some(Claim { number: 7, instance: "host-1".into() }),
        row: Some(row),
        heads: Heads { highest: Some((210, "K".into())), ..Heads::default() },
        group: Some(Position { next: 200, metadata: metadata(7, 5) }),
        input: Input { low: 50, high: 300, below: 93, ahead: 4, ..Input::default() },
        letters: Some(Letters { tied: 2, distinct: 2, ..Letters::default() }),
    };
    Facts {
        handler: "billing".into(),
        topic: "orders".into(),
        topic_id: "id".into(),
        letters_topic: "orders-dlt".into(),
        fingerprint: 1,
        transactional: true,
        input_partitions: 1,
        partitions: vec![partition],
        output: Some(Output { topic: "out".into(), records: 90, removed: false }),
        open: Vec::new(),
    }
}

fn at_least_once(mut facts: Facts) -> Facts {
    facts.transactional = false;
    facts
}

fn broken(break_it: impl FnOnce(&mut PartitionFacts)) -> Facts {
    let mut facts = sound();
    break_it(&mut facts.partitions[0]);
    facts
}

fn row(one: &mut PartitionFacts) -> &mut PartitionRow {
    one.row.as_mut().expect("sound facts have one")
}

fn letters_of(one: &mut PartitionFacts) -> &mut Letters {
    one.letters.as_mut().expect("sound facts have some")
}

/// Exactly these findings that are not ok, by their level, check and a part of their text.
#[track_caller]
fn check(facts: &Facts, expected: &[(Level, Check, &str)]) {
    let findings: Vec<Finding> =
        handler(facts).into_iter().filter(|finding| finding.level != Level::Ok).collect();
    assert_eq!(findings.len(), expected.len(), "{findings:#?}");
    for (finding, (level, check, part)) in findings.iter().zip(expected) {
        assert_eq!((finding.level, finding.check), (*level, *check), "{finding:?}");
        assert!(finding.line().contains(part), "{part:?} is not in {finding:?}");
        assert_eq!(
            finding.remedy.is_empty(),
            *level != Level::Error,
            "an error says what to do: {finding:?}"
        );
    }
}

#[test]
fn sound_books_agree_with_all_that_is_known() {
    let findings = handler(&sound());
    assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{findings:#?}");
    assert_eq!(findings.len(), 7, "{findings:#?}");
}

#[test]
fn books_that_do_not_balance_are_found() {
    let facts = broken(|one| row(one).books.duplicates = 6);
    check(&facts, &[(Level::Error, Check::Books, "do not balance: 97 received, 90 applied + 6")]);
}

#[test]
fn a_record_too_few_or_too_many_in_the_input_is_found() {
    for below in [92, 94] {
        let facts = broken(|one| one.input.below = below);
        check(&facts, &[(Level::Error, Check::Received, "97 received, but the input holds")]);
    }
    let less = at_least_once(broken(|one| one.input.below = 94));
    check(&less, &[(Level::Note, Check::Received, "at-least-once may count less")]);
    let more = at_least_once(broken(|one| one.input.below = 92));
    check(&more, &[(Level::Error, Check::Received, "97 received, but")]);
}

#[test]
fn what_retention_removed_or_an_operator_skipped_is_judged_only_in_part() {
    let removed = |below| {
        broken(move |one| {
            (one.input.low, one.input.below) = (110, below);
        })
    };
    check(&removed(90), &[(Level::Note, Check::Received, "removed what lay at 10 offsets from 100 on")]);
    check(&removed(82), &[(Level::Error, Check::Received, "97 received, but")]);
    check(&removed(94), &[(Level::Error, Check::Received, "97 received, but")]);
    let unread = broken(|one| {
        (one.input.low, one.input.below, row(one).books.removed_offsets) = (110, 93, 10);
    });
    check(&unread, &[]);
    let skipped = |below| {
        broken(move |one| {
            (one.input.below, row(one).books.skipped_offsets) = (below, 20);
        })
    };
    check(&skipped(110), &[(Level::Note, Check::Received, "20 offsets were skipped")]);
    check(&skipped(114), &[(Level::Error, Check::Received, "97 received, but")]);
    let compacted = broken(|one| (one.input.compacted, one.input.below) = (true, 3));
    check(&compacted, &[(Level::Note, Check::Received, "is compacted")]);
}

#[test]
fn a_letter_too_few_or_too_many_is_found() {
    let count = |tied, distinct| {
        broken(move |one| {
            (letters_of(one).tied, letters_of(one).distinct) = (tied, distinct);
        })
    };
    check(
        &count(1, 1),
        &[(Level::Error, Check::DeadLetters, "2 dead-lettered, 1 letters in orders-dlt; letters are")],
    );
    check(&count(3, 3), &[(Level::Error, Check::DeadLetters, "something else than Pawl")]);
    check(&count(2, 1), &[(Level::Error, Check::DeadLetters, "2 letters of 1 records")]);
    check(&at_least_once(count(3, 2)), &[(Level::Note, Check::DeadLetters, "may write a letter twice")]);
    check(&at_least_once(count(1, 1)), &[(Level::Error, Check::DeadLetters, "letters are missing")]);
    let gone = broken(|one| one.letters = None);
    check(&gone, &[(Level::Error, Check::DeadLetters, "there is no topic orders-dlt")]);
}

#[test]
fn letters_that_were_removed_or_came_back_are_told_apart_from_lost_ones() {
    let removed = broken(|one| {
        (letters_of(one).tied, letters_of(one).distinct, letters_of(one).low) = (1, 1, 5);
    });
    check(&removed, &[(Level::Note, Check::DeadLetters, "those below offset 5 were removed")]);
    let returned = broken(|one| {
        (letters_of(one).tied, letters_of(one).distinct, one.input.second_pass) = (2, 1, 1);
    });
    check(&returned, &[(Level::Note, Check::DeadLetters, "1 records came back")]);
    let besides = broken(|one| (letters_of(one).before, letters_of(one).elsewhere) = (3, 4));
    check(
        &besides,
        &[(Level::Note, Check::DeadLetters, "3 of records from before the books began; 4 whose")],
    );
}

#[test]
fn letters_without_an_original_are_found() {
    let missing = |compacted| {
        broken(move |one| {
            (letters_of(one).missing, letters_of(one).first_missing) = (1, Some(150));
            one.input.compacted = compacted;
        })
    };
    check(&missing(false), &[(Level::Error, Check::DeadLetters, "do not lie in orders, the first at 150")]);
    let notes = handler(&missing(true)).into_iter().filter(|finding| finding.level == Level::Note).count();
    assert_eq!(notes, 2, "with a compacted input neither can be judged");
    let beyond = |group| {
        broken(move |one| {
            (letters_of(one).beyond, letters_of(one).first_beyond) = (1, Some(250));
            one.group = group;
        })
    };
    let settled = Some(Position { next: 200, metadata: metadata(7, 5) });
    check(&beyond(settled), &[(Level::Error, Check::DeadLetters, "has not taken, the first at 250")]);
    let running = Some(Position { next: 260, metadata: metadata(7, 6) });
    check(&beyond(running), &[]);
    check(&at_least_once(beyond(settled)), &[(Level::Note, Check::DeadLetters, "before the ledger")]);
}

#[test]
fn a_claim_that_is_not_the_rows_is_found_and_a_newer_one_is_none() {
    let claim = |number: Option<i64>| {
        broken(move |one| one.claim = number.map(|number| Claim { number, instance: "b".into() }))
    };
    check(&claim(Some(9)), &[]);
    check(&claim(Some(6)), &[(Level::Error, Check::Claim, "under claim 7, but the last claim is 6")]);
    check(&claim(None), &[(Level::Error, Check::Claim, "holds no claim")]);
}

#[test]
fn offsets_beyond_the_input_are_found_and_a_foreign_key_is_noted() {
    let cut = broken(|one| one.input.high = 199);
    check(&cut, &[(Level::Error, Check::Heads, "the watermark is 200, but the input ends at 199")]);
    let head = broken(|one| one.heads.highest = Some((300, "K".into())));
    check(&head, &[(Level::Error, Check::Heads, "the key K has taken offset 300")]);
    let misplaced = broken(|one| one.heads.misplaced = Some("X".into()));
    check(&misplaced, &[(Level::Note, Check::Heads, "keys such as X")]);
}

#[test]
fn a_group_offset_beside_the_watermark_is_explained() {
    let group = |next, metadata| broken(move |one| one.group = Some(Position { next, metadata }));
    check(&group(210, metadata(7, 6)), &[]);
    check(&group(200, metadata(9, 0)), &[]);
    check(&group(199, metadata(7, 5)), &[(Level::Error, Check::Group, "not committed by one epoch")]);
    check(&group(190, metadata(7, 6)), &[(Level::Error, Check::Group, "not committed by one epoch")]);
    check(&group(190, metadata(7, 4)), &[(Level::Error, Check::Group, "not committed by one epoch")]);
    let behind = at_least_once(group(190, metadata(7, 4)));
    check(&behind, &[(Level::Note, Check::Group, "at-least-once writes it last")]);
    check(&group(190, None), &[(Level::Note, Check::Group, "set it back, which has no effect")]);
    check(&group(190, metadata(9, 0)), &[(Level::Note, Check::Group, "set it back")]);
    check(
        &group(250, None),
        &[(Level::Error, Check::Group, "somebody set it forward; the next start skips")],
    );
    let expired = broken(|one| one.group = None);
    check(&expired, &[(Level::Note, Check::Group, "it expired or was deleted")]);
    let resolved = CommitMetadata { resolved: true, ..CommitMetadata::of(9, 0) };
    check(&group(50, Some(resolved)), &[]);
}

#[test]
fn a_ledger_of_another_topic_or_of_other_settings_is_not_compared() {
    let mut facts = sound();
    facts.topic_id = "other".into();
    facts.partitions[0].input.below = 0;
    check(&facts, &[(Level::Error, Check::Ledger, "deleted and made anew")]);
    let mut facts = sound();
    facts.fingerprint = 2;
    check(&facts, &[(Level::Error, Check::Ledger, "other settings for key, null_key, event_id or sequence")]);
}

#[test]
fn partitions_that_were_added_to_the_input_are_found() {
    let mut facts = sound();
    facts.input_partitions = 3;
    check(&facts, &[(Level::Error, Check::Ledger, "orders has 3 partitions, the changelog 1")]);
}

#[test]
fn a_partition_without_a_row_has_no_books_unless_the_group_says_otherwise() {
    let without = |group| {
        let mut facts = broken(|one| (one.row, one.group) = (None, group));
        facts.output = None;
        facts
    };
    check(&without(None), &[]);
    check(&without(Some(Position { next: 0, metadata: metadata(7, 0) })), &[]);
    let lost = without(Some(Position { next: 9, metadata: metadata(7, 2) }));
    check(&lost, &[(Level::Error, Check::Books, "the changelog holds none")]);
}

#[test]
fn a_transaction_that_stays_open_is_found() {
    let open = |own| {
        let mut facts = sound();
        let waited = Duration::from_secs(45);
        facts.open = vec![OpenTransaction { topic: "c".into(), partition: 2, from: 5, to: 9, waited, own }];
        facts
    };
    check(&open(true), &[(Level::Error, Check::Transactions, "open in c[2] from offset 5 (the end is 9)")]);
    check(&open(false), &[(Level::Note, Check::Transactions, "find-hanging tells whose it is")]);
}

#[test]
fn an_output_that_holds_less_than_was_applied_is_found() {
    let output = |records, removed| {
        let mut facts = sound();
        facts.output = Some(Output { topic: "out".into(), records, removed });
        facts
    };
    check(&output(89, false), &[(Level::Error, Check::Output, "90 applied, 89 records in out")]);
    check(&output(89, true), &[(Level::Note, Check::Output, "not judged")]);
    check(&output(91, false), &[(Level::Note, Check::Output, "others write there too")]);
}

#[test]
fn parked_records_are_held_against_the_rows_that_keep_them() {
    let parked = |booked: u64, named: u64, gone: u64| {
        broken(|one| {
            let books = &mut row(one).books;
            (books.parked, books.applied) = (booked, books.applied - booked);
            (one.heads.parked, one.heads.unparked) = (named, gone);
        })
    };
    let without_output = |mut facts: Facts| {
        facts.output = None;
        facts
    };
    check(&without_output(parked(3, 3, 0)), &[]);
    let differ = "3 parked, and keys wait for a retry of 2 records";
    check(&without_output(parked(3, 2, 0)), &[(Level::Error, Check::Parked, differ)]);
    check(&without_output(at_least_once(parked(3, 2, 0))), &[(Level::Note, Check::Parked, differ)]);
    let gone = "a retry of 3 records, but the changelog has no row for 1 of them";
    check(&without_output(parked(3, 3, 1)), &[(Level::Error, Check::Parked, gone)]);
}

#[test]
fn records_that_were_parked_when_the_partition_was_rewound_are_received_beside_the_input() {
    let rewound = |parked: u64| {
        broken(|one| {
            let row = row(one);
            let letters_id = "dlt".into();
            row.rewinds.push(Rewind { number: 1, to: 100, reset: false, letters: 9, letters_id, parked });
            (row.books.received, row.books.skipped) = (99, 2);
        })
    };
    check(&rewound(2), &[]);
    check(&rewound(1), &[(Level::Error, Check::Received, "1 were parked when the partition was rewound")]);
}
