//! Pawl: ordered, idempotent, per-key event processing on Kafka topics.
pub mod kafka;
pub mod settings;
