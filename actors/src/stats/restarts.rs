//! What came to a bad end and was begun anew: how often, and the last times with their reasons.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use super::Counter;
use crate::record::Partition;

/// A part of Pawl that came to a bad end, and was begun anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    /// When, in milliseconds since the epoch.
    pub at: i64,
    /// Which partition was taken anew; `None`: the whole handler was.
    pub partition: Option<Partition>,
    /// Which part came to a bad end.
    pub actor: &'static str,
    /// The key that it worked on, for people.
    pub key: Option<String>,
    /// Why, for people.
    pub why: String,
}

/// Restarts that are remembered; older ones are only counted.
pub const KEPT: usize = 20;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Restarts {
    /// How often.
    pub count: Counter,
    noted: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    of: BTreeMap<Partition, u64>,
    last: VecDeque<Restart>,
}

impl Restarts {
    /// Notes one more.
    pub fn note(&self, restart: Restart) {
        self.count.add(1);
        let mut noted = self.noted.lock().expect("no holder panics");
        if let Some(partition) = restart.partition {
            *noted.of.entry(partition).or_default() += 1;
        }
        if noted.last.len() == KEPT {
            noted.last.pop_front();
        }
        noted.last.push_back(restart);
    }

    /// How often a partition was taken anew, since the process began.
    pub fn of(&self, partition: Partition) -> u64 {
        self.noted.lock().expect("no holder panics").of.get(&partition).copied().unwrap_or(0)
    }

    /// The last ones, oldest first.
    pub fn last(&self) -> Vec<Restart> {
        self.noted.lock().expect("no holder panics").last.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_the_last_ones_remembered() {
        let restarts = Restarts::default();
        let restart = |at| Restart {
            at,
            partition: (at % 2 == 0).then_some(Partition(3)),
            actor: "the order actor",
            key: None,
            why: String::new(),
        };
        (1..=50).for_each(|at| restarts.note(restart(at)));
        assert_eq!((restarts.count.get(), restarts.of(Partition(3)), restarts.of(Partition(0))), (50, 25, 0));
        let last: Vec<i64> = restarts.last().iter().map(|restart| restart.at).collect();
        assert_eq!((last.len(), last[0], last[KEPT - 1]), (KEPT, 31, 50));
    }
}
