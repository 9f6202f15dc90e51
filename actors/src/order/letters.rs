//! How a lane's record becomes a dead letter.

use super::OrderActor;
use crate::dead_letter::Defunct;
use crate::epoch::Letter;
use crate::outcome::Failure;
use crate::supervisor::{Disposition, Halt};

impl OrderActor {
    /// Sends the record to the dead-letter topic, with the failure that waits for its verdict; `true` if
    /// the lane is free for its next record.
    pub(super) fn dead_letter(&mut self, attempt: u32, disposition: Disposition) -> bool {
        if !self.partition.borrow().may_end() {
            return false;
        }
        let Some(failure) = self.failure.take() else { return false };
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
        let Some(done) = self.cell.lane.borrow_mut().dead_lettered(attempt) else { return false };
        self.partition.borrow_mut().dead_lettered(self.cell.lane.borrow().key.as_deref(), done.hold, letter);
        self.head_changed();
        true
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
        };
        Some(Letter {
            emit: defunct.letter(policy.dead_letter_topic.clone(), policy.max_letter_bytes),
            offset: record.offset,
            key,
            cause: match disposition {
                Disposition::Poison => format!("{}, permanent", failure.message),
                Disposition::Exhausted => format!("{}, {attempt} attempts used up", failure.message),
            },
        })
    }
}
