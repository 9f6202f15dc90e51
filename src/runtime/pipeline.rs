//! One handler's parts and how they are joined: a consumer thread, a writer thread, an owner
//! thread, a store thread, and an arbiter for its actors.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use actix::{Arbiter, ArbiterHandle};
use pawl_actors::aside::{Aside, Want};
use pawl_actors::epoch::{AssignmentEpoch, Epoch};
use pawl_actors::handler::{Handler, Source};
use pawl_actors::record::Partition;
use pawl_actors::start::{Actors, World, start};
use rdkafka::consumer::BaseConsumer;
use tokio::sync::RwLock;

use super::clients;
use super::topics::TopicFacts;
use crate::kafka::access::Live;
use crate::kafka::aside::{AsideParts, AsideReader};
use crate::kafka::consumer::{Assigned, Command, Intake, IntakeParts};
use crate::kafka::denied::Identity;
use crate::kafka::ends::Ends;
use crate::kafka::held::Held;
use crate::kafka::intake_bounds::IntakeBounds;
use crate::kafka::owner::{CommandTopic, Owner, OwnerParts};
use crate::kafka::rebalance::IntakeContext;
use crate::kafka::restore::Restore;
use crate::kafka::wire::{KafkaWire, Sessions, Step};
use crate::kafka::writer::{Job, Refusals, Writer, WriterParts};
use crate::looking::window::Window;
use crate::observed::HandlerView;
use crate::rights::transactional_id_prefix;
use crate::settings::{Guarantee, HandlerSettings, Settings};
use crate::store::{LocalView, SharedView, ViewDir, ViewParts};
use crate::telemetry::{Traced, Tracing};

/// How much longer than its time-out a dead instance's transaction may stay open: the broker looks
/// for such every so often (`transaction.abort.timed.out.transaction.cleanup.interval.ms`, 10 s).
pub const TRANSACTION_SWEEP: Duration = Duration::from_secs(30);
/// Longest commit interval for which a transaction is kept open: while one is, readers of committed
/// records wait, also for what others write to its topics.
pub(super) const MAX_OPEN: Duration = Duration::from_millis(50);

/// A handler that runs.
pub struct Pipeline {
    intake: Sender<Command>,
    writer: Sender<Job>,
    store: Arc<LocalView>,
    window: Arc<Window>,
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
    /// What the process's endpoint shows of it.
    pub view: HandlerView,
    /// Shared by all handlers of the process: who begins carefully passes it.
    pub gate: Arc<RwLock<()>>,
    /// Where its local view lies.
    pub view_dir: Arc<ViewDir>,
    /// What its topics refused, over all its lives.
    pub refusals: Arc<Refusals>,
    /// Makes spans, where telemetry is on.
    pub tracing: Option<Tracing>,
    /// Told why it cannot go on.
    pub on_halt: OnHalt,
}

impl Pipeline {
    /// Starts a handler.
    ///
    /// # Errors
    /// When the local view cannot be opened, a client's settings are refused, or a thread cannot be
    /// started.
    pub async fn start(blueprint: &Blueprint<'_>) -> anyhow::Result<Pipeline> {
        let on_halt = blueprint.on_halt.clone();
        let (store, store_thread) = blueprint.open_view().await?;
        blueprint.view.keys.open(store.clone());
        let (writer, jobs) = channel();
        let (intake, commands) = channel();
        let (assignments, assigned) = channel();
        let held = Arc::new(Held::default());
        let context = IntakeContext::new(&blueprint.handler_settings.topic, held.clone());
        let config = clients::consumer_config(
            blueprint.settings,
            blueprint.handler_settings,
            &blueprint.view.group,
            blueprint.instance,
        );
        let consumer: Arc<Live<BaseConsumer<IntakeContext>>> = Arc::new(config.open(context)?);
        let identity = Arc::new(blueprint.identity(consumer.principal()));
        let joints = Joints { consumer, identity, held, store, writer, intake };

        let writing = Writer::new(blueprint.writer(&joints));
        let writer_thread = thread("pawl-writer", &on_halt, move || writing.run(&jobs))?;
        let arbiter = Arbiter::try_new()?;
        let aside = blueprint.asides(&joints)?;
        let actors = start_on(&arbiter.handle(), blueprint.world(&joints, aside)).await?;
        joints.writer.send(Job::Attach(actors.committer.clone()))?;
        let owner = Owner::new(blueprint.owner(&joints, actors));
        let owner_thread = thread("pawl-owner", &on_halt, move || owner.run(&assigned))?;
        let taking = Intake::new(blueprint.intake(&joints, assignments));
        let consumer_thread = thread("pawl-consumer", &on_halt, move || taking.run(&commands))?;
        let handle = arbiter.handle();
        watch(arbiter, blueprint.name, on_halt)?;
        let Joints { store, writer, intake, .. } = joints;
        let other_threads = vec![owner_thread, writer_thread];
        let window = blueprint.view.keys.clone();
        Ok(Pipeline {
            intake,
            writer,
            store,
            window,
            arbiter: handle,
            consumer_thread,
            other_threads,
            store_thread,
        })
    }

    /// Whether it cannot go on because what it stored on this machine is damaged.
    pub fn has_a_damaged_view(&self) -> bool {
        self.store.is_damaged()
    }

    /// Drains, commits, leaves the group and ends every thread. Blocks for as long as that takes;
    /// the caller sets the deadline.
    pub fn stop(self) {
        let Pipeline { intake, writer, store, window, arbiter, consumer_thread, other_threads, store_thread } =
            self;
        // A receiver that is gone belongs to a thread that has ended already.
        let _ = intake.send(Command::Shutdown);
        let _ = consumer_thread.join();
        let _ = writer.send(Job::Stop);
        for thread in other_threads {
            let _ = thread.join();
        }
        window.close();
        store.close();
        let _ = store_thread.join();
        arbiter.stop();
    }
}

/// Where owners of partitions ask for commands and letters.
type AsideSink = Box<dyn Fn(Want) + Send>;

/// What joins a pipeline's threads.
struct Joints {
    consumer: Arc<Live<BaseConsumer<IntakeContext>>>,
    identity: Arc<Identity>,
    held: Arc<Held>,
    store: Arc<LocalView>,
    writer: Sender<Job>,
    intake: Sender<Command>,
}

impl Blueprint<'_> {
    /// On a thread of its own: after a crash it may take long, and this one answers probes and hears signals.
    async fn open_view(&self) -> anyhow::Result<(Arc<LocalView>, JoinHandle<()>)> {
        let store = &self.settings.store;
        let parts = ViewParts {
            dir: self.view_dir.clone(),
            max_bytes: usize::try_from(store.buffer_bytes.bytes()).unwrap_or(usize::MAX),
            interval: store.checkpoint_interval,
            group: self.view.group.to_string(),
            changelog_id: self.facts.changelog_id.clone(),
        };
        let opening = tokio::task::spawn_blocking(move || {
            let store = parts.dir.open()?;
            Ok::<_, anyhow::Error>(LocalView::start(store, parts)?)
        });
        opening.await?
    }

    fn transactional(&self) -> bool {
        self.handler_settings.guarantee == Guarantee::ExactlyOnce
    }

    fn writer(&self, joints: &Joints) -> WriterParts<KafkaWire> {
        let interval = self.handler_settings.commit_interval;
        WriterParts {
            handler: self.view.name.clone(),
            topic: self.handler_settings.topic.clone(),
            instance: self.instance.to_owned(),
            wire: self.wire(joints),
            transaction_timeout: self.settings.kafka.transaction_timeout,
            commit_interval: if self.transactional() && interval <= MAX_OPEN {
                interval
            } else {
                Duration::ZERO
            },
            held: joints.held.clone(),
            view: joints.store.clone(),
            intake: joints.intake.clone(),
            times: self.view.epoch_commit_times.clone(),
            stats: self.view.stats.clone(),
            refusals: self.refusals.clone(),
            group: self.view.group.clone(),
            tracing: self.tracing.clone(),
            on_halt: self.on_halt.clone(),
        }
    }

    fn identity(&self, principal: String) -> Identity {
        Identity {
            principal,
            group: self.view.group.to_string(),
            transactional_ids: transactional_id_prefix(&self.settings.kafka, &self.view.group),
        }
    }

    fn wire(&self, joints: &Joints) -> KafkaWire {
        let Blueprint { settings, handler_settings, instance, .. } = *self;
        let (group, limit) = (&self.view.group, self.facts.max_batch_bytes);
        KafkaWire {
            topic: handler_settings.topic.clone(),
            changelog: handler_settings.changelog_topic(self.name),
            instance: instance.to_owned(),
            producers: clients::producer_configs(settings, handler_settings, group, instance, limit),
            transactional: self.transactional(),
            ack_timeout: settings.kafka.transaction_timeout,
            consumer: joints.consumer.clone(),
            identity: joints.identity.clone(),
            held: joints.held.clone(),
            sessions: Sessions::default(),
            step: Step::default(),
        }
    }

    /// The readers of commands and of dead letters, and whom to ask.
    fn asides(&self, joints: &Joints) -> std::io::Result<AsideSink> {
        let reader = |name, topic: String, waits| {
            let (ask, wants) = channel();
            let reader = AsideReader::new(AsideParts {
                handler: self.view.name.clone(),
                topic,
                config: clients::aside_config(self.settings, &self.view.group),
                waits,
                held: joints.held.clone(),
            });
            // It ends with the actors, and nobody needs to wait for that.
            drop(thread(name, &self.on_halt, move || reader.run(&wants))?);
            Ok::<_, std::io::Error>(ask)
        };
        let commands = reader("pawl-commands", self.handler_settings.command_topic(self.name), true)?;
        let letters = reader("pawl-letters", self.handler_settings.dead_letter_topic(), false)?;
        Ok(Box::new(move |want| {
            let asked = if want.topic == Aside::Commands { &commands } else { &letters };
            // A reader that has ended has said why.
            let _ = asked.send(want);
        }))
    }

    fn world(&self, joints: &Joints, aside: AsideSink) -> World {
        let on_halt = self.on_halt.clone();
        World {
            policy: self.policy(),
            source: Arc::new(Source {
                handler: self.view.name.clone(),
                topic: self.view.topic.clone(),
                topic_id: self.facts.input_id.clone(),
                group: self.view.group.clone(),
            }),
            handler: self.traced(),
            view: Box::new(SharedView(joints.store.clone())),
            refused: self.refusals.effects.clone(),
            stats: self.view.stats.clone(),
            gate: self.gate.clone(),
            aside,
            rebuild: rebuild_sink(joints.intake.clone()),
            sink: epoch_sink(joints.writer.clone()),
            on_halt: Box::new(move |reason| on_halt(reason)),
        }
    }

    /// The handler, in a decorator where its attempts are traced.
    fn traced(&self) -> Arc<dyn Handler> {
        let handler = self.handler.clone();
        match &self.tracing {
            None => handler,
            Some(tracing) => Arc::new(Traced::new(handler, tracing.clone(), self.facts.max_emit_bytes)),
        }
    }

    fn owner(&self, joints: &Joints, actors: Actors) -> OwnerParts {
        let (settings, handler_settings) = (self.settings, self.handler_settings);
        let patience =
            settings.store.restore_timeout.max(settings.kafka.transaction_timeout + TRANSACTION_SWEEP);
        OwnerParts {
            handler: self.view.name.clone(),
            topic: handler_settings.topic.clone(),
            topic_id: self.facts.input_id.clone(),
            start: handler_settings.start,
            fingerprint: handler_settings.identity_fingerprint(),
            transactional: self.transactional(),
            changelog_partitions: self.facts.changelog_partitions,
            commands: CommandTopic {
                topic: handler_settings.command_topic(self.name),
                id: self.facts.commands_id.clone(),
            },
            ends: Ends {
                topic: handler_settings.topic.clone(),
                consumer: joints.consumer.clone(),
                config: clients::restore_config(settings, &self.view.group),
            },
            consumer: joints.consumer.clone(),
            held: joints.held.clone(),
            stats: self.view.stats.clone(),
            window: self.view.keys.clone(),
            restore: Restore {
                config: clients::restore_config(settings, &self.view.group),
                changelog: handler_settings.changelog_topic(self.name),
                max_view_age: self.facts.max_view_age,
                patience,
                handler: self.view.name.clone(),
                identity: joints.identity.clone(),
            },
            identity: joints.identity.clone(),
            view: joints.store.clone(),
            writer: joints.writer.clone(),
            supervisor: actors.supervisor,
            intake: joints.intake.clone(),
            on_halt: self.on_halt.clone(),
        }
    }

    fn intake(&self, joints: &Joints, owner: Sender<Vec<Assigned>>) -> IntakeParts {
        IntakeParts {
            handler: self.view.name.clone(),
            topic: self.handler_settings.topic.clone(),
            consumer: joints.consumer.clone(),
            identity: joints.identity.clone(),
            held: joints.held.clone(),
            stats: self.view.stats.clone(),
            bounds: bounds(self.handler_settings),
            revoke_grace: self.handler_settings.membership.revoke_grace,
            shutdown_grace: drain_grace(self.settings),
            is_static: self.handler_settings.membership.is_static,
            owner,
            commands: joints.intake.clone(),
            on_halt: self.on_halt.clone(),
        }
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

fn epoch_sink(writer: Sender<Job>) -> Box<dyn Fn(Epoch) + Send> {
    Box::new(move |epoch| {
        // A writer that has ended has said why.
        let _ = writer.send(Job::Epoch(epoch));
    })
}

fn rebuild_sink(intake: Sender<Command>) -> Box<dyn Fn(Partition, AssignmentEpoch) + Send> {
    Box::new(move |partition, assignment| {
        // A consumer thread that has ended holds no partition any more.
        let _ = intake.send(Command::Rebuild { partition, assignment });
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
