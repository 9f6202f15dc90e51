//! What the commands that write records from lines have in common: their input, their topic, and a count
//! that can be relied on.

pub mod lines;
pub mod sender;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde::Serialize;

use super::{Failure, print, print_json};
use crate::exit::Exit;
use crate::kafka::admin::{Admin, AdminError};
use crate::settings::Kafka;

/// What was done, also when it ended early.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    pub topic: &'a str,
    /// Records that the broker acknowledged.
    pub acked: u64,
    /// Bad lines left out because of `--skip-invalid`.
    pub skipped: u64,
    pub seconds: f64,
    /// Why it ended before the last line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Report<'_> {
    /// Prints the report: as JSON in any case, as text where it all went well.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn print(&self, json: bool) -> Result<(), Failure> {
        if json {
            return print_json(self);
        }
        if self.error.is_some() {
            return Ok(());
        }
        let Report { topic, acked, skipped, seconds, .. } = self;
        let left_out = if *skipped == 0 { String::new() } else { format!(", {skipped} bad lines left out") };
        let rate = *acked as f64 / seconds.max(0.001);
        let acked = acknowledged(*acked);
        print(format!("{acked} in {topic}{left_out} ({seconds:.1} s, {rate:.0} a second)\n").as_bytes())
    }
}

/// The count, for people.
pub fn acknowledged(acked: u64) -> String {
    match acked {
        1 => "1 record was acknowledged".into(),
        count => format!("{count} records were acknowledged"),
    }
}

/// The topic that is written to.
#[derive(Clone, Copy, Debug)]
pub struct Destination {
    pub partitions: i32,
    /// The largest batch that it takes, in bytes; `None`: this client may not ask.
    pub takes: Option<u64>,
    /// Whether the broker replaces time stamps by its own.
    pub sets_time: bool,
}

/// Asks for the topic. A producer would wait for one that is not there, and might have the broker create
/// it. `remedy` says what to do then.
///
/// # Errors
/// No broker, or no such topic.
pub fn demand_topic(kafka: &Kafka, topic: &str, remedy: &str) -> Result<Destination, Failure> {
    let admin = Admin::new(kafka)?;
    let Some(found) = admin.describe(topic)? else {
        let servers = kafka.bootstrap_servers.join(",");
        let message = format!("there is no topic \"{topic}\" at {servers}; {remedy}");
        return Err(Failure::new(Exit::Stopped, message));
    };
    let partitions = found.partitions;
    match admin.configs(topic) {
        Ok(configs) => Ok(Destination {
            partitions,
            takes: Some(configs.max_message_bytes),
            sets_time: configs.timestamp_type == "LogAppendTime",
        }),
        Err(AdminError::Forbidden { .. }) => Ok(Destination { partitions, takes: None, sets_time: false }),
        Err(error) => Err(error.into()),
    }
}

/// Standard input for `-`, else the file, with the name that messages give it. `what` says what it is
/// to hold.
///
/// # Errors
/// There is no such file, or it cannot be read.
pub fn open(file: &Path, what: &str) -> Result<(String, Box<dyn BufRead>), Failure> {
    if file.as_os_str() == "-" {
        return Ok(("standard input".into(), Box::new(io::stdin().lock())));
    }
    let name = file.display().to_string();
    match File::open(file) {
        Ok(opened) => Ok((name, Box::new(BufReader::with_capacity(256 * 1024, opened)))),
        Err(error) => {
            let message =
                format!("cannot read {name}: {error}; name a file of {what}, or - for standard input");
            Err(Failure::new(Exit::Usage, message))
        }
    }
}
