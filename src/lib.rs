//! Pawl: ordered, idempotent, per-key event processing on Kafka topics.
pub mod cli;
pub mod commands;
pub mod exit;
pub mod kafka;
pub mod settings;
