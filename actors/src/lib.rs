//! Every decision Pawl takes, without touching the world.
pub mod effects;
pub mod handler;
pub mod outcome;
pub mod record;
pub mod selector;
pub mod stats;
