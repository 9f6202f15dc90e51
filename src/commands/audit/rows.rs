//! Reading a changelog for an audit, twice: first its end, for the last partition row, then all of it,
//! for what the keys' rows say beside that row. So only the keys that have taken something at or above
//! the watermark are held, however many there are.

use std::collections::BTreeMap;

use pawl_actors::ledger::{CLAIM_KEY, ClaimRow, PARTITION_KEY, PartitionRow, RowError};
use rdkafka::message::{BorrowedMessage, Message};

use super::facts::Claim;
use super::tally::{Sorting, Taken};
use crate::commands::{Failure, progress};
use crate::exit::Exit;
use crate::kafka::topic_reader::{Bounds, Range, TopicReader};

/// Every epoch ends with the partition row, so the last one most often lies within so many offsets.
const TAIL: i64 = 10_000;

/// What the changelog says of a partition.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The last claim.
    pub claim: Option<Claim>,
    /// The last partition row and its offset.
    pub row: Option<(i64, PartitionRow)>,
    /// What was taken at that row.
    pub taken: Option<Taken>,
}

/// Reads the partitions up to what is decided.
///
/// # Errors
/// No answer, or a row that cannot be read.
pub fn read(
    reader: &TopicReader,
    topic: &str,
    bounds: &BTreeMap<i32, Bounds>,
    letters_id: &str,
    sorting: &Sorting,
) -> Result<BTreeMap<i32, Ledger>, Failure> {
    let mut ledgers: BTreeMap<i32, Ledger> =
        bounds.keys().map(|partition| (*partition, Ledger::default())).collect();
    let range = |partition: i32, from: i64| {
        let Bounds { low, stable, .. } = bounds[&partition];
        Range { partition, from: Some(from.max(low)), to: Some(stable) }
    };
    let tails = bounds.iter().map(|(partition, bounds)| range(*partition, bounds.stable - TAIL)).collect();
    pass(reader, topic, tails, &mut ledgers, |ledger, message| ledger.last(message))?;
    let rest = ledgers
        .iter()
        .filter(|(partition, ledger)| {
            ledger.row.is_none() && bounds[partition].low < bounds[partition].stable - TAIL
        })
        .map(|(partition, _)| range(*partition, 0))
        .collect();
    pass(reader, topic, rest, &mut ledgers, |ledger, message| ledger.last(message))?;
    for (partition, ledger) in &mut ledgers {
        ledger.taken = ledger.row.as_ref().map(|(_, row)| Taken::new(*partition, row, letters_id));
    }
    let all = ledgers.keys().map(|partition| range(*partition, 0)).collect();
    pass(reader, topic, all, &mut ledgers, |ledger, message| ledger.key(message, sorting))?;
    Ok(ledgers)
}

fn pass(
    reader: &TopicReader,
    topic: &str,
    ranges: Vec<Range>,
    ledgers: &mut BTreeMap<i32, Ledger>,
    each: impl Fn(&mut Ledger, &BorrowedMessage<'_>) -> Result<(), RowError>,
) -> Result<(), Failure> {
    progress::read(reader, topic, &ranges, |message| {
        let partition = message.partition();
        let ledger = ledgers.get_mut(&partition).expect("only these partitions are read");
        each(ledger, message).map_err(|error| {
            let place = format!("{topic}[{partition}]@{}", message.offset());
            Failure::new(Exit::Stopped, format!("{place}: {error}"))
        })
    })
}

impl Ledger {
    /// Keeps the last partition row.
    fn last(&mut self, message: &BorrowedMessage<'_>) -> Result<(), RowError> {
        if message.key() == Some(PARTITION_KEY) {
            let row = message.payload().map(PartitionRow::decode).transpose()?;
            self.row = row.map(|row| (message.offset(), row));
        }
        Ok(())
    }

    /// Keeps the last claim, and what keys had taken by the partition row.
    fn key(&mut self, message: &BorrowedMessage<'_>, sorting: &Sorting) -> Result<(), RowError> {
        let key = message.key().unwrap_or_default();
        if let (CLAIM_KEY, Some(value)) = (key, message.payload()) {
            let ClaimRow { instance, .. } = ClaimRow::decode(value)?;
            self.claim = Some(Claim { number: message.offset(), instance });
        }
        let row = self.row.as_ref().map(|(offset, _)| *offset);
        match &mut self.taken {
            // A row behind it belongs to an epoch that is not judged.
            Some(taken) if row.is_some_and(|row| message.offset() <= row) => {
                taken.row(key, message.payload(), sorting)
            }
            _ => Ok(()),
        }
    }
}
