//! Tests on a real broker, all in one binary so that one broker serves them; a module for each theme.

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod audit;
mod backpressure;
mod bad_input;
mod broker;
mod careful;
mod clocks;
mod commands;
mod compose;
mod dlt;
mod forward;
mod growth;
mod health;
mod image;
mod keys;
mod letters;
mod library;
mod null_keys;
mod orders;
mod outage;
mod ownership;
mod publish;
mod quarantine;
mod restore;
mod retries;
mod rewind;
mod rights;
mod security;
mod sequence;
mod shutdown;
mod spring;
mod telemetry;
mod tokens;
mod topics;
