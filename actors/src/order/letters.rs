//! How a lane's record becomes a dead letter.

use super::OrderActor;
use crate::dead_letter::Defunct;
use crate::epoch::Letter;
use crate::outcome::{Failure, code};
use crate::supervisor::{Disposition, Halt};

impl OrderActor {
    /// Sends the record to the dead-letter topic, with the failure that waits for its verdict; `true` if
    /// the lane is free for its next record.
    pub(super) fn dead_letter(&mut self, attempt: u32, disposition: Disposition) -> bool {
        if !self.partition.borrow().may_end() {
            return false;
        }
        let Some(mut failure) = self.failure.take() else { return false };
        if let Disposition::OutOfTime(limit) = disposition {
            failure.message += &format!("; the next attempt would begin after max_elapsed ({limit:?})");
        }
        let Some(letter) = self.letter(attempt, &failure, disposition) else { return false };
        let policy = &self.pipeline.policy;
        if letter.emit.size() > policy.max_letter_bytes {
            let (bytes, topic, takes) =
                (letter.emit.size(), &policy.dead_letter_topic, policy.max_letter_bytes);
            // As with a fatal failure; a drain would wait for a verdict otherwise.
            self.cell.lane.borrow_mut().halt(attempt);
            self.pipeline.supervisor.do_send(Halt {
                reason: format!(
                    "{}: {}[{}]@{} key \"{}\": {}; its dead letter has {bytes} bytes, {topic} takes {takes}. Raise \
                     max.message.bytes of {topic}; nothing is lost, the record is delivered again",
                    self.pipeline.source.handler,
                    self.pipeline.source.topic,
                    self.partition.borrow().partition(),
                    letter.offset,
                    letter.key,
                    letter.cause
                ),
            });
            return false;
        }
        let cause = self.quarantines().then_some(&*failure.message);
        let begins = cause.is_some() && self.cell.lane.borrow().quarantine().is_none();
        let done = self.cell.lane.borrow_mut().dead_lettered(attempt, cause);
        let Some(done) = done else { return false };
        self.pipeline.stats.quarantined.add(u64::from(begins));
        self.partition.borrow_mut().dead_lettered(self.cell.lane.borrow().key.as_deref(), done.hold, letter);
        self.head_changed();
        true
    }

    /// Whether a dead letter puts the key into quarantine. Records without a usable key share a lane and
    /// nothing else: each fails for itself.
    fn quarantines(&self) -> bool {
        let lane = self.cell.lane.borrow();
        (self.pipeline.policy.quarantine && lane.key.is_some()) || lane.quarantine().is_some()
    }

    /// The record follows an earlier one of its key into the dead-letter topic, in order.
    pub(super) fn follow(&mut self) -> bool {
        let message = {
            let lane = self.cell.lane.borrow();
            let Some(quarantine) = lane.quarantine() else { return false };
            format!("its key is in quarantine since offset {}: {}", quarantine.offset, quarantine.cause)
        };
        self.failure = Some(Box::new(Failure::permanent(code::QUARANTINED, message)));
        self.dead_letter(0, Disposition::Follower)
    }

    fn letter(&self, attempt: u32, failure: &Failure, disposition: Disposition) -> Option<Letter> {
        let policy = &self.pipeline.policy;
        let key = self.key_text();
        let lane = self.cell.lane.borrow();
        let record = &lane.current()?.record;
        let defunct = Defunct {
            record,
            partition: self.partition.borrow().partition(),
            source: &self.pipeline.source,
            failure,
            attempt,
            disposition,
            number: self.quarantines().then(|| lane.quarantine().map_or(0, |quarantine| quarantine.next)),
        };
        Some(Letter {
            emit: defunct.letter(policy.dead_letter_topic.clone(), policy.max_letter_bytes),
            offset: record.offset,
            key,
            cause: match disposition {
                Disposition::Poison => format!("{}, permanent", failure.message),
                Disposition::OutOfTime(_) => format!("{}, {attempt} attempts made", failure.message),
                Disposition::Exhausted => format!("{}, {attempt} attempts used up", failure.message),
                Disposition::Follower => failure.message.clone(),
            },
        })
    }
}
