//! Every decision Pawl takes, without touching the world: no Kafka client, no store, no HTTP.
//! The manifest of this crate is the wall, and a test reads it.
//!
//! A record's way, by file: [`partition`] sorts it into a lane, [`order`] works the lane,
//! [`handler`] is what it is handed to, [`supervisor`] judges what failed, [`epoch`] collects what
//! is to be written, [`ledger`] is what is known of a key and of a partition afterwards.
//!
//! Files named `actor.rs`, and those that hold more of the same actors, are shells around pure state; the others await nothing and read no
//! clock: time and chance are arguments.

pub mod aside;
pub mod claims;
pub mod clock;
pub mod command;
pub mod dead_letter;
pub mod effects;
pub mod epoch;
pub mod handler;
pub mod ledger;
pub mod order;
pub mod outcome;
pub mod partition;
pub mod pipeline;
pub mod policy;
pub mod record;
pub mod refused;
pub mod selector;
pub mod start;
pub mod stats;
pub mod supervisor;
pub mod trace;
pub mod watermark;
