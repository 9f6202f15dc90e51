//! How a lane's record becomes a dead letter, and what becomes of one that is replayed.

use actix::{AsyncContext, Context};
use bytes::BytesMut;

use super::{Hold, OrderActor, Taken};
use crate::dead_letter::Defunct;
use crate::epoch::Letter;
use crate::ledger::{LaneKey, mark_row};
use crate::outcome::{Failure, code};
use crate::policy::Then;
use crate::record::{KeyDisplay, hex, key_text};
use crate::stats::PartitionPhase;
use crate::supervisor::{Disposition, Gather, Halt};
use crate::trace::Trace;

/// What people are told of a record's key: its own, or that of its lane where that is another or none.
pub(super) fn shown<'a>(record: Option<&'a [u8]>, lane: LaneKey<&'a [u8]>) -> LaneKey<&'a [u8]> {
    match lane {
        LaneKey::NoKey(_) => lane,
        LaneKey::Unusable | LaneKey::Key(_) => record.map_or(lane, LaneKey::Key),
    }
}

impl OrderActor {
    /// Sends the record to the dead-letter topic, with the failure that waits for its verdict; `true` if
    /// the lane is free for its next record.
    pub(super) fn dead_letter(&mut self, attempt: u32, disposition: Disposition) -> bool {
        if !self.partition.borrow().may_end() {
            return false;
        }
        if self.cell.lane.borrow().current_letter().is_some() {
            return self.letter_failed(attempt);
        }
        let Some(mut failure) = self.failure.take() else { return false };
        if let Disposition::OutOfTime(limit) = disposition {
            failure.message += &format!("; the next attempt would begin after max_elapsed ({limit:?})");
        }
        // What follows an earlier letter, or comes after its gap was given up, is decided on already.
        let decided = matches!(disposition, Disposition::Follower | Disposition::SequenceLate);
        if self.pipeline.policy.then == Then::Halt && !decided {
            self.stand_still(attempt, &failure);
            return false;
        }
        let letter = {
            let lane = self.cell.lane.borrow();
            let Some(current) = lane.current() else { return false };
            self.letter(current, attempt, &failure, disposition)
        };
        if !self.fits(&letter) {
            // As with a fatal failure; a drain would wait for a verdict otherwise.
            self.cell.lane.borrow_mut().halt(attempt);
            return false;
        }
        let cause = self.quarantines(disposition).then_some(&*failure.message);
        let begins = cause.is_some() && self.cell.lane.borrow().quarantine().is_none();
        let done = self.cell.lane.borrow_mut().dead_lettered(attempt, cause);
        let Some(done) = done else { return false };
        self.pipeline.stats.quarantined.add(u64::from(begins));
        let mut partition = self.partition.borrow_mut();
        partition.traced(letter.trace);
        // What comes next may become a letter without an attempt of its own.
        self.trace = None;
        partition.dead_lettered(self.cell.lane.borrow().key.as_deref(), &done, letter);
        drop(partition);
        self.head_changed();
        true
    }

    /// The record stays where it is, and so does its partition, until an operator has decided.
    fn stand_still(&mut self, attempt: u32, failure: &Failure) {
        let source = &self.pipeline.source;
        let (key, which) = (self.key_text(), self.key_argument());
        let (partition, offset) = {
            let lane = self.cell.lane.borrow();
            let offset = lane.current().map_or(0, |taken| taken.record.offset.0);
            (self.partition.borrow().partition(), offset)
        };
        self.cell.lane.borrow_mut().halt(attempt);
        let why = format!(
            "key \"{key}\" at offset {offset}: {} (attempt {attempt}). Mend the cause, then: pawl keys resume {which}; or \
             give the record up: pawl keys skip {which} --offset {offset} --reason ...",
            failure.message
        );
        tracing::error!(
            handler = %source.handler, topic = %source.topic, partition = partition.0, offset, key, attempt,
            code = failure.code, trace_id = Trace::trace_field(self.trace), span_id = Trace::span_field(self.trace),
            "the partition stands still: {why}"
        );
        self.stop_partition(why);
    }

    /// How the command line names the lane.
    pub(super) fn key_argument(&self) -> String {
        let lane = self.cell.lane.borrow();
        if KeyDisplay::get() != KeyDisplay::Shown && lane.key.is_key() {
            return "KEY".into();
        }
        let key = match lane.key.as_deref() {
            LaneKey::Unusable => return "--no-key".into(),
            LaneKey::NoKey(lane) => return format!("--no-key-lane {lane}"),
            LaneKey::Key(key) => key,
        };
        let plain = |text: &&str| text.chars().all(|c| c.is_alphanumeric() || "-_.:/@+".contains(c));
        match std::str::from_utf8(key).ok().filter(|text| !text.starts_with('-')).filter(plain) {
            Some(text) => text.to_owned(),
            None => {
                format!("--key-hex {}", hex(key))
            }
        }
    }

    /// No record of the partition begins until an operator has decided.
    pub(super) fn stop_partition(&self, why: String) {
        if self.partition.borrow_mut().stop() {
            let state = self.partition.borrow();
            state.stats().set_stopped(Some(why));
            state.stats().set_phase(PartitionPhase::Stopped);
        }
    }

    /// Whether a dead letter puts the key into quarantine, or it is in one. Records without a key, or without one
    /// that can be used, share a lane and nothing else: each fails for itself. What comes late was given up before: nothing that is still
    /// to come depends on it.
    fn quarantines(&self, disposition: Disposition) -> bool {
        let lane = self.cell.lane.borrow();
        let begins = self.pipeline.policy.then == Then::Quarantine && lane.key.is_key();
        (begins && disposition != Disposition::SequenceLate) || lane.quarantine().is_some()
    }

    /// Whether the lane's next record, or this one that comes, only gathers with others that follow. A replay
    /// has to find the lane free.
    pub(super) fn gathers(&self, comes: Option<&Taken>) -> bool {
        !self.following
            && !self.pipeline.policy.followers_gather.is_zero()
            && self.cell.lane.borrow().is_followed(comes)
            && self.partition.borrow().replay.is_none()
    }

    /// See [`OrderActor::gathers`].
    pub(super) fn gather(&self, ctx: &Context<Self>) {
        if self.pipeline.followers.borrow_mut().add(&self.cell, || ctx.address()) {
            self.pipeline.supervisor.do_send(Gather);
        }
    }

    /// The record follows an earlier one of its key into the dead-letter topic, in order.
    pub(super) fn follow(&mut self) -> bool {
        self.failure = Some(Box::new(self.why_it_follows()));
        self.dead_letter(0, Disposition::Follower)
    }

    /// A record that came while the lane works on letters follows behind the last of them.
    pub(super) fn follow_past(&mut self, taken: Taken) {
        let failure = self.why_it_follows();
        let letter = self.letter(&taken, 0, &failure, Disposition::Follower);
        if !self.partition.borrow().may_end() || !self.fits(&letter) {
            return;
        }
        self.cell.lane.borrow_mut().follow_past(taken.record.offset);
        self.partition.borrow_mut().dead_lettered(self.cell.lane.borrow().key.as_deref(), &taken, letter);
        self.head_changed();
    }

    fn why_it_follows(&self) -> Failure {
        let lane = self.cell.lane.borrow();
        let why = lane.quarantine().map_or_else(String::new, |quarantine| {
            format!("its key is in quarantine since offset {}: {}", quarantine.offset, quarantine.cause)
        });
        Failure::permanent(code::QUARANTINED, why)
    }

    /// Whether the dead-letter topic takes a letter; the handler ends if it does not.
    fn fits(&self, letter: &Letter) -> bool {
        let policy = &self.pipeline.policy;
        let (bytes, topic, takes) = (letter.emit.size(), &policy.dead_letter_topic, policy.max_letter_bytes);
        if bytes > takes {
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
        }
        bytes <= takes
    }

    /// A letter that a replay handed in failed again: no other is written, it stays the key's first.
    fn letter_failed(&mut self, attempt: u32) -> bool {
        let Some(failure) = self.failure.take() else { return false };
        let trace = self.trace.take();
        let letters = self.cell.lane.borrow_mut().letter_failed(attempt, &failure.message);
        let Some(letters) = letters else { return false };
        let lane = self.cell.lane.borrow();
        let key = key_text(lane.key.as_deref());
        let why = format!("key \"{key}\": {} (attempt {attempt})", failure.message);
        let source = &self.pipeline.source;
        tracing::warn!(
            handler = %source.handler, topic = %source.topic, partition = self.partition.borrow().partition().0, key,
            letter = letters[0], attempt, code = failure.code, trace_id = Trace::trace_field(trace),
            span_id = Trace::span_field(trace), "replay: {}; the letter stays", failure.message
        );
        self.partition.borrow_mut().letter_failed(lane.key.as_deref(), &letters, why);
        drop(lane);
        self.head_changed();
        true
    }

    /// A letter took effect, or was a duplicate. Without a number it leaves a mark: nothing else would tell that
    /// it was dealt with.
    pub(super) fn letter_is_done(&self, hold: Hold) {
        let Hold::Letter { offset, number } = hold else { return };
        if number.is_none() {
            let row = mark_row(offset, &self.pipeline.policy.dead_letter_topic_id, &mut BytesMut::new());
            self.partition.borrow_mut().mark(offset, row);
        }
        let lane = self.cell.lane.borrow();
        if number.is_some() && lane.quarantine().is_none() {
            self.partition.borrow_mut().key_is_live(lane.key.as_deref());
            let (handler, key) = (&self.pipeline.source.handler, self.key_text());
            tracing::info!(%handler, key, "all letters of the key are replayed; it goes on");
        }
    }

    fn letter(&self, taken: &Taken, attempt: u32, failure: &Failure, disposition: Disposition) -> Letter {
        let policy = &self.pipeline.policy;
        let lane = self.cell.lane.borrow();
        let record = &taken.record;
        let place = self.quarantines(disposition).then(|| {
            let began = lane.quarantine().map_or(record.offset.0, |quarantine| quarantine.offset);
            (began, lane.quarantine().map_or(0, |quarantine| quarantine.next))
        });
        let defunct = Defunct {
            record,
            partition: self.partition.borrow().partition(),
            source: &self.pipeline.source,
            failure,
            attempt,
            disposition,
            place,
        };
        Letter {
            emit: defunct.letter(policy.dead_letter_topic.clone(), policy.max_letter_bytes),
            offset: record.offset,
            attempt,
            trace: self.trace.filter(|_| attempt > 0),
            key: key_text(shown(record.key.as_deref(), lane.key.as_deref())),
            cause: match disposition {
                Disposition::Poison => format!("{}, permanent", failure.message),
                Disposition::OutOfTime(_) => format!("{}, {attempt} attempts made", failure.message),
                Disposition::Exhausted => format!("{}, {attempt} attempts used up", failure.message),
                Disposition::Follower | Disposition::SequenceGap | Disposition::SequenceLate => {
                    failure.message.clone()
                }
            },
        }
    }
}
