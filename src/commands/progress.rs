//! How far a command has read, on a terminal.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rdkafka::message::{BorrowedMessage, Message};

use super::Failure;
use crate::kafka::topic_reader::{Range, TopicReader};

/// Offsets between two looks at the clock.
const STEP: i64 = 1_000;

/// A bar over the offsets of these ranges; nothing is drawn unless standard error is a terminal.
fn bar(topic: &str, ranges: &[Range]) -> ProgressBar {
    let offsets = ranges.iter().map(|range| (range.to.unwrap_or(0) - range.from.unwrap_or(0)).max(0));
    let bar = ProgressBar::with_draw_target(
        Some(offsets.sum::<i64>().unsigned_abs()),
        ProgressDrawTarget::stderr(),
    );
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {human_pos}/{human_len} {eta}");
    bar.set_style(style.expect("a valid template"));
    bar.set_message(topic.to_owned());
    bar
}

/// A line that says what is waited for, from its first tick on.
pub fn waiting(message: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template("{msg} {elapsed}").expect("a valid template"));
    bar.set_message(message.to_owned());
    bar
}

/// Reads all of these ranges with a bar over them.
///
/// # Errors
/// As [`TopicReader::read`], or what `each` says.
pub fn read(
    reader: &TopicReader,
    topic: &str,
    ranges: &[Range],
    mut each: impl FnMut(&BorrowedMessage<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (bar, mut seen) = (bar(topic, ranges), BTreeMap::new());
    let read = reader.read(ranges, |message| {
        let offset = message.offset();
        let told = seen.entry(message.partition()).or_insert(offset);
        if offset - *told >= STEP {
            bar.inc((offset - *told).unsigned_abs());
            *told = offset;
        }
        each(message).map(ControlFlow::Continue)
    });
    bar.finish_and_clear();
    read
}
