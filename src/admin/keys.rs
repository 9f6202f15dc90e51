//! `/handlers/{name}/keys`: what the process knows of keys, of the partitions that it holds.
//!
//! Keys are bytes, so they stand percent-encoded in the path, and paths are read as they came: axum's
//! own extractors take text only.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::join_all;
use pawl_actors::ledger::LaneKey;
use pawl_actors::stats::PartitionPhase;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use super::Process;
use crate::looking::window::{MAX_LIMIT, Wanted, Window};
use crate::looking::{KeyLine, KeyPage};
use crate::observed::HandlerView;

/// Keys in one answer, unless the request says how many.
const DEFAULT_LIMIT: usize = 100;

/// A partition that the process holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldPartition {
    /// Its number.
    pub partition: i32,
    /// Its phase. Keys are told of those that are running or draining.
    pub phase: String,
}

impl HeldPartition {
    /// Whether its keys can be told: while it is restored its view is not complete.
    pub fn has_keys(&self) -> bool {
        [PartitionPhase::Running, PartitionPhase::Draining]
            .map(PartitionPhase::name)
            .contains(&self.phase.as_str())
    }
}

/// The answer to a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysAnswer {
    /// All that the process holds, whether keys of it were asked for or not.
    pub partitions: Vec<HeldPartition>,
    /// By partition, then by key.
    pub keys: Vec<KeyLine>,
    /// What `after` has to be to go on; `null`: that was all.
    pub next: Option<String>,
}

/// The answer about one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyAnswer {
    /// All that the process holds.
    pub partitions: Vec<HeldPartition>,
    /// One for each partition that knows the key: where producers partition by key, one at most.
    pub found: Vec<KeyPage>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoAnswer {
    /// For a person.
    pub error: String,
}

pub(super) type Refused = (StatusCode, String);

/// `GET /handlers/{name}/keys?partition=&after=&prefix=&limit=`.
pub(super) async fn list(State(process): State<Arc<Process>>, uri: Uri) -> Response {
    answer(list_keys(&process, &uri).await)
}

/// `GET /handlers/{name}/keys/{key}`.
pub(super) async fn show(State(process): State<Arc<Process>>, uri: Uri) -> Response {
    let key = uri.path().splitn(5, '/').nth(4).map(decoded).unwrap_or_default();
    answer(show_key(&process, &uri, LaneKey::Key(key)).await)
}

/// `GET /handlers/{name}/unkeyed`: the lane of records without a usable key.
pub(super) async fn show_unkeyed(State(process): State<Arc<Process>>, uri: Uri) -> Response {
    answer(show_key(&process, &uri, LaneKey::Unusable).await)
}

/// `GET /handlers/{name}/unkeyed/{lane}`: one of the lanes that records without a key are spread over.
pub(super) async fn show_spread(State(process): State<Arc<Process>>, uri: Uri) -> Response {
    let lane = uri.path().splitn(5, '/').nth(4).and_then(|lane| lane.parse().ok());
    let shown = match lane {
        Some(lane) => show_key(&process, &uri, LaneKey::NoKey(lane)).await,
        None => Err(bad("lanes of records without a key are numbers from 0 on".into())),
    };
    answer(shown)
}

pub(super) fn answer(answer: Result<impl Serialize, Refused>) -> Response {
    match answer {
        Ok(answer) => Json(answer).into_response(),
        Err((status, error)) => (status, Json(NoAnswer { error })).into_response(),
    }
}

async fn list_keys(process: &Process, uri: &Uri) -> Result<KeysAnswer, Refused> {
    let view = handler(process, uri)?;
    let query = Query::read(uri.query().unwrap_or_default()).map_err(bad)?;
    let partitions = held(view);
    let asked: Vec<i32> = partitions_with_keys(&partitions)
        .filter(|partition| query.partition.is_none_or(|only| only == *partition))
        .collect();
    let listed = blocking(view, move |window| window.list(&asked, &query.wanted)).await?;
    let next = listed.next.map(|cursor| cursor.to_string());
    Ok(KeysAnswer { partitions, keys: listed.keys, next })
}

async fn show_key(process: &Process, uri: &Uri, key: LaneKey<Bytes>) -> Result<KeyAnswer, Refused> {
    let view = handler(process, uri)?;
    let partitions = held(view);
    let asked: Vec<i32> = partitions_with_keys(&partitions).collect();
    let wanted = key.clone();
    let pages = blocking(view, move |window| {
        let pages = asked.iter().map(|partition| window.page(*partition, &wanted));
        pages.collect::<Result<Vec<_>, _>>()
    });
    // At once, so that actors that do not answer are waited for together.
    let asking = pages.await?.into_iter().flatten().map(|mut page| async {
        match view.keys.lane(page.partition, key.clone()).await {
            Ok(lane) => page.lane = lane,
            Err(why) => page.lane_unknown = Some(why),
        }
        page
    });
    let mut found = join_all(asking).await;
    found.retain(|page| page.head.is_some() || page.lane.is_some() || page.lane_unknown.is_some());
    Ok(KeyAnswer { partitions, found })
}

/// The store may have to read its disk.
async fn blocking<T: Send + 'static>(
    view: &HandlerView,
    work: impl FnOnce(&Window) -> Result<T, String> + Send + 'static,
) -> Result<T, Refused> {
    let window = view.keys.clone();
    let done = tokio::task::spawn_blocking(move || work(&window)).await;
    let failed = |error: String| (StatusCode::INTERNAL_SERVER_ERROR, error);
    done.map_err(|error| failed(error.to_string()))?.map_err(failed)
}

pub(super) fn handler<'a>(process: &'a Process, uri: &Uri) -> Result<&'a HandlerView, Refused> {
    let name = decoded(uri.path().split('/').nth(2).unwrap_or_default());
    process.handlers.iter().find(|view| view.name.as_bytes() == &name[..]).ok_or_else(|| {
        let known: Vec<&str> = process.handlers.iter().map(|view| &*view.name).collect();
        let name = String::from_utf8_lossy(&name).into_owned();
        (
            StatusCode::NOT_FOUND,
            format!("there is no handler {name:?} in this process; there is {}", known.join(", ")),
        )
    })
}

fn held(view: &HandlerView) -> Vec<HeldPartition> {
    let of = |(partition, phase): (i32, PartitionPhase)| HeldPartition {
        partition,
        phase: phase.name().to_owned(),
    };
    view.stats.partitions().into_iter().map(|(partition, stats)| of((partition.0, stats.phase()))).collect()
}

fn partitions_with_keys(held: &[HeldPartition]) -> impl Iterator<Item = i32> {
    held.iter().filter(|held| held.has_keys()).map(|held| held.partition)
}

#[derive(Debug, PartialEq, Eq)]
struct Query {
    partition: Option<i32>,
    wanted: Wanted,
}

impl Query {
    fn read(text: &str) -> Result<Query, String> {
        let wanted = Wanted { after: None, prefix: Bytes::new(), limit: DEFAULT_LIMIT };
        let mut query = Query { partition: None, wanted };
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value);
            let text = || std::str::from_utf8(&value).map_err(|_| format!("{name} is not text"));
            let number = || text()?.parse::<i32>().map_err(|_| format!("{name} is not a number"));
            match name {
                "partition" => query.partition = Some(number()?),
                "after" => query.wanted.after = Some(text()?.parse()?),
                "prefix" => query.wanted.prefix = value,
                "limit" => {
                    let limit =
                        usize::try_from(number()?).ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                    query.wanted.limit = limit.ok_or_else(|| format!("limit is 1 to {MAX_LIMIT}"))?;
                }
                other => {
                    return Err(format!("{other:?} is unknown; there is partition, after, prefix, limit"));
                }
            }
        }
        Ok(query)
    }
}

fn bad(error: String) -> Refused {
    (StatusCode::BAD_REQUEST, error)
}

fn decoded(text: &str) -> Bytes {
    percent_decode_str(text).collect::<Vec<u8>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::looking::cursor::Cursor;

    #[test]
    fn a_query_says_where_and_how_many_and_what_is_unknown_is_refused() {
        let query = Query::read("partition=3&after=3.0241&prefix=a%26%ff&limit=7").expect("valid");
        let after = Some(Cursor { partition: 3, after: Bytes::from_static(b"\x02A") });
        let wanted = Wanted { after, prefix: Bytes::from_static(b"a&\xff"), limit: 7 };
        assert_eq!(query, Query { partition: Some(3), wanted });
        assert_eq!(Query::read("").map(|query| query.wanted.limit), Ok(DEFAULT_LIMIT));
        for text in ["limit=0", "limit=1001", "limit=x", "after=x", "partition=", "prefx=a"] {
            assert!(Query::read(text).is_err(), "{text}");
        }
    }
}
