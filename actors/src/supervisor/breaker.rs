//! A handler's breaker: tells a dependency that is down from a record that is poisoned. Pure: time is an
//! argument.
//!
//! A poisoned record fails for itself, and others succeed meanwhile. So the breaker counts keys that
//! failed in a row: whatever answer shows that the dependency is there, a refusal too, begins the count
//! anew. Error rates, which the usual breakers go by, cannot tell ten poisoned keys of a quiet topic from
//! an outage that begins.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::ledger::LaneKey;
use crate::record::{Offset, Partition};

/// When a breaker opens, and how it finds out that it may close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Different keys that must have failed in a row; 0: it never opens.
    pub keys: usize,
    /// How often an attempt is let through while it is open.
    pub probe_every: Duration,
}

/// A row of failures must last so long ...
const LASTING: Duration = Duration::from_secs(1);
/// ... or be so many times as long as there must be keys: where a thousand calls run at once, five in a
/// row may fail by chance.
const MANY: usize = 4;

/// The record that an attempt was made for.
pub type Place = (Partition, Offset);

/// A record whose attempts do not count after all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund<W> {
    /// The record.
    pub place: Place,
    /// The attempt that it is to make again.
    pub attempt: u32,
    /// Who has it.
    pub who: W,
}

/// What becomes of a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling<W> {
    /// It counts.
    Counts,
    /// It does not count, and neither do those of these records: the breaker opens.
    Opens(Vec<Refund<W>>),
    /// It does not count: the breaker is open. The attempt that is to be made again.
    Held(u32),
}

/// See the module's documentation. `W` is whoever has a record.
#[derive(Debug)]
pub struct Breaker<W> {
    keys: HashSet<(Partition, LaneKey<Bytes>)>,
    failures: usize,
    began: Option<Instant>,
    /// The first attempt of each record that failed in this row.
    attempts: HashMap<Place, (u32, W)>,
    open_since: Option<Instant>,
}

impl<W> Default for Breaker<W> {
    fn default() -> Self {
        Breaker { keys: HashSet::new(), failures: 0, began: None, attempts: HashMap::new(), open_since: None }
    }
}

impl<W: Clone> Breaker<W> {
    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.open_since.is_some()
    }

    /// Whether nothing failed since the last answer.
    pub fn is_calm(&self) -> bool {
        self.began.is_none()
    }

    /// The dependency answered, well or with a refusal. Returns for how long the breaker was open, if it was.
    pub fn answered(&mut self, now: Instant) -> Option<Duration> {
        std::mem::take(self).open_since.map(|since| now.saturating_duration_since(since))
    }

    /// An attempt at a record of this key failed in a way that another one may heal.
    pub fn failed(
        &mut self,
        policy: &BreakerPolicy,
        now: Instant,
        key: LaneKey<Bytes>,
        Refund { place, attempt, who }: Refund<W>,
    ) -> Ruling<W> {
        if policy.keys == 0 {
            return Ruling::Counts;
        }
        let first = self.attempts.get(&place).map(|(first, _)| *first);
        if self.is_open() {
            return Ruling::Held(first.unwrap_or(attempt));
        }
        let began = *self.began.get_or_insert(now);
        self.attempts.entry(place).or_insert((attempt, who));
        self.failures += 1;
        if self.keys.len() < policy.keys {
            self.keys.insert((place.0, key));
        }
        let enough = self.failures >= MANY * policy.keys || now.saturating_duration_since(began) >= LASTING;
        if self.keys.len() < policy.keys || !enough {
            self.forget_old(policy);
            return Ruling::Counts;
        }
        self.open_since = Some(now);
        let refund = |(place, (attempt, who)): (&Place, &(u32, W))| Refund {
            place: *place,
            attempt: *attempt,
            who: who.clone(),
        };
        Ruling::Opens(self.attempts.iter().map(refund).collect())
    }

    /// A few keys that fail for ever, while nothing else comes, are remembered up to a bound.
    fn forget_old(&mut self, policy: &BreakerPolicy) {
        if self.attempts.len() > MANY * policy.keys {
            self.attempts.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(key: &str) -> LaneKey<Bytes> {
        LaneKey::Key(Bytes::copy_from_slice(key.as_bytes()))
    }

    const POLICY: BreakerPolicy = BreakerPolicy { keys: 3, probe_every: Duration::from_secs(1) };

    struct Bench {
        breaker: Breaker<()>,
        start: Instant,
    }

    impl Bench {
        fn new() -> Bench {
            Bench { breaker: Breaker::default(), start: Instant::now() }
        }

        fn fails(&mut self, ms: u64, key: &str, offset: i64, attempt: u32) -> Ruling<()> {
            let now = self.start + Duration::from_millis(ms);
            let place = (Partition(0), Offset(offset));
            self.breaker.failed(&POLICY, now, named(key), Refund { place, attempt, who: () })
        }
    }

    #[test]
    fn one_poisoned_key_never_opens_it() {
        let mut bench = Bench::new();
        for n in 0..1_000 {
            let offset = i64::from(n / 8);
            assert_eq!(bench.fails(u64::from(n) * 100, "A", offset, n % 8 + 1), Ruling::Counts);
        }
        assert!(bench.breaker.attempts.len() <= MANY * POLICY.keys + 1, "what is remembered is bounded");
    }

    #[test]
    fn several_keys_without_an_answer_between_open_it_and_get_their_attempts_back() {
        let mut bench = Bench::new();
        assert_eq!(bench.fails(0, "A", 1, 1), Ruling::Counts);
        assert_eq!(bench.fails(300, "A", 1, 2), Ruling::Counts);
        assert_eq!(bench.fails(600, "B", 2, 4), Ruling::Counts);
        let Ruling::Opens(back) = bench.fails(1_000, "C", 3, 1) else { panic!("it opens") };
        let mut back: Vec<(i64, u32)> = back.iter().map(|one| (one.place.1.0, one.attempt)).collect();
        back.sort_unstable();
        assert_eq!(back, [(1, 1), (2, 4), (3, 1)]);
        assert!(bench.breaker.is_open());
        assert_eq!(bench.fails(1_100, "A", 1, 3), Ruling::Held(1), "one that was under way");
        assert_eq!(bench.fails(1_100, "D", 4, 2), Ruling::Held(2));
    }

    #[test]
    fn an_answer_between_begins_the_count_anew() {
        let mut bench = Bench::new();
        for round in 0..50 {
            let at = round * 2_000;
            assert_eq!(bench.fails(at, "A", 1, 1), Ruling::Counts);
            assert_eq!(bench.fails(at + 1_500, "B", 2, 1), Ruling::Counts);
            assert_eq!(bench.breaker.answered(bench.start), None, "it was not open");
            assert!(bench.breaker.is_calm());
        }
    }

    #[test]
    fn a_burst_opens_it_at_once_but_not_a_few_by_chance() {
        let mut bench = Bench::new();
        let rulings: Vec<Ruling<()>> = (0..12).map(|n| bench.fails(1, &n.to_string(), n, 1)).collect();
        assert!(rulings[..11].iter().all(|ruling| *ruling == Ruling::Counts), "{rulings:?}");
        assert!(matches!(&rulings[11], Ruling::Opens(back) if back.len() == 12));
    }

    #[test]
    fn it_closes_with_the_first_answer_and_tells_how_long_it_was_open() {
        let mut bench = Bench::new();
        for (n, key) in ["A", "B", "C"].into_iter().enumerate() {
            bench.fails(n as u64 * 500, key, n as i64, 1);
        }
        assert!(bench.breaker.is_open());
        let later = bench.start + Duration::from_secs(61);
        assert_eq!(bench.breaker.answered(later), Some(Duration::from_secs(60)));
        assert!(!bench.breaker.is_open());
        assert_eq!(bench.fails(62_000, "A", 0, 1), Ruling::Counts);
    }

    #[test]
    fn one_that_is_off_never_opens() {
        let mut breaker: Breaker<()> = Breaker::default();
        let off = BreakerPolicy { keys: 0, ..POLICY };
        let start = Instant::now();
        for n in 0..100 {
            let now = start + Duration::from_secs(n);
            let place = (Partition(0), Offset(n as i64));
            assert_eq!(
                breaker.failed(&off, now, named(&n.to_string()), Refund { place, attempt: 1, who: () }),
                Ruling::Counts
            );
        }
    }
}
