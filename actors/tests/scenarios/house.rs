//! What scenarios run in.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::Addr;
use bytes::{Bytes, BytesMut};
use pawl_actors::aside::{Aside, Ask, Found, Want};
use pawl_actors::claims::Claims;
use pawl_actors::effects::{Effects, Emit};
use pawl_actors::epoch::{AssignmentEpoch, Epoch, EpochDecided};
use pawl_actors::handler::{Answer, Call, Handler, Source};
use pawl_actors::ledger::{BEFORE_PARKED, PARTITION_KEY, PartitionRow, lane_of};
use pawl_actors::outcome::{Failure, Outcome, code};
use pawl_actors::partition::{Drain, Ownership, PartitionActor, Records};
use pawl_actors::pipeline::{LedgerView, ViewError};
use pawl_actors::policy::{NullKey, Overflow, ParkingBounds, ParkingPolicy, Policy, RestartPolicy, Then};
use pawl_actors::record::{Header, Millis, Offset, Partition, Record, TimestampType};
use pawl_actors::refused::RefusedEffects;
use pawl_actors::selector::Selector;
use pawl_actors::start::{Actors, World, start};
use pawl_actors::stats::{HandlerStats, PartitionStats};
use pawl_actors::supervisor::{Attempts, BreakerPolicy, Own, RetryPolicy, Waits};
use pawl_actors::trace::Trace;
use tokio::sync::RwLock;

pub const P: Partition = Partition(3);
pub const A1: AssignmentEpoch = AssignmentEpoch(1);

/// What handlers were called with, and what they answer, by event id: the next of a list, then "done".
#[derive(Clone, Default)]
pub struct Script {
    pub calls: Arc<Mutex<Vec<(String, u32)>>>,
    pub answers: Arc<Mutex<BTreeMap<String, VecDeque<Act>>>>,
    pub open_gates: Arc<AtomicBool>,
    /// Whether everything fails.
    pub down: Arc<AtomicBool>,
    /// Whether it says that it is up when it is not.
    pub lies: bool,
    /// How often it was asked whether it is up, if it can be asked that.
    pub probes: Option<Arc<AtomicUsize>>,
    /// What topics refused.
    pub refused: Arc<RefusedEffects>,
}

#[derive(Clone)]
pub enum Act {
    Fail(Failure),
    Panic,
    /// Answers only when the gates are opened.
    Wait,
    /// Answers after this time.
    After(Duration),
    /// The same as `Wait`, and fails then.
    WaitAndFail,
    /// Never answers, and panics when it is given up.
    PanicWhenDropped,
    Effects(Effects),
    /// Succeeds, or fails with this, in a span.
    Traced(Trace, Option<Failure>),
}

impl Script {
    pub fn plan(&self, event: &str, acts: impl IntoIterator<Item = Act>) {
        self.answers.lock().unwrap().insert(event.into(), acts.into_iter().collect());
    }

    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().iter().map(|(event, attempt)| format!("{event}#{attempt}")).collect()
    }
}

impl Handler for Script {
    fn handle(&self, call: Call) -> Answer {
        let event = String::from_utf8(call.record.value.clone().unwrap_or_default().to_vec()).unwrap();
        self.calls.lock().unwrap().push((event.clone(), call.attempt));
        if self.down.load(Ordering::Relaxed) {
            return Answer::Ready(Outcome::Failed(Failure::transient(code::UNREACHABLE, "no connection")));
        }
        let act = self.answers.lock().unwrap().get_mut(&event).and_then(VecDeque::pop_front);
        match act {
            None => Answer::Ready(Outcome::Done(Effects::default())),
            Some(Act::Effects(effects)) => Answer::Ready(Outcome::Done(effects)),
            Some(Act::Fail(failure)) => Answer::Ready(Outcome::Failed(failure)),
            Some(Act::Traced(trace, failure)) => {
                let outcome = failure.map_or_else(|| Outcome::Done(Effects::default()), Outcome::Failed);
                Answer::Traced(trace, Box::new(Answer::Ready(outcome)))
            }
            Some(Act::Panic) => panic!("as planned"),
            Some(Act::PanicWhenDropped) => {
                let bomb = Bomb;
                Answer::later(async move {
                    std::future::pending::<()>().await;
                    drop(bomb);
                    Outcome::Done(Effects::default())
                })
            }
            Some(Act::After(time)) => Answer::later(async move {
                tokio::time::sleep(time).await;
                Outcome::Done(Effects::default())
            }),
            Some(act @ (Act::Wait | Act::WaitAndFail)) => {
                let open = self.open_gates.clone();
                Answer::later(async move {
                    while !open.load(Ordering::Relaxed) {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    match act {
                        Act::Wait => Outcome::Done(Effects::default()),
                        _ => Outcome::Failed(Failure::transient(code::UNAVAILABLE, "too late")),
                    }
                })
            }
        }
    }

    fn probe(&self) -> Option<Pin<Box<dyn Future<Output = bool>>>> {
        let probes = self.probes.clone()?;
        let (down, lies) = (self.down.clone(), self.lies);
        Some(Box::pin(async move {
            probes.fetch_add(1, Ordering::Relaxed);
            lies || !down.load(Ordering::Relaxed)
        }))
    }
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("as planned");
    }
}

/// Rows as a committed epoch leaves them.
#[derive(Clone, Default)]
pub struct Rows(pub Arc<Mutex<BTreeMap<Bytes, Bytes>>>);

impl Rows {
    /// Has this for the partition row.
    pub fn put(&self, stored: &PartitionRow) {
        let row = stored.row(&mut BytesMut::new());
        self.0.lock().unwrap().insert(row.key, row.value.unwrap());
    }

    /// The parked rows.
    pub fn parked(&self) -> Vec<(Bytes, Bytes)> {
        let rows = self.0.lock().unwrap();
        let parked = rows.iter().filter(|(key, _)| &key[..] > BEFORE_PARKED);
        parked.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

impl LedgerView for Rows {
    fn get(&self, _: Partition, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        Ok(self.0.lock().unwrap().get(key).cloned())
    }

    fn scan(
        &self,
        _: Partition,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ViewError> {
        let rows = self.0.lock().unwrap();
        let heads = rows.iter().filter(|(key, _)| key[0] >= 2 && after.is_none_or(|after| &key[..] > after));
        Ok(heads.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

/// Partitions that are to be taken anew.
pub type Rebuilds = Arc<Mutex<Vec<(Partition, AssignmentEpoch)>>>;

pub struct House {
    pub script: Script,
    pub rows: Rows,
    pub epochs: Arc<Mutex<Vec<Epoch>>>,
    pub halts: Arc<Mutex<Vec<String>>>,
    pub rebuilds: Rebuilds,
    pub stats: Arc<HandlerStats>,
    pub partition_stats: Arc<PartitionStats>,
    /// Who begins carefully passes it.
    pub gate: Arc<RwLock<()>>,
    pub actors: Actors,
    pub partition: Addr<PartitionActor>,
    pub assignment: AssignmentEpoch,
    pub asides: Asides,
}

/// What was asked for beside the input, and the command topic.
#[derive(Clone, Default)]
pub struct Asides {
    wants: Arc<Mutex<Vec<Want>>>,
    pub commands: Arc<Mutex<Vec<Record>>>,
    /// Letters that were removed from their topic.
    pub gone: Arc<Mutex<Vec<i64>>>,
    /// Whether their topic cannot be read.
    pub unreadable: Arc<AtomicBool>,
}

impl Asides {
    /// Answers what can be answered: commands, and committed letters two at a time.
    fn serve(&self) {
        let wants = std::mem::take(&mut *self.wants.lock().unwrap());
        for want in wants {
            let all = match want.topic {
                Aside::Commands => self.commands.lock().unwrap().clone(),
                Aside::Letters => letter_topic(),
            };
            match want.ask {
                _ if want.topic == Aside::Letters && self.unreadable.load(Ordering::Relaxed) => {
                    (want.reply)(Found::Failed("no right".into()));
                }
                Ask::End | Ask::High => (want.reply)(Found::End(all.len() as i64)),
                Ask::Records(from) => {
                    let gone = self.gone.lock().unwrap();
                    let after: Vec<Record> =
                        all.into_iter().filter(|record| record.offset.0 >= from).take(2).collect();
                    if after.is_empty() && want.topic == Aside::Commands {
                        self.wants.lock().unwrap().push(want);
                        continue;
                    }
                    let next = after.last().map_or(from, |record| record.offset.0 + 1);
                    let at_end = after.len() < 2;
                    let there =
                        |record: &Record| want.topic == Aside::Commands || !gone.contains(&record.offset.0);
                    let records = after.into_iter().filter(there).collect();
                    (want.reply)(Found::Records { records, next, at_end });
                }
            }
        }
    }
}

/// The dead-letter topic as the committed epochs have written it.
pub fn letter_topic() -> Vec<Record> {
    COMMITTED.with_borrow(|all| {
        let letters = all.iter().flat_map(|epoch| &epoch.partitions).flat_map(|part| &part.letters);
        let records = letters.enumerate().map(|(offset, letter)| Record {
            offset: Offset(offset as i64),
            timestamp: Millis(5_000),
            timestamp_type: TimestampType::CreateTime,
            key: letter.emit.key.clone(),
            value: letter.emit.value.clone(),
            headers: letter.emit.headers.clone(),
        });
        records.collect()
    })
}

pub fn retry() -> RetryPolicy {
    RetryPolicy {
        attempts: Attempts::Limited(3),
        waits: Waits::Growing { initial: Duration::from_secs(1), multiplier: 2.0 },
        max: Duration::from_secs(60),
        jitter: 0.0,
        max_elapsed: None,
    }
}

pub fn policy() -> Policy {
    Policy {
        key: Selector::Record,
        null_key: NullKey::Reject,
        event_id: Some(Selector::Header("ce_id".into())),
        recent_ids: 64,
        recent_ids_age: Duration::from_secs(7 * 86_400),
        sequence: None,
        retry: retry().into(),
        breaker: BreakerPolicy { keys: 3, probe_every: Duration::from_secs(1) },
        restarts: RestartPolicy { restarts: 2, within: Duration::from_secs(600) },
        careful: None,
        followers_gather: Duration::ZERO,
        parking: ParkingPolicy {
            lane: ParkingBounds { records: 100, bytes: 100_000 },
            partition: ParkingBounds { records: 1_000, bytes: 1_000_000 },
            overflow: Overflow::PauseIntake,
        },
        dead_letter_topic: "orders-dlt".into(),
        dead_letter_topic_id: "dlt-id".into(),
        command_topic: "billing-commands".into(),
        replay: ParkingBounds { records: 100, bytes: 100_000 },
        then: Then::Continue,
        max_emit_bytes: 1_000_000,
        max_letter_bytes: 1_000_000,
        max_row_bytes: 10_000,
        max_epoch_bytes: 1_000_000,
        max_in_flight: 100,
        attempt_timeout: Duration::from_secs(5),
        rewind_grace: Duration::from_secs(5),
        epoch_interval: Duration::from_millis(5),
        max_undecided: 1,
        idle_key_after: Duration::from_secs(60),
        max_live_keys: 1_000,
        mailbox_capacity: 1_000,
        sweep_rows_per_second: 100,
    }
}

pub fn row(watermark: i64) -> PartitionRow {
    PartitionRow::new("id".into(), watermark, 7, 0, [5; 16])
}

impl House {
    pub async fn new(script: Script, rows: Rows, policy: Policy) -> House {
        House::after(Claims::default(), script, rows, policy).await
    }

    /// A house whose partition was claimed before.
    pub async fn after(claims: Claims, script: Script, rows: Rows, policy: Policy) -> House {
        let epochs: Arc<Mutex<Vec<Epoch>>> = Arc::default();
        let halts: Arc<Mutex<Vec<String>>> = Arc::default();
        let rebuilds: Rebuilds = Arc::default();
        let stats = Arc::new(HandlerStats::default());
        let gate = Arc::new(RwLock::default());
        let source = Source {
            handler: "billing".into(),
            topic: "orders".into(),
            topic_id: "id".into(),
            group: "billing".into(),
        };
        let asides = Asides::default();
        let wants = asides.wants.clone();
        let world = World {
            policy,
            source: Arc::new(source),
            handler: Arc::new(script.clone()),
            view: Box::new(rows.clone()),
            refused: script.refused.clone(),
            stats: stats.clone(),
            gate: gate.clone(),
            aside: Box::new(move |want| wants.lock().unwrap().push(want)),
            sink: Box::new({
                let epochs = epochs.clone();
                move |epoch| epochs.lock().unwrap().push(epoch)
            }),
            rebuild: Box::new({
                let rebuilds = rebuilds.clone();
                move |partition, assignment| rebuilds.lock().unwrap().push((partition, assignment))
            }),
            on_halt: Box::new({
                let halts = halts.clone();
                move |reason| halts.lock().unwrap().push(reason)
            }),
        };
        let actors = start(world);
        let partition_stats = stats.assigned(P);
        let partition = own(&actors, &rows, partition_stats.clone(), A1, claims).await;
        House {
            script,
            rows,
            epochs,
            halts,
            rebuilds,
            stats,
            partition_stats,
            gate,
            actors,
            partition,
            assignment: A1,
            asides,
        }
    }

    /// Has the partition taken anew under the next assignment, as after a panic of one of its actors.
    pub async fn take_anew(&mut self) {
        let (_, last) = self.rebuilds.lock().unwrap().pop().expect("somebody asked for it");
        self.assignment = AssignmentEpoch(last.0 + 1);
        self.partition_stats = self.stats.assigned(P);
        let claims = Claims::default();
        self.partition =
            own(&self.actors, &self.rows, self.partition_stats.clone(), self.assignment, claims).await;
    }

    pub fn take(&self, records: impl IntoIterator<Item = Record>) {
        let records: Vec<Record> = records.into_iter().collect();
        self.partition_stats.outstanding_records.add(records.len() as i64);
        self.partition.do_send(Records { assignment: self.assignment, records });
    }

    /// Lets time pass and commits every epoch that is closed meanwhile.
    pub async fn pass(&self, time: Duration) {
        let end = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.commit();
            self.asides.serve();
        }
    }

    pub fn commit(&self) {
        let closed: Vec<Epoch> = std::mem::take(&mut *self.epochs.lock().unwrap());
        for epoch in closed {
            for part in &epoch.partitions {
                let mut rows = self.rows.0.lock().unwrap();
                for row in part.rows.iter().chain([&part.partition_row]) {
                    match &row.value {
                        Some(value) => rows.insert(row.key.clone(), value.clone()),
                        None => rows.remove(&row.key),
                    };
                }
            }
            let committed = epoch.partitions.iter().map(|part| part.partition).collect();
            self.actors.committer.do_send(EpochDecided { number: epoch.number, committed });
            COMMITTED.with_borrow_mut(|all| all.push(epoch));
        }
    }

    pub fn partition_row(&self) -> PartitionRow {
        let row = self.rows.get(P, PARTITION_KEY).unwrap().expect("an epoch was committed");
        PartitionRow::decode(&row).unwrap()
    }

    pub fn heads(&self) -> usize {
        self.rows.0.lock().unwrap().keys().filter(|key| lane_of(key).is_some()).count()
    }
}

/// Starts the partition's actor on what was committed.
async fn own(
    actors: &Actors,
    rows: &Rows,
    stats: Arc<PartitionStats>,
    assignment: AssignmentEpoch,
    claims: Claims,
) -> Addr<PartitionActor> {
    let stored = rows.get(P, PARTITION_KEY).unwrap().map(|row| PartitionRow::decode(&row).unwrap());
    let ownership = Ownership {
        partition: P,
        assignment,
        claim: 7,
        row: stored.unwrap_or_else(|| row(0)),
        parked: rows.parked(),
        fresh: false,
        claims,
        low: 0,
        end: 3,
        stats,
    };
    let (tell, told) = tokio::sync::oneshot::channel();
    let started = Box::new(move |actor| drop(tell.send(actor)));
    actors.supervisor.do_send(Own { ownership, started });
    told.await.unwrap()
}

thread_local! {
    pub static COMMITTED: std::cell::RefCell<Vec<Epoch>> = const { std::cell::RefCell::new(Vec::new()) };
}

pub fn letters() -> Vec<Offset> {
    COMMITTED.with_borrow(|all| {
        let parts = all.iter().flat_map(|epoch| &epoch.partitions);
        parts.flat_map(|part| part.letters.iter().map(|letter| letter.offset)).collect()
    })
}

pub fn emitted() -> Vec<Emit> {
    COMMITTED.with_borrow(|all| {
        let parts = all.iter().flat_map(|epoch| &epoch.partitions);
        parts.flat_map(|part| part.emits.iter().map(|effect| effect.emit.clone())).collect()
    })
}

pub fn record(offset: i64, key: Option<&str>, event: &str) -> Record {
    Record {
        offset: Offset(offset),
        timestamp: Millis(1_000),
        timestamp_type: TimestampType::CreateTime,
        key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::copy_from_slice(event.as_bytes())),
        headers: vec![Header::new("ce_id", event.as_bytes().to_vec())],
    }
}

pub fn unavailable() -> Act {
    Act::Fail(Failure::transient(code::UNAVAILABLE, "service answered 503"))
}

pub fn refused() -> Act {
    Act::Fail(Failure::permanent(code::REJECTED, "service answered 422"))
}

pub fn drain(house: &House, grace: Duration) -> Arc<AtomicBool> {
    let drained = Arc::new(AtomicBool::new(false));
    let tell = drained.clone();
    let deadline = tokio::time::Instant::now() + grace;
    house
        .partition
        .do_send(Drain { deadline, drained: Box::new(move || tell.store(true, Ordering::Relaxed)) });
    drained
}

/// Runs a scenario on an arbiter's runtime with a paused clock.
pub fn scenario<F: Future<Output = ()>>(run: impl FnOnce() -> F) {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().expect("a runtime")
    };
    actix::System::with_tokio_rt(runtime).block_on(run());
}

pub const SOON: Duration = Duration::from_millis(50);
