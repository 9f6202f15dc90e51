//! Effects that a topic refused when they were written, although they had been checked: whoever writes them
//! notes of which record they were, and the next effects of that record are a failure.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::record::{Offset, Partition};

/// Records that are remembered, at most: each is there from when a handler ends because of it until it is
/// handled again, here or, unnoticed, elsewhere.
const MAX: usize = 10_000;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct RefusedEffects {
    /// As many as there are notes: nobody waits for a lock where there are none.
    count: AtomicUsize,
    why: Mutex<BTreeMap<(Partition, Offset), String>>,
}

impl RefusedEffects {
    /// What a record emitted was refused.
    pub fn note(&self, partition: Partition, offset: Offset, why: String) {
        let mut notes = self.why.lock().expect("no holder panics");
        notes.insert((partition, offset), why);
        if notes.len() > MAX {
            notes.pop_first();
        }
        self.count.store(notes.len(), Ordering::Release);
    }

    /// Why what the record emitted before was refused, if it was; told once.
    pub fn take(&self, partition: Partition, offset: Offset) -> Option<String> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut notes = self.why.lock().expect("no holder panics");
        let why = notes.remove(&(partition, offset));
        self.count.store(notes.len(), Ordering::Release);
        why
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_told_once_and_only_of_its_record() {
        let refused = RefusedEffects::default();
        assert_eq!(refused.take(Partition(1), Offset(7)), None);
        refused.note(Partition(1), Offset(7), "too old".into());
        assert_eq!(refused.take(Partition(0), Offset(7)), None);
        assert_eq!(refused.take(Partition(1), Offset(7)).as_deref(), Some("too old"));
        assert_eq!(refused.take(Partition(1), Offset(7)), None);
    }

    #[test]
    fn notes_are_bounded() {
        let refused = RefusedEffects::default();
        for offset in 0..=MAX as i64 {
            refused.note(Partition(0), Offset(offset), String::new());
        }
        assert_eq!(refused.why.lock().expect("no holder panics").len(), MAX);
        assert!(refused.take(Partition(0), Offset(MAX as i64)).is_some(), "the newest is there");
    }
}
