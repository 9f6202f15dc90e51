//! What a running handler shows of its keys: rows as its local view has them, and what goes on in
//! their lanes. Reads only. A lane is asked by a message to its partition's actor, answered on the
//! actors' own thread, so nothing is shared with them and nobody waits for a lock.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use actix::{Addr, WeakAddr};
use bytes::{Bytes, BytesMut};
use pawl_actors::ledger::{HEAD_PREFIX, Head, LaneKey, PARTITION_KEY, PartitionRow, Rewinds, head_key};
use pawl_actors::order::LaneLook;
use pawl_actors::partition::{Look, PartitionActor};

use super::cursor::Cursor;
use super::{KeyLine, KeyPage};
use crate::store::LocalView;

/// Keys in one answer, at most.
pub const MAX_LIMIT: usize = 1_000;
/// Pages of the view that one answer goes through, at most: removed rows make pages short.
const MAX_PAGES: usize = 16;
/// Longest wait for the actors, whose mailbox may hold batches of records first.
const LANE_PATIENCE: Duration = Duration::from_secs(3);

/// See the module's documentation. Empty until the handler runs.
#[derive(Default)]
pub struct Window {
    view: RwLock<Option<Arc<LocalView>>>,
    /// Weak, lest a look keeps the actor of a partition alive that was given up.
    actors: Mutex<BTreeMap<i32, WeakAddr<PartitionActor>>>,
}

/// Which keys to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where to go on.
    pub after: Option<Cursor>,
    /// What keys begin with; empty: any, and lanes of records without a key, or without a usable one.
    pub prefix: Bytes,
    /// How many, at most; at least 1.
    pub limit: usize,
}

/// Part of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// By partition, then by key.
    pub keys: Vec<KeyLine>,
    /// Where to go on; `None`: that was all.
    pub next: Option<Cursor>,
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.view().is_some() { "Window(open)" } else { "Window(closed)" })
    }
}

impl Window {
    /// The handler has its view; another one after it was begun anew.
    pub fn open(&self, view: Arc<LocalView>) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Some(view);
    }

    /// The handler ends, and its view with it.
    pub fn close(&self) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn view(&self) -> Option<Arc<LocalView>> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A partition's actor has begun.
    pub fn begun(&self, partition: i32, actor: &Addr<PartitionActor>) {
        self.actors.lock().expect("no holder panics").insert(partition, actor.downgrade());
    }

    /// Lists keys of these partitions, which must be in order. Blocks.
    ///
    /// # Errors
    /// When the view or a row cannot be read.
    pub fn list(&self, partitions: &[i32], wanted: &Wanted) -> Result<Listed, String> {
        let mut listed = Listed::default();
        let Some(view) = self.view() else { return Ok(listed) };
        let mut pages = 0;
        for &partition in partitions {
            let rewinds = within(&view, partition)?.map(|row| row.rewinds).unwrap_or_default();
            let mut after = match &wanted.after {
                Some(cursor) if cursor.partition > partition => continue,
                Some(cursor) if cursor.partition == partition => cursor.after.clone(),
                _ if listed.keys.len() >= wanted.limit => {
                    listed.next = Some(Cursor::before(partition));
                    return Ok(listed);
                }
                _ => first(&view, partition, wanted, &rewinds, &mut listed)?,
            };
            loop {
                let room = wanted.limit.saturating_sub(listed.keys.len());
                if room == 0 || pages == MAX_PAGES {
                    listed.next = Some(Cursor { partition, after });
                    return Ok(listed);
                }
                pages += 1;
                let page = view.page(partition, &after, room).map_err(|error| error.to_string())?;
                let Some(next) = take(partition, wanted, page, &rewinds, &mut listed)? else { break };
                after = next;
            }
        }
        Ok(listed)
    }

    /// A key as the view has it; blocks. `None`: the handler does not run yet.
    ///
    /// # Errors
    /// When the view or a row cannot be read.
    pub fn page(&self, partition: i32, key: &LaneKey<Bytes>) -> Result<Option<KeyPage>, String> {
        let Some(view) = self.view() else { return Ok(None) };
        let row = |key: &[u8]| view.row(partition, key).map_err(|error| error.to_string());
        let head = row(&head_key(key.as_deref(), &mut BytesMut::new()))?;
        let head = head.map(|row| Head::decode(&row)).transpose().map_err(|error| error.to_string())?;
        let within = within(&view, partition)?;
        Ok(Some(KeyPage::of(partition, key.clone(), head, None, within.as_ref())))
    }

    /// What goes on in a key's lane; `None`: it has none now.
    ///
    /// # Errors
    /// Says why nobody could tell.
    pub async fn lane(&self, partition: i32, key: LaneKey<Bytes>) -> Result<Option<LaneLook>, String> {
        let actor = self.actors.lock().expect("no holder panics").get(&partition).and_then(WeakAddr::upgrade);
        let Some(actor) = actor else { return Ok(None) };
        match tokio::time::timeout(LANE_PATIENCE, actor.send(Look { key })).await {
            Ok(Ok(lane)) => Ok(lane),
            Ok(Err(error)) => Err(format!("the partition's actor is gone: {error}")),
            Err(_) => Err(format!("the partition's actor did not answer within {LANE_PATIENCE:?}")),
        }
    }
}

/// The row of a partition.
fn within(view: &LocalView, partition: i32) -> Result<Option<PartitionRow>, String> {
    let row = view.row(partition, PARTITION_KEY).map_err(|error| error.to_string())?;
    row.map(|row| PartitionRow::decode(&row)).transpose().map_err(|error| error.to_string())
}

/// Where a partition's list begins. Pages begin after a key, so the one key that is the prefix itself
/// is listed here.
fn first(
    view: &LocalView,
    partition: i32,
    wanted: &Wanted,
    rewinds: &Rewinds,
    listed: &mut Listed,
) -> Result<Bytes, String> {
    if wanted.prefix.is_empty() {
        return Ok(Bytes::from_static(PARTITION_KEY));
    }
    let row_key = head_key(LaneKey::Key(&wanted.prefix[..]), &mut BytesMut::new());
    if let Some(value) = view.row(partition, &row_key).map_err(|error| error.to_string())? {
        listed.keys.extend(line(partition, &row_key, &value, rewinds)?);
    }
    Ok(row_key)
}

/// Adds a page to the list; where the partition's list goes on, `None` if it does not.
fn take(
    partition: i32,
    wanted: &Wanted,
    page: crate::store::Page,
    rewinds: &Rewinds,
    listed: &mut Listed,
) -> Result<Option<Bytes>, String> {
    for (row_key, value) in &page.rows {
        if !wanted.prefix.is_empty() && !begins_with(row_key, &wanted.prefix) {
            return Ok(None);
        }
        listed.keys.extend(line(partition, row_key, value, rewinds)?);
    }
    Ok(page.next.filter(|next| wanted.prefix.is_empty() || begins_with(next, &wanted.prefix)))
}

/// Whether a row key is that of a record key which begins so.
pub fn begins_with(row_key: &[u8], prefix: &[u8]) -> bool {
    row_key.split_first().is_some_and(|(first, key)| *first == HEAD_PREFIX && key.starts_with(prefix))
}

fn line(partition: i32, row_key: &[u8], value: &[u8], rewinds: &Rewinds) -> Result<Option<KeyLine>, String> {
    KeyLine::read(partition, row_key, value, None, rewinds)
        .map_err(|error| format!("partition {partition}: {error}"))
}

#[cfg(test)]
mod tests {
    use pawl_actors::record::Offset;

    use super::*;
    use crate::shown::Raw;
    use crate::store::tests::view_in;

    /// A window over two partitions with these keys.
    fn window(dir: &std::path::Path, keys: [&[&str]; 2]) -> Window {
        let view = view_in(dir);
        for (partition, keys) in keys.into_iter().enumerate() {
            let mut out = BytesMut::new();
            let head = Head { taken: Offset(7), ..Head::default() };
            let mut rows: Vec<_> = keys.iter().map(|key| head.row(Some(key.as_bytes()), &mut out)).collect();
            rows.push(head.row(None, &mut out));
            rows.push(PartitionRow::new("t".into(), 9, 1, 0, [0; 16]).row(&mut out));
            let changes = rows.iter().map(|row| (&row.key[..], row.value.as_deref()));
            view.push(partition as i32, changes, 10).expect("pushes");
        }
        let window = Window::default();
        window.open(view);
        window
    }

    #[test]
    fn a_handler_that_is_begun_anew_shows_its_new_view() {
        let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        let first = window(dirs[0].path(), [&["a"], &[]]);
        let second = window(dirs[1].path(), [&["b"], &[]]);
        let view = second.view().expect("open");
        first.close();
        assert!(
            first
                .list(&[0], &Wanted { after: None, prefix: Bytes::new(), limit: 10 })
                .expect("readable")
                .keys
                .is_empty()
        );
        first.open(view);
        assert_eq!(all(&first, "b", 10).len(), 1);
        assert!(all(&first, "a", 10).is_empty());
    }

    fn all(window: &Window, prefix: &'static str, limit: usize) -> Vec<String> {
        let (mut shown, mut after) = (Vec::new(), None);
        loop {
            let wanted = Wanted { after, prefix: Bytes::from_static(prefix.as_bytes()), limit };
            let listed = window.list(&[0, 1], &wanted).expect("readable");
            assert!(listed.keys.len() <= limit);
            shown.extend(listed.keys.iter().map(|line| {
                let key = line.key.as_ref().map_or("(no key)".into(), Raw::shown);
                format!("{} {key}", line.partition)
            }));
            after = listed.next;
            if after.is_none() {
                return shown;
            }
        }
    }

    #[test]
    fn keys_are_listed_by_partition_in_order_whatever_the_size_of_the_answers() {
        let dir = tempfile::tempdir().expect("a directory");
        let window = window(dir.path(), [&["b", "a", "ab"], &["a", "c"]]);
        for limit in [1, 2, 3, 100] {
            let expected = ["0 a", "0 ab", "0 b", "0 (no key)", "1 a", "1 c", "1 (no key)"];
            assert_eq!(all(&window, "", limit), expected, "{limit}");
            assert_eq!(all(&window, "a", limit), ["0 a", "0 ab", "1 a"], "{limit}");
            assert!(all(&window, "x", limit).is_empty(), "{limit}");
        }
    }

    #[test]
    fn a_key_without_a_row_is_told_with_what_its_partition_knows() {
        let dir = tempfile::tempdir().expect("a directory");
        let window = window(dir.path(), [&["a"], &[]]);
        let page = |key: Option<&'static [u8]>| {
            window.page(0, &key.map(Bytes::from_static).into()).expect("readable").expect("it runs")
        };
        assert_eq!(page(Some(b"a")).head.map(|head| head.taken), Some(7));
        assert_eq!(page(None).head.map(|head| head.key), Some(None), "the lane of records without a key");
        let unknown = page(Some(b"zz"));
        assert_eq!((unknown.head, unknown.within.map(|within| within.watermark)), (None, Some(9)));
        assert_eq!(Window::default().page(0, &LaneKey::Unusable), Ok(None), "before the handler runs");
    }
}
