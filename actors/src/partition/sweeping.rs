//! What a partition actor does each second: idle keys go, rows that say nothing any more are removed, and what finds
//! no room is told.

use bytes::BytesMut;

use super::{PartitionActor, Shelf};
use crate::ledger::{Head, LaneKey, lane_of};
use crate::order::{Lane, Shelve};
use crate::record::NextOffset;

impl PartitionActor {
    /// Lets idle keys go and removes rows that say nothing any more.
    pub(super) fn sweep(&mut self) {
        self.sweep += 1;
        let policy = &self.pipeline.policy;
        let committed = self.pipeline.open.borrow().committed();
        let patience = policy.idle_key_after.as_secs();
        let crowded = self.live.idle_since(self.live.len().saturating_sub(policy.max_live_keys));
        let (sweep, watermark, oldest_ms) = (self.sweep, self.committed_watermark(), self.oldest_id_ms());
        let (state, open) = (&self.state, &self.pipeline.open);
        self.live.let_go(|live| {
            let due = sweep - live.used > patience || crowded.is_some_and(|since| live.used <= since);
            if !due || !live.cell.may_go(committed) {
                return false;
            }
            let dead_row = live.cell.lane.borrow_mut().has_dead_row(watermark, oldest_ms);
            if dead_row && live.cell.lane.borrow_mut().mark_changed() {
                state.borrow_mut().changed(live.cell.clone());
                open.borrow_mut().touch(state);
            }
            !dead_row
        });
        state.borrow().stats().live_keys.set(self.live.len() as i64);
        for live in self.live.overflowing() {
            // One a second for each such lane, and none is lost that another does not follow.
            live.actor.do_send(Shelve);
        }
        self.tell_full_parking();
        self.state.borrow_mut().look_at_care();
        if let Err(reason) = self.sweep_rows(watermark, oldest_ms) {
            self.halt(reason);
        }
    }

    /// Says whether lanes wait that found no room in the ledger, and which keys fill it.
    fn tell_full_parking(&self) {
        let (state, source) = (self.state.borrow(), &self.pipeline.source);
        let first = self.live.overflowing().next().and_then(|live| live.cell.overflows.borrow().clone());
        let why = first.map(|why| {
            let Shelf { records, bytes } = state.shelf();
            let mut fullest: Vec<_> = self.live.cells().filter_map(|cell| cell.parked()).collect();
            fullest.sort_by(|(a, _), (b, _)| b.cmp(a));
            let keys: Vec<_> =
                fullest.iter().take(3).map(|(records, key)| format!("key \"{key}\" ({records})")).collect();
            format!(
                "keys wait with records that cannot be parked, and hold the partition's offset: {why}. Parked are \
                 {records} records with {bytes} bytes, most of {}",
                if keys.is_empty() { "no key".to_owned() } else { keys.join(", ") }
            )
        });
        if state.stats().set_parking_full(why.clone()) {
            let (handler, partition) = (&source.handler, state.partition());
            let topic = &source.topic;
            tracing::warn!(%handler, %topic, partition = partition.0, "{}", why.unwrap_or_default());
        }
    }

    /// Looks at the next stored heads of keys that nobody holds.
    fn sweep_rows(&mut self, watermark: NextOffset, oldest_ms: i64) -> Result<(), String> {
        let partition = self.state.borrow().partition();
        let limit = self.pipeline.policy.sweep_rows_per_second;
        let rows = self
            .pipeline
            .view
            .scan(partition, self.swept_to.as_deref(), limit)
            .map_err(|error| format!("the local view of the ledger cannot be used: {error}"))?;
        self.swept_to = (rows.len() == limit).then(|| rows.last().map(|(key, _)| key.clone())).flatten();
        for (row_key, value) in rows {
            let Some(key) = lane_of(&row_key) else { continue };
            if self.live.get_mut(key).is_some() {
                continue;
            }
            if self.is_dead(&value, watermark, oldest_ms)?
                && self.is_dead_still(&row_key, watermark, oldest_ms)?
            {
                self.state.borrow_mut().write_row(Head::tombstone(key, &mut BytesMut::new()));
                self.pipeline.open.borrow_mut().touch(&self.state);
            }
        }
        Ok(())
    }

    /// Judges the newest row: the scanned one may have been replaced.
    fn is_dead_still(&self, row_key: &[u8], watermark: NextOffset, oldest_ms: i64) -> Result<bool, String> {
        let newest = self.pipeline.view.get(self.state.borrow().partition(), row_key);
        match newest.map_err(|error| error.to_string())? {
            Some(row) => self.is_dead(&row, watermark, oldest_ms),
            None => Ok(false),
        }
    }

    fn is_dead(&self, row: &[u8], watermark: NextOffset, oldest_ms: i64) -> Result<bool, String> {
        let mut head = Head::decode(row).map_err(|error| error.to_string())?;
        head.rewind(self.state.borrow().rewinds());
        Ok(Lane::new(LaneKey::Unusable, Some(head)).has_dead_row(watermark, oldest_ms))
    }

    fn committed_watermark(&self) -> NextOffset {
        NextOffset(self.state.borrow().stats().watermark.get())
    }

    fn oldest_id_ms(&self) -> i64 {
        let age = i64::try_from(self.pipeline.policy.recent_ids_age.as_millis()).unwrap_or(i64::MAX);
        self.state.borrow().partition_time().saturating_sub(age)
    }
}
