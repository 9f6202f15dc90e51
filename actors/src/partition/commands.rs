//! How the owner of a partition carries commands out: one after the other, each in the epoch commit that
//! carries the position behind it and the answer.

use std::rc::Rc;
use std::time::Duration;

use actix::{Addr, AsyncContext, Context, Handler, Message};

use super::PartitionActor;
use crate::aside::{Aside, Ask, Found, Want};
use crate::clock;
use crate::command::{
    ANSWER, Command, CommandError, KeyName, MAX_COMMAND, Progress, Replayed, Reply, VERSION, What,
};
use crate::effects::Emit;
use crate::ledger::LaneKey;
use crate::order::{Drive, LaneCell, OrderActor, Wake, cover};
use crate::record::{Header, Offset, Record, last_header};

/// When the next commands are asked for after they could not be read.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Commands that were read.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Commands(pub Found);

/// The target of the audit log: who asked for what, and what became of it.
const AUDIT: &str = "pawl::audit";

/// A command as the audit log tells it.
struct Asked<'a> {
    id: &'a str,
    by: &'a str,
    command: String,
}

impl Asked<'_> {
    fn by(command: &Command) -> Asked<'_> {
        let text = serde_json::to_string(&command.what).expect("a command is plain data");
        Asked { id: &command.id, by: &command.by, command: text }
    }

    fn unknown(id: &str) -> Asked<'_> {
        Asked { id, by: "", command: String::new() }
    }
}

/// What happened to a command.
pub(super) struct Outcome(pub Progress, pub String);

impl Outcome {
    pub(super) fn done(message: String) -> Outcome {
        Outcome(Progress::Done, message)
    }

    pub(super) fn refused(message: impl Into<String>) -> Outcome {
        Outcome(Progress::Refused, message.into())
    }

    fn nothing(message: String) -> Outcome {
        Outcome(Progress::Nothing, message)
    }
}

impl PartitionActor {
    /// Asks for the next commands.
    pub(super) fn await_commands(&self, ctx: &Context<Self>) {
        let (state, me) = (self.state.borrow(), ctx.address());
        (self.pipeline.aside)(Want {
            topic: Aside::Commands,
            partition: state.partition(),
            assignment: state.assignment(),
            ask: Ask::Records(state.commands()),
            // At most one answer is under way.
            reply: Box::new(move |found| me.do_send(Commands(found))),
        });
    }

    fn carry_out(&mut self, record: &Record, ctx: &mut Context<Self>) {
        let next = record.offset.next().0;
        if record.offset.0 < self.state.borrow().commands() {
            // The topic has lost its end, or was made anew: what it holds below was carried out once.
            return;
        }
        if last_header(&record.headers, ANSWER).is_some() {
            return self.state.borrow_mut().commanded(next, None);
        }
        let value = record.value.as_deref().unwrap_or_default();
        let read = if value.len() > MAX_COMMAND {
            Err(CommandError::Nameless(format!(
                "it has {} bytes, at most {MAX_COMMAND} are read",
                value.len()
            )))
        } else {
            Command::read(value)
        };
        let (id, outcome) = match read {
            Ok(command @ Command { what: What::Rewind { to, reset, .. }, .. }) => {
                let id = command.id.clone();
                let refused = self.begin_rewind(&id, record.offset, (to, reset), ctx);
                self.tell_command(record.offset, &Asked::by(&command), refused.as_ref());
                // Its position is committed by the epoch that rewinds.
                let Some(refused) = refused else { return };
                (id, Some(refused))
            }
            Ok(command) => {
                let outcome = self.obey(&command, record.offset, value, ctx);
                self.tell_command(record.offset, &Asked::by(&command), outcome.as_ref());
                (command.id, outcome)
            }
            Err(CommandError::Refused { id, why }) => {
                let outcome = Some(Outcome::refused(why));
                self.tell_command(record.offset, &Asked::unknown(&id), outcome.as_ref());
                (id, outcome)
            }
            Err(error @ CommandError::Nameless(_)) => {
                let refused = Outcome::refused(error.to_string());
                self.tell_command(record.offset, &Asked::unknown(""), Some(&refused));
                self.state.borrow_mut().commanded(next, None);
                return self.pipeline.open.borrow_mut().touch(&self.state);
            }
        };
        let answer = outcome.map(|outcome| self.answer(&id, outcome, None));
        self.state.borrow_mut().commanded(next, answer);
        self.pipeline.open.borrow_mut().touch(&self.state);
    }

    /// A line of the audit log. All that others have written goes in as texts, which the log escapes.
    fn tell_command(&self, at: Offset, Asked { id, by, command }: &Asked<'_>, outcome: Option<&Outcome>) {
        let (handler, partition) = (&*self.pipeline.source.handler, self.state.borrow().partition().0);
        let (topic, offset) = (&*self.pipeline.policy.command_topic, at.0);
        let (result, said) = match outcome {
            // Every partition is asked about a key, and one at most knows it.
            Some(Outcome(Progress::Nothing, _)) => return,
            Some(Outcome(progress, said)) => (progress.name(), said.as_str()),
            None => ("begun", ""),
        };
        let command = command.as_str();
        if result == Progress::Refused.name() {
            tracing::warn!(
                target: AUDIT, id, by, handler, topic, partition, offset, command, result, said, "command refused"
            );
        } else {
            tracing::info!(
                target: AUDIT, id, by, handler, topic, partition, offset, command, result, said, "command carried out"
            );
        }
        self.pipeline.stats.commands.add(1);
    }

    /// A line of the audit log about a command that took time: who asked was told when it began.
    pub(super) fn tell_end(&self, id: &str, Outcome(progress, said): &Outcome) {
        let (handler, partition) = (&*self.pipeline.source.handler, self.state.borrow().partition().0);
        let (result, said) = (progress.name(), said.as_str());
        if *progress == Progress::Refused {
            tracing::warn!(target: AUDIT, id, handler, partition, result, said, "command refused");
        } else {
            tracing::info!(target: AUDIT, id, handler, partition, result, said, "command ended");
        }
    }

    /// An answer as a record of the command topic.
    pub(super) fn answer(&self, id: &str, outcome: Outcome, replay: Option<Replayed>) -> Emit {
        let Outcome(progress, message) = outcome;
        let reply = Reply { version: VERSION, id: id.to_owned(), progress, message, replay };
        Emit {
            topic: self.pipeline.policy.command_topic.clone(),
            partition: Some(self.state.borrow().partition().0),
            key: None,
            value: Some(reply.written()),
            headers: vec![Header::new(ANSWER, id.as_bytes().to_vec())],
            timestamp: None,
        }
    }

    /// Carries a command out; `None`: it is under way.
    fn obey(
        &mut self,
        command: &Command,
        at: Offset,
        value: &[u8],
        ctx: &mut Context<Self>,
    ) -> Option<Outcome> {
        let carried_out = match &command.what {
            What::Replay(request) => return self.begin_replay(&command.id, request, at, value, ctx),
            What::StopReplay {} => Ok(self.stop_replay()),
            What::Discard { key, through, reason: _ } => self.discard(key, *through),
            What::Release { key, reason: _ } => self.discard(key, None),
            What::Pause { key, create } => self.pause(key, *create),
            What::Resume { key } => self.resume_key(key),
            What::Skip { key, offset, reason: _ } => self.skip(key, Offset(*offset)),
            What::SkipGap { key, to, reason: _ } => self.skip_gap(key, *to),
            What::Erase { key } => self.erase(key),
            What::Rewind { .. } => Err(Outcome::refused("a rewind is no matter of a lane")),
        };
        Some(carried_out.unwrap_or_else(|refused| refused))
    }

    /// The lane of a key that something is known of, with its actor.
    pub(super) fn known(&mut self, key: LaneKey<&[u8]>) -> Result<(Rc<LaneCell>, Addr<OrderActor>), Outcome> {
        let (cell, actor) = self.lane(key).map_err(Outcome::refused)?;
        let known = cell.pending.get() > 0 || cell.lane.borrow().is_known();
        if known { Ok((cell, actor)) } else { Err(Outcome::nothing("nothing is known of the key".into())) }
    }

    /// Has the lane's change written, and its next record begun.
    pub(super) fn changed(&self, cell: &Rc<LaneCell>, actor: &Addr<OrderActor>) {
        if cell.lane.borrow().is_sequenced() {
            cover(cell, &self.state);
        }
        if cell.lane.borrow_mut().mark_changed() {
            self.state.borrow_mut().changed(cell.clone());
        }
        self.pipeline.open.borrow_mut().touch(&self.state);
        // One for each command.
        actor.do_send(Drive);
    }

    /// Gives letters of a key up: those through a number of a quarantine, or all.
    fn discard(&mut self, key: &KeyName, through: Option<(i64, u64)>) -> Result<Outcome, Outcome> {
        let (cell, actor) = self.known(key.lane())?;
        let current = cell.lane.borrow().quarantine().map(|quarantine| quarantine.offset);
        let Some(current) = current else {
            return Err(Outcome::nothing(format!("key {key} is in no quarantine")));
        };
        if through.is_some_and(|(quarantine, _)| quarantine != current) {
            return Err(Outcome::refused(format!(
                "key {key} is in another quarantine, since offset {current}: the letter was dealt with before"
            )));
        }
        self.refuse_in_replay(key, &cell)?;
        let discarded = cell.lane.borrow_mut().discard(through.map_or(u64::MAX, |(_, number)| number));
        if discarded.letters == 0 {
            return Err(Outcome::nothing("the letter was dealt with before".into()));
        }
        self.state.borrow_mut().discarded(discarded);
        self.changed(&cell, &actor);
        let left = cell.lane.borrow().quarantine().map_or(0, |quarantine| quarantine.letters());
        let then = if left == 0 { "the key goes on".to_owned() } else { format!("{left} are left") };
        let discarded = discarded.letters;
        Ok(Outcome::done(format!("{discarded} letters of key {key} are given up; {then}")))
    }

    /// What would come between a key and a replay that is at work on it is refused.
    fn refuse_in_replay(&self, key: &KeyName, cell: &LaneCell) -> Result<(), Outcome> {
        let joined = self.state.borrow().replay.as_ref().is_some_and(|replay| replay.has_joined(&key.0));
        if joined || cell.lane.borrow().has_letters() {
            let why = format!("letters of key {key} are being replayed: pawl dlt stop-replay");
            return Err(Outcome::refused(why));
        }
        Ok(())
    }

    fn pause(&mut self, key: &KeyName, create: bool) -> Result<Outcome, Outcome> {
        let (cell, actor) = match self.known(key.lane()) {
            Err(Outcome(Progress::Nothing, _)) if create => {
                self.lane(key.lane()).map_err(Outcome::refused)?
            }
            found => found?,
        };
        self.refuse_in_replay(key, &cell)?;
        if !cell.lane.borrow_mut().pause() {
            return Ok(Outcome::done(format!("key {key} was paused already")));
        }
        self.changed(&cell, &actor);
        Ok(Outcome::done(format!("key {key} is paused; what comes for it waits in the ledger")))
    }

    fn resume_key(&mut self, key: &KeyName) -> Result<Outcome, Outcome> {
        let (cell, actor) = self.known(key.lane())?;
        let resumed = {
            let mut lane = cell.lane.borrow_mut();
            let (paused, halted) = (lane.resume(), lane.try_again());
            let waited = lane.wait_for_gap_again(clock::now());
            paused || halted || waited
        };
        if !resumed {
            return Err(Outcome::nothing(format!("key {key} is not paused")));
        }
        // One whose retry is not due yet has its timer.
        let overdue = cell.lane.borrow().overdue(clock::now());
        self.changed(&cell, &actor);
        self.go_on();
        if let Some((offset, attempt)) = overdue {
            actor.do_send(Wake { offset, attempt });
        }
        Ok(Outcome::done(format!("key {key} goes on")))
    }

    fn skip(&mut self, key: &KeyName, offset: Offset) -> Result<Outcome, Outcome> {
        let (cell, actor) = self.known(key.lane())?;
        let skipped = cell.lane.borrow_mut().skip(offset);
        let Some(skipped) = skipped else {
            let lane = cell.lane.borrow();
            let with = lane.waits_with().map_or("nothing".into(), |offset| format!("offset {offset}"));
            return Err(Outcome::refused(format!(
                "key {key} does not wait with offset {offset}, but with {with}"
            )));
        };
        self.state.borrow_mut().skipped(cell.lane.borrow().key.as_deref(), &skipped);
        self.changed(&cell, &actor);
        self.go_on();
        Ok(Outcome::done(format!("offset {offset} of key {key} is given up; the key goes on behind it")))
    }

    fn skip_gap(&mut self, key: &KeyName, to: i64) -> Result<Outcome, Outcome> {
        let (cell, actor) = self.known(key.lane())?;
        let gap = cell.lane.borrow().gap();
        match gap {
            None => return Err(Outcome::nothing(format!("key {key} waits for no number"))),
            Some((missing, lowest)) if lowest != to => {
                return Err(Outcome::refused(format!(
                    "key {key} waits for number {missing}, and goes on with {lowest}, not with {to}"
                )));
            }
            Some(_) => {}
        }
        let skipped = cell.lane.borrow_mut().skip_gap(false).unwrap_or_default();
        self.changed(&cell, &actor);
        self.go_on();
        Ok(Outcome::done(format!("{skipped} numbers of key {key} are given up; it goes on with {to}")))
    }

    fn erase(&mut self, key: &KeyName) -> Result<Outcome, Outcome> {
        let (cell, actor) = self.known(key.lane())?;
        if cell.pending.get() > 0 || !cell.lane.borrow_mut().erase() {
            return Err(Outcome::refused(
                "the key has records or letters that nobody has dealt with, or is paused: let it finish, discard or \
                 resume it first",
            ));
        }
        self.changed(&cell, &actor);
        Ok(Outcome::done(
            "state and event ids of the key are forgotten; the changelog's compaction removes their last copies"
                .into(),
        ))
    }
}

impl Handler<Commands> for PartitionActor {
    type Result = ();

    fn handle(&mut self, Commands(found): Commands, ctx: &mut Self::Context) {
        let Found::Records { records, next, .. } = found else {
            ctx.run_later(ASK_AGAIN, |partition, ctx| {
                if partition.state.borrow().takes_in() {
                    partition.await_commands(ctx);
                }
            });
            return;
        };
        let position = self.state.borrow().commands();
        let below = records.iter().filter(|record| record.offset.0 < position).count();
        if below > 0 {
            let topic = &self.pipeline.policy.command_topic;
            let partition = self.state.borrow().partition();
            tracing::warn!(
                handler = %self.pipeline.source.handler, %topic, partition = partition.0,
                "{below} commands below offset {position} are passed by: the topic has lost its end, or \
                 was made anew while this instance ran. Ask again for what was not answered"
            );
        }
        for record in &records {
            if !self.state.borrow().takes_in() {
                return;
            }
            self.carry_out(record, ctx);
        }
        // Behind markers of transactions there may be nothing for long; it need not be written for that.
        if self.state.borrow().takes_in() {
            let read = self.state.borrow().commands().max(next);
            self.state.borrow_mut().commanded(read, None);
            self.await_commands(ctx);
        }
    }
}
