//! Clients that are open, and are given new tokens and passwords. The only `unsafe` of this folder.

use std::ffi::{CString, c_char};
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rdkafka::admin::AdminClient;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext, ThreadedProducer};
use rdkafka_sys as rdsys;

use super::Access;
use super::state::Token;

/// A client of librdkafka.
pub trait Native {
    /// Its handle, valid for as long as the client lives.
    fn native(&self) -> *mut rdsys::rd_kafka_t;
}

impl<C: ConsumerContext> Native for BaseConsumer<C> {
    fn native(&self) -> *mut rdsys::rd_kafka_t {
        self.client().native_ptr()
    }
}

impl<C: ProducerContext> Native for BaseProducer<C> {
    fn native(&self) -> *mut rdsys::rd_kafka_t {
        self.client().native_ptr()
    }
}

impl<C: ProducerContext + 'static> Native for ThreadedProducer<C> {
    fn native(&self) -> *mut rdsys::rd_kafka_t {
        self.client().native_ptr()
    }
}

impl<C: ClientContext> Native for AdminClient<C> {
    fn native(&self) -> *mut rdsys::rd_kafka_t {
        self.inner().native_ptr()
    }
}

/// A client that is given what it needs to come to the brokers for as long as it lives.
pub struct Live<T: Native> {
    /// Before `client`: fields are dropped in this order, and a client that is closed gets nothing any more.
    listed: Listed,
    client: T,
}

impl<T: Native> Live<T> {
    pub(super) fn new(client: T, access: Arc<Access>) -> Live<T> {
        let handle = Handle(client.native());
        access.state.clients.list(handle, || access.now());
        Live { listed: Listed { access, handle }, client }
    }

    /// As whom it comes, for a person.
    pub fn principal(&self) -> String {
        self.listed.access.principal()
    }
}

impl<T: Native> Deref for Live<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.client
    }
}

struct Listed {
    access: Arc<Access>,
    handle: Handle,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.access.state.clients.strike(self.handle);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Handle(*mut rdsys::rd_kafka_t);

// SAFETY: librdkafka's handles may be used from any thread ("rdkafka.h": the API is thread-safe).
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// The clients that are open. Whoever uses a handle holds the lock, and a client is struck off the list
/// before it is closed: no handle in it is ever of a closed client.
#[derive(Default)]
pub(super) struct Clients(Mutex<Vec<Handle>>);

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} clients", self.handles().len())
    }
}

impl Clients {
    fn handles(&self) -> MutexGuard<'_, Vec<Handle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Token and password are read under the lock: what is renewed meanwhile reaches this client too.
    fn list(&self, handle: Handle, now: impl FnOnce() -> Now) {
        let mut handles = self.handles();
        let Now { token, password } = now();
        if let Some(token) = token {
            give(handle, &token);
        }
        if let Some((username, password)) = password {
            tell(handle, &username, &password);
        }
        handles.push(handle);
    }

    fn strike(&self, handle: Handle) {
        self.handles().retain(|other| *other != handle);
    }

    pub(super) fn give_token(&self, token: &Token) {
        self.handles().iter().for_each(|handle| give(*handle, token));
    }

    pub(super) fn give_password(&self, username: &str, password: &str) {
        self.handles().iter().for_each(|handle| tell(*handle, username, password));
    }
}

/// What a client that was just opened is given.
pub(super) struct Now {
    pub(super) token: Option<Token>,
    /// Name and password.
    pub(super) password: Option<(String, String)>,
}

fn tell(Handle(client): Handle, username: &str, password: &str) {
    let (Ok(username), Ok(password)) = (CString::new(username), CString::new(password)) else { return };
    // SAFETY: the client is open, see `Clients`; both strings live through the call, which copies them. An error
    // has to be freed, and null may be.
    unsafe {
        let error = rdsys::rd_kafka_sasl_set_credentials(client, username.as_ptr(), password.as_ptr());
        rdsys::rd_kafka_error_destroy(error);
    }
}

fn give(Handle(client): Handle, token: &Token) {
    let pairs = token.extensions.iter().flat_map(|(name, value)| [name, value]);
    let texts: Result<Vec<CString>, _> = [&token.value, &token.principal]
        .into_iter()
        .chain(pairs)
        .map(|text| CString::new(text.as_str()))
        .collect();
    let Ok(texts) = texts else {
        tracing::warn!("librdkafka is not given the token for Kafka: there is a NUL in it");
        return;
    };
    let mut pointers: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).collect();
    let [value, principal, extensions @ ..] = &mut pointers[..] else { unreachable!("both are there") };
    let millis = token.expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    // What librdkafka says has the token in it.
    let mut why = [0; 512];
    // SAFETY: the client is open, see `Clients`; all strings live through the call, which copies them; the
    // count of pointers and the size of the buffer are theirs.
    let code = unsafe {
        rdsys::rd_kafka_oauthbearer_set_token(
            client,
            *value,
            i64::try_from(millis).unwrap_or(i64::MAX),
            *principal,
            extensions.as_mut_ptr(),
            extensions.len(),
            why.as_mut_ptr(),
            why.len(),
        )
    };
    if code != rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && token.expires > SystemTime::now() {
        tracing::warn!("librdkafka does not take the token for Kafka: {}", RDKafkaErrorCode::from(code));
    }
}
