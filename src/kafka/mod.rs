//! Everything that speaks Kafka's protocol, through librdkafka.
pub mod admin;
pub mod client;
pub mod headers;
pub mod topic_id;
