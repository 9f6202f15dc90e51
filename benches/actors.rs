//! What the actors cost by themselves, without a broker: CPU time of their thread for each record,
//! against a plain loop that keeps the same ids in a hash map on one thread, and the memory of an
//! idle key with its order actor and its ledger.
//!
//! `cargo bench --bench actors -- [--records N] [--keys N]`

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use pawl::handlers::forward::ForwardHandler;
use pawl_actors::claims::Claims;
use pawl_actors::epoch::{AssignmentEpoch, Epoch, EpochDecided};
use pawl_actors::handler::Source;
use pawl_actors::ledger::PartitionRow;
use pawl_actors::partition::{Ownership, PartitionActor, Records};
use pawl_actors::pipeline::{LedgerView, ViewError};
use pawl_actors::policy::{NullKey, Overflow, ParkingBounds, ParkingPolicy, Policy, RestartPolicy, Then};
use pawl_actors::record::{Header, Millis, Offset, Partition, Record, TimestampType};
use pawl_actors::selector::Selector;
use pawl_actors::start::{Actors, World, start};
use pawl_actors::stats::{HandlerStats, PartitionStats};
use pawl_actors::supervisor::{Attempts, BreakerPolicy, Own, RetryPolicies, RetryPolicy, Waits};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PARTITION: Partition = Partition(0);
const ASSIGNMENT: AssignmentEpoch = AssignmentEpoch(1);
const BATCH: u64 = 1_000;
/// Records taken in and not yet committed.
const OUTSTANDING: i64 = 20_000;

/// A ledger without rows: every key is new.
struct Empty;

impl LedgerView for Empty {
    fn get(&self, _: Partition, _: &[u8]) -> Result<Option<Bytes>, ViewError> {
        Ok(None)
    }

    fn scan(&self, _: Partition, _: Option<&[u8]>, _: usize) -> Result<Vec<(Bytes, Bytes)>, ViewError> {
        Ok(Vec::new())
    }
}

/// Records of 200 B like those of the throughput benchmark; one of twenty repeats an id of its key.
fn record(n: u64, keys: u64) -> Record {
    let (round, key) = (n / keys, (n % keys).wrapping_mul(7_919) % keys);
    let event = if n % 20 == 19 && round > 0 { round - 1 } else { round };
    let mut value = format!("{{\"order\":{key},\"event\":{event}}}").into_bytes();
    value.resize(200, b' ');
    Record {
        offset: Offset(n as i64),
        timestamp: Millis(1_700_000_000_000),
        timestamp_type: TimestampType::CreateTime,
        key: Some(Bytes::from(format!("ORD-{key}"))),
        value: Some(value.into()),
        headers: vec![Header::new("ce_id", format!("{key}-{event}"))],
    }
}

fn policy() -> Policy {
    Policy {
        key: Selector::Record,
        null_key: NullKey::Reject,
        event_id: Some(Selector::Header("ce_id".into())),
        recent_ids: 64,
        recent_ids_age: Duration::from_secs(7 * 86_400),
        sequence: None,
        retry: RetryPolicies::from(RetryPolicy {
            attempts: Attempts::Limited(3),
            waits: Waits::Growing { initial: Duration::from_secs(1), multiplier: 1.0 },
            max: Duration::from_secs(1),
            jitter: 0.0,
            max_elapsed: None,
        }),
        breaker: BreakerPolicy { keys: 5, probe_every: Duration::from_secs(1) },
        restarts: RestartPolicy { restarts: 0, within: Duration::from_secs(1) },
        careful: None,
        followers_gather: Duration::ZERO,
        parking: ParkingPolicy {
            lane: ParkingBounds { records: 1_000, bytes: 1 << 20 },
            partition: ParkingBounds { records: 1_000, bytes: 1 << 20 },
            overflow: Overflow::PauseIntake,
        },
        dead_letter_topic: "letters".into(),
        dead_letter_topic_id: "id".into(),
        command_topic: "commands".into(),
        replay: ParkingBounds { records: 1, bytes: 1 },
        then: Then::Continue,
        max_emit_bytes: 1 << 20,
        max_letter_bytes: 1 << 20,
        max_row_bytes: 1 << 20,
        max_epoch_bytes: 32 << 20,
        max_in_flight: usize::MAX,
        attempt_timeout: Duration::from_secs(1),
        rewind_grace: Duration::from_secs(1),
        epoch_interval: Duration::ZERO,
        max_undecided: 1,
        idle_key_after: Duration::from_secs(3_600),
        max_live_keys: usize::MAX,
        mailbox_capacity: 1 << 20,
        sweep_rows_per_second: 1,
    }
}

fn ownership(stats: Arc<PartitionStats>) -> Ownership {
    let row = PartitionRow::new("id".into(), 0, 1, 0, [5; 16]);
    Ownership {
        partition: PARTITION,
        assignment: ASSIGNMENT,
        claim: 1,
        row,
        parked: Vec::new(),
        fresh: false,
        claims: Claims::default(),
        low: 0,
        end: 0,
        stats,
    }
}

/// Actors whose epochs a thread of its own commits at once.
async fn house(
    stats: &Arc<HandlerStats>,
    epochs: SyncSender<Epoch>,
) -> (Actors, actix::Addr<PartitionActor>) {
    let source = Source {
        handler: "bench".into(),
        topic: "orders".into(),
        topic_id: "id".into(),
        group: "bench".into(),
    };
    let actors = start(World {
        aside: Box::new(drop),
        gate: Arc::default(),
        rebuild: Box::new(|partition, _| panic!("an actor of partition {partition} panicked")),
        policy: policy(),
        source: Arc::new(source),
        handler: Arc::new(ForwardHandler::new("copies")),
        view: Box::new(Empty),
        refused: Arc::default(),
        stats: stats.clone(),
        sink: Box::new(move |epoch| epochs.send(epoch).expect("the committing thread lives")),
        on_halt: Box::new(|reason| panic!("{reason}")),
    });
    let (tell, told) = tokio::sync::oneshot::channel();
    let started = Box::new(move |actor| drop(tell.send(actor)));
    actors.supervisor.do_send(Own { ownership: ownership(stats.assigned(PARTITION)), started });
    (actors, told.await.expect("the partition is owned"))
}

/// CPU time of this thread.
fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing, and every Linux thread has such a clock.
    let code = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(code, 0, "the thread has a clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Resident memory of this process now, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
    let pages: u64 = statm.split_whitespace().nth(1).expect("pages").parse().expect("a number");
    pages * 4_096
}

/// Feeds records as the consumer thread does and waits until all are committed.
async fn feed(load: [u64; 2], stats: &HandlerStats, partition: &actix::Addr<PartitionActor>) -> Duration {
    let [records, keys] = load;
    let (send, mut receive) = tokio::sync::mpsc::channel(8);
    let feeding = std::thread::spawn(move || {
        for from in (0..records).step_by(BATCH as usize) {
            let batch: Vec<Record> = (from..records.min(from + BATCH)).map(|n| record(n, keys)).collect();
            send.blocking_send(batch).expect("the actors' thread lives");
        }
    });
    let (_, partition_stats) = stats.partitions().remove(0);
    let began = thread_cpu();
    while let Some(batch) = receive.recv().await {
        while partition_stats.outstanding_records.get() > OUTSTANDING {
            tokio::task::yield_now().await;
        }
        partition_stats.outstanding_records.add(batch.len() as i64);
        partition.do_send(Records { assignment: ASSIGNMENT, records: batch });
        tokio::task::yield_now().await;
    }
    while partition_stats.outstanding_records.get() > 0 {
        tokio::task::yield_now().await;
    }
    feeding.join().expect("no panic");
    thread_cpu() - began
}

/// The same ids in a hash map, the same records made ready to be written.
fn plain(records: u64, keys: u64) -> Duration {
    let (send, receive) = sync_channel::<Vec<Record>>(8);
    let feeding = std::thread::spawn(move || {
        for from in (0..records).step_by(BATCH as usize) {
            let batch = (from..records.min(from + BATCH)).map(|n| record(n, keys)).collect();
            send.send(batch).expect("the loop lives");
        }
    });
    let mut ids: HashMap<Bytes, Vec<u8>> = HashMap::new();
    let mut emitted = Vec::new();
    let began = thread_cpu();
    for record in receive.iter().flatten() {
        let id = record.header("ce_id").expect("an id").clone();
        let known = ids.entry(record.key.clone().expect("a key")).or_default();
        let mut padded = [0; 24];
        padded[..id.len().min(24)].copy_from_slice(&id[..id.len().min(24)]);
        if !known.chunks_exact(24).any(|known| known == padded) {
            known.extend_from_slice(&padded);
            emitted.push(record);
        }
        if emitted.len() >= OUTSTANDING as usize {
            black_box(std::mem::take(&mut emitted));
        }
    }
    let took = thread_cpu() - began;
    feeding.join().expect("no panic");
    took
}

/// The actors' CPU time for these records, and by how many bytes the process grew over them.
fn run(records: u64, keys: u64) -> (Duration, u64) {
    actix::System::new().block_on(async move {
        let stats = Arc::new(HandlerStats::default());
        let (send, epochs) = sync_channel::<Epoch>(1);
        let (actors, partition) = house(&stats, send).await;
        let committer = actors.committer.clone();
        std::thread::spawn(move || {
            for epoch in epochs {
                let number = epoch.number;
                drop(epoch);
                committer.do_send(EpochDecided { number, committed: vec![PARTITION] });
            }
        });
        let before = resident();
        let took = feed([records, keys], &stats, &partition).await;
        // Long enough for the allocator to give back what only the run needed.
        tokio::time::sleep(Duration::from_secs(1)).await;
        (took, resident() - before)
    })
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |name: &str, default: u64| {
        let at = args.iter().position(|arg| arg == name);
        at.map_or(default, |at| args[at + 1].parse().expect("a number after the option"))
    };
    let (records, keys) = (number("--records", 1_000_000), number("--keys", 100_000));
    if args.iter().any(|arg| arg == "idle") {
        let (_, grown) = run(keys, keys);
        println!("{keys} idle keys with one id each: {} bytes a key", grown / keys);
        return;
    }
    println!("{records} records of 200 B, {keys} keys, one partition");
    let (actors, bare) = (run(records, keys).0, plain(records, keys));
    let each = |time: Duration| time.as_secs_f64() * 1e6 / records as f64;
    println!("actors      {:>6.2} us of their thread's CPU a record", each(actors));
    println!("plain loop  {:>6.2} us, ratio {:.1}", each(bare), actors.as_secs_f64() / bare.as_secs_f64());
    // In a process of its own, or what this one holds already would count.
    let program = std::env::current_exe().expect("the path of this program");
    let idle = std::process::Command::new(program).args(["idle", "--keys", "500000"]).status();
    assert!(idle.expect("it starts").success());
}
