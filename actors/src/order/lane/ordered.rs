//! What an operator's command does to a lane.

use super::{Lane, State, Taken};
use crate::ledger::{Parking, RecentIds};
use crate::outcome::code;
use crate::record::{Millis, Offset};

/// Letters of a quarantine that were given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discarded {
    /// How many.
    pub letters: u64,
    /// How many of them the books know: others are from before the partition was rewound.
    pub booked: u64,
}

impl Lane {
    /// Whether anything is known of the key.
    pub fn is_known(&self) -> bool {
        !self.is_empty() || self.stored || self.changed || self.carried_by > 0
    }

    /// Pauses the key; `false` if it was. What is at the handler may end.
    pub fn pause(&mut self) -> bool {
        !std::mem::replace(&mut self.head.paused, true)
    }

    /// Whether the key is paused.
    pub fn is_paused(&self) -> bool {
        self.head.paused
    }

    /// Ends a pause; `false` if there was none.
    pub fn resume(&mut self) -> bool {
        std::mem::replace(&mut self.head.paused, false)
    }

    /// Whether its record failed for good, and stays.
    pub fn is_halted(&self) -> bool {
        self.state == State::Halted
    }

    /// A record that failed for good is to be tried again, from the first attempt on; `false` if none is there.
    pub fn try_again(&mut self) -> bool {
        let halted = self.is_halted();
        if halted {
            self.pardon();
            if let Some(taken) = &mut self.current {
                taken.defect.take_if(|defect| defect.code == code::SEQUENCE_GAP);
            }
            self.state = State::Parked { attempt: 1 };
            *self.parking_mut() = Parking {
                attempt: 1,
                due: 0,
                delay: 0,
                since: 0,
                cause: String::new(),
                ..*self.parking_mut()
            };
        }
        halted
    }

    /// The attempt that a lane waits for and that is due at once, and its record.
    pub fn overdue(&self, now: Millis) -> Option<(Offset, u32)> {
        let (offset, attempt) = (self.waits_with()?, self.waits_for()?);
        (self.parking().is_none_or(|parking| parking.left(now) == 0)).then_some((offset, attempt))
    }

    /// Gives up the record of this offset, with which the lane waits; `None` if it does not.
    pub fn skip(&mut self, offset: Offset) -> Option<Taken> {
        let halted = self.is_halted() && self.current().is_some_and(|taken| taken.record.offset == offset);
        if (self.waits_with() != Some(offset) && !halted) || self.current_letter().is_some() {
            return None;
        }
        self.state = State::Idle;
        let done = self.current.take()?;
        self.finish(&done);
        Some(done)
    }

    /// Gives up the first letters of the quarantine, up to the one of this number. None if there is none, or
    /// while the lane works on them.
    pub fn discard(&mut self, through: u64) -> Discarded {
        let Some(quarantine) = self.head.quarantine.as_deref().filter(|_| self.letters == 0) else {
            return Discarded::default();
        };
        let next = through.saturating_add(1).min(quarantine.next);
        let letters = next.saturating_sub(quarantine.first);
        let booked = next.saturating_sub(quarantine.first.max(quarantine.before));
        self.letters_are_dealt_with(letters);
        Discarded { letters, booked }
    }

    /// Forgets state and event ids; `false` while the key has records or letters that nobody has dealt with.
    pub fn erase(&mut self) -> bool {
        let idle = self.is_empty() && !self.head.is_special();
        if idle {
            (self.head.state, self.head.ids) = (None, RecentIds::default());
        }
        idle
    }
}
