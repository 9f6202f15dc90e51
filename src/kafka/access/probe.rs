//! Asks why brokers refuse a connection: librdkafka itself goes on trying and answers every question with
//! "timed out", and only an error callback is told the cause.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::certificate;
use super::files::Pem;
use super::{Access, AccessError, Live};
use crate::kafka::client;

/// Between two looks for an answer.
const LOOK: Duration = Duration::from_millis(50);

/// Keeps the first cause that is one of credentials or certificates, and the last other one.
#[derive(Clone, Default)]
struct Cause(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    refusal: Option<String>,
    other: Option<String>,
}

impl Cause {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Cause {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code().is_some_and(is_refusal) {
            self.heard().refusal.get_or_insert_with(|| reason.to_owned());
        } else {
            self.heard().other = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for Cause {}

/// Whether an error is about who comes, or how it is proved, and not about whether somebody is there.
pub(in crate::kafka) fn is_refusal(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SSL
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::UnsupportedSASLMechanism
            | RDKafkaErrorCode::IllegalSASLState
    )
}

/// What became of coming to the brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A broker answered.
    Taken,
    /// A broker, or the check of its certificate, refuses, and why.
    Refused(String),
    /// No client could be opened with them: they cannot be read, or do not go together.
    Unusable(String),
    /// No broker judged, and why.
    Unknown(String),
}

/// Comes to the brokers once with these certificates. A broker may take so long to answer; nobody needs to know any more
/// once it is given up.
pub(super) fn ask(
    access: &Arc<Access>,
    pem: &Pem,
    patience: Duration,
    given_up: impl Fn() -> bool,
) -> Result<Verdict, AccessError> {
    let cause = Cause::default();
    let mut plan = client::base(&access.kafka);
    plan.set("group.id", "pawl-probe");
    let probe: Live<BaseConsumer<Cause>> = plan.open_with(pem, cause.clone())?;
    let (start, mut has_looked) = (Instant::now(), false);
    while start.elapsed() < patience && !given_up() {
        // The errors come with the events that a poll hands on.
        let _ = probe.poll(LOOK);
        if let Some(cause) = cause.heard().refusal.take() {
            let fault =
                if cause.contains("verify failed") { certificate::fault(&access.kafka, pem) } else { None };
            return Ok(Verdict::Refused(fault.unwrap_or(cause)));
        }
        // A broker that does not take the client's certificate is one that closes connections, for librdkafka.
        if !has_looked && cause.heard().other.is_some() {
            has_looked = true;
            if let Some(refusal) = certificate::refusal(&access.kafka, pem, &given_up) {
                return Ok(Verdict::Refused(refusal));
            }
        }
        // Asks for nothing by itself. A client without topics asks for the brokers alone as soon as it is let in: the answer
        // is short however many topics there are, and may come at any look.
        if probe.client().fetch_cluster_id(Duration::ZERO).is_some() {
            return Ok(Verdict::Taken);
        }
    }
    let last = cause.heard().other.take().map(|other| format!(": {other}"));
    Ok(Verdict::Unknown(format!("no broker answered within {patience:?}{}", last.unwrap_or_default())))
}
