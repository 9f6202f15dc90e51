//! One handler's parts and how they are joined: a consumer thread, a writer thread, an owner
//! thread, a store thread, and an arbiter for its actors.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use actix::{Arbiter, ArbiterHandle};
use pawl_actors::epoch::Epoch;
use pawl_actors::handler::{Handler, Source};
use pawl_actors::policy::Policy;
use pawl_actors::start::{Actors, World, start};
use pawl_actors::stats::HandlerStats;
use pawl_actors::supervisor::RetryPolicy;
use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;

use super::topics::TopicFacts;
use crate::admin::HandlerView;
use crate::kafka::client;
use crate::kafka::consumer::{Command, Intake, IntakeBounds, IntakeContext, IntakeParts};
use crate::kafka::held::Held;
use crate::kafka::owner::{Owner, OwnerParts};
use crate::kafka::restore::Restore;
use crate::kafka::writer::{Job, Writer, WriterParts};
use crate::metrics::EpochCommitTimes;
use crate::settings::{Guarantee, HandlerSettings, Intake as IntakeSettings, Settings};
use crate::store::{LocalView, SharedView, SledStore};

/// Longest wait for the changelog's next record.
const RESTORE_PATIENCE: Duration = Duration::from_secs(90);
/// How much longer than its time-out a dead instance's transaction may stay open: the broker looks
/// for such every so often (`transaction.abort.timed.out.transaction.cleanup.interval.ms`, 10 s).
const TRANSACTION_SWEEP: Duration = Duration::from_secs(30);
/// An epoch takes partitions in until it holds so much: it has to be written within a transaction's
/// time-out.
const MAX_EPOCH_BYTES: u64 = 32 << 20;
/// Heads that the sweep for dead rows looks at in a second, for each partition.
const SWEEP_ROWS_PER_SECOND: usize = 1_000;

/// librdkafka's default lets a fast consumer wait for up to a second.
const FETCH_AGAIN: (&str, &str) = ("fetch.queue.backoff.ms", "5");

/// Bounds of what the consumer fetches ahead, all partitions together.
const FETCHED_AHEAD_KIB: [u64; 2] = [1 << 10, 32 << 10];
/// An answer of the `http` handler that exceeds its own time-out by this much is given up by the
/// order actor: the handler's own message is the better one.
const HTTP_GRACE: Duration = Duration::from_secs(1);

/// A handler that runs.
pub struct Pipeline {
    /// What the process's endpoint shows.
    pub view: HandlerView,
    intake: Sender<Command>,
    writer: Sender<Job>,
    store: Arc<LocalView>,
    arbiter: ArbiterHandle,
    consumer_thread: JoinHandle<()>,
    other_threads: Vec<JoinHandle<()>>,
    store_thread: JoinHandle<()>,
}

/// Told why a handler cannot go on.
pub type OnHalt = Arc<dyn Fn(String) + Send + Sync>;

/// Everything that a pipeline is built from.
pub struct Blueprint<'a> {
    /// All settings.
    pub settings: &'a Settings,
    /// Name of the handler.
    pub name: &'a str,
    /// Its settings.
    pub handler_settings: &'a HandlerSettings,
    /// What its records are handed to.
    pub handler: Arc<dyn Handler>,
    /// Its topics.
    pub facts: TopicFacts,
    /// Name of this instance.
    pub instance: &'a str,
    /// Told why it cannot go on.
    pub on_halt: OnHalt,
}

impl Pipeline {
    /// Starts a handler.
    ///
    /// # Errors
    /// When the local view cannot be opened, a client's settings are refused, or a thread cannot be
    /// started.
    pub async fn start(blueprint: Blueprint<'_>) -> anyhow::Result<Pipeline> {
        let Blueprint { settings, name, handler_settings, handler, facts, instance, on_halt } = blueprint;
        let group = handler_settings.group(name);
        let stats = Arc::new(HandlerStats::default());
        let source = Arc::new(Source {
            handler: name.into(),
            topic: handler_settings.topic.as_str().into(),
            topic_id: facts.input_id.clone(),
            group: group.into(),
        });
        let (store, store_thread) = open_view(settings, name, group, &facts)?;
        let held = Arc::new(Held::default());
        let context = IntakeContext::new(&handler_settings.topic, held.clone());
        let consumer: Arc<BaseConsumer<IntakeContext>> = Arc::new(
            consumer_config(settings, &handler_settings.intake, group).create_with_context(context)?,
        );
        let times = EpochCommitTimes::default();
        let (writer, jobs) = channel();
        let (intake, commands) = channel();
        let (assignments, assigned) = channel();

        let writing = Writer::new(WriterParts {
            handler: source.handler.clone(),
            topic: handler_settings.topic.clone(),
            changelog: handler_settings.changelog_topic(name),
            instance: instance.to_owned(),
            producer: producer_config(settings, handler_settings, group, instance, facts.max_batch_bytes),
            transactional: handler_settings.guarantee == Guarantee::ExactlyOnce,
            consumer: consumer.clone(),
            held: held.clone(),
            view: store.clone(),
            intake: intake.clone(),
            times: times.clone(),
            on_halt: on_halt.clone(),
        });
        let writer_thread = thread("pawl-writer", &on_halt, move || writing.run(&jobs))?;
        let arbiter = Arbiter::try_new()?;
        let world = World {
            policy: policy(handler_settings, &facts),
            source: source.clone(),
            handler,
            view: Box::new(SharedView(store.clone())),
            stats: stats.clone(),
            sink: epoch_sink(writer.clone()),
            on_halt: Box::new({
                let on_halt = on_halt.clone();
                move |reason| on_halt(reason)
            }),
        };
        let actors = start_on(&arbiter.handle(), world).await?;
        writer.send(Job::Attach(actors.committer))?;
        let owner = Owner::new(OwnerParts {
            handler: source.handler.clone(),
            topic: handler_settings.topic.clone(),
            topic_id: facts.input_id.clone(),
            start: handler_settings.start,
            fingerprint: handler_settings.identity_fingerprint(),
            transactional: handler_settings.guarantee == Guarantee::ExactlyOnce,
            changelog_partitions: facts.changelog_partitions,
            consumer: consumer.clone(),
            held: held.clone(),
            stats: stats.clone(),
            restore: Restore {
                config: restore_config(settings, group),
                changelog: handler_settings.changelog_topic(name),
                max_view_age: facts.max_view_age,
                patience: RESTORE_PATIENCE.max(settings.kafka.transaction_timeout + TRANSACTION_SWEEP),
                handler: source.handler.clone(),
            },
            view: store.clone(),
            writer: writer.clone(),
            supervisor: actors.supervisor,
            intake: intake.clone(),
            on_halt: on_halt.clone(),
        });
        let owner_thread = thread("pawl-owner", &on_halt, move || owner.run(&assigned))?;
        let taking = Intake::new(IntakeParts {
            handler: source.handler.clone(),
            topic: handler_settings.topic.clone(),
            consumer,
            held,
            stats: stats.clone(),
            bounds: bounds(handler_settings),
            grace: drain_grace(settings),
            owner: assignments,
            commands: intake.clone(),
            on_halt: on_halt.clone(),
        });
        let consumer_thread = thread("pawl-consumer", &on_halt, move || taking.run(&commands))?;
        let handle = arbiter.handle();
        watch(arbiter, name, on_halt)?;
        let view = HandlerView {
            name: source.handler.clone(),
            group: source.group.clone(),
            topic: source.topic.clone(),
            stats,
            epoch_commit_times: times,
        };
        let other_threads = vec![owner_thread, writer_thread];
        Ok(Pipeline {
            view,
            intake,
            writer,
            store,
            arbiter: handle,
            consumer_thread,
            other_threads,
            store_thread,
        })
    }

    /// Drains, commits, leaves the group and ends every thread. Blocks for as long as that takes;
    /// the caller sets the deadline.
    pub fn stop(self) {
        let Pipeline { intake, writer, store, arbiter, consumer_thread, other_threads, store_thread, .. } =
            self;
        // A receiver that is gone belongs to a thread that has ended already.
        let _ = intake.send(Command::Shutdown);
        let _ = consumer_thread.join();
        let _ = writer.send(Job::Stop);
        for thread in other_threads {
            let _ = thread.join();
        }
        store.close();
        let _ = store_thread.join();
        arbiter.stop();
    }
}

/// A thread whose panic never goes unnoticed.
fn thread(
    name: &'static str,
    on_halt: &OnHalt,
    work: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let on_halt = on_halt.clone();
    std::thread::Builder::new().name(name.into()).spawn(move || {
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            on_halt(format!("the thread {name} panicked; this is a bug in Pawl, please report it"));
        }
    })
}

fn open_view(
    settings: &Settings,
    name: &str,
    group: &str,
    facts: &TopicFacts,
) -> anyhow::Result<(Arc<LocalView>, JoinHandle<()>)> {
    let dir: &Path = &settings.store.dir.join(name);
    let store = SledStore::open(dir, settings.store.cache_bytes.bytes())?;
    let buffer = usize::try_from(settings.store.buffer_bytes.bytes()).unwrap_or(usize::MAX);
    let interval = settings.store.checkpoint_interval;
    Ok(LocalView::start(Box::new(store), buffer, interval, group.to_owned(), facts.changelog_id.clone())?)
}

fn epoch_sink(writer: Sender<Job>) -> Box<dyn Fn(Epoch) + Send> {
    Box::new(move |epoch| {
        // A writer that has ended has said why.
        let _ = writer.send(Job::Epoch(epoch));
    })
}

/// Starts the actors on their own thread.
async fn start_on(arbiter: &ArbiterHandle, world: World) -> anyhow::Result<Actors> {
    let (tell, told) = tokio::sync::oneshot::channel();
    arbiter.spawn_fn(move || {
        let _ = tell.send(start(world));
    });
    told.await.map_err(|_| anyhow::anyhow!("the actors' thread ended before they were started"))
}

/// A panic in an actor ends its thread; that must never go unnoticed.
fn watch(arbiter: Arbiter, name: &str, on_halt: OnHalt) -> std::io::Result<()> {
    let name = name.to_owned();
    let tell = on_halt.clone();
    let watching = thread("pawl-watch", &on_halt, move || {
        if arbiter.join().is_err() {
            tell(format!("{name}: the actors' thread panicked; this is a bug in Pawl, please report it"));
        }
    })?;
    // It ends with the arbiter, for which nobody needs to wait.
    drop(watching);
    Ok(())
}

fn bounds(settings: &HandlerSettings) -> IntakeBounds {
    let intake = &settings.intake;
    IntakeBounds {
        records: i64::from(intake.max_records),
        bytes: i64::try_from(intake.max_bytes.bytes()).unwrap_or(i64::MAX),
        ahead: i64::from(intake.max_finished_ahead),
    }
}

/// Running handlers get most of the shutdown's time, the rest is for the last commit.
fn drain_grace(settings: &Settings) -> Duration {
    settings.shutdown.deadline.mul_f64(0.8)
}

fn policy(settings: &HandlerSettings, facts: &TopicFacts) -> Policy {
    let (max_in_flight, attempt_timeout) = match (&settings.http, &settings.program) {
        (Some(http), _) => (http.max_in_flight, http.timeout + HTTP_GRACE),
        (None, Some(program)) => (program.max_in_flight, program.timeout),
        (None, None) => (u32::MAX, HTTP_GRACE),
    };
    Policy {
        key: settings.key.clone(),
        event_id: settings.event_id.clone(),
        recent_ids: settings.recent_ids as usize,
        recent_ids_age: settings.recent_ids_age,
        retry: RetryPolicy {
            attempts: settings.retry.attempts,
            initial: settings.retry.initial,
            max: settings.retry.max,
            multiplier: settings.retry.multiplier,
            jitter: settings.retry.jitter,
        },
        dead_letter_topic: settings.dead_letter_topic().into(),
        max_emit_bytes: facts.max_emit_bytes,
        max_letter_bytes: facts.max_letter_bytes,
        max_row_bytes: facts.max_row_bytes,
        max_epoch_bytes: MAX_EPOCH_BYTES,
        max_in_flight: max_in_flight as usize,
        attempt_timeout,
        commit_interval: settings.commit_interval,
        idle_key_after: settings.idle_key_after,
        max_live_keys: settings.max_live_keys as usize,
        mailbox_capacity: 2 * settings.intake.max_records as usize + 1_024,
        sweep_rows_per_second: SWEEP_ROWS_PER_SECOND,
    }
}

fn consumer_config(settings: &Settings, intake: &IntakeSettings, group: &str) -> ClientConfig {
    let mut config = client::consumer(&settings.kafka, group);
    // No more than the intake takes: what is fetched ahead costs memory, and a pause throws it away.
    let [least, most] = FETCHED_AHEAD_KIB;
    let ahead_kib = (intake.max_bytes.bytes() / 1024).clamp(least, most);
    config
        .set("partition.assignment.strategy", "range")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error");
    let (messages, kib) = (intake.max_records.to_string(), ahead_kib.to_string());
    let tuning = [("queued.min.messages", &*messages), ("queued.max.messages.kbytes", &kib), FETCH_AGAIN];
    client::tune(&mut config, &settings.kafka, &tuning);
    config
}

fn restore_config(settings: &Settings, group: &str) -> ClientConfig {
    let mut config = client::consumer(&settings.kafka, group);
    config.set("auto.offset.reset", "error");
    let tuning = [("queued.min.messages", "100000"), ("queued.max.messages.kbytes", "32768"), FETCH_AGAIN];
    client::tune(&mut config, &settings.kafka, &tuning);
    config
}

fn producer_config(
    settings: &Settings,
    handler: &HandlerSettings,
    group: &str,
    instance: &str,
    max_batch_bytes: u64,
) -> ClientConfig {
    let mut config = client::producer(&settings.kafka);
    let tuning = [
        ("linger.ms", "1"),
        ("batch.num.messages", "10000"),
        ("queue.buffering.max.messages", "200000"),
        ("queue.buffering.max.kbytes", "131072"),
    ];
    client::tune(&mut config, &settings.kafka, &tuning);
    config
        // The broker holds a whole batch against the topic's limit, and librdkafka never splits one.
        .set("batch.size", max_batch_bytes.clamp(1, 1_000_000).to_string())
        // For a single record the topic's limit decides, not the client's.
        .set("message.max.bytes", "104857600");
    if handler.guarantee == Guarantee::ExactlyOnce {
        let id = format!("{}{group}.{instance}", settings.kafka.transactional_id_prefix);
        config
            .set("transactional.id", id)
            .set("transaction.timeout.ms", settings.kafka.transaction_timeout.as_millis().to_string());
    }
    config
}
