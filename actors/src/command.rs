//! Commands: what operators ask of a handler through its command topic, and what they are answered there.
//!
//! A command is a record with a JSON value, written to every partition of the command topic, because a key's
//! partition is known only to whoever holds its ledger. The owner of a partition carries its commands out one
//! after the other, each in an epoch commit together with the position behind it and the answer, a record of
//! the same topic with the header [`ANSWER`]. So a command is carried out once, whoever owns the partition.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dead_letter::Told;
use crate::ledger::LaneKey;
use crate::record::{self, Record};

/// The version of commands and answers that this build writes and reads.
pub const VERSION: u32 = 1;
/// Header of an answer; its value is the command's id.
pub const ANSWER: &str = "pawl-answer";
/// Longest command, in bytes: the partition row has to hold one that takes time.
pub const MAX_COMMAND: usize = 16 * 1024;

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// See [`VERSION`].
    pub version: u32,
    /// Names the command in its answers.
    pub id: String,
    /// Who asks, for people.
    pub by: String,
    /// What is to be done.
    #[serde(flatten)]
    pub what: What,
}

/// The commands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum What {
    /// Hands dead letters to the handler again, a key's letters in order.
    Replay(Replay),
    /// Ends the replay that is under way; what it has not done stays in quarantine.
    StopReplay {},
    /// Gives up the first letters of a key in quarantine.
    Discard {
        /// Which key.
        key: KeyName,
        /// Which of its quarantines, and the number of the last letter; all letters without.
        through: Option<(i64, u64)>,
        /// Why.
        reason: String,
    },
    /// Ends a key's quarantine: its letters stay in the topic, and count as discarded.
    Release {
        /// Which key.
        key: KeyName,
        /// Why.
        reason: String,
    },
    /// Hands no record of a key to the handler until it is resumed.
    Pause {
        /// Which key.
        key: KeyName,
        /// Also where nothing is known of the key.
        create: bool,
    },
    /// Ends a pause.
    Resume {
        /// Which key.
        key: KeyName,
    },
    /// Gives up the record that a key waits with.
    Skip {
        /// Which key.
        key: KeyName,
        /// Its offset: another one is not given up in its place.
        offset: i64,
        /// Why.
        reason: String,
    },
    /// Gives up the numbers that a key waits for.
    SkipGap {
        /// Which key.
        key: KeyName,
        /// The number that it goes on with: another gap is not given up in its place.
        to: i64,
        /// Why.
        reason: String,
    },
    /// Forgets a key's state and its event ids.
    Erase {
        /// Which key.
        key: KeyName,
    },
    /// Has the partition's records handled once more, from an offset on.
    Rewind {
        /// From where: an offset of this partition.
        to: i64,
        /// Whether the keys' states are forgotten too.
        reset: bool,
        /// Why.
        reason: String,
    },
}

/// Which letters to hand to the handler again, and how fast.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Replay {
    /// Which keys, by their first letter that nobody has dealt with.
    pub filter: Filter,
    /// Letters a second and partition, at most.
    pub rate: Option<f64>,
    /// Only counts.
    #[serde(default)]
    pub dry_run: bool,
    /// Letters that are gone from the topic are booked as lost, and their key goes on with the next.
    #[serde(default)]
    pub accept_lost: bool,
}

/// Which letters are meant. What is left out is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// The key.
    pub key: Option<KeyName>,
    /// One of the letter's codes, or a text in its message.
    pub cause: Option<String>,
    /// The letter's disposition.
    pub disposition: Option<String>,
    /// Written at this time or later, in milliseconds since the epoch.
    pub since: Option<i64>,
    /// Written before this time, in milliseconds since the epoch.
    pub until: Option<i64>,
    /// Letters of this consumer group instead of the handler's own.
    pub group: Option<String>,
}

impl Filter {
    /// Whether it is about a letter, its key and its group aside.
    pub fn fits(&self, letter: &Record, told: &Told) -> bool {
        let Filter { key: _, cause, disposition, since, until, group: _ } = self;
        let caused = |cause: &String| told.codes.contains(cause) || told.message.contains(cause.as_str());
        cause.as_ref().is_none_or(caused)
            && disposition.as_ref().is_none_or(|only| told.disposition.as_ref() == Some(only))
            && since.is_none_or(|since| letter.timestamp.0 >= since)
            && until.is_none_or(|until| letter.timestamp.0 < until)
    }
}

/// A lane as JSON holds it: its key as a text, `{"hex": "..."}` where it is none, `{"lane": 3}` for one of those that
/// records without a key are spread over, `{"no_key": true}` for the lane of records without a usable key. That was
/// `null` once, and is read so still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyName(pub LaneKey<Bytes>);

impl KeyName {
    /// The lane.
    pub fn lane(&self) -> LaneKey<&[u8]> {
        self.0.as_deref()
    }

    /// Whether letters of a lane are meant by this name: without a key are all those of lanes that have none.
    pub fn means(&self, lane: &LaneKey<Bytes>) -> bool {
        self.0 == *lane || (self.0 == LaneKey::Unusable && !lane.is_key())
    }
}

impl std::fmt::Display for KeyName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.lane() {
            lane @ LaneKey::Key(_) => write!(f, "\"{lane}\""),
            lane => write!(f, "{lane}"),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum KeyForm {
    Text(String),
    Bytes { hex: String },
    NoKey { lane: u16 },
    Unusable { no_key: bool },
    None,
}

impl Serialize for KeyName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let form = match &self.0 {
            // Where a key may be left out, `null` says that it is.
            LaneKey::Unusable => KeyForm::Unusable { no_key: true },
            LaneKey::NoKey(lane) => KeyForm::NoKey { lane: *lane },
            LaneKey::Key(key) => match std::str::from_utf8(key) {
                Ok(text) => KeyForm::Text(text.to_owned()),
                Err(_) => KeyForm::Bytes { hex: record::hex(key) },
            },
        };
        form.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for KeyName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(KeyName(match KeyForm::deserialize(deserializer)? {
            KeyForm::None | KeyForm::Unusable { no_key: true } => LaneKey::Unusable,
            KeyForm::Unusable { no_key: false } => return Err(serde::de::Error::custom("no_key is true")),
            KeyForm::NoKey { lane } => LaneKey::NoKey(lane),
            KeyForm::Text(text) => LaneKey::Key(Bytes::from(text)),
            KeyForm::Bytes { hex } => {
                let digit = |n: usize| hex.get(n..n + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
                let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(digit).collect();
                LaneKey::Key(bytes.ok_or_else(|| serde::de::Error::custom("not hex digits"))?.into())
            }
        }))
    }
}

/// Why a record of the command topic is no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Nobody can be answered.
    #[error("it is not JSON with an id: {0}")]
    Nameless(String),
    /// Whoever asked can be told.
    #[error("{why}")]
    Refused {
        /// The command's id.
        id: String,
        /// Why it is not carried out.
        why: String,
    },
}

impl Command {
    /// Reads a command.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub fn read(value: &[u8]) -> Result<Command, CommandError> {
        let json: Value =
            serde_json::from_slice(value).map_err(|error| CommandError::Nameless(error.to_string()))?;
        let Some(id) = json.get("id").and_then(Value::as_str).map(str::to_owned) else {
            return Err(CommandError::Nameless("there is none".into()));
        };
        let version = json.get("version").and_then(Value::as_u64);
        if version != Some(u64::from(VERSION)) {
            let found = version.map_or_else(|| "no version".into(), |version| format!("version {version}"));
            let why = format!("the command has {found}, this Pawl knows version {VERSION}: use its own pawl");
            return Err(CommandError::Refused { id, why });
        }
        serde_json::from_value(json).map_err(|error| {
            let why = format!("the command is not one that this Pawl knows: {error}");
            CommandError::Refused { id, why }
        })
    }

    /// The command as it is written.
    pub fn written(&self) -> Bytes {
        serde_json::to_vec(self).expect("a command is plain data").into()
    }
}

/// How far a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// It is under way; another answer follows.
    Running,
    /// It was carried out.
    Done,
    /// There was nothing to do in this partition.
    Nothing,
    /// It was not carried out.
    Refused,
}

impl Progress {
    /// The name in answers and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Progress::Running => "running",
            Progress::Done => "done",
            Progress::Nothing => "nothing",
            Progress::Refused => "refused",
        }
    }
}

/// What a partition's owner says to a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// See [`VERSION`].
    pub version: u32,
    /// The command's id.
    pub id: String,
    /// How far it is.
    pub progress: Progress,
    /// What happened, for people.
    pub message: String,
    /// What a replay did so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replayed>,
}

/// What a replay did so far in a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Replayed {
    /// Letters that took effect; in a dry run, that would be handed to the handler.
    pub applied: u64,
    /// Letters that were recognised as duplicates.
    pub duplicates: u64,
    /// Letters that failed again, and stay.
    pub failed: u64,
    /// Letters that it was not about.
    pub passed_over: u64,
    /// Keys whose next letter is gone from the topic.
    pub gaps: u64,
    /// Offsets of the dead-letter partition that were read, and all that were there when it began.
    pub read: i64,
    /// See `read`.
    pub end: i64,
    /// The first of what went wrong, for people.
    pub troubles: Vec<String>,
}

impl Reply {
    /// The answer as it is written.
    pub fn written(&self) -> Bytes {
        serde_json::to_vec(self).expect("an answer is plain data").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(what: What) -> Command {
        Command { version: VERSION, id: "c1".into(), by: "ops@host".into(), what }
    }

    #[test]
    fn a_command_is_read_as_it_was_written() {
        let key = |key: &'static [u8]| KeyName(LaneKey::Key(Bytes::from_static(key)));
        let filter = Filter { key: Some(key(b"\xff\0")), since: Some(5), ..Filter::default() };
        let keyless = Filter { key: Some(KeyName(LaneKey::Unusable)), ..Filter::default() };
        for what in [
            What::Replay(Replay { filter, rate: Some(2.5), dry_run: true, accept_lost: true }),
            What::Replay(Replay { filter: keyless, ..Replay::default() }),
            What::StopReplay {},
            What::Discard { key: key(b"K"), through: Some((5, 1)), reason: "junk".into() },
            What::Release { key: KeyName(LaneKey::Unusable), reason: String::new() },
            What::Resume { key: KeyName(LaneKey::NoKey(3)) },
            What::Pause { key: key(b""), create: true },
            What::Skip { key: key("ä".as_bytes()), offset: 7, reason: "why".into() },
            What::Erase { key: key(b"K") },
            What::Rewind { to: 7, reset: true, reason: "why".into() },
        ] {
            let written = command(what.clone());
            assert_eq!(Command::read(&written.written()), Ok(written), "{what:?}");
        }
    }

    /// Commands lie in topics, and other versions read them.
    #[test]
    fn the_written_form_never_changes() {
        let what = What::Discard {
            key: KeyName(LaneKey::Key(Bytes::from_static(b"\xff"))),
            through: None,
            reason: "r".into(),
        };
        let json = r#"{"version":1,"id":"c1","by":"ops@host","command":"discard","key":{"hex":"ff"},"through":null,"reason":"r"}"#;
        assert_eq!(command(what).written(), json);
        let minimal = br#"{"version":1,"id":"i","by":"","command":"replay","filter":{},"rate":null}"#;
        assert_eq!(Command::read(minimal).expect("valid").what, What::Replay(Replay::default()));
        let older = br#"{"version":1,"id":"i","by":"","command":"erase","key":null}"#;
        assert_eq!(
            Command::read(older).expect("valid").what,
            What::Erase { key: KeyName(LaneKey::Unusable) }
        );
    }

    #[test]
    fn what_is_no_command_is_refused_by_its_name_where_it_has_one() {
        for nameless in [&b"garbage"[..], b"{}", br#"{"id":7}"#, b""] {
            assert!(matches!(Command::read(nameless), Err(CommandError::Nameless(_))), "{nameless:?}");
        }
        for (refused, part) in [
            (&br#"{"id":"x","version":9,"command":"replay"}"#[..], "version 9"),
            (br#"{"id":"x"}"#, "no version"),
            (br#"{"id":"x","version":1,"by":"","command":"fly"}"#, "fly"),
            (br#"{"id":"x","version":1,"by":"","command":"erase","key":{"hex":"zz"}}"#, "key"),
        ] {
            let Err(CommandError::Refused { id, why }) = Command::read(refused) else {
                panic!("{refused:?}")
            };
            assert!(id == "x" && (why.contains(part) || part == "key"), "{why}");
        }
    }
}
