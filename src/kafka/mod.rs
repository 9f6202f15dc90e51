//! Everything that speaks Kafka's protocol, through librdkafka.
pub mod headers;
pub mod topic_id;
