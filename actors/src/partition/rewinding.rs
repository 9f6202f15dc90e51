//! How the owner of a partition rewinds it: what is at the handler ends as in a revocation, the last epoch is
//! committed, then one more with the rewound partition row alone, and the partition is taken anew.
//!
//! Heads are not touched: whoever reads one brings it up to date (`ledger::Rewinds`).

use actix::{AsyncContext, Context, Handler, Message};
use tokio::time::Instant;

use super::PartitionActor;
use super::actor::DRAIN_CHECK_EVERY;
use super::commands::Outcome;
use crate::aside::{Aside, Ask, Found, Want};
use crate::command::Progress;
use crate::ledger::Rewind;
use crate::record::Offset;
use crate::stats::PartitionPhase;

/// A rewind that is under way. It is not durable before its epoch is: who owns the partition next carries the
/// command out.
pub(super) struct Rewinding {
    id: String,
    command: Offset,
    to: i64,
    reset: bool,
    deadline: Instant,
    step: Step,
}

enum Step {
    /// Calls are at the handler.
    Draining,
    /// The last epoch is under way; so many parked rows stay.
    Settling { parked: u64 },
    /// The end of the dead-letter topic is asked for.
    Asking { parked: u64 },
    /// The epoch that rewinds is under way.
    Writing,
    /// The partition is taken anew.
    Over,
}

/// Where the dead-letter topic ends.
#[derive(Message)]
#[rtype(result = "()")]
struct LettersEnd(Found);

impl PartitionActor {
    /// A command to rewind; `None`: it has begun, and nothing else is taken in.
    pub(super) fn begin_rewind(
        &mut self,
        id: &str,
        command: Offset,
        (to, reset): (i64, bool),
        ctx: &mut Context<Self>,
    ) -> Option<Outcome> {
        if let Some(why) = self.why_not_rewind(to, reset) {
            return Some(Outcome::refused(why));
        }
        let deadline = Instant::now() + self.pipeline.policy.rewind_grace;
        let id = id.to_owned();
        self.state.borrow().stats().set_phase(PartitionPhase::Draining);
        // Lanes keep what they hold: the rows among it have to be counted.
        self.state.borrow_mut().drain();
        self.rewinding = Some(Rewinding { id, command, to, reset, deadline, step: Step::Draining });
        ctx.run_interval(DRAIN_CHECK_EVERY, Self::check_rewind);
        None
    }

    fn why_not_rewind(&self, to: i64, reset: bool) -> Option<String> {
        let state = self.state.borrow();
        let (position, low, began) = (state.position().0, state.low(), state.began());
        if let Some(replay) = &state.replay {
            let id = replay.id();
            return Some(format!(
                "a replay is under way here ({id}): let it end, or pawl dlt stop-replay, then ask again"
            ));
        }
        if to > position {
            return Some(format!(
                "offset {to} lies ahead: everything is handled up to {position}, and what follows comes by itself"
            ));
        }
        if to < low {
            return Some(format!("offset {to} is gone from the topic, which begins at {low}"));
        }
        if self.pipeline.policy.sequence.is_some() && to != 0 && to != began {
            return Some(format!(
                "the handler orders by sequence numbers, and those before offset {to} would not be known: it can be \
                 rewound to the beginning only, here offset {}",
                if low == 0 { 0 } else { began }
            ));
        }
        (!state.rewinds().has_room(to, reset)).then(|| {
            "too many rewinds to different offsets are remembered: rewind to an earlier one, which makes others \
             redundant"
                .to_owned()
        })
    }

    /// Goes on with a rewind.
    fn check_rewind(&mut self, ctx: &mut Context<Self>) {
        let given_up = self.is_draining();
        let Some(rewinding) = &mut self.rewinding else { return };
        match rewinding.step {
            // Its last epoch is awaited by the drain.
            _ if given_up => self.rewinding = None,
            Step::Draining => {
                let running = self.live.cells().any(|cell| cell.is_running());
                if running && Instant::now() < rewinding.deadline {
                    return;
                }
                self.state.borrow_mut().freeze();
                let to = rewinding.to;
                let parked = self.live.cells().map(|cell| cell.lane.borrow().rows_below(to)).sum();
                rewinding.step = Step::Settling { parked };
                self.live.stop_all();
            }
            Step::Settling { parked } if self.state.borrow().is_settled() => {
                rewinding.step = Step::Asking { parked };
                self.ask_where_letters_end(ctx);
            }
            Step::Writing if self.state.borrow().is_settled() => {
                rewinding.step = Step::Over;
                let state = self.state.borrow();
                (self.pipeline.rebuild)(state.partition(), state.assignment());
            }
            Step::Settling { .. } | Step::Asking { .. } | Step::Writing | Step::Over => {}
        }
    }

    fn ask_where_letters_end(&self, ctx: &Context<Self>) {
        let (state, me) = (self.state.borrow(), ctx.address());
        (self.pipeline.aside)(Want {
            topic: Aside::Letters,
            partition: state.partition(),
            assignment: state.assignment(),
            ask: Ask::High,
            // One answer.
            reply: Box::new(move |found| me.do_send(LettersEnd(found))),
        });
    }

    /// Its command was told, and counted, when it began.
    fn tell_rewind(&self, Outcome(progress, what): &Outcome) {
        let (handler, topic) = (&self.pipeline.source.handler, &self.pipeline.source.topic);
        let partition = self.state.borrow().partition();
        if *progress == Progress::Refused {
            tracing::warn!(%handler, %topic, partition = partition.0, "not rewound: {what}");
        } else {
            tracing::info!(%handler, %topic, partition = partition.0, "{what}");
        }
    }

    /// Has the epoch written that carries the command out, or refuses it.
    fn write_rewind(&mut self, found: Found) {
        let Some(Rewinding { id, command, to, reset, step, .. }) = &mut self.rewinding else { return };
        let Step::Asking { parked } = *step else { return };
        *step = Step::Writing;
        let (id, command, to, reset) = (id.clone(), *command, *to, *reset);
        let outcome = match found {
            Found::End(letters) => {
                let mut state = self.state.borrow_mut();
                let (from, number) = (state.position().0, state.rewinds().number() + 1);
                let letters_id = self.pipeline.policy.dead_letter_topic_id.to_string();
                state.rewind(Rewind { number, to, reset, letters, letters_id, parked });
                Outcome::done(told(from, to, reset, parked))
            }
            Found::Failed(why) => Outcome::refused(format!(
                "letters that are superseded could not be told from others: {why}. The partition goes on where it was"
            )),
            Found::Records { .. } => Outcome::refused("the end of the dead-letter topic was not told"),
        };
        self.tell_rewind(&outcome);
        let answer = self.answer(&id, outcome, None);
        let mut state = self.state.borrow_mut();
        if self.pipeline.policy.careful.is_some() {
            state.release();
        }
        state.commanded(command.next().0, Some(answer));
        drop(state);
        self.pipeline.open.borrow_mut().touch(&self.state);
    }
}

fn told(from: i64, to: i64, reset: bool, parked: u64) -> String {
    let states = if reset { "states were reset" } else { "states were kept" };
    let parked = if parked == 0 {
        String::new()
    } else {
        format!(", {parked} records from before wait on for their retry")
    };
    format!(
        "rewound from offset {from} to {to}: up to {} records are handled again; {states}{parked}",
        from - to
    )
}

impl Handler<LettersEnd> for PartitionActor {
    type Result = ();

    fn handle(&mut self, LettersEnd(found): LettersEnd, _: &mut Self::Context) {
        // Whoever owns the partition next carries it out.
        if self.is_draining() {
            self.rewinding = None;
        }
        self.write_rewind(found);
    }
}
