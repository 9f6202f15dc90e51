//! Pawl turns Kafka topics into ordered, idempotent, per-key event processing.

pub mod admin;
mod bounded_file;
pub mod cli;
pub mod commands;
mod connections;
pub mod exit;
pub mod handlers;
pub mod kafka;
pub mod looking;
pub mod metrics;
pub mod observed;
pub mod rights;
pub mod runtime;
pub mod settings;
pub mod shown;
pub mod store;
pub mod telemetry;
mod tls;
