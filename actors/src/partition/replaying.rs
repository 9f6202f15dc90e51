//! How a replay of a partition's dead letters goes on: it asks for letters, and hands them to the lanes of
//! their keys.

use std::rc::Rc;
use std::time::Duration;

use actix::{AsyncContext, Context, Handler, Message};
use bytes::{Bytes, BytesMut};

use super::commands::Outcome;
use super::replay::{Choice, Replay, Standing};
use super::{PartitionActor, PartitionState};
use crate::aside::{Aside, Ask, Found, Want};
use crate::command::{Command, Progress, Replay as Request, What};
use crate::dead_letter::{Told, original};
use crate::ledger::{LaneKey, ReplayRow, mark_key, marks};
use crate::order::{Discarded, Drive, Hold, LaneCell, Taken};
use crate::record::{Offset, Record, key_text};
use crate::watermark::Ticket;

/// How often a replay looks whether there is room for more.
const TICK: Duration = Duration::from_millis(25);
/// How often it tells how far it is.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How long keys wait for letters that the topic does not seem to hold.
const PATIENCE: Duration = Duration::from_secs(30);

/// Letters that were read for a replay, or where their topic ends.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Letters {
    /// Offset of the replay's command.
    command: i64,
    found: Found,
}

/// What became of a letter that was looked at.
#[must_use]
enum Offered {
    /// It was handed on, counted or passed over.
    Taken,
    /// It has to be looked at again.
    Later,
}

/// How a letter goes to its lane.
struct Handing {
    /// Its key joins the replay with it.
    joins: bool,
    /// The books do not know it.
    foreign: bool,
}

/// A replay that waits for the end of its topic to be told.
pub(super) struct Beginning {
    row: ReplayRow,
    id: String,
    request: Request,
}

impl PartitionActor {
    /// A command to replay letters; `None`: it has begun.
    pub(super) fn begin_replay(
        &mut self,
        id: &str,
        request: &Request,
        at: Offset,
        value: &[u8],
        ctx: &Context<Self>,
    ) -> Option<Outcome> {
        let running = self.state.borrow().replay.as_ref().map(|replay| replay.id().to_owned());
        if let Some(running) = running.or_else(|| self.beginning.as_ref().map(|other| other.id.clone())) {
            return Some(Outcome::refused(format!(
                "another replay is under way here ({running}): let it end, or pawl dlt stop-replay"
            )));
        }
        if request.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            return Some(Outcome::refused("the rate must be more than 0 letters a second"));
        }
        let request_text = String::from_utf8_lossy(value).into_owned();
        let row = ReplayRow { command: at.0, request: request_text, ..ReplayRow::default() };
        // From here on it is durable, whoever owns the partition next.
        let replay =
            Replay::new(row.clone(), id.into(), request.clone(), &self.pipeline.source.group, Some(i64::MAX));
        self.state.borrow_mut().replay = Some(replay);
        self.beginning = Some(Beginning { row, id: id.into(), request: request.clone() });
        self.ask_for_letters(at.0, Ask::End, ctx);
        None
    }

    /// Goes on with what the last owner left unfinished.
    pub(super) fn resume_replay(&mut self, ctx: &Context<Self>) {
        let Some(row) = self.state.borrow().unfinished_replay().cloned() else { return };
        let Ok(Command { id, what: What::Replay(request), .. }) = Command::read(row.request.as_bytes())
        else {
            tracing::error!("a replay that is under way cannot be read, and ends: {}", row.request);
            self.state.borrow_mut().end_replay();
            return;
        };
        let command = row.command;
        // Its end may not have been told yet.
        let resumed = row.to != i64::MAX;
        let replay = Replay::new(row.clone(), id.clone(), request.clone(), &self.pipeline.source.group, None);
        self.state.borrow_mut().replay = Some(replay);
        if resumed {
            self.pump_later(ctx);
        } else {
            self.beginning = Some(Beginning { row, id, request });
            self.ask_for_letters(command, Ask::End, ctx);
        }
    }

    /// No further letter begins; what is at the handler may end.
    pub(super) fn stop_replay(&mut self) -> Outcome {
        let Some(keys) = self.state.borrow_mut().replay.as_mut().map(Replay::stop) else {
            return Outcome(Progress::Nothing, "no replay is under way here".into());
        };
        for live in self.live.all() {
            let letters = live.cell.lane.borrow_mut().stop_replay();
            if letters.is_empty() {
                continue;
            }
            self.state.borrow_mut().letters_dropped(&letters);
            live.actor.do_send(Drive);
        }
        for key in keys {
            self.leave(&key);
        }
        Outcome::done("the replay ends with what is at the handler now".into())
    }

    fn ask_for_letters(&self, command: i64, ask: Ask, ctx: &Context<Self>) {
        let (state, me) = (self.state.borrow(), ctx.address());
        (self.pipeline.aside)(Want {
            topic: Aside::Letters,
            partition: state.partition(),
            assignment: state.assignment(),
            ask,
            // At most one answer is under way.
            reply: Box::new(move |found| me.do_send(Letters { command, found })),
        });
    }

    fn pump_later(&self, ctx: &Context<Self>) {
        // A context is only borrowed here; the message is the timer's.
        ctx.address().do_send(Pump);
    }

    /// Hands letters on while there is room, and asks for more.
    fn pump(&mut self, ctx: &mut Context<Self>) {
        if !self.state.borrow().takes_in() || self.halted() {
            return;
        }
        let policy = self.pipeline.policy.replay;
        while self.state.borrow().may_begin() {
            let next = self.state.borrow_mut().replay.as_mut().and_then(|replay| replay.next(&policy));
            let Some((letter, ticket)) = next else { break };
            match self.offer(&letter, ticket) {
                Err(reason) => return self.halt(reason),
                Ok(Offered::Later) => {
                    self.replay(|replay| replay.put_back(letter, ticket));
                    break;
                }
                Ok(Offered::Taken) => self.pipeline.open.borrow_mut().touch(&self.state),
            }
        }
        let wants =
            self.state.borrow().replay.as_ref().and_then(|replay| Some((replay.command(), replay.wants()?)));
        if let Some((command, from)) = wants.filter(|_| !self.reading && self.beginning.is_none()) {
            self.reading = true;
            self.ask_for_letters(command, Ask::Records(from), ctx);
        }
        self.give_up_the_stuck();
        self.end_replay();
    }

    /// Keys whose letters do not come are told, and left in quarantine.
    fn give_up_the_stuck(&mut self) {
        let stuck = self.state.borrow().replay.as_ref().map_or(Vec::new(), |replay| replay.stuck(PATIENCE));
        for key in stuck {
            if let Some(replay) = &mut self.state.borrow_mut().replay {
                let name = key_text(key.as_deref());
                replay.trouble(format!("key \"{name}\": its last letters are gone from the topic"));
            }
            self.leave(&key);
        }
    }

    /// The replay is over for a key that has letters left.
    fn leave(&mut self, key: &LaneKey<Bytes>) {
        if let Some(replay) = &mut self.state.borrow_mut().replay {
            replay.leave(key);
        }
        if let Some(cell) = self.live.get_mut(key.as_deref()).map(|live| live.cell.clone())
            && cell.lane.borrow_mut().leave_replay()
            && cell.lane.borrow_mut().mark_changed()
        {
            self.state.borrow_mut().changed(cell);
            self.pipeline.open.borrow_mut().touch(&self.state);
        }
    }

    fn end_replay(&mut self) {
        let done =
            self.beginning.is_none() && self.state.borrow().replay.as_ref().is_some_and(Replay::is_done);
        let Some(mut replay) = done.then(|| self.state.borrow_mut().end_replay()).flatten() else { return };
        self.look_for_the_named_key(&mut replay);
        let told = replay.replayed();
        let verb = if replay.is_dry() { "would be handed to the handler" } else { "took effect" };
        let message = format!(
            "{} letters {verb}, {} were duplicates, {} failed again",
            told.applied, told.duplicates, told.failed
        );
        let outcome = Outcome::done(message);
        self.tell_end(replay.id(), &outcome);
        let answer = self.answer(replay.id(), outcome, Some(told));
        self.state.borrow_mut().answer(answer);
        self.pipeline.open.borrow_mut().touch(&self.state);
    }

    /// A key that was named, is in quarantine and was not met: whoever asked should know what can be done.
    fn look_for_the_named_key(&mut self, replay: &mut Replay) {
        let foreign = replay.is_foreign(&self.pipeline.source.group);
        if foreign || replay.is_stopping() {
            return;
        }
        let Some(key) = replay.only_key().cloned().filter(|key| !replay.met(key)) else { return };
        let Ok((cell, _)) = self.known(key.as_deref()) else { return };
        let letters = cell.lane.borrow().quarantine().map(|quarantine| quarantine.letters());
        if let Some(letters) = letters {
            replay.trouble(format!(
                "none of the {letters} letters of the key was found: they were written just now, or are gone from the \
                 topic. pawl keys release gives them up"
            ));
        }
    }

    /// Decides what becomes of a letter that was read.
    fn offer(&mut self, letter: &Record, ticket: Ticket) -> Result<Offered, String> {
        let told = Told::read(letter);
        let record = original(letter);
        let (own, ours) = {
            let state = self.state.borrow();
            let Some(replay) = &state.replay else { return Ok(Offered::Taken) };
            (!replay.is_foreign(&self.pipeline.source.group), replay.is_of_the_group(&told))
        };
        if !ours {
            self.replay(|replay| replay.leave_out(ticket));
            return Ok(Offered::Taken);
        }
        let (key, mut taken) = self.sort(record, Hold::Letter { offset: letter.offset.0, number: None });
        let live = self.live.get_mut(key.as_deref());
        if let Some(live) = live.as_ref().filter(|live| live.cell.lane.borrow().is_followed(None)) {
            // What has gathered to follow goes first.
            live.actor.do_send(Drive);
            return Ok(Offered::Later);
        }
        let cell = live.map(|live| live.cell.clone());
        if cell.as_ref().is_some_and(|cell| cell.pending.get() > 0) {
            // Whether its lane is free is known when it has handled what is under way to it.
            return Ok(Offered::Later);
        }
        let choice = self.choose(&key, letter, (&told, taken.record.offset), cell.as_ref(), own)?;
        let dry = self.state.borrow().replay.as_ref().is_none_or(Replay::is_dry);
        match choice {
            Choice::Hand { number, joins } if !dry => {
                taken.hold = Hold::Letter { offset: letter.offset.0, number };
                // What lies before the books was never received by them.
                let id = &self.pipeline.policy.dead_letter_topic_id;
                let older =
                    |state: &PartitionState| state.letter_is_older(letter.offset.0, taken.record.offset, id);
                let foreign = !own || older(&self.state.borrow());
                self.hand(letter, key.as_deref(), ticket, taken, Handing { joins, foreign })?;
            }
            Choice::Hand { .. } => self.replay(|replay| replay.count(ticket)),
            Choice::Superseded { number } => return self.step_over(&key, ticket, number),
            Choice::Gap(missing) => return self.gap(letter, &key, ticket, missing, &told, taken),
            Choice::PassOver => {
                self.replay(|replay| replay.pass_over(ticket));
                let left = self.state.borrow().replay.as_ref().is_some_and(|replay| !replay.has_joined(&key));
                if left && cell.is_some() {
                    self.leave(&key);
                }
            }
        }
        Ok(Offered::Taken)
    }

    /// What becomes of a letter, by what is known of its key.
    fn choose(
        &self,
        key: &LaneKey<Bytes>,
        letter: &Record,
        (told, original): (&Told, Offset),
        cell: Option<&Rc<LaneCell>>,
        own: bool,
    ) -> Result<Choice, String> {
        let marked = self.is_marked(letter.offset.0)?;
        let head = if cell.is_some() { None } else { self.stored_head(key.as_deref())? };
        let mut state = self.state.borrow_mut();
        let id = &self.pipeline.policy.dead_letter_topic_id;
        let superseded = state.rewinds().supersede(letter.offset.0, original.0, id);
        let Some(replay) = &mut state.replay else { return Ok(Choice::PassOver) };
        Ok(match cell {
            Some(cell) => {
                let lane = cell.lane.borrow();
                let known =
                    Standing { quarantine: lane.quarantine(), may_join: lane.may_join(), marked, superseded };
                replay.choose(key, letter, told, known, own)
            }
            None => {
                let head = head.as_ref().map(|(head, _)| head);
                let quarantine = head.and_then(|head| head.quarantine.as_deref());
                let may_join = head.is_some_and(|head| !head.paused);
                let known = Standing { quarantine, may_join, marked, superseded };
                replay.choose(key, letter, told, known, own)
            }
        })
    }

    fn replay(&self, then: impl FnOnce(&mut Replay)) {
        if let Some(replay) = &mut self.state.borrow_mut().replay {
            then(replay);
        }
    }

    fn hand(
        &mut self,
        letter: &Record,
        key: LaneKey<&[u8]>,
        ticket: Ticket,
        taken: Taken,
        Handing { joins, foreign }: Handing,
    ) -> Result<(), String> {
        let (cell, actor) = self.lane(key)?;
        let command = self.state.borrow().replay.as_ref().map_or(0, Replay::command);
        {
            let mut lane = cell.lane.borrow_mut();
            if joins {
                lane.join(command);
            }
            lane.take_letter(taken);
        }
        if joins && cell.lane.borrow_mut().mark_changed() {
            self.state.borrow_mut().changed(cell.clone());
        }
        self.replay(|replay| replay.hand(letter, ticket, foreign));
        // No more than letters that may be under way.
        actor.do_send(Drive);
        Ok(())
    }

    /// Letters before this one are gone. If that is accepted, they are booked as lost, and it is the next.
    fn gap(
        &mut self,
        letter: &Record,
        key: &LaneKey<Bytes>,
        ticket: Ticket,
        missing: u64,
        told: &Told,
        mut taken: Taken,
    ) -> Result<Offered, String> {
        let accepts = self
            .state
            .borrow()
            .replay
            .as_ref()
            .is_some_and(|replay| replay.accepts_lost() && !replay.is_dry());
        if let (true, Some((began, number))) = (accepts, told.place) {
            let (cell, _) = self.lane(key.as_deref())?;
            if cell.lane.borrow().has_letters() {
                // Those before the gap come first.
                return Ok(Offered::Later);
            }
            let free = cell.lane.borrow().may_join();
            let lost = if free { cell.lane.borrow_mut().discard(number - 1) } else { Discarded::default() };
            if lost.letters > 0 {
                self.state.borrow_mut().lost_letters(lost);
                self.replay(|replay| replay.gap(key, letter, lost.letters, Some((began, number))));
                taken.hold = Hold::Letter { offset: letter.offset.0, number: Some(number) };
                self.hand(letter, key.as_deref(), ticket, taken, Handing { joins: true, foreign: false })?;
                return Ok(Offered::Taken);
            }
        }
        self.replay(|replay| {
            replay.gap(key, letter, missing, None);
            replay.pass_over(ticket);
        });
        self.leave(key);
        Ok(Offered::Taken)
    }

    /// The record of the key's next letter came again since: the letter is dealt with.
    fn step_over(&mut self, key: &LaneKey<Bytes>, ticket: Ticket, number: u64) -> Result<Offered, String> {
        let (cell, actor) = self.lane(key.as_deref())?;
        if cell.lane.borrow().has_letters() {
            // Those before it come first.
            return Ok(Offered::Later);
        }
        cell.lane.borrow_mut().discard(number);
        self.replay(|replay| {
            replay.step_over(key);
            replay.pass_over(ticket);
        });
        if cell.lane.borrow().quarantine().is_none() {
            self.replay(|replay| replay.leave(key));
        }
        self.changed(&cell, &actor);
        Ok(Offered::Taken)
    }

    fn is_marked(&self, letter: i64) -> Result<bool, String> {
        if self.state.borrow().has_marked(letter) {
            return Ok(true);
        }
        let partition = self.state.borrow().partition();
        let row = self.pipeline.view.get(partition, &mark_key(letter, &mut BytesMut::new()));
        let row = row.map_err(|error| error.to_string())?;
        let id = &self.pipeline.policy.dead_letter_topic_id;
        row.map_or(Ok(false), |row| marks(&row, id)).map_err(|error| error.to_string())
    }

    fn tell_progress(&mut self) {
        let told = {
            let mut state = self.state.borrow_mut();
            let Some(replay) = &mut state.replay else { return };
            if !replay.has_news() {
                return;
            }
            (replay.id().to_owned(), replay.replayed())
        };
        let answer = self.answer(&told.0, Outcome(Progress::Running, String::new()), Some(told.1));
        self.state.borrow_mut().answer(answer);
        self.pipeline.open.borrow_mut().touch(&self.state);
    }
}

/// Time for a replay to go on.
#[derive(Message)]
#[rtype(result = "()")]
struct Pump;

impl Handler<Pump> for PartitionActor {
    type Result = ();

    fn handle(&mut self, _: Pump, ctx: &mut Self::Context) {
        if self.pumping.is_some() {
            return;
        }
        let tell = ctx.run_interval(TELL_EVERY, |partition, _| {
            if partition.state.borrow().may_begin() {
                partition.tell_progress();
            }
        });
        let pump = ctx.run_interval(TICK, |partition, ctx| {
            partition.replay(|replay| replay.tick(TICK.as_secs_f64()));
            partition.pump(ctx);
            if partition.state.borrow().replay.is_none()
                && let Some((pump, tell)) = partition.pumping.take()
            {
                ctx.cancel_future(pump);
                ctx.cancel_future(tell);
            }
        });
        self.pumping = Some((pump, tell));
    }
}

impl Handler<Letters> for PartitionActor {
    type Result = ();

    fn handle(&mut self, Letters { command, found }: Letters, ctx: &mut Self::Context) {
        // One question is under way at most, also where its answer comes too late.
        self.reading &= matches!(found, Found::End(_));
        let ours = self.state.borrow().replay.as_ref().is_some_and(|replay| replay.command() == command);
        if !ours || !self.state.borrow().takes_in() {
            return;
        }
        match found {
            Found::End(end) => {
                let Some(Beginning { row, id, request }) = self.beginning.take() else { return };
                let stopped = self.state.borrow().replay.as_ref().is_some_and(Replay::is_stopping);
                let mut replay = Replay::new(row, id, request, &self.pipeline.source.group, Some(end));
                if stopped {
                    replay.stop();
                }
                self.state.borrow_mut().replay = Some(replay);
                self.pipeline.open.borrow_mut().touch(&self.state);
                self.pump_later(ctx);
            }
            Found::Records { records, next, at_end } => {
                let more = !records.is_empty();
                self.replay(|replay| replay.take(records, next, at_end));
                if more {
                    self.pump(ctx);
                }
            }
            Found::Failed(why) => {
                self.beginning = None;
                self.replay(|replay| replay.trouble(why));
                self.stop_replay();
                self.pump_later(ctx);
            }
        }
    }
}
