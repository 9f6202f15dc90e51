//! A command as a client sends it: one JSON object. Pure.

use std::time::{Duration, SystemTime};

use pawl_actors::command::{Filter, KeyName, Replay, What};
use pawl_actors::supervisor::Disposition;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::{MAX_TIMEOUT, TIMEOUT};
use crate::cli::moment;
use crate::commands::asking::Request;
use crate::commands::dlt::filter::millis;
use crate::commands::rewind::Place;

/// What is asked, of whom, and how long for.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// What is asked.
    pub request: Request,
    /// Only this partition.
    pub partition: Option<i32>,
    /// How long answers are waited for.
    pub timeout: Duration,
    /// Whether it is only said what would be done; a replay says it in its answer.
    pub dry_run: bool,
}

#[derive(Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
enum Body {
    Pause {
        #[serde(deserialize_with = "named")]
        key: KeyName,
    },
    Resume {
        #[serde(deserialize_with = "named")]
        key: KeyName,
    },
    Erase {
        #[serde(deserialize_with = "named")]
        key: KeyName,
    },
    Release {
        #[serde(deserialize_with = "named")]
        key: KeyName,
        reason: String,
    },
    Skip {
        #[serde(deserialize_with = "named")]
        key: KeyName,
        offset: i64,
        reason: String,
    },
    SkipGap {
        #[serde(deserialize_with = "named")]
        key: KeyName,
        to: i64,
        reason: String,
    },
    Discard {
        offset: i64,
        reason: String,
    },
    Replay(ReplayBody),
    StopReplay {},
    Rewind {
        to_offset: Option<i64>,
        to_time: Option<String>,
        #[serde(default)]
        to_earliest: bool,
        state: State,
        reason: String,
        #[serde(default)]
        dry_run: bool,
    },
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ReplayBody {
    all: bool,
    key: Option<KeyName>,
    cause: Option<String>,
    disposition: Option<String>,
    since: Option<String>,
    until: Option<String>,
    group: Option<String>,
    rate: Option<f64>,
    dry_run: bool,
    accept_lost: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Keep,
    Reset,
}

/// A key that is left out by mistake must not be one that is `null`.
fn named<'de, D: Deserializer<'de>>(from: D) -> Result<KeyName, D::Error> {
    match Value::deserialize(from)? {
        Value::Null => Err(serde::de::Error::custom(
            "null is no key; {\"no_key\": true} is the lane of records without one",
        )),
        value => serde_json::from_value(value).map_err(|_| {
            serde::de::Error::custom(
                "key is a text, or {\"hex\": \"…\"}, {\"lane\": N} or {\"no_key\": true}",
            )
        }),
    }
}

impl Order {
    /// Reads a body; with it, for the audit log, its JSON on one line.
    ///
    /// # Errors
    /// What is wrong with it, for whoever sent it.
    pub fn read(body: &[u8]) -> Result<(Order, String), String> {
        let json: Value =
            serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))?;
        let text = json.to_string();
        let Value::Object(mut fields) = json else { return Err("the body is not a JSON object".into()) };
        let partition = partition(&mut fields)?;
        let timeout = timeout(&mut fields)?;
        let body: Body = serde_json::from_value(Value::Object(fields))
            .map_err(|error| format!("not a command: {error}; docs/admin.md lists them"))?;
        let (request, dry_run) = request(body, partition, SystemTime::now())?;
        Ok((Order { request, partition, timeout, dry_run }, text))
    }
}

fn partition(fields: &mut Map<String, Value>) -> Result<Option<i32>, String> {
    let Some(value) = fields.remove("partition") else { return Ok(None) };
    let number = value.as_i64().and_then(|number| i32::try_from(number).ok()).filter(|number| *number >= 0);
    number.map(Some).ok_or_else(|| "partition is a number from 0 on".into())
}

fn timeout(fields: &mut Map<String, Value>) -> Result<Duration, String> {
    let Some(value) = fields.remove("timeout") else { return Ok(TIMEOUT) };
    let read = value.as_str().and_then(|text| humantime::parse_duration(text).ok());
    read.filter(|wait| *wait <= MAX_TIMEOUT).ok_or_else(|| {
        format!("timeout is a duration such as \"20s\", {} at most", humantime::format_duration(MAX_TIMEOUT))
    })
}

fn request(body: Body, partition: Option<i32>, now: SystemTime) -> Result<(Request, bool), String> {
    let same = |what| Ok((Request::Same(what), false));
    match body {
        Body::Pause { key } => Ok((Request::Pause { key, home: partition }, false)),
        Body::Resume { key } => same(What::Resume { key }),
        Body::Erase { key } => same(What::Erase { key }),
        Body::Release { key, reason } => same(What::Release { key, reason: said(reason)? }),
        Body::Skip { key, offset, reason } => {
            same(What::Skip { key, offset: counted("offset", offset)?, reason: said(reason)? })
        }
        Body::SkipGap { key, to, reason } => {
            same(What::SkipGap { key, to: counted("to", to)?, reason: said(reason)? })
        }
        Body::Discard { offset, reason } => {
            let (offset, reason) = (counted("offset", offset)?, said(reason)?);
            if partition.is_none() {
                return Err("a letter lies in a partition: say which, as partition".into());
            }
            Ok((Request::Discard { offset, reason }, false))
        }
        Body::Replay(body) => replay(body, now).map(|replay| (Request::Replay(replay), false)),
        Body::StopReplay {} => same(What::StopReplay {}),
        Body::Rewind { to_offset, to_time, to_earliest, state, reason, dry_run } => {
            let place = match (to_offset, to_time, to_earliest) {
                (Some(offset), None, false) => Place::Offset(counted("to_offset", offset)?),
                (None, Some(time), false) => Place::Time(at("to_time", &time, now)?),
                (None, None, true) => Place::Earliest,
                _ => return Err("a rewind has exactly one of to_offset, to_time and to_earliest".into()),
            };
            let reset = state == State::Reset;
            Ok((Request::Rewind { place, reset, reason: said(reason)? }, dry_run))
        }
    }
}

fn replay(body: ReplayBody, now: SystemTime) -> Result<Replay, String> {
    let ReplayBody { all, key, cause, disposition, since, until, group, rate, dry_run, accept_lost } = body;
    let since = since.map(|time| at("since", &time, now)).transpose()?;
    let until = until.map(|time| at("until", &time, now)).transpose()?;
    if since.zip(until).is_some_and(|(since, until)| since >= until) {
        return Err("since is not before until, so no letter is meant".into());
    }
    if rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
        return Err("rate is a number of letters a second, more than 0".into());
    }
    if disposition.as_deref().is_some_and(|name| !Disposition::NAMES.contains(&name)) {
        return Err(format!("disposition is one of {}", Disposition::NAMES.join(", ")));
    }
    let filter = Filter { key, cause, disposition, since, until, group };
    if !all && filter == Filter::default() {
        return Err(
            "a replay says of which letters: all, key, cause, disposition, since, until or group".into()
        );
    }
    Ok(Replay { filter, rate, dry_run, accept_lost })
}

fn said(reason: String) -> Result<String, String> {
    if reason.trim().is_empty() { Err("say why, as reason".into()) } else { Ok(reason) }
}

fn counted(name: &str, number: i64) -> Result<i64, String> {
    if number < 0 { Err(format!("{name} is a number from 0 on")) } else { Ok(number) }
}

fn at(name: &str, text: &str, now: SystemTime) -> Result<i64, String> {
    moment(text).map(|moment| millis(moment, now)).map_err(|why| format!("{name}: {why}"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use pawl_actors::ledger::LaneKey;

    use super::*;

    fn order(body: &str) -> Order {
        Order::read(body.as_bytes()).unwrap_or_else(|why| panic!("{body}: {why}")).0
    }

    fn key(text: &'static str) -> KeyName {
        KeyName(LaneKey::Key(Bytes::from_static(text.as_bytes())))
    }

    #[test]
    fn every_command_of_the_command_line_can_be_sent() {
        let reason = || "why".to_owned();
        let plain = |request| Order { request, partition: None, timeout: TIMEOUT, dry_run: false };
        let same = |what| plain(Request::Same(what));
        let hex = KeyName(LaneKey::Key(Bytes::from_static(b"\xff")));
        let filter = Filter { key: Some(key("K")), since: Some(1_795_487_400_000), ..Filter::default() };
        for (body, expected) in [
            (r#"{"command":"pause","key":"K"}"#, plain(Request::Pause { key: key("K"), home: None })),
            (
                r#"{"command":"pause","key":"K","partition":2,"timeout":"1m"}"#,
                Order {
                    request: Request::Pause { key: key("K"), home: Some(2) },
                    partition: Some(2),
                    timeout: MAX_TIMEOUT,
                    dry_run: false,
                },
            ),
            (r#"{"command":"resume","key":{"hex":"ff"}}"#, same(What::Resume { key: hex })),
            (
                r#"{"command":"erase","key":{"no_key":true}}"#,
                same(What::Erase { key: KeyName(LaneKey::Unusable) }),
            ),
            (
                r#"{"command":"release","key":{"lane":3},"reason":"why"}"#,
                same(What::Release { key: KeyName(LaneKey::NoKey(3)), reason: reason() }),
            ),
            (
                r#"{"command":"skip","key":"K","offset":7,"reason":"why"}"#,
                same(What::Skip { key: key("K"), offset: 7, reason: reason() }),
            ),
            (
                r#"{"command":"skip-gap","key":"K","to":7,"reason":"why"}"#,
                same(What::SkipGap { key: key("K"), to: 7, reason: reason() }),
            ),
            (r#"{"command":"stop-replay"}"#, same(What::StopReplay {})),
            (
                r#"{"command":"replay","key":"K","since":"2026-11-24T02:30:00Z","rate":2.5,"accept_lost":true}"#,
                plain(Request::Replay(Replay { filter, rate: Some(2.5), dry_run: false, accept_lost: true })),
            ),
            (
                r#"{"command":"replay","all":true,"dry_run":true}"#,
                plain(Request::Replay(Replay { dry_run: true, ..Replay::default() })),
            ),
            (
                r#"{"command":"rewind","to_earliest":true,"state":"reset","reason":"why"}"#,
                plain(Request::Rewind { place: Place::Earliest, reset: true, reason: reason() }),
            ),
        ] {
            assert_eq!(order(body), expected, "{body}");
        }
        let discard = order(r#"{"command":"discard","partition":1,"offset":9,"reason":"why"}"#);
        assert_eq!(
            (discard.partition, discard.request),
            (Some(1), Request::Discard { offset: 9, reason: reason() })
        );
        assert!(order(r#"{"command":"rewind","to_offset":5,"partition":0,"state":"keep","reason":"why","dry_run":true}"#).dry_run);
    }

    #[test]
    fn what_is_no_command_is_refused_with_what_is_missing() {
        for (body, why) in [
            ("", "not JSON"),
            ("[]", "not a JSON object"),
            ("{}", "command"),
            (r#"{"command":"fly"}"#, "fly"),
            (r#"{"command":"pause"}"#, "key"),
            (r#"{"command":"erase","key":null}"#, "null is no key"),
            (r#"{"command":"erase","key":5}"#, "key is a text"),
            (r#"{"command":"erase","key":"K","resaon":"typo"}"#, "resaon"),
            (r#"{"command":"release","key":"K"}"#, "reason"),
            (r#"{"command":"release","key":"K","reason":" "}"#, "say why"),
            (r#"{"command":"replay","disposition":"poisoned"}"#, "poison, exhausted, follower"),
            (r#"{"command":"skip","key":"K","offset":-1,"reason":"r"}"#, "offset"),
            (r#"{"command":"discard","offset":1,"reason":"r"}"#, "partition"),
            (r#"{"command":"replay"}"#, "of which letters"),
            (r#"{"command":"replay","all":true,"rate":0}"#, "rate"),
            (r#"{"command":"replay","since":"1h","until":"2h"}"#, "not before"),
            (r#"{"command":"replay","all":true,"since":"yesterday"}"#, "since: neither"),
            (r#"{"command":"pause","key":"K","partition":-1}"#, "partition"),
            (r#"{"command":"pause","key":"K","timeout":"2m"}"#, "1m at most"),
            (r#"{"command":"rewind","state":"keep","reason":"r"}"#, "exactly one"),
            (
                r#"{"command":"rewind","to_offset":1,"to_earliest":true,"state":"keep","reason":"r"}"#,
                "exactly one",
            ),
            (r#"{"command":"rewind","to_earliest":true,"reason":"r"}"#, "state"),
        ] {
            let told = Order::read(body.as_bytes()).expect_err(body);
            assert!(told.contains(why), "{body}: {told}");
        }
    }

    #[test]
    fn a_body_stands_on_one_line_in_the_audit_log() {
        let (_, text) = Order::read(b"{\"command\":\"erase\",\n\"key\":\"A\\nforged\"}").expect("a command");
        assert_eq!(text, r#"{"command":"erase","key":"A\nforged"}"#);
    }
}
