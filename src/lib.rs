//! Pawl: ordered, idempotent, per-key event processing on Kafka topics.

pub mod admin;
pub mod handlers;
pub mod metrics;
pub mod settings;
