//! A record that its topic refuses for what it is: of which record of the input it is, who must be told, and
//! what the handler can do about it when it is begun anew.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pawl_actors::clock;
use pawl_actors::effects::Emit;
use pawl_actors::epoch::{Effect, Letter, PartitionEpoch};
use pawl_actors::record::{Millis, Offset, Partition};
use pawl_actors::refused::RefusedEffects;
use rdkafka::types::RDKafkaErrorCode;

use super::Writer;
use crate::kafka::attempt::RefusedRecord;
use crate::kafka::delivery::Tag;
use crate::kafka::wire::Wire;

/// Time stamps that differ by less from the clock are taken by every topic.
const SAME_TIME_MS: u64 = 60_000;

/// What topics refused, for the handler's next life.
#[derive(Debug, Default)]
pub struct Refusals {
    /// Whose effects: they become dead letters.
    pub effects: Arc<RefusedEffects>,
    noted: AtomicU64,
    told: AtomicBool,
}

impl Refusals {
    /// Whether the handler ended because of a refused record: how many records' effects are noted since that
    /// was asked the last time.
    pub fn take(&self) -> Option<u64> {
        self.told.swap(false, Ordering::AcqRel).then(|| self.noted.swap(0, Ordering::AcqRel))
    }

    fn tell(&self) {
        self.told.store(true, Ordering::Release);
    }

    fn note(&self, partition: Partition, offset: Offset, why: String) {
        self.effects.note(partition, offset, why);
        self.noted.fetch_add(1, Ordering::AcqRel);
    }
}

impl<W: Wire> Writer<W> {
    /// Notes what can be done about a refused record of an attempt that was taken back, and says which one it is
    /// of.
    pub(super) fn refuse(&self, refused: &RefusedRecord, parts: &[&PartitionEpoch]) -> String {
        let RefusedRecord { topic, partition, tag, code, why } = refused;
        let place = format!("{topic}[{partition}]");
        for number in self.parts.wire.refused_effects() {
            if let Some((of, Effect { of: Some(offset), emit })) = effect(parts, number) {
                if !is_to_blame(*code, emit) {
                    continue;
                }
                let why = format!("{place} did not take what the handler emitted: {why}");
                self.parts.refusals.note(of, *offset, why);
            }
        }
        self.parts.refusals.tell();
        let mut what = String::new();
        let input = &self.parts.topic;
        // A text takes everything.
        let _ = match tag {
            Tag::Row => write!(what, "a row of the ledger"),
            Tag::Effect(number) => match effect(parts, *number) {
                Some((of, Effect { of: Some(offset), emit })) => {
                    write!(what, "what {input}[{of}]@{offset} emitted ({} bytes)", emit.size())
                }
                _ => write!(what, "a record"),
            },
            Tag::Numbered(number) => match letter(parts, *number) {
                Some((of, Letter { emit, offset, key, cause, .. })) => write!(
                    what,
                    "the dead letter of {input}[{of}]@{offset} key \"{key}\" ({cause}; {} bytes)",
                    emit.size()
                ),
                None => write!(what, "a row of the ledger"),
            },
        };
        format!("{place} did not take {what}: {why}")
    }
}

/// Whether a record can be the cause, for a whole batch may be told one error. Where its time is that of writing
/// it is the clock that is wrong; a time of this minute is no cause either, and a record with a key is not invalid.
fn is_to_blame(code: RDKafkaErrorCode, emit: &Emit) -> bool {
    let far = |at: Millis| at.0.abs_diff(clock::now().0) > SAME_TIME_MS;
    match code {
        RDKafkaErrorCode::InvalidTimestamp => emit.timestamp.is_some_and(far),
        _ => emit.key.is_none(),
    }
}

/// The effect of this number in a step, and whose it is.
fn effect<'a>(parts: &[&'a PartitionEpoch], number: usize) -> Option<(Partition, &'a Effect)> {
    parts.iter().flat_map(|part| part.emits.iter().map(|effect| (part.partition, effect))).nth(number)
}

/// The dead letter of this number in a step, and whose it is.
fn letter<'a>(parts: &[&'a PartitionEpoch], number: usize) -> Option<(Partition, &'a Letter)> {
    parts.iter().flat_map(|part| part.letters.iter().map(|letter| (part.partition, letter))).nth(number)
}
