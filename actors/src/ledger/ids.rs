//! The recent event ids of a key: how a producer's duplicate is recognised.
//!
//! Held as the bytes that are stored (24 an id), so that writing a head copies them as they are
//! and a live key costs little memory. Ids are hashed with the partition's own secret: nobody who
//! can choose event ids can make two of them collide.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

const WIDTH: usize = RecentIds::WIDTH;

/// Hashes event ids and payloads with a partition's secret.
#[derive(Clone, Copy, Debug)]
pub struct IdHasher {
    key: [u8; 16],
}

/// A hashed event id with what is needed to compare and to age it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecentId {
    id: [u8; 16],
    payload: u32,
    /// Seconds since the epoch, in partition time.
    seen: u32,
}

/// Whether an event id was applied before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdMatch {
    /// Not among the recent ids.
    New,
    /// Applied before, with the same payload.
    Duplicate,
    /// Applied before with another payload: the producer contradicts itself.
    Conflict,
}

impl IdHasher {
    /// Uses the secret of a partition row.
    pub fn new(key: [u8; 16]) -> Self {
        IdHasher { key }
    }

    /// Hashes an event id and the payload that came with it. `seen_ms` is the partition time.
    pub fn hash(&self, event_id: &[u8], payload: Option<&[u8]>, seen_ms: i64) -> RecentId {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(event_id);
        let id = hasher.finish128().as_bytes();
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u8(u8::from(payload.is_some()));
        hasher.write(payload.unwrap_or_default());
        RecentId { id, payload: hasher.finish128().h1 as u32, seen: seconds(seen_ms) }
    }
}

fn seconds(ms: i64) -> u32 {
    u32::try_from(ms.max(0) / 1000).unwrap_or(u32::MAX)
}

/// The event ids that a key applied last, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecentIds {
    bytes: Vec<u8>,
}

impl RecentIds {
    /// Bytes of one id: 16 of hash, 4 of payload hash, 4 of time in seconds.
    pub const WIDTH: usize = 24;

    /// Takes stored bytes; a length that no Pawl writes is refused.
    pub fn from_stored(bytes: Vec<u8>) -> Result<Self, String> {
        if bytes.len().is_multiple_of(WIDTH) {
            Ok(RecentIds { bytes })
        } else {
            Err(format!("{} bytes of recent ids, not a multiple of {WIDTH}", bytes.len()))
        }
    }

    /// The bytes to store.
    pub fn stored(&self) -> &[u8] {
        &self.bytes
    }

    /// How many ids are held.
    pub fn len(&self) -> usize {
        self.bytes.len() / WIDTH
    }

    /// Whether no id is held.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// When the oldest and the newest were seen, in milliseconds of partition time, to the second;
    /// `None` if no id is held.
    pub fn seen_ms(&self) -> Option<(i64, i64)> {
        let seen = |chunk: &[u8]| i64::from(read_u32(&chunk[20..24])) * 1000;
        let mut chunks = self.bytes.chunks_exact(WIDTH);
        let oldest = seen(chunks.next()?);
        Some((oldest, chunks.next_back().map_or(oldest, seen)))
    }

    /// Looks an id up among those not older than `oldest_ms`.
    pub fn find(&self, id: &RecentId, oldest_ms: i64) -> IdMatch {
        let oldest = seconds(oldest_ms);
        let newest_first = self.bytes.chunks_exact(WIDTH).rev();
        for chunk in newest_first {
            if chunk[..16] == id.id && read_u32(&chunk[20..24]) >= oldest {
                let same = read_u32(&chunk[16..20]) == id.payload;
                return if same { IdMatch::Duplicate } else { IdMatch::Conflict };
            }
        }
        IdMatch::New
    }

    /// Adds an id and drops the oldest beyond `max`.
    pub fn push(&mut self, id: RecentId, max: usize) {
        if max == 0 {
            self.bytes.clear();
            return;
        }
        let keep = (max - 1) * WIDTH;
        if self.bytes.len() > keep {
            self.bytes.drain(..self.bytes.len() - keep);
        }
        if self.bytes.capacity() - self.bytes.len() < WIDTH {
            // One, then a few at a time: doubling would leave a third of what live keys hold unused.
            let more = if self.bytes.is_empty() { 1 } else { 4 };
            self.bytes.reserve_exact(more * WIDTH);
        }
        self.bytes.extend_from_slice(&id.id);
        self.bytes.extend_from_slice(&id.payload.to_le_bytes());
        self.bytes.extend_from_slice(&id.seen.to_le_bytes());
    }

    /// Drops the ids that are older than `oldest_ms`, up to the first that is not.
    pub fn expire(&mut self, oldest_ms: i64) {
        let oldest = seconds(oldest_ms);
        let dead =
            self.bytes.chunks_exact(WIDTH).take_while(|chunk| read_u32(&chunk[20..24]) < oldest).count();
        if dead > 0 {
            self.bytes.drain(..dead * WIDTH);
            self.bytes.shrink_to_fit();
        }
    }
}

fn read_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hasher() -> IdHasher {
        IdHasher::new([7; 16])
    }

    #[test]
    fn an_applied_id_is_found_and_another_payload_is_a_conflict() {
        let mut ids = RecentIds::default();
        ids.push(hasher().hash(b"e1", Some(b"a"), 5_000), 64);
        assert_eq!(ids.find(&hasher().hash(b"e1", Some(b"a"), 9_000), 0), IdMatch::Duplicate);
        assert_eq!(ids.find(&hasher().hash(b"e1", Some(b"b"), 9_000), 0), IdMatch::Conflict);
        assert_eq!(ids.find(&hasher().hash(b"e1", None, 9_000), 0), IdMatch::Conflict);
        assert_eq!(ids.find(&hasher().hash(b"e2", Some(b"a"), 9_000), 0), IdMatch::New);
    }

    #[test]
    fn the_oldest_id_makes_room_for_the_newest() {
        let mut ids = RecentIds::default();
        for n in 0..10u8 {
            ids.push(hasher().hash(&[n], None, 0), 3);
        }
        assert_eq!(ids.len(), 3);
        assert_eq!(ids.find(&hasher().hash(&[6], None, 0), 0), IdMatch::New);
        assert_eq!(ids.find(&hasher().hash(&[7], None, 0), 0), IdMatch::Duplicate);
        ids.push(hasher().hash(&[10], None, 0), 0);
        assert!(ids.is_empty(), "a bound of zero remembers nothing");
    }

    #[test]
    fn an_id_is_forgotten_with_age() {
        let mut ids = RecentIds::default();
        ids.push(hasher().hash(b"old", None, 10_000), 64);
        ids.push(hasher().hash(b"new", None, 20_000), 64);
        assert_eq!(ids.find(&hasher().hash(b"old", None, 0), 15_000), IdMatch::New);
        assert_eq!(ids.seen_ms(), Some((10_000, 20_000)));
        ids.expire(15_000);
        assert_eq!(ids.len(), 1);
        assert_eq!(ids.seen_ms(), Some((20_000, 20_000)));
        assert_eq!(RecentIds::default().seen_ms(), None);
        assert_eq!(ids.find(&hasher().hash(b"new", None, 0), 15_000), IdMatch::Duplicate);
    }

    #[test]
    fn stored_bytes_of_a_wrong_length_are_refused() {
        assert!(RecentIds::from_stored(vec![0; 25]).is_err());
        assert_eq!(RecentIds::from_stored(vec![0; 48]).expect("two ids").len(), 2);
    }
}
