//! The handlers of a process: started together, stopped together. One whose local view is found to be
//! damaged is stopped, and begun anew with an empty view. So is one of whose records a topic refused one, if
//! that can have another end then.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, select_all};
use pawl_actors::clock;
use pawl_actors::stats::Restart;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::RunError;
use super::pipeline::{Blueprint, OnHalt, Pipeline};
use super::reconnecting::Reconnecting;
use super::topics::TopicFacts;
use crate::commands::topics::TopicsError;
use crate::handlers::Registry;
use crate::kafka::admin::AdminError;
use crate::observed::HandlerView;
use crate::settings::Settings;
use crate::store::{ViewDir, ViewDirParts};
use crate::telemetry::Tracing;

/// How often a process rebuilds a handler's local view: a disk that damages it again and again is
/// nothing to go on with.
const MAX_REBUILDS: u32 = 3;

/// For how many times the shutdown's deadline a handler that connects anew may drain: brokers may be away just then.
const MAX_RECONNECT_DEADLINES: u32 = 10;

/// How long brokers may take to tell a handler's topics, before it is begun anew.
const FACTS_TIMEOUT: Duration = Duration::from_secs(30);

/// Tells that a handler cannot go on.
pub struct Halt {
    /// Number of the handler.
    handler: usize,
    /// In which of its lives.
    life: u32,
    reason: String,
}

/// How long to wait before the next look for a token that could not be fetched.
const TOKEN_PAUSE: Duration = Duration::from_secs(2);

/// See the module's documentation.
pub struct Handlers<'a> {
    running: Vec<Running<'a>>,
    tell_halt: UnboundedSender<Halt>,
    deadline: Duration,
}

struct Running<'a> {
    blueprint: Blueprint<'a>,
    /// `None` only while it is stopped to be begun anew.
    pipeline: Option<Pipeline>,
    /// Likewise: the other's end.
    draining: Option<Draining>,
    /// How often it was begun anew.
    life: u32,
    /// How often of these because its local view was damaged.
    rebuilds: u32,
}

impl<'a> Handlers<'a> {
    /// Starts all handlers. What can be refused comes before the first one runs.
    ///
    /// # Errors
    /// When a handler, its topics or its local view cannot be used.
    pub async fn start(
        settings: &'a Settings,
        registry: &Registry,
        instance: &'a str,
        views: &[HandlerView],
        tracing: Option<&Tracing>,
        tell_halt: UnboundedSender<Halt>,
    ) -> Result<Self, RunError> {
        let mut blueprints = Vec::new();
        let gate = Arc::default();
        for ((name, handler_settings), view) in settings.handler.iter().zip(views) {
            let handler = registry.build(name, handler_settings)?;
            let facts = topic_facts(settings, name).await?;
            let view_dir = ViewDir::hold(ViewDirParts {
                dir: settings.store.dir.join(name),
                engine: settings.store.engine,
                cache_bytes: settings.store.cache_bytes.bytes(),
            });
            blueprints.push(Blueprint {
                settings,
                name,
                handler_settings,
                handler,
                facts,
                instance,
                view: view.clone(),
                gate: Arc::clone(&gate),
                view_dir: Arc::new(view_dir.map_err(anyhow::Error::from)?),
                refusals: Arc::default(),
                tracing: tracing.cloned(),
                on_halt: on_halt(&tell_halt, name, blueprints.len(), 0),
            });
        }
        let mut running = Vec::new();
        for blueprint in blueprints {
            let pipeline = Some(Pipeline::start(&blueprint).await?);
            running.push(Running { blueprint, pipeline, draining: None, life: 0, rebuilds: 0 });
        }
        Ok(Handlers { running, tell_halt, deadline: settings.shutdown.deadline })
    }

    /// Hears of handlers that cannot go on, or come with old certificates or keys, and drains them. May be dropped
    /// while it waits, and asked again.
    ///
    /// # Returns
    /// One that is drained, and is to be begun anew.
    ///
    /// # Errors
    /// When a handler cannot go on, or is not drained in time.
    pub async fn next(
        &mut self,
        halted: &mut UnboundedReceiver<Halt>,
        reconnecting: &mut Reconnecting,
    ) -> Result<usize, RunError> {
        loop {
            let is_draining = self.running.iter().any(|one| one.draining.is_some());
            tokio::select! {
                biased;
                halt = halted.recv() => self.halted(halt.expect("the handlers hold a sender")).await?,
                drained = self.drained(), if is_draining => return drained,
                // They connect anew one after the other.
                handler = reconnecting.next(), if !is_draining => self.reconnect(handler),
            }
        }
    }

    /// Drains it if its local view is damaged, or a topic refused a record of it and that need not happen again; else
    /// the process ends.
    async fn halted(&mut self, halt: Halt) -> Result<(), RunError> {
        let one = &mut self.running[halt.handler];
        if halt.life != one.life {
            // Each of its threads tells; the first was enough.
            return Ok(());
        }
        let damaged = one.pipeline.as_ref().is_some_and(Pipeline::has_a_damaged_view);
        let restart = Restart {
            at: clock::now().0,
            partition: None,
            actor: if damaged { "the local view" } else { "the writer" },
            key: None,
            why: halt.reason.clone(),
        };
        if damaged {
            if one.rebuilds == MAX_REBUILDS {
                return Err(RunError::Halted(format!(
                    "{}. That was the {}th time in this process: is the disk sound?",
                    halt.reason,
                    one.rebuilds + 1
                )));
            }
            one.rebuilds += 1;
            tracing::warn!(
                handler = one.blueprint.name,
                "stopped, to be begun anew with an empty local view"
            );
        } else {
            one.after_refusal(halt.reason).await?;
        }
        one.blueprint.view.stats.restarts.note(restart);
        self.drain(halt.handler, 1);
        Ok(())
    }

    /// Clients keep to the certificates or keys that they were opened with, so the handler is drained.
    fn reconnect(&mut self, handler: usize) {
        let name = self.running[handler].blueprint.name;
        tracing::info!(handler = name, "drains, and connects anew with the new certificates or keys");
        self.drain(handler, MAX_RECONNECT_DEADLINES);
    }

    fn drain(&mut self, handler: usize, deadlines: u32) {
        let one = &mut self.running[handler];
        one.life += 1;
        one.blueprint.on_halt = on_halt(&self.tell_halt, one.blueprint.name, handler, one.life);
        one.draining =
            one.pipeline.take().map(|pipeline| Draining::new(drain(pipeline), self.deadline, deadlines));
    }

    /// The first that is drained.
    async fn drained(&mut self) -> Result<usize, RunError> {
        let waits = self.running.iter_mut().enumerate().filter_map(|(handler, one)| {
            let (name, draining) = (one.blueprint.name, one.draining.as_mut()?);
            Some(Box::pin(async move { draining.over(name).await.map(|()| handler) }))
        });
        select_all(waits).await.0
    }

    /// Begins a handler that is drained anew.
    ///
    /// # Errors
    /// When that cannot be.
    pub async fn begin_anew(&mut self, handler: usize) -> Result<(), RunError> {
        let one = &mut self.running[handler];
        one.draining = None;
        one.pipeline = Some(Pipeline::start(&one.blueprint).await?);
        Ok(())
    }

    /// Drains all handlers and ends them.
    ///
    /// # Errors
    /// When that is not over in time.
    pub async fn stop(self) -> Result<(), RunError> {
        tracing::info!(deadline = ?self.deadline, "draining");
        let draining = self
            .running
            .into_iter()
            .filter_map(|one| one.pipeline.map(drain).or(one.draining.map(|draining| draining.told)));
        let all = timeout(self.deadline, join_all(draining)).await;
        all.map_err(|_| RunError::Undrained { deadline: self.deadline })?;
        tracing::info!("drained, committed and left the group");
        Ok(())
    }
}

fn on_halt(tell: &UnboundedSender<Halt>, name: &str, handler: usize, life: u32) -> OnHalt {
    let (tell, name) = (tell.clone(), name.to_owned());
    Arc::new(move |reason: String| {
        tracing::error!(handler = name, "{reason}");
        // Nobody listens any more once the process ends.
        let _ = tell.send(Halt { handler, life, reason });
    })
}

impl Running<'_> {
    /// Whether what a topic refused has another end when the handler is begun anew: what was emitted for a
    /// record is a failure of that record then, and limits that have changed are heeded.
    async fn after_refusal(&mut self, reason: String) -> Result<(), RunError> {
        let (Blueprint { settings, name, .. }, refused) = (&self.blueprint, self.blueprint.refusals.take());
        let Some(noted) = refused else { return Err(RunError::Halted(reason)) };
        let facts = timeout(FACTS_TIMEOUT, topic_facts(settings, name)).await;
        let Ok(facts) = facts else { return Err(RunError::Halted(reason)) };
        let facts = facts?;
        let changed = facts != self.blueprint.facts;
        if noted == 0 && !changed {
            return Err(RunError::Halted(reason));
        }
        tracing::warn!(
            handler = name,
            "stopped, to be begun anew: {}",
            match (noted, changed) {
                (0, _) => "its topics have other limits now, which will be kept".to_owned(),
                (noted, _) => format!("records whose effects were refused will be dead letters: {noted}"),
            }
        );
        self.blueprint.facts = facts;
        Ok(())
    }
}

/// A broker that is away at the start is waited for: in a deployment everything starts at once.
async fn topic_facts(settings: &Settings, name: &str) -> Result<TopicFacts, RunError> {
    loop {
        let (kafka, handler, owned) =
            (settings.kafka.clone(), settings.handler[name].clone(), name.to_owned());
        let gathered =
            tokio::task::spawn_blocking(move || TopicFacts::gather(&kafka, &owned, &handler)).await;
        match gathered.map_err(anyhow::Error::from)? {
            Ok(facts) => return Ok(facts),
            Err(TopicsError::Admin(
                error @ (AdminError::Unreachable { .. }
                | AdminError::Unanswered { .. }
                | AdminError::NotVisible { .. }),
            )) => {
                tracing::warn!(handler = name, "{error}; trying again");
            }
            Err(TopicsError::Admin(error @ AdminError::NoToken(_))) => {
                tracing::warn!(handler = name, "{error}; waiting for one");
                // Nobody was asked who could be slow to answer.
                tokio::time::sleep(TOKEN_PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// On a thread of its own: a runtime that ends waits for its blocking tasks without a deadline. Tells when it is over.
fn drain(pipeline: Pipeline) -> oneshot::Receiver<()> {
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        pipeline.stop();
        // Nobody listens any more once the deadline is over.
        let _ = tell.send(());
    });
    told
}

/// A pipeline that is drained.
struct Draining {
    told: oneshot::Receiver<()>,
    deadline: Duration,
    /// When the next deadline is over.
    due: Instant,
    /// So many were over.
    over: u32,
    /// For so many it is waited for.
    deadlines: u32,
}

impl Draining {
    fn new(told: oneshot::Receiver<()>, deadline: Duration, deadlines: u32) -> Draining {
        Draining { told, deadline, due: Instant::now() + deadline, over: 0, deadlines }
    }

    /// Waits until it is over. May be dropped while it waits.
    async fn over(&mut self, name: &str) -> Result<(), RunError> {
        while timeout_at(self.due, &mut self.told).await.is_err() {
            self.over += 1;
            self.due += self.deadline;
            let waited = self.deadline * self.over;
            match (self.over < self.deadlines, self.deadlines) {
                (true, _) => {
                    tracing::warn!(handler = name, "drains for {waited:?} already, and is waited for")
                }
                (false, 1) => return Err(RunError::Undrained { deadline: self.deadline }),
                (false, _) => {
                    return Err(RunError::Halted(format!(
                        "handler {name}: it was not drained in {waited:?}, so it could not connect anew"
                    )));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_drain_is_waited_for_over_several_deadlines() {
        let (tell, told) = oneshot::channel();
        let mut draining = Draining::new(told, Duration::ZERO, 3);
        let late = draining.over("billing").await;
        assert!(matches!(late, Err(RunError::Halted(_))) && draining.over == 3, "{late:?}");
        tell.send(()).expect("it is still waited for");
        assert!(draining.over("billing").await.is_ok());
        let (_tell, told) = oneshot::channel();
        let late = Draining::new(told, Duration::ZERO, 1).over("billing").await;
        assert!(matches!(late, Err(RunError::Undrained { .. })), "{late:?}");
    }
}
