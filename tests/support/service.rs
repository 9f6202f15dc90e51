//! An HTTP service as a handler of Pawl calls one: real HTTP over the loopback interface, on a
//! thread of its own. It does what the test tells it and keeps a journal of every call.
//!
//! A call that has begun is worked to its end even when the caller goes away meanwhile, as a
//! service's database transaction would be: killing Pawl does not undo what the service did.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::wait::until;

/// A call as the service received it.
#[derive(Clone, Debug)]
pub struct Received {
    /// `Idempotency-Key`.
    pub idempotency_key: String,
    /// The record's key, which is the order's id in these tests.
    pub key: String,
    /// `ce-id`.
    pub event_id: String,
    pub partition: i32,
    pub offset: i64,
    /// 1-based.
    pub attempt: u32,
    /// Number of the claim under which it was made: grows with every start of Pawl.
    pub claim: i64,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What the service does with a call.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    after: Duration,
    held: bool,
    headers: Vec<(&'static str, &'static str)>,
}

impl Reply {
    /// Answers at once.
    pub fn status(status: u16) -> Reply {
        Reply { status, after: Duration::ZERO, held: false, headers: Vec::new() }
    }

    /// Works for this long first.
    pub fn after(mut self, delay: Duration) -> Reply {
        self.after = delay;
        self
    }

    /// Waits for [`Service::release`] first.
    pub fn held(mut self) -> Reply {
        self.held = true;
        self
    }

    /// Asks for a pause in a `Retry-After` header.
    pub fn retry_after(self, value: &'static str) -> Reply {
        self.header("retry-after", value)
    }

    /// Gives an error code of its own.
    pub fn error_code(self, value: &'static str) -> Reply {
        self.header("pawl-error-code", value)
    }

    fn header(mut self, name: &'static str, value: &'static str) -> Reply {
        self.headers.push((name, value));
        self
    }
}

/// A line of the journal.
#[derive(Clone, Debug)]
pub struct Call {
    pub received: Received,
    pub began: Instant,
    /// `None` while it runs.
    pub ended: Option<Instant>,
    /// What it is or will be answered.
    pub status: u16,
    /// Place in the order of everything that began or ended.
    pub begin: usize,
    /// Likewise; `usize::MAX` while it runs.
    pub end: usize,
}

impl Call {
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.status) && self.ended.is_some()
    }
}

#[derive(Default)]
struct Journal {
    calls: Vec<Call>,
    tick: usize,
}

type Script = dyn Fn(&Received) -> Reply + Send + Sync;

struct Inner {
    script: Mutex<Arc<Script>>,
    journal: Mutex<Journal>,
    released: watch::Sender<bool>,
}

/// The service. Ends when dropped.
pub struct Service {
    url: String,
    inner: Arc<Inner>,
    stop: Option<oneshot::Sender<()>>,
}

impl Service {
    /// Starts a service that answers as `script` says.
    pub fn start(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback interface has free ports");
        listener.set_nonblocking(true).expect("a socket can be made non-blocking");
        let address = listener.local_addr().expect("a bound socket has an address");
        let inner = Arc::new(Inner {
            script: Mutex::new(Arc::new(script)),
            journal: Mutex::default(),
            released: watch::Sender::new(false),
        });
        let (stop, stopped) = oneshot::channel();
        let shared = inner.clone();
        std::thread::Builder::new()
            .name("service".into())
            .spawn(move || serve(listener, shared, stopped))
            .expect("a thread can be started");
        Service { url: format!("http://{address}/events"), inner, stop: Some(stop) }
    }

    /// Where records are posted to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Answers from now on as this script says.
    pub fn script(&self, script: impl Fn(&Received) -> Reply + Send + Sync + 'static) {
        *self.inner.script.lock().expect("no holder panics") = Arc::new(script);
    }

    /// Lets go of every held call, and holds none any more.
    pub fn release(&self) {
        self.inner.released.send_replace(true);
    }

    /// Every call so far, in the order in which they began.
    pub fn calls(&self) -> Vec<Call> {
        self.inner.journal().calls.clone()
    }

    /// How many calls match now.
    pub fn count(&self, matching: impl Fn(&Call) -> bool) -> usize {
        self.inner.journal().calls.iter().filter(|call| matching(call)).count()
    }

    /// Waits until at least `count` calls match.
    pub fn wait(&self, what: &str, count: usize, deadline: Duration, matching: impl Fn(&Call) -> bool) {
        until(what, deadline, || (self.count(&matching) >= count).then_some(()));
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.release();
        if let Some(stop) = self.stop.take() {
            // Gone when the thread has ended already.
            let _ = stop.send(());
        }
    }
}

/// Whether this attempt is among the `percent` that fail: the same in every run of a test.
pub fn unlucky(call: &Received, percent: u64) -> bool {
    let mut hasher = DefaultHasher::new();
    (&call.idempotency_key, call.attempt).hash(&mut hasher);
    hasher.finish() % 100 < percent
}

impl Inner {
    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().expect("no holder panics")
    }

    async fn work(self: Arc<Self>, received: Received) -> Response {
        let script = self.script.lock().expect("no holder panics").clone();
        let reply = script(&received);
        let number = self.journal().begin(received, reply.status);
        if !reply.after.is_zero() {
            tokio::time::sleep(reply.after).await;
        }
        if reply.held {
            let mut released = self.released.subscribe();
            released.wait_for(|released| *released).await.expect("this service holds the sender");
        }
        self.journal().end(number);
        let status = StatusCode::from_u16(reply.status).expect("a status that HTTP knows");
        let mut response = (status, format!("answer {}", reply.status)).into_response();
        for (name, value) in reply.headers {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

impl Journal {
    fn begin(&mut self, received: Received, status: u16) -> usize {
        self.tick += 1;
        let (began, begin) = (Instant::now(), self.tick);
        self.calls.push(Call { received, began, ended: None, status, begin, end: usize::MAX });
        self.calls.len() - 1
    }

    fn end(&mut self, number: usize) {
        self.tick += 1;
        self.calls[number].ended = Some(Instant::now());
        self.calls[number].end = self.tick;
    }
}

fn serve(listener: TcpListener, inner: Arc<Inner>, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listening socket");
        let app = axum::Router::new().fallback(receive).layer(DefaultBodyLimit::disable()).with_state(inner);
        tokio::select! {
            served = async { axum::serve(listener, app).await } => served.expect("the socket stays open"),
            _ = stopped => {}
        }
    });
}

async fn receive(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: Bytes) -> Response {
    let text = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let received = Received {
        idempotency_key: text("idempotency-key"),
        key: text("pawl-key"),
        event_id: text("ce-id"),
        partition: text("pawl-partition").parse().expect("pawl-partition is a number"),
        offset: text("pawl-offset").parse().expect("pawl-offset is a number"),
        attempt: text("pawl-attempt").parse().expect("pawl-attempt is a number"),
        claim: text("pawl-claim").parse().expect("pawl-claim is a number"),
        headers,
        body,
    };
    // A task of its own, so that a caller that hangs up does not end the work.
    tokio::spawn(inner.work(received)).await.expect("the script does not panic")
}
