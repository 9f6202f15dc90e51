//! Everything that speaks with Kafka.
pub mod admin;
mod chunk;
pub mod client;
pub mod commit_metadata;
pub mod consumer;
mod delivery;
pub mod group;
pub mod headers;
pub mod held;
pub mod intake_bounds;
pub mod owner;
pub mod partitioner;
pub mod rebalance;
pub mod restore;
pub mod topic_id;
pub mod topic_reader;
mod transaction;
pub mod writer;
