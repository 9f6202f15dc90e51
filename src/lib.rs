//! Pawl turns Kafka topics into ordered, idempotent, per-key event processing.
pub mod handlers;
