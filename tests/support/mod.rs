//! What tests on a real broker share: Apache Kafka itself, plain clients, and the `pawl` process.
//!
//! Every broker test lives in the one test binary `broker` (or in the benchmark), so one broker
//! serves them all. A test asks for it first and returns when there is none:
//!
//! ```ignore
//! let Some(broker) = support::broker() else { return };
//! ```
#![allow(
    dead_code,
    unused_imports,
    reason = "shared by the broker tests and the benchmark, which use different parts"
)]

pub mod authority;
pub mod clients;
pub mod fetched;
pub mod http;
pub mod identity;
pub mod java;
pub mod kafka;
pub mod orders;
pub mod otlp;
pub mod pawl;
pub mod process;
pub mod proxy;
pub mod python;
pub mod secured;
pub mod service;
pub mod wait;

pub use self::pawl::{Finished, Pawl, command, command_with, settings};
pub use clients::{
    Ending, Out, Seen, produce, produce_in_transaction, read_all, read_until, topic, topic_with, unique,
};
pub use kafka::{Broker, broker};
pub use secured::secured;
pub use service::{Call, Reply, Service};
pub use wait::until;
