//! How far a command has read, on a terminal.

use std::collections::BTreeMap;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::kafka::topic_reader::Range;

/// Offsets between two looks at the clock.
const STEP: i64 = 1_000;

/// A bar over the offsets of these ranges; nothing is drawn unless standard error is a terminal.
pub fn bar(topic: &str, ranges: &[Range]) -> ProgressBar {
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

/// The record at this offset of a partition was read. `seen` remembers where each partition stands.
pub fn step(bar: &ProgressBar, seen: &mut BTreeMap<i32, i64>, partition: i32, offset: i64) {
    let told = seen.entry(partition).or_insert(offset);
    if offset - *told >= STEP {
        bar.inc((offset - *told).unsigned_abs());
        *told = offset;
    }
}
