//! Pawl itself, as `pawl run` starts it, on a thread of its own with settings made in code.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use pawl_actors::selector::Selector;
use pawl_actors::supervisor::Attempts;
use tokio::sync::oneshot;

use crate::handlers::Registry;
use crate::observed::HandlerView;
use crate::runtime::{self, RunError, Running};
use crate::settings::{Admin, Guarantee, HandlerSettings, Http, Kafka, Retry, Settings, Shutdown, Store};

/// Name of the one handler, and so of its group.
pub const HANDLER: &str = "billing";
/// The input topic.
pub const TOPIC: &str = "orders";

/// Pawl in this process.
pub struct Instance {
    stop: oneshot::Sender<()>,
    interrupted: Arc<AtomicBool>,
    views: Arc<OnceLock<Vec<HandlerView>>>,
    thread: JoinHandle<Result<(), RunError>>,
}

/// How Pawl ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As it was told.
    Stopped,
    /// By Ctrl-C.
    Interrupted,
}

impl Instance {
    /// Starts Pawl. Ctrl-C ends it, cleanly.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(settings: Settings) -> io::Result<Instance> {
        let (stop, told) = oneshot::channel();
        let interrupted = Arc::new(AtomicBool::new(false));
        let noted = interrupted.clone();
        let stopped = async move {
            tokio::select! {
                _ = told => {}
                Ok(()) = tokio::signal::ctrl_c() => noted.store(true, Ordering::Relaxed),
            }
        };
        let views = Arc::new(OnceLock::new());
        let shown = views.clone();
        let started = move |running: Running| drop(shown.set(running.handlers));
        let run = move || runtime::run(&settings, &Registry::default(), started, stopped);
        let thread = std::thread::Builder::new().name("demo-pawl".into()).spawn(run)?;
        Ok(Instance { stop, interrupted, views, thread })
    }

    /// Whether Pawl has ended without having been told.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Records that wait for a retry: the group's position has passed them.
    pub fn parked(&self) -> i64 {
        let partitions = self.views.get().into_iter().flatten().flat_map(|view| view.stats.partitions());
        partitions.map(|(_, partition)| partition.parked_records.get()).sum()
    }

    /// Stops Pawl: running calls end, and what they did is committed.
    ///
    /// # Errors
    /// Why it ended by itself, or could not end in time.
    pub fn stop(self) -> Result<Ended, RunError> {
        // Gone when it has ended already, and then the thread says why.
        let _ = self.stop.send(());
        self.thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the runtime panicked").into()))?;
        let interrupted = self.interrupted.load(Ordering::Relaxed);
        Ok(if interrupted { Ended::Interrupted } else { Ended::Stopped })
    }
}

/// Settings as a file would have them: orders from Kafka to the billing service, at least once,
/// because the mock cluster has no transactions.
pub fn settings(kafka: Kafka, url: String, store: &Path, recent_ids: u32) -> Settings {
    let handler = HandlerSettings {
        topic: TOPIC.into(),
        guarantee: Guarantee::AtLeastOnce,
        event_id: Some(Selector::Header("ce_id".into())),
        recent_ids,
        http: Some(Http { url, ..Http::default() }),
        retry: Retry {
            attempts: Attempts::Limited(4),
            initial: Duration::from_millis(50),
            max: Duration::from_millis(500),
            ..Retry::default()
        },
        create_topics: false,
        ..HandlerSettings::default()
    };
    Settings {
        instance: Some("demo".into()),
        // The mock broker never answers when asked for a topic's configs: this is how long Pawl waits for
        // that before it assumes Kafka's defaults.
        kafka: Kafka { request_timeout: Duration::from_secs(1), ..kafka },
        handler: [(HANDLER.to_owned(), handler)].into(),
        store: Store { dir: store.to_owned(), ..Store::default() },

        admin: Admin { listen: None, ..Admin::default() },
        shutdown: Shutdown { deadline: Duration::from_secs(15) },
        ..Settings::default()
    }
}
