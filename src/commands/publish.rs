//! `pawl publish`: JSON lines to a topic, with a count that can be relied on.

mod line;

use std::io::BufRead;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::line::Shape;
use super::sending::lines::Lines;
use super::sending::sender::{Sender, Stopped};
use super::sending::{self, Report, acknowledged};
use super::{Failure, connection, telemetry};
use crate::cli::Publish;
use crate::exit::Exit;
use crate::telemetry::{Published, Telemetry, TelemetryError, TelemetryStats};

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
    let (name, input) = sending::open(&args.file, "JSON lines")?;
    let remedy = "correct --topic, or create it: pawl topics create --input-partitions N";
    let takes = sending::demand_topic(&kafka, &args.topic, remedy)?.takes;
    let limit = args.max_line_bytes as usize;
    let settings = telemetry(&args.connection)?;
    let stats = Arc::new(TelemetryStats::default());
    let telemetry = Telemetry::start(&settings, "publish", &stats, None).map_err(not_sent)?;
    let published = telemetry.tracing.clone().map(|tracing| Arc::new(Published::new(tracing, &args.topic)));
    let ended = published.clone();
    let observer = Box::new(move |line, error: Option<&_>| {
        if let Some(published) = &ended {
            published.end(line, error.map(ToString::to_string).as_deref());
        }
    });
    let sender = Sender::observed(&kafka, &args.topic, args.timeout, limit, takes, observer)
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;

    let start = Instant::now();
    let mut skipped = 0;
    let lines = Lines::new(input, limit);
    let result = send(args, &name, lines, &sender, published.as_deref(), &mut skipped);
    let ended = sender.finish().map_err(Ended::Broker);
    let seconds = start.elapsed().as_secs_f64();
    telemetry.stop(settings.otlp.timeout);
    if stats.dropped() > 0 {
        eprintln!("pawl: of the records' spans {} could not be sent to the OTLP endpoint", stats.dropped());
    }
    let failure = result.and(ended).err().map(|ended| explain(ended, &args.topic, &name, &sender));

    let error = failure.as_ref().map(ToString::to_string);
    Report { topic: &args.topic, acked: sender.acked(), skipped, seconds, error }.print(args.json)?;
    failure.map_or(Ok(Exit::Done), Err)
}

fn send<R: BufRead>(
    args: &Publish,
    name: &str,
    lines: Lines<R>,
    sender: &Sender,
    published: Option<&Published>,
    skipped: &mut u64,
) -> Result<(), Ended> {
    let shape = Shape::new(args);
    let mut pace = Pace::new(args.rate);
    for line in lines {
        let line = line.map_err(|error| Ended::Input(format!("cannot read {name} any further: {error}")))?;
        match line.text.and_then(|text| shape.read(text)) {
            Ok(mut outgoing) => {
                pace.wait();
                if let Some(published) = published {
                    published.begin(line.number, outgoing.key.as_deref(), &mut outgoing.headers);
                }
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

fn not_sent(error: TelemetryError) -> Failure {
    Failure::new(Exit::Usage, error.to_string())
}

fn explain(ended: Ended, topic: &str, name: &str, sender: &Sender) -> Failure {
    let acked = acknowledged(sender.acked());
    match ended {
        Ended::BadLine(why) => {
            let message = format!(
                "{why}; {acked} in {topic} from the lines before it, and nothing after it was sent; correct the line, \
                 or leave bad lines out with --skip-invalid"
            );
            Failure::new(Exit::Findings, message)
        }
        Ended::Input(why) => Failure::new(Exit::Stopped, format!("{why}; {acked} in {topic}")),
        Ended::Broker(stopped) => {
            sender.explain(&stopped, name, "with event ids it is safe to publish them again")
        }
    }
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
