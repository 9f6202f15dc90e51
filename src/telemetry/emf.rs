//! Metrics as lines in CloudWatch's embedded metric format: for ECS, whose scaling reads CloudWatch and cannot scrape.
//!
//! One line a handler and interval, to standard output; the log goes to standard error. Each instance tells the lag of
//! the partitions that it holds: scaling goes by the highest, which does not depend on how many lines a period holds.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, SystemTime};

use pawl_actors::stats::PartitionPhase;
use serde_json::{Value, json};

use crate::observed::HandlerView;
use crate::settings::Emf as Settings;

/// See the module's documentation.
pub struct Emf {
    namespace: String,
    every: Duration,
    handlers: Vec<HandlerView>,
}

/// A metric of a line: name, CloudWatch's unit, value.
type Measure = (&'static str, &'static str, fn(&HandlerView) -> u64);

const MEASURES: [Measure; 5] = [
    ("lag", "Count", |view| {
        view.stats.partitions().iter().filter_map(|(_, partition)| partition.lag()).sum()
    }),
    // Those that get on: an alarm must hear of one that stands still at its start.
    ("partitions", "Count", |view| {
        let partitions = view.stats.partitions();
        partitions.iter().filter(|(_, partition)| partition.phase() == PartitionPhase::Running).count() as u64
    }),
    ("in_flight", "Count", |view| view.stats.in_flight.get().max(0).unsigned_abs()),
    ("parked", "Count", |view| {
        let partitions = view.stats.partitions();
        partitions.iter().map(|(_, partition)| partition.parked_records.get().max(0).unsigned_abs()).sum()
    }),
    ("breaker_open", "Count", |view| u64::from(view.stats.breaker.open().is_some())),
];

impl Emf {
    /// `None` where the settings name no namespace.
    pub fn new(settings: &Settings, handlers: Vec<HandlerView>) -> Option<Self> {
        let namespace = settings.namespace.clone()?;
        Some(Emf { namespace, every: settings.interval, handlers })
    }

    /// Writes lines until the process ends, on a thread of its own: whoever reads standard output may be slow.
    ///
    /// # Errors
    /// When there is no thread.
    pub fn start(self) -> io::Result<()> {
        // It ends with the process, and nobody needs to wait for it.
        drop(thread::Builder::new().name("pawl-emf".into()).spawn(move || self.run())?);
        Ok(())
    }

    fn run(&self) {
        loop {
            let text: String = self.lines(SystemTime::now()).iter().map(|line| format!("{line}\n")).collect();
            let written = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
            if let Err(error) = written {
                tracing::warn!(%error, "telemetry: standard output cannot be written, no more metrics go there");
                return;
            }
            thread::sleep(self.every);
        }
    }

    fn lines(&self, now: SystemTime) -> Vec<Value> {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self.handlers.iter().map(|view| self.line(view, millis)).collect()
    }

    /// The dimension is the handler alone: with the instance in it, nobody could ask for the highest of all.
    fn line(&self, view: &HandlerView, millis: u64) -> Value {
        // A lag that is not known yet is no lag of 0, by which an instance that has just started would be let go.
        let partitions = view.stats.partitions();
        let unknown =
            partitions.is_empty() || partitions.iter().any(|(_, partition)| partition.lag().is_none());
        let measures = || MEASURES.into_iter().filter(move |(name, ..)| *name != "lag" || !unknown);
        let named: Vec<Value> =
            measures().map(|(name, unit, _)| json!({ "Name": name, "Unit": unit })).collect();
        let mut line = json!({
            "_aws": {
                "Timestamp": millis,
                "CloudWatchMetrics": [{
                    "Namespace": self.namespace,
                    "Dimensions": [["handler"]],
                    "Metrics": named,
                }],
            },
            "handler": &*view.name,
            "group": &*view.group,
            "topic": &*view.topic,
        });
        for (name, _, value) in measures() {
            line[name] = value(view).into();
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use pawl_actors::record::Partition;

    use super::*;
    use crate::settings::HandlerSettings;

    /// What the format's JSON schema demands (CloudWatch's "Specification: Embedded metric format").
    fn check(line: &Value) {
        let aws = &line["_aws"];
        assert!(aws["Timestamp"].is_u64(), "milliseconds since the epoch: {line}");
        let directives = aws["CloudWatchMetrics"].as_array().expect("a list");
        assert!(!directives.is_empty());
        for directive in directives {
            let namespace = directive["Namespace"].as_str().expect("a text");
            assert!((1..=1024).contains(&namespace.len()));
            for dimensions in directive["Dimensions"].as_array().expect("a list of lists") {
                let dimensions = dimensions.as_array().expect("a list");
                assert!((1..=30).contains(&dimensions.len()));
                for dimension in dimensions {
                    let value = &line[dimension.as_str().expect("a name")];
                    let text = value.as_str().expect("the line has a text of the dimension's name");
                    assert!((1..=1024).contains(&text.len()), "{line}");
                }
            }
            let metrics = directive["Metrics"].as_array().expect("a list");
            assert!((1..=100).contains(&metrics.len()));
            for metric in metrics {
                let name = metric["Name"].as_str().expect("a name");
                assert!((1..=1024).contains(&name.len()));
                assert_eq!(metric["Unit"], "Count");
                assert!(line[name].is_number(), "{name}: {line}");
            }
        }
    }

    #[test]
    fn a_line_is_in_the_embedded_metric_format_and_tells_the_lag_of_what_is_held() {
        let settings = HandlerSettings { topic: "orders".into(), ..HandlerSettings::default() };
        let view = HandlerView::new("billing", &settings);
        for (partition, lag) in [(0, 40), (3, 2)] {
            let stats = view.stats.assigned(Partition(partition));
            stats.watermark.set(100);
            stats.end.set(100 + lag);
            stats.set_phase(PartitionPhase::Running);
        }
        // Its end is not known yet, and it does not run.
        let begun = view.stats.assigned(Partition(5));
        let settings = Settings { namespace: Some("Pawl".into()), ..Settings::default() };
        let emf = Emf::new(&settings, vec![view]).expect("a namespace is set");
        let lines = emf.lines(SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123));
        assert_eq!(lines.len(), 1);
        check(&lines[0]);
        assert_eq!(lines[0]["_aws"]["Timestamp"], 1_700_000_000_123_u64);
        assert_eq!((&lines[0]["handler"], &lines[0]["partitions"]), (&json!("billing"), &json!(2)));
        assert!(lines[0].get("lag").is_none(), "what is not known is not told as nothing: {}", lines[0]);
        assert!(!lines[0].to_string().contains('\n'), "one line");
        begun.at_end.set(1);
        let lines = emf.lines(SystemTime::UNIX_EPOCH);
        check(&lines[0]);
        assert_eq!(lines[0]["lag"], 42);
    }

    #[test]
    fn without_a_namespace_nothing_is_written() {
        assert!(Emf::new(&Settings::default(), Vec::new()).is_none());
    }
}
