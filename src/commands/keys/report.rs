//! A key as a person reads it.

use std::fmt::Write as _;
use std::time::Duration;

use pawl_actors::ledger::LaneKey;
use pawl_actors::order::{Doing, LaneLook};
use pawl_actors::record::key_text;

use crate::looking::{KeyLine, KeyPage, Numbered, Parked, Quarantined, Within};
use crate::shown::{Raw, printable, time};

/// One line for a list.
pub fn line(line: &KeyLine) -> String {
    let key = shown(line.key.as_ref(), line.null_key_lane);
    let ids = if line.recent_ids == 1 { "id" } else { "ids" };
    let state = line.state_bytes.map_or("no state".into(), |bytes| format!("state {bytes} bytes"));
    let parked = line.parked.as_ref().map_or(String::new(), |parked| format!("  {} parked", parked.records));
    let quarantine = line.quarantine.as_ref().map_or(String::new(), |quarantine| {
        let letters = if quarantine.letters == 1 { "letter" } else { "letters" };
        format!("  in quarantine, {} {letters}", quarantine.letters)
    });
    let gap =
        line.sequence.as_ref().filter(|sequence| sequence.waiting > 0).map_or(String::new(), |sequence| {
            format!("  number {} missing, {} wait", sequence.next, sequence.waiting)
        });
    let paused = if line.paused { "  paused" } else { "" };
    let row = line.row.map_or(String::new(), |row| format!("  row {row}"));
    let KeyLine { partition, taken, recent_ids, .. } = line;
    format!(
        "{partition}  key {key}  taken {taken}  {recent_ids} {ids}  {state}{parked}{quarantine}{gap}{paused}{row}\n"
    )
}

/// Everything, over several lines.
pub fn page(page: &KeyPage) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        writeln!(text, "{name:<12} {value}").expect("a String takes any text");
    };
    row("key", shown(page.key.as_ref(), page.null_key_lane));
    row("partition", page.partition.to_string());
    row("taken", taken(page.head.as_ref(), page.within.as_ref()));
    if let Some(head) = &page.head {
        row("recent ids", ids(head, page.within.as_ref()));
        if let Some(parked) = &head.parked {
            row("parked", self::parked(parked));
        }
        if let Some(quarantine) = &head.quarantine {
            row("quarantine", self::quarantine(quarantine));
        }
        if let Some(sequence) = &head.sequence {
            row("sequence", self::sequence(sequence));
        }
        if head.paused {
            row("paused", "by an operator: pawl keys resume lets it go on".to_owned());
        }
        if let Some(offset) = head.row {
            row("row", format!("offset {offset} of the changelog"));
        }
    }
    match (&page.lane, &page.lane_unknown) {
        (Some(lane), _) => row("lane", self::lane(lane)),
        (None, Some(why)) => row("lane", format!("not known: {why}")),
        (None, None) => {}
    }
    match &page.state {
        None => text.push_str("state        none\n"),
        Some(state) => write!(text, "\nstate ({} bytes):\n{}", state.0.len(), state.pretty())
            .expect("a String takes any text"),
    }
    text
}

fn shown(key: Option<&Raw>, null_key_lane: Option<u16>) -> String {
    let without = || key_text(null_key_lane.map_or(LaneKey::Unusable, LaneKey::NoKey));
    key.map_or_else(without, Raw::shown)
}

/// The taken offset and what it means beside the watermark.
fn taken(head: Option<&KeyLine>, within: Option<&Within>) -> String {
    let watermark = within.map(|within| within.watermark);
    match (head.map(|head| head.taken), watermark) {
        (None, Some(watermark)) => format!("nothing at or above the partition's watermark {watermark}"),
        (None, None) => "nothing".into(),
        (Some(taken), None) => format!("offset {taken}"),
        (Some(taken), Some(watermark)) if taken < watermark => {
            format!("offset {taken}; the partition's watermark {watermark} has passed it")
        }
        (Some(taken), Some(watermark)) => format!(
            "offset {taken}, at or above the partition's watermark {watermark}: up to there this key's records are \
             finished or parked, and are dropped when they are delivered again"
        ),
    }
}

fn ids(head: &KeyLine, within: Option<&Within>) -> String {
    let (Some(oldest), Some(newest)) = (head.oldest_id, head.newest_id) else { return "none".into() };
    let age = |seen: i64| {
        let age = within.map_or(0, |within| within.partition_time.saturating_sub(seen)).max(0).unsigned_abs();
        humantime::format_duration(Duration::from_secs(age / 1_000)).to_string()
    };
    let of = |seen: i64| match within {
        Some(_) => format!("{} ({} before the partition's time)", time(Some(seen)), age(seen)),
        None => time(Some(seen)),
    };
    match head.recent_ids {
        1 => format!("1, seen {}", of(oldest)),
        count => format!("{count}, the newest seen {}, the oldest {}", of(newest), of(oldest)),
    }
}

fn parked(parked: &Parked) -> String {
    let Parked { records, attempt, due, cause } = parked;
    let records = if *records == 1 { "1 record".to_owned() } else { format!("{records} records") };
    let due = if *due == 0 { "due at once".to_owned() } else { format!("due {}", time(Some(*due))) };
    let cause =
        if cause.is_empty() { String::new() } else { format!("; the last one said: {}", printable(cause)) };
    format!("{records}; attempt {attempt} of the first is {due}{cause}")
}

fn quarantine(quarantine: &Quarantined) -> String {
    let Quarantined { letters, offset, cause, replaying } = quarantine;
    let letters = if *letters == 1 { "1 dead letter".to_owned() } else { format!("{letters} dead letters") };
    let then = if *replaying { "being replayed" } else { "and later records follow" };
    format!("since offset {offset}: {}; {letters}, {then}", printable(cause))
}

fn sequence(sequence: &Numbered) -> String {
    let Numbered { next, waiting, lowest, missing_since } = sequence;
    match (lowest, missing_since) {
        (Some(lowest), since) => format!(
            "number {next} is missing{}; {waiting} records wait, the lowest is {lowest}",
            since.map_or(String::new(), |since| format!(" since {}", time(Some(since))))
        ),
        (None, _) => format!("number {next} comes next"),
    }
}

fn lane(lane: &LaneLook) -> String {
    let LaneLook { doing, attempt, offset, queued } = lane;
    let record = offset.map_or(String::new(), |offset| format!(" offset {offset}"));
    let attempt = attempt.map_or(String::new(), |attempt| format!(", attempt {attempt}"));
    let doing = match doing {
        Doing::Idle => "idle".to_owned(),
        Doing::WaitsForPlace => format!("waits for a place at the handler:{record}{attempt}"),
        Doing::InFlight => format!("in flight:{record}{attempt}"),
        Doing::Judged => format!("failed, a verdict is due:{record}{attempt}"),
        Doing::Halted => format!("its record{record} ended the handler"),
        Doing::Parked => format!("waits for a retry:{record}{attempt} is next"),
    };
    match queued {
        0 => doing,
        1 => format!("{doing}; 1 record behind it"),
        count => format!("{doing}; {count} records behind it"),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn head() -> KeyLine {
        KeyLine {
            partition: 3,
            key: Some(Raw(Bytes::from_static(b"ORD-1\x1b"))),
            null_key_lane: None,
            taken: 881,
            recent_ids: 2,
            oldest_id: Some(1_700_000_000_000),
            newest_id: Some(1_700_000_060_000),
            state_bytes: Some(7),
            parked: None,
            quarantine: None,
            paused: false,
            sequence: None,
            row: Some(42),
        }
    }

    fn parked() -> Parked {
        let cause = "service answered 503\u{7}".into();
        Parked { records: 3, attempt: 4, due: 1_700_000_000_000, cause }
    }

    fn held() -> Quarantined {
        Quarantined { letters: 12, offset: 870, cause: "service answered 422".into(), replaying: false }
    }

    fn page_of(head: Option<KeyLine>, lane: Option<LaneLook>) -> KeyPage {
        KeyPage {
            partition: 3,
            key: Some(Raw(Bytes::from_static(b"\xff"))),
            null_key_lane: None,
            state: head.as_ref().map(|_| Raw(Bytes::from_static(b"{\"n\":1}"))),
            head,
            within: Some(Within { watermark: 870, partition_time: 1_700_000_090_000 }),
            lane,
            lane_unknown: None,
        }
    }

    #[test]
    fn a_line_tells_what_the_ledger_holds_of_a_key() {
        let expected = "3  key ORD-1\\u{1b}  taken 881  2 ids  state 7 bytes  row 42\n";
        assert_eq!(line(&head()), expected);
        let waiting = KeyLine { parked: Some(parked()), ..head() };
        assert_eq!(line(&waiting), expected.replace("  row", "  3 parked  row"));
        let held = KeyLine { quarantine: Some(held()), ..head() };
        assert_eq!(line(&held), expected.replace("  row", "  in quarantine, 12 letters  row"));
        let bare = KeyLine { key: None, recent_ids: 1, state_bytes: None, row: None, ..head() };
        assert_eq!(line(&bare), "3  key (no key)  taken 881  1 id  no state\n");
        let spread = KeyLine { null_key_lane: Some(7), ..bare };
        assert_eq!(line(&spread), "3  key (no key, lane 7)  taken 881  1 id  no state\n");
    }

    #[test]
    fn a_page_tells_what_it_means() {
        let lane = LaneLook { doing: Doing::Parked, attempt: Some(3), offset: Some(882), queued: 4 };
        let text = page(&page_of(Some(head()), Some(lane)));
        for row in [
            "key          0xff\n",
            "taken        offset 881, at or above the partition's watermark 870: ",
            "recent ids   2, the newest seen 2023-11-14T22:14:20.000Z (30s before the partition's time), the oldest \
             2023-11-14T22:13:20.000Z (1m 30s before",
            "row          offset 42 of the changelog\n",
            "lane         waits for a retry: offset 882, attempt 3 is next; 4 records behind it\n",
            "\nstate (7 bytes):\n{\n  \"n\": 1\n}\n",
        ] {
            assert!(text.contains(row), "{row:?} is not in\n{text}");
        }
        let waiting = page(&page_of(Some(KeyLine { parked: Some(parked()), ..head() }), None));
        let row = "parked       3 records; attempt 4 of the first is due 2023-11-14T22:13:20.000Z; the last one said: \
                   service answered 503\\u{7}\n";
        assert!(waiting.contains(row), "{row:?} is not in\n{waiting}");
        let held = page(&page_of(Some(KeyLine { quarantine: Some(held()), ..head() }), None));
        let row = "quarantine   since offset 870: service answered 422; 12 dead letters, and later records follow\n";
        assert!(held.contains(row), "{row:?} is not in\n{held}");
        let passed = KeyPage {
            within: Some(Within { watermark: 900, partition_time: 0 }),
            ..page_of(Some(head()), None)
        };
        assert!(page(&passed).contains("offset 881; the partition's watermark 900 has passed it\n"));
    }

    #[test]
    fn a_key_that_is_only_in_memory_is_told_too() {
        let lane = LaneLook { doing: Doing::InFlight, attempt: Some(1), offset: Some(900), queued: 0 };
        let text = page(&page_of(None, Some(lane)));
        assert!(text.contains("taken        nothing at or above the partition's watermark 870\n"), "{text}");
        assert!(
            text.contains("lane         in flight: offset 900, attempt 1\nstate        none\n"),
            "{text}"
        );
    }
}
