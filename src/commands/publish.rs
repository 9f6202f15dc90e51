//! `pawl publish`: JSON lines to a topic, with a count that can be relied on.

pub(super) mod line;
pub(super) mod sender;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use self::line::{Lines, Shape};
use self::sender::{Sender, Stopped};
use super::{Failure, connection, print, print_json};
use crate::cli::Publish;
use crate::exit::Exit;
use crate::kafka::admin::{self, Admin, AdminError};
use crate::settings::Kafka;

/// What was done, also when it ended early.
#[derive(Debug, Serialize)]
struct Report<'a> {
    topic: &'a str,
    /// Records that the broker acknowledged.
    acked: u64,
    /// Bad lines left out because of `--skip-invalid`.
    skipped: u64,
    seconds: f64,
    /// Why it ended before the last line.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Why the input was not sent to its end.
enum Ended {
    /// A line that is not what it should be.
    BadLine(String),
    /// The input itself cannot be read.
    Input(String),
    /// The broker did not take a record.
    Broker(Stopped),
}

/// Carries `pawl publish` out.
///
/// # Errors
/// When nothing could be sent, or not all of it; the message says how much was acknowledged.
pub fn execute(args: &Publish) -> Result<Exit, Failure> {
    let kafka = connection(&args.connection)?;
    let (name, input) = open(&args.file)?;
    let takes = demand_topic(&kafka, &args.topic)?;
    let limit = args.max_line_bytes as usize;
    let sender = Sender::new(&kafka, &args.topic, args.timeout, limit, takes)
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;

    let start = Instant::now();
    let mut skipped = 0;
    let lines = Lines::new(input, limit);
    let result = send(args, &name, lines, &sender, &mut skipped);
    let ended = sender.finish().map_err(Ended::Broker);
    let seconds = start.elapsed().as_secs_f64();
    let failure = result.and(ended).err().map(|ended| explain(ended, args, &name, &kafka, sender.acked()));

    let error = failure.as_ref().map(ToString::to_string);
    let report = Report { topic: &args.topic, acked: sender.acked(), skipped, seconds, error };
    if args.json {
        print_json(&report)?;
    } else if failure.is_none() {
        print(text(&report).as_bytes())?;
    }
    failure.map_or(Ok(Exit::Done), Err)
}

fn open(file: &Path) -> Result<(String, Box<dyn BufRead>), Failure> {
    if file.as_os_str() == "-" {
        return Ok(("standard input".into(), Box::new(io::stdin().lock())));
    }
    let name = file.display().to_string();
    match File::open(file) {
        Ok(opened) => Ok((name, Box::new(BufReader::with_capacity(256 * 1024, opened)))),
        Err(error) => {
            let message =
                format!("cannot read {name}: {error}; name a file of JSON lines, or - for standard input");
            Err(Failure::new(Exit::Usage, message))
        }
    }
}

/// The largest batch that the topic takes, in bytes; `None`: this client may not ask. A producer
/// would wait for a topic that is not there, and might have the broker create one.
fn demand_topic(kafka: &Kafka, topic: &str) -> Result<Option<u64>, Failure> {
    let admin = Admin::new(kafka)?;
    if admin.describe(topic)?.is_none() {
        let servers = kafka.bootstrap_servers.join(",");
        let message = format!(
            "there is no topic \"{topic}\" at {servers}; correct --topic, or create it: pawl topics create \
             --input-partitions N"
        );
        return Err(Failure::new(Exit::Stopped, message));
    }
    match admin.configs(topic) {
        Ok(configs) => Ok(Some(configs.max_message_bytes)),
        Err(AdminError::Forbidden { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn send<R: BufRead>(
    args: &Publish,
    name: &str,
    lines: Lines<R>,
    sender: &Sender,
    skipped: &mut u64,
) -> Result<(), Ended> {
    let shape = Shape::new(args);
    let mut pace = Pace::new(args.rate);
    for line in lines {
        let line = line.map_err(|error| Ended::Input(format!("cannot read {name} any further: {error}")))?;
        match line.text.and_then(|text| shape.read(text)) {
            Ok(outgoing) => {
                pace.wait();
                sender.send(line.number, &outgoing).map_err(Ended::Broker)?;
            }
            Err(why) if args.skip_invalid => {
                *skipped += 1;
                eprintln!("pawl: {name}:{}: {why}; left out", line.number);
            }
            Err(why) => return Err(Ended::BadLine(format!("{name}:{}: {why}", line.number))),
        }
    }
    Ok(())
}

fn explain(ended: Ended, args: &Publish, name: &str, kafka: &Kafka, acked: u64) -> Failure {
    let topic = &args.topic;
    match ended {
        Ended::BadLine(why) => {
            let message = format!(
                "{why}; {} in {topic} from the lines before it, and nothing after it was sent; correct the line, \
                 or leave bad lines out with --skip-invalid",
                acknowledged(acked)
            );
            Failure::new(Exit::Findings, message)
        }
        Ended::Input(why) => {
            Failure::new(Exit::Stopped, format!("{why}; {} in {topic}", acknowledged(acked)))
        }
        Ended::Broker(stopped) => {
            let place = format!("{name}:{}", stopped.line);
            if stopped.timed_out() {
                let attempts = admin::attempts(&kafka.bootstrap_servers);
                let message = format!(
                    "{place}: not acknowledged within {:?} ({attempts}); {} in {topic}; records without an \
                     acknowledgement may or may not be there: with event ids it is safe to publish them again",
                    args.timeout,
                    acknowledged(acked)
                );
                return Failure::new(Exit::Unreachable, message);
            }
            let message = format!(
                "{place}: the record was refused: {}; {} in {topic}, some perhaps of later lines that were under way",
                stopped.error,
                acknowledged(acked)
            );
            Failure::new(Exit::Stopped, message)
        }
    }
}

fn acknowledged(acked: u64) -> String {
    match acked {
        1 => "1 record was acknowledged".into(),
        count => format!("{count} records were acknowledged"),
    }
}

fn text(report: &Report<'_>) -> String {
    let Report { topic, acked, skipped, seconds, .. } = report;
    let left_out = if *skipped == 0 { String::new() } else { format!(", {skipped} bad lines left out") };
    let rate = *acked as f64 / seconds.max(0.001);
    format!("{} in {topic}{left_out} ({seconds:.1} s, {rate:.0} a second)\n", acknowledged(*acked))
}

/// Holds the sending thread back to a number of records a second.
struct Pace {
    interval: Option<Duration>,
    next: Instant,
}

impl Pace {
    fn new(rate: Option<u32>) -> Pace {
        Pace { interval: rate.map(|rate| Duration::from_secs(1) / rate), next: Instant::now() }
    }

    fn wait(&mut self) {
        let Some(interval) = self.interval else { return };
        let now = Instant::now();
        if let Some(wait) = self.next.checked_duration_since(now) {
            std::thread::sleep(wait);
        }
        // A slow input does not earn a burst later.
        self.next = self.next.max(now) + interval;
    }
}
