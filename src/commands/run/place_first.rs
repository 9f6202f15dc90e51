//! How a line of the log looks for people: the record that it is about comes first, as in
//! `billing: orders[3]@8812 key "ORD-42": service answered 422`, and what else is known of it last.

use std::fmt::{self, Debug, Write as _};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// Formats the fields of a line.
#[derive(Debug)]
pub struct PlaceFirst;

impl<'w> FormatFields<'w> for PlaceFirst {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = Line::default();
        fields.record(&mut line);
        line.write(&mut writer)
    }
}

#[derive(Default)]
struct Line {
    handler: Option<String>,
    topic: Option<String>,
    partition: Option<String>,
    offset: Option<String>,
    key: Option<String>,
    message: String,
    rest: String,
}

impl Line {
    fn take(&mut self, name: &str, value: String) {
        // What others have written may neither begin a line of its own nor drive a terminal.
        let value = if value.contains(char::is_control) { escaped(&value) } else { value };
        let place = match name {
            "message" => return self.message = value,
            "handler" => &mut self.handler,
            "topic" => &mut self.topic,
            "partition" => &mut self.partition,
            "offset" => &mut self.offset,
            "key" => &mut self.key,
            _ => {
                write!(self.rest, " {name}={value}").expect("a String takes any text");
                return;
            }
        };
        *place = Some(value);
    }

    fn write(self, writer: &mut Writer<'_>) -> fmt::Result {
        let Line { handler, topic, partition, offset, key, message, rest } = self;
        if let Some(handler) = handler {
            write!(writer, "{handler}: ")?;
        }
        let place = match (topic, partition) {
            (Some(topic), Some(partition)) => Some(format!("{topic}[{partition}]")),
            (Some(topic), None) => Some(topic),
            (None, Some(partition)) => Some(format!("partition {partition}")),
            (None, None) => None,
        };
        let offset = offset.map(|offset| format!("@{offset}"));
        let key = key.map(|key| if key.starts_with(['"', '(']) { key } else { format!("\"{key}\"") });
        if place.is_some() || offset.is_some() || key.is_some() {
            write!(writer, "{}{}", place.unwrap_or_default(), offset.unwrap_or_default())?;
            key.map_or(Ok(()), |key| write!(writer, " key {key}"))?;
            writer.write_str(": ")?;
        }
        write!(writer, "{message}{rest}")
    }
}

fn escaped(text: &str) -> String {
    let one = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(one).collect()
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        let is_place = matches!(field.name(), "message" | "handler" | "topic" | "key");
        // Other texts may hold line breaks, which must not begin a line of their own.
        self.take(field.name(), if is_place { value.to_owned() } else { format!("{value:?}") });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.take(field.name(), format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Lines;

        fn make_writer(&self) -> Lines {
            self.clone()
        }
    }

    fn logged(log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(PlaceFirst)
            .with_writer(lines.clone())
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().trim().to_owned()
    }

    #[test]
    fn the_record_that_a_line_is_about_comes_first_and_the_rest_last() {
        let line = logged(|| {
            tracing::warn!(
                handler = "billing", topic = "orders", partition = 3, offset = 8812, key = %"ORD-42", attempt = 8,
                "service answered 422 \"unknown currency\", permanent"
            );
        });
        let expected = "WARN billing: orders[3]@8812 key \"ORD-42\": service answered 422 \"unknown currency\", permanent attempt=8";
        assert_eq!(line, expected);
    }

    #[test]
    fn a_line_says_no_more_of_its_place_than_is_known() {
        assert_eq!(logged(|| tracing::info!("draining")), "INFO draining");
        let line = logged(
            || tracing::info!(handler = %"billing", topic = "orders", partitions = ?[0, 1], "assigned"),
        );
        assert_eq!(line, "INFO billing: orders: assigned partitions=[0, 1]");
        let line =
            logged(|| tracing::info!(handler = "billing", partition = 2, claim = 7, "taking records in"));
        assert_eq!(line, "INFO billing: partition 2: taking records in claim=7");
        let line = logged(|| tracing::info!(topic = "orders", partition = 0, key = "(no key)", "x"));
        assert_eq!(line, "INFO orders[0] key (no key): x");
    }

    #[test]
    fn a_text_with_line_breaks_stays_on_its_line() {
        assert_eq!(logged(|| tracing::info!(said = "a\nb", "x")), "INFO x said=\"a\\nb\"");
        let line = logged(|| tracing::info!("a panic said \x1b[31m\nINFO forged"));
        assert_eq!(line, "INFO a panic said \\u{1b}[31m\\nINFO forged");
    }
}
