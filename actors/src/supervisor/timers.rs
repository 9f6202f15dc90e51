//! The supervisor's timers: what is due when. Pure: time is an argument.

use std::collections::BinaryHeap;

use tokio::time::Instant;

/// Things that become due, the earliest first; of two due at the same instant the one set first.
#[derive(Debug)]
pub struct Timers<T> {
    heap: BinaryHeap<Entry<T>>,
    set: u64,
}

#[derive(Debug)]
struct Entry<T> {
    due: Instant,
    number: u64,
    what: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    /// Reversed: the heap's greatest is the earliest.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Timers { heap: BinaryHeap::new(), set: 0 }
    }
}

impl<T> Timers<T> {
    /// Sets a timer.
    pub fn set(&mut self, due: Instant, what: T) {
        self.set += 1;
        self.heap.push(Entry { due, number: self.set, what });
    }

    /// Takes the next thing that is due, if any.
    pub fn take_due(&mut self, now: Instant) -> Option<T> {
        if self.heap.peek()?.due > now {
            return None;
        }
        self.heap.pop().map(|entry| entry.what)
    }

    /// Drops the timers of things that `keep` does not name.
    pub fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.heap.retain(|entry| keep(&entry.what));
    }

    /// When the next thing is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.heap.peek().map(|entry| entry.due)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn things_come_due_in_order_and_not_early() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::default();
        timers.set(at(20), "late");
        timers.set(at(10), "first");
        timers.set(at(10), "second");
        assert_eq!(timers.next_due(), Some(at(10)));
        assert_eq!(timers.take_due(at(9)), None);
        assert_eq!(timers.take_due(at(10)), Some("first"));
        assert_eq!(timers.take_due(at(10)), Some("second"));
        assert_eq!(timers.take_due(at(10)), None);
        assert_eq!(timers.take_due(at(99)), Some("late"));
        assert_eq!(timers.next_due(), None);
    }
}
