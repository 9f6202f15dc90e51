//! Everything that speaks with Kafka.
pub mod admin;
pub mod client;
mod commit_metadata;
pub mod consumer;
mod delivery;
pub mod group;
pub mod headers;
pub mod held;
pub mod owner;
pub mod restore;
pub mod topic_id;
mod transaction;
pub mod writer;
