//! What every engine must do: one set of tests for all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::{Change, FORMAT, LocalView, Mark, Store, StoreError, ViewDir, ViewDirParts, ViewParts};
use crate::settings::Engine;

/// Runs each test with each engine.
macro_rules! with_every_engine {
    ($($test:ident)*) => {
        mod sled { $(#[test] fn $test() { super::$test(super::Engine::Sled) })* }
        mod fjall { $(#[test] fn $test() { super::$test(super::Engine::Fjall) })* }
    };
}

with_every_engine! {
    rows_and_mark_survive_a_restart
    partitions_do_not_mix
    rows_are_scanned_in_key_order_and_the_mark_is_not_a_row
    a_cleared_partition_is_empty_and_stays_so
    what_is_written_after_a_clear_survives_a_restart
    a_clear_takes_nothing_with_it_that_is_written_after_a_restart
    rows_of_a_megabyte_are_kept
    a_damaged_directory_is_made_anew
    a_view_that_lacks_a_file_is_whole_or_made_anew
    damage_under_an_open_store_is_an_error_and_never_another_row
    a_directory_in_use_is_named
    a_view_of_the_other_engine_is_set_aside
    a_view_that_is_discarded_while_it_is_open_is_not_seen_again
    any_history_reads_as_a_map_does
}

/// An open store and the directory that it holds.
struct Opened {
    store: Box<dyn Store>,
    dir: ViewDir,
}

fn hold(dir: &Path, engine: Engine) -> Result<ViewDir, StoreError> {
    ViewDir::hold(ViewDirParts { dir: dir.to_owned(), engine, cache_bytes: 16 << 20 })
}

fn open(dir: &Path, engine: Engine) -> Opened {
    let dir = hold(dir, engine).expect("nobody else holds it");
    Opened { store: dir.open().expect("opens"), dir }
}

fn mark(position: i64) -> Mark {
    Mark { format: FORMAT, changelog_id: "id".into(), group: "billing".into(), position, written_at: 1 }
}

fn change(key: &'static str, value: Option<&'static str>) -> Change<'static> {
    (key.as_bytes(), value.map(str::as_bytes))
}

fn row(key: &'static str, value: &'static str) -> (Bytes, Bytes) {
    (Bytes::from_static(key.as_bytes()), Bytes::from_static(value.as_bytes()))
}

fn rows_and_mark_survive_a_restart(engine: Engine) {
    let dir = tempfile::tempdir().expect("a directory");
    let Opened { store, .. } = open(dir.path(), engine);
    assert_eq!(store.mark(0), Ok(None));
    store.write(0, &[change("\x02a", Some("1")), change("\x02b", Some("2"))], &mark(41)).expect("writes");
    store.write(0, &[change("\x02a", None), change("\x02c", None)], &mark(42)).expect("writes");
    let check = |store: &dyn Store| {
        assert_eq!(store.get(0, b"\x02a"), Ok(None), "removed");
        assert_eq!(store.get(0, b"\x02b"), Ok(Some(Bytes::from_static(b"2"))));
        assert_eq!(store.get(0, b"\x02c"), Ok(None), "never there");
        assert_eq!(store.mark(0), Ok(Some(mark(42))));
    };
    check(&*store);
    drop(store);
    check(&*open(dir.path(), engine).store);
}

fn partitions_do_not_mix(engine: Engine) {
    let dir = tempfile::tempdir().expect("a directory");
    let Opened { store, .. } = open(dir.path(), engine);
    store.write(1, &[change("\x02a", Some("one"))], &mark(1)).expect("writes");
    store.write(10, &[change("\x02a", Some("ten"))], &mark(10)).expect("writes");
    assert_eq!(store.get(1, b"\x02a"), Ok(Some(Bytes::from_static(b"one"))));
    assert_eq!(store.get(10, b"\x02a"), Ok(Some(Bytes::from_static(b"ten"))));
    assert_eq!((store.get(0, b"\x02a"), store.mark(0)), (Ok(None), Ok(None)));
    store.clear(1).expect("clears");
    assert_eq!((store.get(1, b"\x02a"), store.mark(1)), (Ok(None), Ok(None)));
    assert_eq!(
        (store.scan(10, None, 9), store.mark(10)),
        (Ok(vec![row("\x02a", "ten")]), Ok(Some(mark(10))))
    );
}

fn rows_are_scanned_in_key_order_and_the_mark_is_not_a_row(engine: Engine) {
    let dir = tempfile::tempdir().expect("a directory");
    let Opened { store, .. } = open(dir.path(), engine);
    store.write(0, &[change("\x02a", Some("1")), change("\x02c", Some("3"))], &mark(1)).expect("writes");
    store.write(0, &[change("\x01", Some("p")), change("\x02b", Some("2"))], &mark(2)).expect("writes");
    let all = [row("\x01", "p"), row("\x02a", "1"), row("\x02b", "2"), row("\x02c", "3")];
    assert_eq!(store.scan(0, None, 10).expect("scans"), all);
    assert_eq!(store.scan(0, None, 2).expect("scans"), all[..2]);
    assert_eq!(store.scan(0, Some(b"\x02a"), 1).expect("scans"), all[2..3]);
    assert_eq!(store.scan(0, Some(b"\x02aa"), 9).expect("scans"), all[2..], "after a key that is not there");
    assert!(store.scan(0, Some(b"\x02c"), 10).expect("scans").is_empty());
    assert!(store.scan(7, None, 10).expect("scans").is_empty());
}

fn a_cleared_partition_is_empty_and_stays_so(engine: Engine) {
    let dir = tempfile::tempdir().expect("a directory");
    let Opened { store, .. } = open(dir.path(), engine);
    store.clear(0).expect("there is nothing to clear");
    store.write(0, &[change("\x02a", Some("1"))], &mark(1)).expect("writes");
    store.clear(0).expect("clears");
    let check = |store: &dyn Store| {
        assert_eq!((store.mark(0), store.get(0, b"\x02a")), (Ok(None), Ok(None)));
        assert_eq!(store.scan(0, None, 10), Ok(Vec::new()));
    };
    check(&*store);
    drop(store);
    check(&*open(dir.path(), engine).store);
}

fn what_is_written_after_a_clear_survives_a_restart(engine: Engine) {
    let dir = tempfile::tempdir().expect("a directory");
    let Opened { store, .. } = open(dir.path(), engine);
    store.write(0, &[change("\x02a", Some("1"))], &mark(1)).expect("writes");
    store.clear(0).expect("clears");
    store.write(0, &[change("\x02b", Some("2"))], &mark(2)).expect("writes");
    drop(store);
    for _ in 0..2 {
        let Opened { store, .. } = open(dir.path(), engine);
        assert_eq!(store.scan(0, None, 10), Ok(vec![row("\x02b", "2")]));
        assert_eq!(store.mark(0), Ok(Some(mark(2))));
    }
}

fn rows_of_a_megabyte_are_kept(engine: Engine) {
    let dir = tempfile::tempdir().expect("a directory");
    let Opened { store, .. } = open(dir.path(), engine);
    let (key, value) = (vec![2; 60_000], vec![7; 1 << 20]);
    store.write(0, &[(b"\x02", Some(&value)), (&key, Some(&value))], &mark(1)).expect("writes");
    drop(store);
    let Opened { store, .. } = open(dir.path(), engine);
    for key in [&b"\x02"[..], &key] {
        assert_eq!(store.get(0, key).expect("reads").as_deref(), Some(&value[..]));
    }
}

/// Some hundred rows in several writes.
fn fill(store: &dyn Store) {
    for round in 0..5u32 {
        let keys: Vec<[u8; 4]> = (0..500u32).map(|n| (round * 500 + n).to_be_bytes()).collect();
        let changes: Vec<Change<'_>> = keys.iter().map(|key| (&key[..], Some(&key[..]))).collect();
        store.write(0, &changes, &mark(i64::from(round))).expect("writes");
    }
}

/// Overwrites every file below a directory, but for the lock, with noise of the same length.
fn damage(dir: &Path) {
    for entry in std::fs::read_dir(dir).expect("lists") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            damage(&path);
        } else {
            let length = std::fs::metadata(&path).expect("a file").len() as usize;
            std::fs::write(&path, vec![0xA5; length]).expect("damages");
        }
    }
}

fn a_damaged_directory_is_made_anew(engine: Engine) {
    let dir = tempfile::tempdir().expect("a directory");
    fill(&*open(dir.path(), engine).store);
    damage(dir.path());
    let Opened { store, .. } = open(dir.path(), engine);
    assert_eq!(store.mark(0), Ok(None), "what was damaged is not believed");
    assert_eq!(store.scan(0, None, 1), Ok(Vec::new()));
    store.write(0, &[change("\x02a", Some("1"))], &mark(1)).expect("and the new one works");
    drop(store);
    let Opened { store, .. } = open(dir.path(), engine);
    assert_eq!(store.get(0, b"\x02a"), Ok(Some(Bytes::from_static(b"1"))), "also after a restart");
}

fn a_view_that_lacks_a_file_is_whole_or_made_anew(engine: Engine) {
    let mut number = 0;
    loop {
        let dir = tempfile::tempdir().expect("a directory");
        fill(&*open(dir.path(), engine).store);
        let mut files = files(&dir.path().join(format!("{}.0", engine.name())));
        files.sort();
        let Some(lacking) = files.get(number) else { break };
        std::fs::remove_file(lacking).expect("removes");
        let Opened { store, dir: held } = open(dir.path(), engine);
        let rows = store.scan(0, None, 10_000).expect("scans").len();
        let found = store.mark(0).expect("reads");
        assert!(found.is_none() || (found, rows) == (Some(mark(4)), 2_500), "without {}", lacking.display());
        // What the start has not seen, the next write does.
        if let Err(error) = store.write(0, &[change("\x02a", Some("1"))], &mark(9)) {
            assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
            held.discard(&error).expect("removes");
            let store = held.open().expect("opens");
            store.write(0, &[change("\x02a", Some("1"))], &mark(9)).expect("it can be filled again");
        }
        number += 1;
    }
    assert!(number >= 2, "{engine:?} keeps several files");
}

/// Every file below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("lists").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn damage_under_an_open_store_is_an_error_and_never_another_row(engine: Engine) {
    let dir = tempfile::tempdir().expect("a directory");
    fill(&*open(dir.path(), engine).store);
    let Opened { store, .. } = open(dir.path(), engine);
    damage(dir.path());
    for n in 0..2_500u32 {
        let key = n.to_be_bytes();
        match store.get(0, &key) {
            Ok(found) => assert_eq!(found.as_deref(), Some(&key[..]), "from memory"),
            Err(error) => return assert!(matches!(error, StoreError::Damaged { .. }), "{error}"),
        }
    }
}

fn a_directory_in_use_is_named(engine: Engine) {
    let dir = tempfile::tempdir().expect("a directory");
    let _held = open(dir.path(), engine);
    for other in Engine::ALL {
        let error = hold(dir.path(), other).err().expect("in use");
        assert!(matches!(error, StoreError::InUse { .. }), "{error}");
        assert!(error.to_string().contains("its own [store] dir"), "{error}");
    }
}

fn a_view_of_the_other_engine_is_set_aside(engine: Engine) {
    let dir = tempfile::tempdir().expect("a directory");
    let other = Engine::ALL.into_iter().find(|other| *other != engine).expect("there are two");
    fill(&*open(dir.path(), other).store);
    let Opened { store, .. } = open(dir.path(), engine);
    assert_eq!((store.mark(0), store.scan(0, None, 1)), (Ok(None), Ok(Vec::new())));
    store.write(0, &[change("\x02a", Some("1"))], &mark(9)).expect("writes");
    drop(store);
    let Opened { store, .. } = open(dir.path(), other);
    assert_eq!((store.mark(0), store.scan(0, None, 1)), (Ok(None), Ok(Vec::new())), "nor comes it back");
}

fn a_view_that_is_discarded_while_it_is_open_is_not_seen_again(engine: Engine) {
    let dir = tempfile::tempdir().expect("a directory");
    let Opened { store: old, dir: held } = open(dir.path(), engine);
    fill(&*old);
    let found = StoreError::Damaged { what: "reading", dir: "d".into(), why: "a checksum".into() };
    held.discard(&found).expect("removes");
    let store = held.open().expect("opens beside the old one");
    assert_eq!(store.mark(0), Ok(None));
    // What the old one still does meets nothing of the new one.
    let _ = old.write(0, &[change("\x02old", Some("0"))], &mark(7));
    drop(old);
    store.write(0, &[change("\x02a", Some("1"))], &mark(1)).expect("writes");
    drop((store, held));
    let Opened { store, .. } = open(dir.path(), engine);
    assert_eq!(store.scan(0, None, 10), Ok(vec![row("\x02a", "1")]));
    assert_eq!(store.mark(0), Ok(Some(mark(1))));
}

#[derive(Clone, Debug)]
enum Step {
    Write(i32, BTreeMap<u8, Option<u8>>),
    Clear(i32),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let changes = proptest::collection::btree_map(0u8..40, proptest::option::of(any::<u8>()), 0..20);
    let step = prop_oneof![
        6 => (0..2, changes).prop_map(|(partition, changes)| Step::Write(partition, changes)),
        1 => (0..2).prop_map(Step::Clear),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..12)
}

fn a_clear_takes_nothing_with_it_that_is_written_after_a_restart(engine: Engine) {
    let dir = tempfile::tempdir().expect("a directory");
    {
        let opened = open(dir.path(), engine);
        opened.store.write(1, &[], &mark(1)).expect("writes");
        opened.store.clear(1).expect("clears");
    }
    open(dir.path(), engine).store.write(0, &[], &mark(4)).expect("writes");
    let opened = open(dir.path(), engine);
    assert_eq!(opened.store.mark(0).expect("reads"), Some(mark(4)));
    assert_eq!(opened.store.mark(1).expect("reads"), None);
}

fn any_history_reads_as_a_map_does(engine: Engine) {
    let config = ProptestConfig { cases: 64, ..ProptestConfig::default() };
    proptest!(config, |(steps in steps())| {
        let dir = tempfile::tempdir().expect("a directory");
        let mut opened = Some(open(dir.path(), engine));
        let mut model: [(BTreeMap<u8, u8>, Option<i64>); 2] = Default::default();
        for (position, step) in steps.into_iter().enumerate() {
            let store = &opened.as_ref().expect("it is open").store;
            match step {
                Step::Write(partition, changes) => {
                    let rows: Vec<([u8; 2], Option<[u8; 1]>)> =
                        changes.iter().map(|(key, value)| ([2, *key], value.map(|value| [value]))).collect();
                    let rows: Vec<Change<'_>> =
                        rows.iter().map(|(key, value)| (&key[..], value.as_ref().map(|value| &value[..]))).collect();
                    store.write(partition, &rows, &mark(position as i64)).expect("writes");
                    let (map, stored) = &mut model[partition as usize];
                    for (key, value) in changes {
                        match value {
                            Some(value) => map.insert(key, value),
                            None => map.remove(&key),
                        };
                    }
                    *stored = Some(position as i64);
                }
                Step::Clear(partition) => {
                    store.clear(partition).expect("clears");
                    model[partition as usize] = Default::default();
                }
                Step::Restart => {
                    opened = None;
                    assert!(opened.is_none(), "two do not share a directory");
                    opened = Some(open(dir.path(), engine));
                }
            }
            check(&*opened.as_ref().expect("it is open").store, &model);
        }
    });
}

fn check(store: &dyn Store, model: &[(BTreeMap<u8, u8>, Option<i64>); 2]) {
    for (partition, (map, position)) in model.iter().enumerate() {
        let partition = partition as i32;
        assert_eq!(store.mark(partition).expect("reads").map(|mark| mark.position), *position);
        for key in 0..40 {
            let found = store.get(partition, &[2, key]).expect("reads");
            assert_eq!(found.as_deref(), map.get(&key).map(std::slice::from_ref));
        }
        let (mut scanned, mut after) = (Vec::new(), None);
        loop {
            let page = store.scan(partition, after.as_deref(), 7).expect("scans");
            scanned.extend(page.iter().map(|(key, value)| (key[1], value[0])));
            let Some((last, _)) = page.last() else { break };
            after = Some(last.to_vec());
        }
        assert_eq!(scanned, map.iter().map(|(key, value)| (*key, *value)).collect::<Vec<_>>());
    }
}

/// A view in a directory of its own, for tests of those who use one.
pub fn view_in(dir: &Path) -> Arc<LocalView> {
    let parts = ViewDirParts { dir: dir.to_owned(), engine: Engine::Sled, cache_bytes: 1 << 20 };
    let parts = ViewParts {
        dir: Arc::new(ViewDir::hold(parts).expect("nobody else holds it")),
        max_bytes: 1 << 20,
        interval: Duration::from_secs(3600),
        group: "billing".into(),
        changelog_id: "id".into(),
    };
    LocalView::start(parts.dir.open().expect("opens"), parts).expect("a thread begins").0
}
