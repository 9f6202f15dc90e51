//! Asks why brokers refuse a connection: librdkafka itself goes on trying and answers every question with
//! "timed out", and only an error callback is told the cause.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::certificate;
use super::files::Pem;
use super::{Access, AccessError, Live};
use crate::kafka::client;

/// How long a broker may take to refuse.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks for an answer.
const LOOK: Duration = Duration::from_millis(50);

/// Keeps the first cause that is one of credentials or certificates.
#[derive(Clone, Default)]
struct Cause(Arc<Mutex<Option<String>>>);

impl Cause {
    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Cause {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code().is_some_and(is_refusal) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reason.to_owned());
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
    /// Nobody was reached.
    Unknown,
}

/// Comes to the brokers once with these certificates.
pub(super) fn ask(access: &Arc<Access>, pem: &Pem) -> Result<Verdict, AccessError> {
    let cause = Cause::default();
    let mut plan = client::base(&access.kafka);
    plan.set("group.id", "pawl-probe");
    let probe: Live<BaseConsumer<Cause>> = plan.open_with(pem, cause.clone())?;
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        // The errors come with the events that a poll hands on.
        let _ = probe.poll(LOOK);
        if let Some(cause) = cause.take() {
            let fault =
                if cause.contains("verify failed") { certificate::fault(&access.kafka, pem) } else { None };
            return Ok(Verdict::Refused(fault.unwrap_or(cause)));
        }
        if probe.fetch_metadata(None, LOOK).is_ok() {
            return Ok(Verdict::Taken);
        }
    }
    Ok(Verdict::Unknown)
}
