//! The billing service that the demo calls: a real HTTP server on the loopback interface with a
//! runtime of its own. It is busy, refuses or applies as the workload says, and writes down what it
//! sees; it knows nothing of Pawl.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::serve::ListenerExt;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::judge::{Answer, Seen};
use super::workload::{EventId, Temper, Workload};

/// How long the service works on an event: calls of different orders overlap.
const WORK: Duration = Duration::from_millis(1);

/// A running service.
pub struct Billing {
    address: SocketAddr,
    journal: Arc<Journal>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<io::Result<()>>,
}

/// What the service saw.
#[derive(Default)]
pub struct History {
    /// Calls in the order in which they began and ended.
    pub seen: Vec<Seen>,
    /// When the first call began.
    pub first_call: Option<Instant>,
    /// Calls that applied an event.
    pub applied: u64,
    /// Calls that were answered with "not now".
    pub busy: u64,
    /// How often each event was refused for being busy.
    refusals: HashMap<EventId, u32>,
}

struct Journal {
    workload: Arc<Workload>,
    history: Mutex<History>,
}

impl Billing {
    /// Starts the service on a free port.
    ///
    /// # Errors
    /// No port or no thread can be had.
    pub fn start(workload: Arc<Workload>) -> io::Result<Billing> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let journal = Arc::new(Journal { workload, history: Mutex::default() });
        let (stop, stopped) = oneshot::channel();
        let app = Router::new().route("/events", post(take)).with_state(journal.clone());
        let work = move || {
            let listener = listener.tap_io(|stream| {
                // Without it answers may wait for the acknowledgement of earlier ones.
                let _ = stream.set_nodelay(true);
            });
            runtime.block_on(async {
                tokio::select! {
                    served = axum::serve(listener, app) => served,
                    _ = stopped => Ok(()),
                }
            })
        };
        let thread = std::thread::Builder::new().name("demo-billing".into()).spawn(work)?;
        Ok(Billing { address, journal, stop, thread })
    }

    /// Where events are posted to.
    pub fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }

    /// A look at what it saw so far.
    pub fn look<T>(&self, look: impl FnOnce(&History) -> T) -> T {
        look(&self.journal.history())
    }

    /// Ends the service and hands over what it saw.
    ///
    /// # Errors
    /// The server itself failed.
    pub fn finish(self) -> io::Result<History> {
        let Billing { journal, stop, thread, .. } = self;
        // Gone only when the server has failed, and then the thread says why.
        let _ = stop.send(());
        thread.join().map_err(|_| io::Error::other("the billing service panicked"))??;
        Ok(std::mem::take(&mut *journal.history()))
    }
}

impl Journal {
    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("no holder panics")
    }

    fn begin(self: Arc<Self>, id: EventId) -> Call {
        let mut history = self.history();
        history.first_call.get_or_insert_with(Instant::now);
        history.seen.push(Seen::Began(id));
        drop(history);
        Call { journal: self, id, answered: false }
    }

    fn decide(&self, history: &mut History, id: EventId) -> Answer {
        if self.workload.temper(id.order) == Temper::Poisonous {
            return Answer::Refused;
        }
        let refusals = history.refusals.get(&id).copied().unwrap_or_default();
        if refusals < self.workload.refusals(id) {
            history.refusals.insert(id, refusals + 1);
            history.busy += 1;
            return Answer::Busy;
        }
        history.applied += 1;
        Answer::Applied
    }
}

/// A call that has begun. It ends when it is dropped, answered or not.
struct Call {
    journal: Arc<Journal>,
    id: EventId,
    answered: bool,
}

impl Call {
    fn answer(mut self) -> Answer {
        self.answered = true;
        let mut history = self.journal.history();
        let answer = self.journal.decide(&mut history, self.id);
        history.seen.push(Seen::Ended(self.id, answer));
        answer
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.answered {
            self.journal.history().seen.push(Seen::Ended(self.id, Answer::GivenUp));
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Posted {
    event_id: String,
}

async fn take(State(journal): State<Arc<Journal>>, body: Bytes) -> (StatusCode, &'static str) {
    let posted = serde_json::from_slice::<Posted>(&body).ok();
    let Some(id) = posted.and_then(|posted| posted.event_id.parse().ok()) else {
        return (StatusCode::BAD_REQUEST, "this is no event of the demo");
    };
    let call = journal.begin(id);
    tokio::time::sleep(WORK).await;
    match call.answer() {
        Answer::Applied => (StatusCode::OK, ""),
        Answer::Refused => (StatusCode::UNPROCESSABLE_ENTITY, "the customer of this order is unknown"),
        Answer::Busy | Answer::GivenUp => (StatusCode::SERVICE_UNAVAILABLE, "busy, try again"),
    }
}
