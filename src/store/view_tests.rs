//! The view over a store, whichever engine keeps it.

use std::path::Path;

use super::super::ViewDirParts;
use super::*;
use crate::settings::Engine;

const DAY: Duration = Duration::from_secs(86_400);

fn parts(dir: &Path, max_bytes: usize, changelog_id: &str) -> ViewParts {
    let dir = ViewDirParts { dir: dir.to_owned(), engine: Engine::Sled, cache_bytes: 16 << 20 };
    ViewParts {
        dir: Arc::new(ViewDir::hold(dir).expect("nobody else holds it")),
        max_bytes,
        interval: Duration::from_secs(3600),
        group: "billing".into(),
        changelog_id: changelog_id.into(),
    }
}

fn start(dir: &Path, max_bytes: usize, changelog_id: &str) -> (Arc<LocalView>, JoinHandle<()>) {
    let parts = parts(dir, max_bytes, changelog_id);
    LocalView::start(parts.dir.open().expect("opens"), parts).expect("a thread begins")
}

fn change(key: &'static str, value: Option<&'static str>) -> Change<'static> {
    (key.as_bytes(), value.map(str::as_bytes))
}

#[test]
fn what_was_pushed_is_read_from_buffer_and_disk_alike() {
    let dir = tempfile::tempdir().expect("a directory");
    let (view, thread) = start(dir.path(), 1 << 20, "id");
    assert_eq!(view.position(0, DAY), Ok(None), "an empty view knows nothing");
    view.push(0, [change("\x02a", Some("1")), change("\x02b", Some("2"))], 10).expect("pushes");
    assert_eq!(view.row(0, b"\x02a"), Ok(Some(Bytes::from_static(b"1"))));
    assert_eq!(view.position(0, DAY), Ok(Some(10)));
    view.push(0, [change("\x02a", None)], 11).expect("pushes");
    assert_eq!(view.row(0, b"\x02a"), Ok(None), "a removal hides what is stored");
    view.close();
    thread.join().expect("ends");
    drop(view);

    let (view, thread) = start(dir.path(), 1 << 20, "id");
    assert_eq!(view.position(0, DAY), Ok(Some(11)));
    assert_eq!(view.row(0, b"\x02a"), Ok(None));
    assert_eq!(view.row(0, b"\x02b"), Ok(Some(Bytes::from_static(b"2"))));
    view.close();
    thread.join().expect("ends");
}

#[test]
fn a_page_shows_what_is_stored_as_what_gathers_has_changed_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let (view, thread) = start(dir.path(), 1 << 20, "id");
    let rows = [change("\x02a", Some("1")), change("\x02b", Some("2")), change("\x02c", Some("3"))];
    view.push(0, rows, 10).expect("pushes");
    view.close();
    thread.join().expect("ends");
    view.push(0, [change("\x02b", None), change("\x02c", Some("4")), change("\x02d", Some("5"))], 11)
        .expect("pushes");
    let mut shown = Vec::new();
    let mut after = Some(Bytes::from_static(PARTITION_KEY));
    while let Some(from) = after {
        let page = view.page(0, &from, 2).expect("reads");
        assert!(page.rows.len() <= 2);
        shown.extend(page.rows.iter().map(|(key, value)| format!("{key:?} {value:?}")));
        after = page.next;
    }
    assert_eq!(shown, [r#"b"\x02a" b"1""#, r#"b"\x02c" b"4""#, r#"b"\x02d" b"5""#]);
}

#[test]
fn a_view_of_another_changelog_group_or_format_or_too_old_is_not_believed() {
    let dir = tempfile::tempdir().expect("a directory");
    let now = clock::now().0;
    let mark = Mark {
        format: FORMAT,
        changelog_id: "id".into(),
        group: "billing".into(),
        position: 10,
        written_at: now,
    };
    let foreign = [
        (mark.clone(), Some(10)),
        (Mark { format: FORMAT + 1, ..mark.clone() }, None),
        (Mark { changelog_id: "another".into(), ..mark.clone() }, None),
        (Mark { group: "another".into(), ..mark.clone() }, None),
        (Mark { written_at: now - DAY.as_millis() as i64 - 1_000, ..mark.clone() }, None),
        (Mark { written_at: now + 3_600_000, ..mark }, None),
    ];
    let parts = parts(dir.path(), 1 << 20, "id");
    let store = parts.dir.open().expect("opens");
    for (partition, (mark, _)) in foreign.iter().enumerate() {
        store.write(partition as i32, &[change("\x02a", Some("1"))], mark).expect("writes");
    }
    let (view, thread) = LocalView::start(store, parts).expect("a thread begins");
    for (partition, (mark, position)) in foreign.iter().enumerate() {
        assert_eq!(view.position(partition as i32, DAY), Ok(*position), "{mark:?}");
    }
    view.clear(1).expect("clears");
    assert_eq!(view.row(1, b"\x02a"), Ok(None));
    assert_eq!(view.row(0, b"\x02a"), Ok(Some(Bytes::from_static(b"1"))));
    view.close();
    thread.join().expect("ends");
}

#[test]
fn a_mark_without_a_format_is_one_of_another_format() {
    let old = br#"{"changelog_id":"id","group":"billing","position":10,"written_at":0}"#;
    assert_eq!(Mark::decode(old).format, 0);
    assert_eq!(Mark::decode(b"noise").format, 0);
    assert_ne!(FORMAT, 0);
}

#[test]
fn a_full_buffer_waits_for_the_store_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (view, thread) = start(dir.path(), 10_000, "id");
    for n in 0..2_000u32 {
        let key = n.to_be_bytes();
        view.push(0, [(&key[..], Some(&key[..]))], i64::from(n) + 1).expect("pushes");
        assert!(view.lock().bytes() < 10_200, "the buffer stays bounded, with what is being written");
    }
    for n in 0..2_000u32 {
        assert!(view.row(0, &n.to_be_bytes()).expect("reads").is_some(), "row {n}");
    }
    view.close();
    thread.join().expect("ends");
}

/// Fails as it is told to.
struct Failing {
    reads: Result<Option<Bytes>, StoreError>,
    writes: Result<(), StoreError>,
}

impl Store for Failing {
    fn get(&self, _: i32, _: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.reads.clone()
    }
    fn scan(&self, _: i32, _: Option<&[u8]>, _: usize) -> Result<Vec<StoredRow>, StoreError> {
        self.reads.clone().map(|_| Vec::new())
    }
    fn write(&self, _: i32, _: &[Change<'_>], _: &Mark) -> Result<(), StoreError> {
        self.writes.clone()
    }
    fn mark(&self, _: i32) -> Result<Option<Mark>, StoreError> {
        self.reads.clone().map(|_| None)
    }
    fn clear(&self, _: i32) -> Result<(), StoreError> {
        self.writes.clone()
    }
}

#[test]
fn a_full_disk_is_told_to_whoever_pushes_and_the_rows_stay_readable() {
    let dir = tempfile::tempdir().expect("a directory");
    let full = StoreError::Failed { what: "writing", dir: "d".into(), why: "no space left on device".into() };
    let store = Failing { reads: Ok(None), writes: Err(full) };
    let (view, thread) =
        LocalView::start(Box::new(store), parts(dir.path(), 100, "id")).expect("a thread begins");
    view.push(0, [change("\x02a", Some("1"))], 1).expect("the buffer takes it");
    thread.join().expect("the writing thread ends when the store fails");
    let error = view.push(0, [change("\x02b", Some("2"))], 2).expect_err("the store failed");
    assert!(error.to_string().contains("no space left on device"), "{error}");
    assert_eq!(view.row(0, b"\x02a"), Ok(Some(Bytes::from_static(b"1"))));
    assert!(!view.is_damaged(), "there is nothing to rebuild");
}

fn damage() -> StoreError {
    StoreError::Damaged { what: "reading", dir: "d".into(), why: "a wrong checksum".into() }
}

#[test]
fn damage_that_a_read_finds_ends_the_use_of_the_view_and_removes_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let (view, thread) = start(dir.path(), 1 << 20, "id");
    view.push(0, [change("\x02a", Some("1"))], 10).expect("pushes");
    view.close();
    thread.join().expect("ends");
    drop(view);

    let kept = parts(dir.path(), 1 << 20, "id").dir;
    let store = Failing { reads: Err(damage()), writes: Ok(()) };
    let again = ViewParts { dir: kept.clone(), ..parts(&dir.path().join("unused"), 1 << 20, "id") };
    let (view, thread) = LocalView::start(Box::new(store), again).expect("a thread begins");
    view.push(0, [change("\x02b", Some("2"))], 11).expect("nothing is known yet");
    assert_eq!(view.row(0, b"\x02a"), Err(damage()));
    assert!(view.is_damaged());
    // No answer is better than one of a part of the rows: a key that seems new would be processed again.
    assert_eq!(view.row(0, b"\x02b"), Err(damage()), "also of what is in memory");
    assert_eq!(view.scan(0, b"", 1), Err(damage()));
    assert_eq!(view.position(0, DAY), Err(damage()));
    assert_eq!(view.push(0, [change("\x02c", None)], 12), Err(damage()));
    assert_eq!(view.clear(0), Err(damage()));
    thread.join().expect("the writing thread ends by itself");

    let again = ViewParts { dir: kept, ..parts(&dir.path().join("unused"), 1 << 20, "id") };
    let (view, thread) = LocalView::start(again.dir.open().expect("opens"), again).expect("a thread begins");
    assert_eq!(view.position(0, DAY), Ok(None), "it begins empty");
    assert_eq!(view.row(0, b"\x02a"), Ok(None));
    view.close();
    thread.join().expect("ends");
}

#[test]
fn damage_that_a_write_finds_ends_the_use_of_the_view_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Failing { reads: Ok(None), writes: Err(damage()) };
    let (view, thread) =
        LocalView::start(Box::new(store), parts(dir.path(), 100, "id")).expect("a thread begins");
    view.push(0, [change("\x02a", Some("1"))], 1).expect("the buffer takes it");
    thread.join().expect("the writing thread ends when the store fails");
    assert!(view.is_damaged());
    assert_eq!(view.push(0, [change("\x02b", Some("2"))], 2), Err(damage()));
}
