//! How the owner of a partition carries commands out: one after the other, each in the epoch commit that
//! carries the position behind it and the answer.

use std::rc::Rc;
use std::time::Duration;

use actix::{Addr, AsyncContext, Context, Handler, Message};

use super::PartitionActor;
use crate::aside::{Aside, Ask, Found, Want};
use crate::clock;
use crate::command::{ANSWER, Command, CommandError, KeyName, Progress, Replayed, Reply, VERSION, What};
use crate::effects::Emit;
use crate::order::{Drive, LaneCell, OrderActor, Wake, cover};
use crate::record::{Header, Offset, Record, last_header};

/// Longest command, in bytes: the partition row has to hold one that takes time.
const MAX_COMMAND: usize = 16 * 1024;

/// When the next commands are asked for after they could not be read.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Commands that were read.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Commands(pub Found);

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
            Ok(command) => {
                let outcome = self.obey(&command, record.offset, value, ctx);
                let by = &command.by;
                self.tell_command(record.offset, &format!("{by} asked for {:?}: ", command.what), &outcome);
                (command.id, outcome)
            }
            Err(CommandError::Refused { id, why }) => {
                let outcome = Some(Outcome::refused(why));
                self.tell_command(record.offset, "", &outcome);
                (id, outcome)
            }
            Err(error @ CommandError::Nameless(_)) => {
                self.tell_command(record.offset, "", &Some(Outcome::refused(error.to_string())));
                self.state.borrow_mut().commanded(next, None);
                return self.pipeline.open.borrow_mut().touch(&self.state);
            }
        };
        let answer = outcome.map(|outcome| self.answer(&id, outcome, None));
        self.state.borrow_mut().commanded(next, answer);
        self.pipeline.open.borrow_mut().touch(&self.state);
    }

    fn tell_command(&self, at: Offset, asked: &str, outcome: &Option<Outcome>) {
        let (handler, partition) = (&self.pipeline.source.handler, self.state.borrow().partition());
        let topic = &self.pipeline.policy.command_topic;
        match outcome {
            Some(Outcome(Progress::Nothing, _)) => return,
            Some(Outcome(Progress::Refused, why)) => {
                tracing::warn!("{handler}: {topic}[{partition}]@{at}: {asked}refused: {why}");
            }
            Some(Outcome(_, what)) => tracing::info!("{handler}: {topic}[{partition}]@{at}: {asked}{what}"),
            None => tracing::info!("{handler}: {topic}[{partition}]@{at}: {asked}begun"),
        }
        self.pipeline.stats.commands.add(1);
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
        Some(match &command.what {
            What::Replay(request) => return self.begin_replay(&command.id, request, at, value, ctx),
            What::StopReplay {} => self.stop_replay(),
            What::Discard { key, through, reason: _ } => {
                self.discard(key, through.map(|(quarantine, number)| (Some(quarantine), number)))
            }
            What::Release { key, reason: _ } => self.discard(key, Some((None, u64::MAX - 1))),
            What::Pause { key, create } => self.pause(key, *create),
            What::Resume { key } => self.resume_key(key),
            What::Skip { key, offset, reason: _ } => self.skip(key, Offset(*offset)),
            What::SkipGap { key, to, reason: _ } => self.skip_gap(key, *to),
            What::Erase { key } => self.erase(key),
        })
    }

    /// The lane of a key that something is known of, with its actor.
    pub(super) fn known(&mut self, key: Option<&[u8]>) -> Result<(Rc<LaneCell>, Addr<OrderActor>), Outcome> {
        let (cell, actor) = self.lane(key).map_err(Outcome::refused)?;
        let known = cell.pending.get() > 0 || cell.lane.borrow().is_known();
        if known { Ok((cell, actor)) } else { Err(Outcome::nothing("nothing is known of the key".into())) }
    }

    /// Has the lane's change written, and its next record begun.
    fn changed(&self, cell: &Rc<LaneCell>, actor: &Addr<OrderActor>) {
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
    fn discard(&mut self, key: &KeyName, through: Option<(Option<i64>, u64)>) -> Outcome {
        let (cell, actor) = match self.known(key.bytes()) {
            Ok(found) => found,
            Err(outcome) => return outcome,
        };
        let (quarantine, through) = through.unwrap_or((None, u64::MAX - 1));
        let current = cell.lane.borrow().quarantine().map(|quarantine| quarantine.offset);
        let Some(current) = current else {
            return Outcome::nothing(format!("key {key} is in no quarantine"));
        };
        if quarantine.is_some_and(|asked| asked != current) {
            return Outcome::refused(format!(
                "key {key} is in another quarantine, since offset {current}: the letter was dealt with before"
            ));
        }
        if self.is_replaying(key, &cell) {
            return Outcome::refused(format!(
                "letters of key {key} are being replayed: pawl dlt stop-replay"
            ));
        }
        let discarded = cell.lane.borrow_mut().discard(through);
        if discarded == 0 {
            return Outcome::nothing("the letter was dealt with before".into());
        }
        self.state.borrow_mut().discarded(discarded);
        self.changed(&cell, &actor);
        let left = cell.lane.borrow().quarantine().map_or(0, |quarantine| quarantine.letters());
        let then = if left == 0 { "the key goes on".to_owned() } else { format!("{left} are left") };
        Outcome::done(format!("{discarded} letters of key {key} are given up; {then}"))
    }

    /// Whether a replay is at work on the key.
    fn is_replaying(&self, key: &KeyName, cell: &LaneCell) -> bool {
        let joined = self.state.borrow().replay.as_ref().is_some_and(|replay| replay.has_joined(&key.0));
        joined || cell.lane.borrow().has_letters()
    }

    fn pause(&mut self, key: &KeyName, create: bool) -> Outcome {
        let found = match self.known(key.bytes()) {
            Err(Outcome(Progress::Nothing, _)) if create => self.lane(key.bytes()).map_err(Outcome::refused),
            found => found,
        };
        let (cell, actor) = match found {
            Ok(found) => found,
            Err(outcome) => return outcome,
        };
        if self.is_replaying(key, &cell) {
            return Outcome::refused(format!(
                "letters of key {key} are being replayed: pawl dlt stop-replay"
            ));
        }
        if !cell.lane.borrow_mut().pause() {
            return Outcome::done(format!("key {key} was paused already"));
        }
        self.changed(&cell, &actor);
        Outcome::done(format!("key {key} is paused; what comes for it waits in the ledger"))
    }

    fn resume_key(&mut self, key: &KeyName) -> Outcome {
        let (cell, actor) = match self.known(key.bytes()) {
            Ok(found) => found,
            Err(outcome) => return outcome,
        };
        let resumed = {
            let mut lane = cell.lane.borrow_mut();
            let (paused, halted) = (lane.resume(), lane.try_again());
            let waited = lane.wait_for_gap_again(clock::now());
            paused || halted || waited
        };
        if !resumed {
            return Outcome::nothing(format!("key {key} is not paused"));
        }
        // One whose retry is not due yet has its timer.
        let overdue = cell.lane.borrow().overdue(clock::now());
        self.changed(&cell, &actor);
        self.go_on();
        if let Some((offset, attempt)) = overdue {
            actor.do_send(Wake { offset, attempt });
        }
        Outcome::done(format!("key {key} goes on"))
    }

    fn skip(&mut self, key: &KeyName, offset: Offset) -> Outcome {
        let (cell, actor) = match self.known(key.bytes()) {
            Ok(found) => found,
            Err(outcome) => return outcome,
        };
        let skipped = cell.lane.borrow_mut().skip(offset);
        let Some(skipped) = skipped else {
            let lane = cell.lane.borrow();
            let with = lane.waits_with().map_or("nothing".into(), |offset| format!("offset {offset}"));
            return Outcome::refused(format!(
                "key {key} does not wait with offset {offset}, but with {with}"
            ));
        };
        self.state.borrow_mut().skipped(cell.lane.borrow().key.as_deref(), &skipped);
        self.changed(&cell, &actor);
        self.go_on();
        Outcome::done(format!("offset {offset} of key {key} is given up; the key goes on behind it"))
    }

    fn skip_gap(&mut self, key: &KeyName, to: i64) -> Outcome {
        let (cell, actor) = match self.known(key.bytes()) {
            Ok(found) => found,
            Err(outcome) => return outcome,
        };
        let gap = cell.lane.borrow().gap();
        match gap {
            None => return Outcome::nothing(format!("key {key} waits for no number")),
            Some((missing, lowest)) if lowest != to => {
                return Outcome::refused(format!(
                    "key {key} waits for number {missing}, and goes on with {lowest}, not with {to}"
                ));
            }
            Some(_) => {}
        }
        let skipped = cell.lane.borrow_mut().skip_gap(false).unwrap_or_default();
        self.changed(&cell, &actor);
        self.go_on();
        Outcome::done(format!("{skipped} numbers of key {key} are given up; it goes on with {to}"))
    }

    fn erase(&mut self, key: &KeyName) -> Outcome {
        let (cell, actor) = match self.known(key.bytes()) {
            Ok(found) => found,
            Err(outcome) => return outcome,
        };
        if cell.pending.get() > 0 || !cell.lane.borrow_mut().erase() {
            return Outcome::refused(
                "the key has records or letters that nobody has dealt with, or is paused: let it finish, discard or \
                 resume it first",
            );
        }
        self.changed(&cell, &actor);
        Outcome::done(
            "state and event ids of the key are forgotten; the changelog's compaction removes their last copies"
                .into(),
        )
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
                "{topic}[{partition}]: {below} commands below offset {position} are passed by: the topic has lost its end, or \
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
