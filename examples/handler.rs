//! A Rust program with a handler of its own: it numbers the events of each order and writes each
//! with its number to another topic. The count is the key's state: it is committed together with
//! the written record and the offset, so a crash neither skips a number nor gives one twice.
//!
//! ```text
//! cargo run --example handler -- pawl.toml numbered
//! ```
//!
//! with settings that name the handler:
//!
//! ```toml
//! [kafka]
//! bootstrap_servers = ["localhost:9092"]
//!
//! [handler.numbering]
//! topic = "orders"
//! program = {}
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use pawl::handlers::{Registry, from_fn};
use pawl::runtime;
use pawl::settings::Settings;
use pawl_actors::effects::{Effects, Emit, StateChange};
use pawl_actors::handler::{Call, Handler};
use pawl_actors::outcome::{Failure, Outcome, code};

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let settings: PathBuf = args.next().context("first argument: the settings file")?.into();
    let topic = args.next().context("second argument: the topic to write to")?;
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();

    let mut registry = Registry::default();
    registry.register("numbering", numbering(&topic))?;
    let stop = async {
        // Without a signal handler the default action ends the process, which loses nothing either.
        let _ = tokio::signal::ctrl_c().await;
    };
    runtime::run(&Settings::load(&settings)?, &registry, |_| {}, stop)?;
    Ok(())
}

/// The handler. What it wants written it returns as data.
pub fn numbering(topic: &str) -> impl Handler {
    let topic: Arc<str> = topic.into();
    from_fn(move |call: Call| {
        let topic = topic.clone();
        async move {
            match next_number(call.state.as_deref()) {
                Ok(number) => Outcome::Done(numbered(&call, topic, number)),
                Err(why) => Outcome::Failed(Failure::permanent(code::UNDECODABLE, why)),
            }
        }
    })
}

fn next_number(state: Option<&[u8]>) -> Result<u64, String> {
    let Some(state) = state else { return Ok(1) };
    let last = state.try_into().map_err(|_| format!("the state has {} bytes, not 8", state.len()))?;
    Ok(u64::from_be_bytes(last) + 1)
}

fn numbered(call: &Call, topic: Arc<str>, number: u64) -> Effects {
    let record = Emit {
        topic,
        partition: None,
        key: call.record.key.clone(),
        value: Some(Bytes::from(number.to_string())),
        headers: call.record.headers.clone(),
        timestamp: None,
    };
    Effects { emit: vec![record], state: StateChange::Set(Bytes::copy_from_slice(&number.to_be_bytes())) }
}
