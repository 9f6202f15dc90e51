use bytes::Bytes;
use proptest::prelude::*;

use super::super::{IdHasher, Quarantine};
use super::*;

/// What happens to a key, or to its partition.
#[derive(Clone, Debug)]
enum Event {
    Applied,
    Parked,
    /// The record of the first parked row is finished.
    Unparked,
    DeadLettered,
    /// Its first letter is dealt with.
    Redeemed,
    /// To so many offsets before the end.
    Rewound(i64, bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => Just(Event::Applied),
        2 => Just(Event::Parked),
        1 => Just(Event::Unparked),
        2 => Just(Event::DeadLettered),
        1 => Just(Event::Redeemed),
        2 => (0i64..12, any::<bool>()).prop_map(|(back, reset)| Event::Rewound(back, reset)),
    ]
}

/// A head, and the offsets of the records in its parked rows.
#[derive(Clone, Debug, Default, PartialEq)]
struct Key {
    head: Head,
    rows: Vec<i64>,
}

impl Key {
    fn bring_up(&mut self, rewinds: &Rewinds) {
        if let Some(below) = self.head.rewind(rewinds) {
            self.rows.retain(|offset| *offset < below);
            self.head.keep_parked(self.rows.len() as u64);
        }
        assert_eq!(self.rows.len() as u64, self.head.parking.as_ref().map_or(0, |parking| parking.records()));
    }

    fn take(&mut self, event: &Event, offset: i64) {
        let head = &mut self.head;
        match event {
            Event::Applied => {
                head.ids.push(IdHasher::new([1; 16]).hash(&offset.to_be_bytes(), None, 0), 64);
                head.state = Some(Bytes::from(offset.to_string()));
                head.taken = Offset(offset);
            }
            Event::Parked => {
                head.parking.get_or_insert_default().next += 1;
                self.rows.push(offset);
                head.taken = Offset(offset);
            }
            Event::Unparked => {
                if !self.rows.is_empty() {
                    self.rows.remove(0);
                    head.parking.as_mut().expect("it has rows").advance();
                    head.parking.take_if(|parking| parking.records() == 0);
                }
            }
            Event::DeadLettered => {
                let begin = || Box::new(Quarantine::begin(Offset(offset), "422"));
                head.quarantine.get_or_insert_with(begin).next += 1;
                head.taken = Offset(offset);
            }
            Event::Redeemed => {
                if let Some(quarantine) = &mut head.quarantine {
                    quarantine.first += 1;
                }
                head.quarantine.take_if(|quarantine| quarantine.letters() == 0);
            }
            Event::Rewound(..) => {}
        }
    }
}

fn rewind(number: u64, to: i64, reset: bool) -> Rewind {
    Rewind { number, to, reset, letters: 10 * number as i64, letters_id: "dlt".into(), parked: 0 }
}

proptest! {
    /// A head that nobody reads for long is the same as one that every rewind has written.
    #[test]
    fn a_head_may_be_brought_up_to_date_as_late_as_one_likes(
        events in proptest::collection::vec(event(), 0..60),
    ) {
        let (mut eager, mut lazy) = (Key::default(), Key::default());
        let (mut all, mut kept, mut next) = (Rewinds::default(), Rewinds::default(), 0);
        for event in &events {
            if let Event::Rewound(back, reset) = event {
                next = (next - back).max(0);
                let one = rewind(all.number() + 1, next, *reset);
                all.0.push(one.clone());
                kept.push(one);
                eager.bring_up(&all);
            } else {
                lazy.bring_up(&kept);
                eager.take(event, next);
                lazy.take(event, next);
                next += 1;
            }
        }
        lazy.bring_up(&kept);
        prop_assert_eq!(&lazy, &eager);
        prop_assert_eq!(kept.number(), all.number());
        prop_assert!(lazy.head.taken < Offset(next), "what comes next is not taken for something that was there");
        prop_assert!(lazy.rows.iter().all(|offset| *offset < next));
    }

    /// Those that are left out say nothing of letters either.
    #[test]
    fn letters_are_superseded_by_what_is_left_of_the_rewinds_as_by_all(
        rewinds in proptest::collection::vec((0i64..50, any::<bool>()), 0..20),
        letter in 0i64..250,
        original in 0i64..50,
    ) {
        let (mut all, mut kept) = (Rewinds::default(), Rewinds::default());
        for (to, reset) in rewinds {
            let one = rewind(all.number() + 1, to, reset);
            all.0.push(one.clone());
            kept.push(one);
        }
        prop_assert_eq!(kept.supersede(letter, original, "dlt"), all.supersede(letter, original, "dlt"));
    }
}

#[test]
fn a_key_in_quarantine_since_before_keeps_its_letters_and_another_loses_them() {
    let mut rewinds = Rewinds::default();
    rewinds.push(rewind(1, 20, false));
    let quarantined = |offset| {
        let quarantine =
            Quarantine { next: 3, first: 1, replay: Some(1), ..Quarantine::begin(Offset(offset), "422") };
        Head { taken: Offset(30), quarantine: Some(Box::new(quarantine)), ..Head::default() }
    };
    let (mut before, mut after) = (quarantined(19), quarantined(20));
    assert_eq!((before.rewind(&rewinds), after.rewind(&rewinds)), (Some(20), Some(20)));
    assert_eq!((before.taken, after.taken), (Offset(19), Offset(19)));
    let kept = before.quarantine.expect("it began before");
    assert_eq!((kept.first, kept.next, kept.before, kept.replay), (1, 3, 3, None));
    assert_eq!(after.quarantine, None);
    let mut known = Head { rewound: 1, ..quarantined(20) };
    assert_eq!(known.rewind(&rewinds), None);
    assert_eq!(known, Head { rewound: 1, ..quarantined(20) }, "it is up to date");
}

#[test]
fn a_letter_of_a_record_that_came_again_is_superseded_in_its_own_topic_only() {
    let mut rewinds = Rewinds::default();
    rewinds.push(rewind(1, 20, false));
    for (letter, original, of, expected) in
        [(9, 20, "dlt", true), (9, 19, "dlt", false), (10, 20, "dlt", false), (9, 20, "other", false)]
    {
        assert_eq!(rewinds.supersede(letter, original, of), expected, "{letter} {original} {of}");
    }
    assert!(rewinds.letter_is_older(9, 30, 20, "dlt"), "it was written before");
    assert!(!rewinds.letter_is_older(10, 5, 20, "dlt"), "its record was parked, and failed since");
    assert!(rewinds.letter_is_older(10, 5, 20, "made anew"));
    assert!(Rewinds::default().letter_is_older(3, 19, 20, "dlt"));
}

#[test]
fn only_rewinds_that_still_say_something_fill_the_row() {
    let mut rewinds = Rewinds::default();
    for number in 1..=200 {
        assert!(rewinds.has_room(7, number % 2 == 0));
        rewinds.push(rewind(number, 7, number % 2 == 0));
    }
    assert_eq!(
        (rewinds.0.len(), rewinds.number()),
        (1, 200),
        "none says more than one to the same place with a reset"
    );
    let mut rewinds = Rewinds::default();
    for number in 1..=MAX as u64 {
        rewinds.push(rewind(number, number as i64, false));
    }
    assert!(!rewinds.has_room(100, false) && rewinds.has_room(64, false) && !rewinds.has_room(65, true));
}
