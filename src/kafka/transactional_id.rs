//! Whether transactional ids may be used, which no request tells: one is used.

use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::types::RDKafkaErrorCode;

use super::access::Live;
use super::client::{self, LogContext};
use crate::settings::Kafka;

/// Whether this client may use the id. It is used once, without a transaction, and the brokers forget it after
/// `transactional.id.expiration.ms` (a week). Anything but a clear no counts as yes: what else is wrong, others
/// find. Blocks for at most the time-out of a request.
pub fn may_use(kafka: &Kafka, id: &str) -> bool {
    let mut plan = client::producer(kafka);
    plan.set("transactional.id", id);
    let opened: Result<Live<BaseProducer<LogContext>>, _> = plan.open(LogContext::new("check"));
    let Ok(producer) = opened else { return true };
    let refused = producer.init_transactions(kafka.request_timeout).err();
    let code = refused.and_then(|error| error.rdkafka_error_code());
    code != Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed)
}
