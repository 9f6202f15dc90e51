//! The handlers of a process: started together, stopped together. One whose local view is found to be
//! damaged is stopped, and begun anew with an empty view. So is one of whose records a topic refused one, if
//! that can have another end then.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use pawl_actors::clock;
use pawl_actors::stats::Restart;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::RunError;
use super::pipeline::{Blueprint, OnHalt, Pipeline};
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

/// Told when a pipeline has ended.
type Draining = oneshot::Receiver<()>;

struct Running<'a> {
    blueprint: Blueprint<'a>,
    /// `None` only while it is stopped to be begun anew.
    pipeline: Option<Pipeline>,
    /// Told once that is over. Kept here, for a process that is stopped meanwhile waits for it too.
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

    /// A handler cannot go on. If its local view is damaged, or a topic refused a record of it and that need
    /// not happen again, it is begun anew.
    ///
    /// # Errors
    /// When it is for another reason, or its view is damaged too often.
    pub async fn halted(&mut self, halt: Halt) -> Result<(), RunError> {
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
        self.begin_anew(halt.handler, 1).await
    }

    /// Certificates or keys have changed, and clients keep to those that they were opened with: the handler drains and
    /// is begun anew.
    ///
    /// # Errors
    /// When it is not drained in many times the deadline, or cannot be begun.
    pub async fn reconnect(&mut self, handler: usize) -> Result<(), RunError> {
        let name = self.running[handler].blueprint.name;
        tracing::info!(handler = name, "drains, and connects anew with the new certificates or keys");
        self.begin_anew(handler, MAX_RECONNECT_DEADLINES).await.map_err(|error| match error {
            RunError::Undrained { deadline } => RunError::Halted(format!(
                "handler {name}: it was not drained in {:?}, so it could not connect anew",
                deadline * MAX_RECONNECT_DEADLINES
            )),
            error => error,
        })
    }

    /// May be dropped when the process is stopped: what it drains is waited for by `stop`.
    async fn begin_anew(&mut self, handler: usize, deadlines: u32) -> Result<(), RunError> {
        let one = &mut self.running[handler];
        one.life += 1;
        one.blueprint.on_halt = on_halt(&self.tell_halt, one.blueprint.name, handler, one.life);
        let draining = one.draining.insert(drain(one.pipeline.take().expect("it runs")));
        drained(one.blueprint.name, draining, self.deadline, deadlines).await?;
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
        let draining = self.running.into_iter().filter_map(|one| one.pipeline.map(drain).or(one.draining));
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

/// On a thread of its own: a runtime that ends waits for its blocking tasks without a deadline.
fn drain(pipeline: Pipeline) -> Draining {
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        pipeline.stop();
        // Nobody listens any more once the deadline is over.
        let _ = tell.send(());
    });
    told
}

/// Waits until a handler is drained, and tells each time that a deadline is over, but for so many at most.
async fn drained(
    name: &str,
    draining: &mut Draining,
    deadline: Duration,
    deadlines: u32,
) -> Result<(), RunError> {
    for over in 1..=deadlines {
        if timeout(deadline, &mut *draining).await.is_ok() {
            return Ok(());
        }
        if over < deadlines {
            tracing::warn!(handler = name, "drains for {:?} already, and is waited for", deadline * over);
        }
    }
    Err(RunError::Undrained { deadline })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_drain_is_waited_for_over_several_deadlines() {
        let (tell, mut draining) = oneshot::channel();
        let late = drained("billing", &mut draining, Duration::ZERO, 2).await;
        assert!(matches!(late, Err(RunError::Undrained { .. })), "{late:?}");
        tell.send(()).expect("it is still waited for");
        assert!(drained("billing", &mut draining, Duration::ZERO, 1).await.is_ok());
    }
}
