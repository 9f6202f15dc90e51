//! How many letters there are of each kind, in bounded memory.

use std::collections::{HashMap, HashSet};
use std::hash::Hasher;

use serde::Serialize;
use siphasher::sip128::{Hasher128, SipHasher13};

use super::letter::Letter;
use crate::shown::{printable, time};

/// Rows of the table; what is of further kinds shares one more.
const MAX_KINDS: usize = 1_000;
/// Keys that are told from each other, in all rows together.
const MAX_KEYS: usize = 100_000;
/// Longest text of a kind, in characters: headers may hold anything.
const MAX_TEXT: usize = 200;
/// The code of the row that further kinds share.
const OTHERS: &str = "(others)";

/// What letters are counted by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Kind {
    pub group: Option<String>,
    pub disposition: Option<String>,
    pub code: Option<String>,
    pub cause: Option<String>,
}

/// A row of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    #[serde(flatten)]
    pub kind: Kind,
    pub letters: u64,
    /// Different keys among them; letters without a key add none.
    pub keys: u64,
    /// Whether there may be more keys than that.
    pub keys_at_least: bool,
    /// The earliest and the latest time stamp, milliseconds since the epoch.
    pub first: Option<i64>,
    pub last: Option<i64>,
}

/// Counts letters.
#[derive(Default)]
pub struct Counts {
    places: HashMap<Kind, usize>,
    rows: Vec<Row>,
    /// A row, and a fingerprint of a key that was seen there: keys themselves may be of any length.
    keys: HashSet<(usize, u128)>,
}

impl Counts {
    /// Takes in a letter.
    pub fn add(&mut self, letter: &Letter) {
        let place = self.place(Kind::of(letter));
        let row = &mut self.rows[place];
        row.letters += 1;
        if let Some(time) = letter.timestamp {
            row.first = Some(row.first.map_or(time, |first| first.min(time)));
            row.last = Some(row.last.map_or(time, |last| last.max(time)));
        }
        let Some(key) = &letter.key else { return };
        let mut hasher = SipHasher13::new();
        hasher.write(&key.0);
        let key = (place, hasher.finish128().as_u128());
        if self.keys.contains(&key) {
            return;
        }
        if self.keys.len() < MAX_KEYS {
            self.keys.insert(key);
            row.keys += 1;
        } else {
            row.keys_at_least = true;
        }
    }

    fn place(&mut self, kind: Kind) -> usize {
        let others = || Kind { code: Some(OTHERS.into()), ..Kind::default() };
        let known = self.places.contains_key(&kind) || self.places.len() < MAX_KINDS;
        let kind = if known { kind } else { others() };
        *self.places.entry(kind).or_insert_with_key(|kind| {
            self.rows.push(Row { kind: kind.clone(), ..Row::default() });
            self.rows.len() - 1
        })
    }

    /// The rows, most frequent first.
    pub fn rows(self) -> Vec<Row> {
        let mut rows = self.rows;
        rows.sort_by(|a, b| b.letters.cmp(&a.letters).then_with(|| a.kind.cmp(&b.kind)));
        rows
    }
}

impl Kind {
    fn of(letter: &Letter) -> Kind {
        let short = |text: &Option<String>| text.as_ref().map(|text| shorten(text));
        Kind {
            group: short(&letter.group),
            disposition: short(&letter.disposition),
            code: short(&letter.code),
            cause: short(&letter.cause),
        }
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The rows below each other; groups only where there are several.
pub fn table(rows: &[Row]) -> String {
    let groups: HashSet<_> = rows.iter().map(|row| &row.kind.group).collect();
    let mut lines =
        vec![["letters", "keys", "first", "last", "disposition", "code", "cause", "group"].map(String::from)];
    lines.extend(rows.iter().map(cells));
    let columns = if groups.len() > 1 { 8 } else { 7 };
    let widths: Vec<usize> = (0..columns)
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    let shown = |line: &[String; 8]| {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            0 | 1 => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        });
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    lines.iter().map(shown).collect()
}

fn cells(row: &Row) -> [String; 8] {
    let text = |text: &Option<String>| text.as_deref().map_or("-".into(), printable);
    let keys = if row.keys_at_least { format!("at least {}", row.keys) } else { row.keys.to_string() };
    let Kind { group, disposition, code, cause } = &row.kind;
    [
        row.letters.to_string(),
        keys,
        time(row.first),
        time(row.last),
        text(disposition),
        text(code),
        text(cause),
        text(group),
    ]
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::shown::Raw;

    fn letter(key: Option<String>, code: &str, group: &str, timestamp: i64) -> Letter {
        Letter {
            timestamp: Some(timestamp),
            key: key.map(|key| Raw(Bytes::from(key))),
            group: Some(group.into()),
            code: Some(code.into()),
            disposition: Some("poison".into()),
            ..Letter::default()
        }
    }

    fn counted(letters: impl IntoIterator<Item = Letter>) -> Vec<Row> {
        let mut counts = Counts::default();
        letters.into_iter().for_each(|letter| counts.add(&letter));
        counts.rows()
    }

    #[test]
    fn kinds_are_counted_with_their_keys_and_times_most_frequent_first() {
        let key = |key: &str| Some(key.to_owned());
        let rows = counted([
            letter(key("a"), "Seldom", "g", 5_000),
            letter(key("a"), "Often", "g", 3_000),
            letter(key("b"), "Often", "g", 1_000),
            letter(key("a"), "Often", "g", 2_000),
            letter(None, "Often", "g", 2_000),
        ]);
        let expected = "\
letters  keys  first                     last                      disposition  code    cause
      4     2  1970-01-01T00:00:01.000Z  1970-01-01T00:00:03.000Z  poison       Often   -
      1     1  1970-01-01T00:00:05.000Z  1970-01-01T00:00:05.000Z  poison       Seldom  -
";
        assert_eq!(table(&rows), expected);
    }

    #[test]
    fn groups_are_told_apart_where_there_are_several() {
        let rows = counted([letter(None, "c", "billing", 1), letter(None, "c", "mail", 1)]);
        assert_eq!(rows.len(), 2);
        let table = table(&rows);
        assert!(table.lines().next().is_some_and(|line| line.ends_with("group")), "{table}");
        assert!(table.contains("-      billing\n") && table.contains("-      mail\n"), "{table}");
    }

    #[test]
    fn too_many_keys_and_kinds_are_bounded_and_told() {
        let rows = counted((0..MAX_KEYS + 10).map(|n| letter(Some(n.to_string()), "c", "g", 1)));
        assert_eq!((rows[0].letters, rows[0].keys), (100_010, 100_000));
        assert!(table(&rows).contains("at least 100000"), "{}", table(&rows));

        let rows = counted((0..MAX_KINDS + 10).map(|n| letter(None, &format!("c{n}"), "g", 1)));
        assert_eq!((rows.len(), rows[0].letters), (MAX_KINDS + 1, 10), "further kinds share a row");
        assert_eq!(rows[0].kind.code.as_deref(), Some(OTHERS));

        let long =
            counted([letter(None, &"ä".repeat(10_000), "g", 1), letter(None, &"ä".repeat(9_000), "g", 1)]);
        assert_eq!((long.len(), long[0].kind.code.as_ref().map(|code| code.chars().count())), (1, Some(201)));
    }

    #[test]
    fn a_row_is_one_flat_object() {
        let json =
            serde_json::to_value(&counted([letter(Some("a".into()), "c", "g", 7)])[0]).expect("serializable");
        let expected = serde_json::json!({
            "group": "g", "disposition": "poison", "code": "c", "cause": null,
            "letters": 1, "keys": 1, "keys_at_least": false, "first": 7, "last": 7,
        });
        assert_eq!(json, expected);
    }
}
