//! How an order actor takes its mail.

use actix::{ActorContext, AsyncContext, Handler};

use super::mail::{Begin, Drive, FollowOn, GiveBack, Go, Judged, Shelve, Stop, Take, Wake};
use super::{OrderActor, Place, Turn};
use crate::clock;
use crate::supervisor::Verdict;

impl Handler<Take> for OrderActor {
    type Result = ();

    fn handle(&mut self, Take(taken): Take, ctx: &mut Self::Context) {
        self.cell.pending.set(self.cell.pending.get() - 1);
        // What waited behind was let go when the drain began: a later record must not be parked in its place.
        let may_begin = self.partition.borrow().may_begin();
        if !may_begin && !self.partition.borrow().takes_in() {
            return;
        }
        let oldest_ms = self.oldest_id_ms();
        let gathers = may_begin && self.gathers(Some(&taken));
        let turn = self.cell.lane.borrow_mut().take(taken, may_begin && !gathers, oldest_ms);
        if gathers {
            self.gather(ctx);
        }
        if self.play(turn, ctx) || self.shelve() || self.settle_early(ctx) {
            self.drive(ctx);
        }
    }
}

impl Handler<Go> for OrderActor {
    type Result = ();

    fn handle(&mut self, _: Go, ctx: &mut Self::Context) {
        let attempt = self.cell.lane.borrow().running_attempt();
        let Some(attempt) = attempt.filter(|_| self.partition.borrow().may_begin()) else {
            // The place is for somebody who can use it.
            return self.leave_handler();
        };
        if self.attempt(attempt, ctx) {
            self.drive(ctx);
        }
    }
}

impl Handler<Begin> for OrderActor {
    type Result = ();

    fn handle(&mut self, _: Begin, ctx: &mut Self::Context) {
        let attempt = self.cell.lane.borrow().running_attempt();
        let Some(attempt) = attempt.filter(|_| self.partition.borrow().may_begin()) else {
            // The turn is for somebody who can use it.
            return self.leave_handler();
        };
        let place = self.pipeline.places.borrow_mut().take(&self.cell, || ctx.address());
        if place && self.attempt(attempt, ctx) {
            self.drive(ctx);
        }
    }
}

impl Handler<FollowOn> for OrderActor {
    type Result = ();

    fn handle(&mut self, _: FollowOn, ctx: &mut Self::Context) {
        self.cell.follows.set(false);
        self.following = true;
        self.drive(ctx);
        self.following = false;
    }
}

impl Handler<Judged> for OrderActor {
    type Result = ();

    fn handle(&mut self, message: Judged, ctx: &mut Self::Context) {
        match message.verdict {
            Verdict::Retry(delay) => {
                if self.park(message.attempt, message.attempt.saturating_add(1), delay) {
                    self.drive(ctx);
                }
            }
            Verdict::Hold { attempt, delay } => {
                if self.park(message.attempt, attempt, delay) {
                    self.drive(ctx);
                }
            }
            Verdict::DeadLetter(disposition) => {
                if self.dead_letter(message.attempt, disposition) {
                    self.drive(ctx);
                }
            }
            // The record stays unfinished, and the watermark before it; nothing wakes the lane.
            Verdict::Halt => self.cell.lane.borrow_mut().halt(message.attempt),
        }
    }
}

impl Handler<Wake> for OrderActor {
    type Result = ();

    fn handle(&mut self, message: Wake, ctx: &mut Self::Context) {
        if !self.partition.borrow().may_begin() {
            self.cell.lane.borrow_mut().time_has_come(message.offset, message.attempt);
            return;
        }
        let oldest_ms = self.oldest_id_ms();
        let turn = self.cell.lane.borrow_mut().wake(message.offset, message.attempt, oldest_ms);
        let Some(turn) = turn else { return };
        self.set_waiting(false);
        if self.play(turn, ctx) {
            self.drive(ctx);
        }
    }
}

impl Handler<Drive> for OrderActor {
    type Result = ();

    fn handle(&mut self, _: Drive, ctx: &mut Self::Context) {
        let (waits, running) = {
            let lane = self.cell.lane.borrow();
            (lane.waits_for().is_some(), lane.running_attempt())
        };
        self.set_waiting(waits);
        let begins = self.partition.borrow().may_begin();
        // Its time came while the partition stood still.
        let overdue = self.cell.lane.borrow().overdue(clock::now()).filter(|_| begins);
        if let Some((offset, attempt)) = overdue {
            return self.handle(Wake { offset, attempt }, ctx);
        }
        // It gave its place up while the partition stood still.
        let placeless = self.cell.place.get() == Place::None && !self.cell.calling.get();
        if let Some(attempt) = running.filter(|_| placeless && begins)
            && !self.play(Turn::Attempt(attempt), ctx)
        {
            return;
        }
        self.drive(ctx);
    }
}

impl Handler<Shelve> for OrderActor {
    type Result = ();

    fn handle(&mut self, _: Shelve, ctx: &mut Self::Context) {
        if self.partition.borrow().may_begin() && (self.shelve() || self.settle_early(ctx)) {
            self.drive(ctx);
        }
    }
}

impl Handler<GiveBack> for OrderActor {
    type Result = ();

    fn handle(&mut self, message: GiveBack, _: &mut Self::Context) {
        let may_end = self.partition.borrow().may_end();
        let waits_for_place = self.cell.place.get() == Place::Waiting;
        let given = may_end
            && self.cell.lane.borrow_mut().give_back(message.offset, message.attempt, waits_for_place);
        if given && self.cell.lane.borrow().parked_records() > 0 {
            self.head_changed();
        }
    }
}

impl Handler<Stop> for OrderActor {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
