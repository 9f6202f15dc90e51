//! The two handlers of each instance, and their settings.

use std::time::Duration;

use super::service::RETRY;
use super::support::kafka::Broker;
use super::support::{topic, topic_with, unique};
use super::{Gap, Options};

pub const PARTITIONS: i32 = 8;
/// The handler that goes by offsets, and its group.
pub const TALLY: &str = "tally";
/// The handler that goes by its producers' numbers, and its group.
pub const NUMBERED: &str = "numbered";
/// The header with the number.
pub const NUMBER: &str = "number";
/// How long a missing number is waited for.
pub const GAP_TIMEOUT: Duration = Duration::from_secs(2);

/// A handler's topics.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// Name and group.
    pub name: &'static str,
    pub input: String,
    pub output: String,
}

impl Pipeline {
    pub fn build(broker: &Broker) -> [Pipeline; 2] {
        [TALLY, NUMBERED].map(|name| {
            let input = unique(&format!("{name}-events"));
            // The judge has to know when a number came to be there.
            let by_append = [("message.timestamp.type", "LogAppendTime")];
            let configs: &[_] = if name == NUMBERED { &by_append } else { &[] };
            topic_with(broker, &input, PARTITIONS, configs);
            Pipeline { name, input, output: topic(broker, &format!("{name}-done"), PARTITIONS) }
        })
    }

    /// Its dead-letter topic.
    pub fn letters(&self) -> String {
        format!("{}-dlt", self.input)
    }

    /// Its changelog.
    pub fn changelog(&self) -> String {
        format!("{}-changelog", self.name)
    }
}

/// The settings of an instance, or of commands. Nothing is asked of instances but in a rolling update.
pub fn settings(
    options: &Options,
    bootstrap: &str,
    name: &str,
    listen: Option<u16>,
    [tally, numbered]: &[Pipeline; 2],
) -> String {
    let listen = listen.map_or("off".to_owned(), |port| format!("127.0.0.1:{port}"));
    let (handler, kafka) = (options.handler.as_deref().unwrap_or_default(), &options.kafka);
    let (input, numbered) = (&tally.input, &numbered.input);
    let gap = match options.gap {
        Some(Gap::Skip) => "skip",
        _ => "dead-letter",
    };
    let timeout = GAP_TIMEOUT.as_secs();
    // The breaker may try a record before its wait is over, so that the judge could not tell: it is on for one.
    format!(
        "instance = \"{name}\"\n\
         [kafka]\nbootstrap_servers = [\"{bootstrap}\"]\nsession_timeout = \"6s\"\ntransaction_timeout = \"10s\"\n{kafka}\n\
         [store]\ncheckpoint_interval = \"500ms\"\n\
         [admin]\nlisten = \"{listen}\"\n\
         [handler.{TALLY}]\ntopic = \"{input}\"\nevent_id = \"header:ce_id\"\nprogram = {{}}\n{RETRY}\n\
         breaker = {{ keys = 0 }}\n{handler}\n\
         [handler.{NUMBERED}]\ntopic = \"{numbered}\"\nevent_id = \"header:ce_id\"\nprogram = {{}}\n{RETRY}\n\
         sequence = \"header:{NUMBER}\"\ngap = {{ timeout = \"{timeout}s\", then = \"{gap}\" }}\n{handler}\n"
    )
}
