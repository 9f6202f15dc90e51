//! Tests on a real broker, all in one binary so that one broker serves them; a module for each theme.

#[path = "../support/mod.rs"]
mod support;

mod broker;
mod dlt;
mod forward;
mod publish;
mod topics;
