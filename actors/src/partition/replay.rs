//! A replay of a partition's dead letters, pure: which letters it is about, how many are under way, and
//! where the next owner would have to go on.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;

use crate::command::{Replay as Request, Replayed};
use crate::dead_letter::Told;
use crate::ledger::{LaneKey, Quarantine, ReplayCounts, ReplayRow};
use crate::policy::ParkingBounds;
use crate::record::{NextOffset, Offset, Record, key_text};
use crate::watermark::{Ticket, Watermark};

/// Troubles that an answer names.
const MAX_TROUBLES: usize = 10;
/// Longest of them, in bytes.
const MAX_TROUBLE: usize = 300;

/// A key, as lanes have it.
type Key = LaneKey<Bytes>;

/// What becomes of a letter that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It is not meant, or dealt with already.
    PassOver,
    /// It is the next of its key.
    Hand {
        /// Its number, if it has one.
        number: Option<u64>,
        /// The key joins with it.
        joins: bool,
    },
    /// So many letters of the key before it are gone from the topic.
    Gap(u64),
    /// It is the next of its key, but its record came again since, and is dealt with otherwise.
    Superseded {
        /// Its number.
        number: u64,
    },
}

/// What is known of a letter's key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing<'a> {
    /// Its quarantine.
    pub quarantine: Option<&'a Quarantine>,
    /// Whether its lane could take letters in.
    pub may_join: bool,
    /// Whether the letter has a mark.
    pub marked: bool,
    /// Whether the partition was rewound since, to before the letter's record.
    pub superseded: bool,
}

/// A letter that was handed to a lane.
#[derive(Clone, Copy, Debug)]
struct Handed {
    ticket: Ticket,
    bytes: u64,
    foreign: bool,
}

/// How a letter ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It took effect.
    Applied,
    /// It was a duplicate.
    Duplicate,
    /// It failed again.
    Failed,
    /// Its key left the replay before its turn came.
    Dropped,
}

/// See the module's documentation.
pub struct Replay {
    row: ReplayRow,
    request: Request,
    id: String,
    group: String,
    /// Whether another owner began it: what it saw of the topic is not known.
    resumed: bool,
    stopping: bool,
    /// Position behind the last letter that was read.
    read: i64,
    at_end: bool,
    /// Whether the end was reached once since this owner began.
    ended: bool,
    cursor: Watermark,
    waiting: VecDeque<(Record, Ticket)>,
    handed: HashMap<i64, Handed>,
    handed_bytes: u64,
    /// Keys that joined: the quarantine that they were in, and the number of the next letter.
    joined: HashMap<Key, (i64, u64)>,
    /// Keys in quarantine whose first letter was seen, and that have not joined or have left.
    seen: HashSet<Key>,
    troubles: Vec<String>,
    /// Letters that the rate allows now.
    allowance: f64,
    told: ReplayCounts,
    /// Seconds since anything happened.
    quiet: f64,
}

impl Replay {
    /// Begins, or goes on with what a row says. `end`: the end of the dead-letter topic now.
    pub fn new(row: ReplayRow, id: String, request: Request, group: &str, end: Option<i64>) -> Self {
        let group = request.filter.group.as_deref().unwrap_or(group).to_owned();
        let mut replay = Replay {
            id,
            group,
            resumed: end.is_none(),
            stopping: false,
            read: row.from,
            at_end: false,
            ended: false,
            cursor: Watermark::new(NextOffset(row.from)),
            waiting: VecDeque::new(),
            handed: HashMap::new(),
            handed_bytes: 0,
            joined: HashMap::new(),
            seen: HashSet::new(),
            troubles: Vec::new(),
            allowance: 0.0,
            told: row.counts,
            quiet: 0.0,
            request,
            row,
        };
        replay.row.to = end.unwrap_or(replay.row.to);
        replay
    }

    /// As the partition row holds it.
    pub fn row(&self) -> ReplayRow {
        ReplayRow { from: self.cursor.position().0.max(self.row.from), ..self.row.clone() }
    }

    /// The id of its command.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The offset of its command.
    pub fn command(&self) -> i64 {
        self.row.command
    }

    /// Whether it only counts.
    pub fn is_dry(&self) -> bool {
        self.request.dry_run
    }

    /// Whether it was stopped.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether letters that are gone from the topic are to be booked as lost.
    pub fn accepts_lost(&self) -> bool {
        self.request.accept_lost
    }

    /// The key that it is about, if it is about one.
    pub fn only_key(&self) -> Option<&Key> {
        self.request.filter.key.as_ref().map(|key| &key.0)
    }

    /// Whether letters of another group are meant.
    pub fn is_foreign(&self, own_group: &str) -> bool {
        self.group != own_group
    }

    /// Whether this letter was handed in by a replay of another group's letters.
    pub fn was_foreign(&self, letter: i64) -> bool {
        self.handed.get(&letter).is_some_and(|handed| handed.foreign)
    }

    /// Where to read on, if there is room for more.
    pub fn wants(&self) -> Option<i64> {
        (self.waiting.is_empty() && !self.stopping).then_some(self.read)
    }

    /// Letters that were read.
    pub fn take(&mut self, records: Vec<Record>, next: i64, at_end: bool) {
        if self.stopping {
            return;
        }
        for record in records {
            if let Some(ticket) = self.cursor.receive(record.offset) {
                self.waiting.push_back((record, ticket));
                self.quiet = 0.0;
            }
        }
        (self.read, self.at_end, self.ended) = (self.read.max(next), at_end, self.ended || at_end);
    }

    /// So much time has passed: so many more letters are allowed.
    pub fn tick(&mut self, seconds: f64) {
        self.quiet += seconds;
        if let Some(rate) = self.request.rate {
            self.allowance = (self.allowance + rate * seconds).min(rate.max(1.0));
        }
    }

    /// The next letter, if its time has come and `bounds` leave room for it.
    pub fn next(&mut self, bounds: &ParkingBounds) -> Option<(Record, Ticket)> {
        let room = (self.handed.len() as u64) < bounds.records && self.handed_bytes < bounds.bytes;
        if !room || (self.request.rate.is_some() && self.allowance < 1.0) {
            return None;
        }
        self.waiting.pop_front()
    }

    /// Whether a letter is one of the group that is meant; nothing else of it need be looked at if not.
    pub fn is_of_the_group(&self, told: &Told) -> bool {
        told.group.as_deref() == Some(&self.group)
    }

    /// Whether the key is among those whose letters are handed in.
    pub fn has_joined(&self, key: &Key) -> bool {
        self.joined.contains_key(key)
    }

    /// The letter's time has not come yet: it is the next again.
    pub fn put_back(&mut self, letter: Record, ticket: Ticket) {
        self.waiting.push_front((letter, ticket));
    }

    /// What becomes of a letter of the group.
    pub fn choose(
        &mut self,
        key: &Key,
        letter: &Record,
        told: &Told,
        known: Standing<'_>,
        own: bool,
    ) -> Choice {
        let superseded = own && known.superseded;
        match (told.place.filter(|_| own), known.quarantine) {
            (Some((began, number)), Some(quarantine)) if began == quarantine.offset && superseded => {
                self.choose_superseded(key, letter, told, number, quarantine, known.may_join)
            }
            (None, _) if superseded => Choice::PassOver,
            (Some((began, number)), Some(quarantine)) if began == quarantine.offset => {
                self.choose_numbered(key, letter, told, number, quarantine, known.may_join)
            }
            (None, None) if !known.marked && self.is_chosen(key, letter, told) => {
                Choice::Hand { number: None, joins: false }
            }
            (None, Some(_)) if !known.marked && self.is_chosen(key, letter, told) => {
                self.trouble(format!("{}: its key is in quarantine, and comes first", place(letter)));
                Choice::PassOver
            }
            // Of a quarantine that is over, or of a lane that has none any more.
            _ => Choice::PassOver,
        }
    }

    fn choose_numbered(
        &mut self,
        key: &Key,
        letter: &Record,
        told: &Told,
        number: u64,
        quarantine: &Quarantine,
        may_join: bool,
    ) -> Choice {
        let mine = quarantine.replay == Some(self.row.command);
        let hand = |joins| Choice::Hand { number: Some(number), joins };
        // Another quarantine has begun since.
        if self.joined.get(key).is_some_and(|(began, _)| *began != quarantine.offset) {
            self.joined.remove(key);
        }
        if let Some((_, next)) = self.joined.get_mut(key) {
            return match number.cmp(next) {
                std::cmp::Ordering::Less => Choice::PassOver,
                std::cmp::Ordering::Equal => {
                    *next += 1;
                    hand(false)
                }
                std::cmp::Ordering::Greater => Choice::Gap(number - *next),
            };
        }
        if number < quarantine.first || number >= quarantine.next || self.seen.contains(key) {
            return Choice::PassOver;
        }
        let missing = number - quarantine.first;
        if missing > 0 && self.resumed && !mine {
            return Choice::PassOver;
        }
        if missing > 0 {
            let meant = mine || self.names(key);
            return if meant { Choice::Gap(missing) } else { Choice::PassOver };
        }
        if mine || self.is_chosen(key, letter, told) {
            if may_join {
                self.joined.insert(key.clone(), (quarantine.offset, number + 1));
                return hand(true);
            }
            self.trouble(format!("{}: its key is paused, or its lane is not free", place(letter)));
        }
        self.seen.insert(key.clone());
        Choice::PassOver
    }

    /// A letter whose record came again. Of a quarantine that began before the rewind it has its number, and its
    /// turn; another one that began with the same record since has numbers of its own.
    fn choose_superseded(
        &mut self,
        key: &Key,
        letter: &Record,
        told: &Told,
        number: u64,
        quarantine: &Quarantine,
        may_join: bool,
    ) -> Choice {
        if number >= quarantine.before {
            return Choice::PassOver;
        }
        let joined = self.joined.get(key).copied();
        match self.choose_numbered(key, letter, told, number, quarantine, may_join) {
            Choice::Hand { .. } if self.is_dry() => Choice::PassOver,
            Choice::Hand { .. } => {
                // Until it is known to be dealt with it may be looked at again.
                match joined {
                    Some(joined) => drop(self.joined.insert(key.clone(), joined)),
                    None => drop(self.joined.remove(key)),
                }
                Choice::Superseded { number }
            }
            other => other,
        }
    }

    /// The next letter of the key is dealt with.
    pub fn step_over(&mut self, key: &Key) {
        if let Some((_, next)) = self.joined.get_mut(key) {
            *next += 1;
        }
    }

    /// Whether the filter is about the key, whatever its letters say.
    fn names(&self, key: &Key) -> bool {
        self.request.filter.key.as_ref().is_none_or(|only| only.means(key))
    }

    fn is_chosen(&self, key: &Key, letter: &Record, told: &Told) -> bool {
        letter.offset.0 < self.row.to && self.names(key) && self.request.filter.fits(letter, told)
    }

    /// The letter is not handed in.
    pub fn pass_over(&mut self, ticket: Ticket) {
        self.row.counts.passed_over += 1;
        self.cursor.finish(ticket);
    }

    /// Others write into the topic too.
    pub fn leave_out(&mut self, ticket: Ticket) {
        self.cursor.finish(ticket);
    }

    /// A letter is only counted.
    pub fn count(&mut self, ticket: Ticket) {
        self.row.counts.applied += 1;
        self.cursor.finish(ticket);
    }

    /// Letters of the key before this one are gone, and the replay is over for it, unless that was accepted:
    /// then the key goes on with the letter of this `number`.
    pub fn gap(&mut self, key: &Key, letter: &Record, missing: u64, accepted: Option<(i64, u64)>) {
        self.row.counts.gaps += 1;
        let of = if missing == 1 { "1 letter".to_owned() } else { format!("{missing} letters") };
        let what = if accepted.is_some() { "booked as lost" } else { "see pawl dlt replay --accept-lost" };
        self.trouble(format!("{}: {of} of its key before it gone from the topic; {what}", place(letter)));
        match accepted {
            Some((began, number)) => drop(self.joined.insert(key.clone(), (began, number + 1))),
            None => {
                self.joined.remove(key);
                self.seen.insert(key.clone());
            }
        }
    }

    /// The letter goes to its lane.
    pub fn hand(&mut self, letter: &Record, ticket: Ticket, foreign: bool) {
        let bytes = letter.size() as u64;
        self.handed.insert(letter.offset.0, Handed { ticket, bytes, foreign });
        self.handed_bytes += bytes;
        self.allowance -= 1.0;
    }

    /// What became of a letter; one that this replay did not hand in is no matter of it.
    pub fn finish(&mut self, letter: i64, fate: Fate) {
        let Some(handed) = self.handed.remove(&letter) else { return };
        self.handed_bytes -= handed.bytes;
        self.cursor.finish(handed.ticket);
        self.quiet = 0.0;
        let counts = &mut self.row.counts;
        match fate {
            Fate::Applied => counts.applied += 1,
            Fate::Duplicate => counts.duplicates += 1,
            Fate::Failed => counts.failed += 1,
            Fate::Dropped => {}
        }
    }

    /// The key is over: all its letters are dealt with, or one failed again.
    pub fn leave(&mut self, key: &Key) {
        if self.joined.remove(key).is_some() {
            self.seen.insert(key.clone());
        }
    }

    /// Notes what a person has to know.
    pub fn trouble(&mut self, mut text: String) {
        if self.troubles.len() < MAX_TROUBLES {
            text.truncate(text.floor_char_boundary(MAX_TROUBLE));
            self.troubles.push(text);
        }
    }

    /// No further letter begins. Keys that have joined.
    pub fn stop(&mut self) -> Vec<Key> {
        self.stopping = true;
        for (_, ticket) in std::mem::take(&mut self.waiting) {
            self.cursor.finish(ticket);
        }
        let keys: Vec<Key> = self.joined.drain().map(|(key, _)| key).collect();
        self.seen.extend(keys.iter().cloned());
        keys
    }

    /// Whether all is done that can be.
    pub fn is_done(&self) -> bool {
        let idle = self.waiting.is_empty() && self.handed.is_empty();
        // What followed meanwhile lies behind `to`, and may not be visible yet.
        // Keys that joined under the last owner may have their next letter anywhere.
        let read = self.ended || (self.read >= self.row.to && !self.resumed);
        idle && (self.stopping || (read && (self.joined.is_empty() || self.is_dry())))
    }

    /// Keys that wait for letters that do not come, although nothing else happens for this long.
    pub fn stuck(&self, patience: std::time::Duration) -> Vec<Key> {
        let quiet = self.at_end && self.handed.is_empty() && self.waiting.is_empty();
        let stuck = quiet && self.quiet > patience.as_secs_f64();
        if stuck { self.joined.keys().cloned().collect() } else { Vec::new() }
    }

    /// Whether the key was met.
    pub fn met(&self, key: &Key) -> bool {
        self.resumed || self.seen.contains(key) || self.joined.contains_key(key)
    }

    /// Whether it did anything since the last call.
    pub fn has_news(&mut self) -> bool {
        self.row.counts != std::mem::replace(&mut self.told, self.row.counts)
    }

    /// What it did, for whoever asked.
    pub fn replayed(&self) -> Replayed {
        let ReplayCounts { applied, duplicates, failed, passed_over, gaps } = self.row.counts;
        // As long as the topic's end is not known, what was read is all that is.
        let read = self.cursor.position().0;
        let end = if self.row.to == i64::MAX { read } else { self.row.to };
        Replayed {
            applied,
            duplicates,
            failed,
            passed_over,
            gaps,
            read: read.min(end),
            end,
            troubles: self.troubles.clone(),
        }
    }
}

/// Where a letter lies, for people.
fn place(letter: &Record) -> String {
    let Offset(offset) = letter.offset;
    let key = key_text(letter.key.as_deref());
    format!("letter {offset}, key \"{key}\"")
}
