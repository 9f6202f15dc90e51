//! A page of rows in key order, put together from what is stored and what has changed since. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Change;

/// Rows in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys and values.
    pub rows: Vec<(Bytes, Bytes)>,
    /// The key after which there may be more; `None`: there is nothing more. A page can be empty and
    /// still not be the last.
    pub next: Option<Bytes>,
}

/// The changes with the `limit` smallest keys greater than `after`; of several changes of a key the
/// last one counts.
pub(super) fn smallest<'a>(
    changes: impl Iterator<Item = Change<'a>>,
    after: &[u8],
    limit: usize,
) -> BTreeMap<Bytes, Option<Bytes>> {
    let mut kept: BTreeMap<&[u8], Option<&[u8]>> = BTreeMap::new();
    for (key, value) in changes.filter(|(key, _)| *key > after) {
        let full = kept.len() >= limit;
        if full && kept.last_key_value().is_none_or(|(last, _)| key > *last) {
            continue;
        }
        kept.insert(key, value);
        if kept.len() > limit {
            kept.pop_last();
        }
    }
    let copy = |(key, value): (&[u8], Option<&[u8]>)| {
        (Bytes::copy_from_slice(key), value.map(Bytes::copy_from_slice))
    };
    kept.into_iter().map(copy).collect()
}

/// Lays changes over stored rows, both the `limit` smallest of their kind.
pub(super) fn merge(
    changed: BTreeMap<Bytes, Option<Bytes>>,
    stored: Vec<(Bytes, Bytes)>,
    limit: usize,
) -> Page {
    let full = |count: usize, last: Option<&Bytes>| last.filter(|_| count >= limit).cloned();
    // Beyond the last of a full list there may be others that would have to come first.
    let horizons = [
        full(changed.len(), changed.last_key_value().map(|(key, _)| key)),
        full(stored.len(), stored.last().map(|(key, _)| key)),
    ];
    let horizon = horizons.into_iter().flatten().min();
    let mut rows: BTreeMap<Bytes, Option<Bytes>> =
        stored.into_iter().map(|(key, value)| (key, Some(value))).collect();
    rows.extend(changed);
    if let Some(horizon) = &horizon {
        rows.retain(|key, _| key <= horizon);
    }
    let mut rows: Vec<(Bytes, Bytes)> =
        rows.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = if more { rows.last().map(|(key, _)| key.clone()) } else { horizon };
    Page { rows, next }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against the definition: all pages together are the stored rows with the changes over them.
        #[test]
        fn pages_together_are_all_rows_each_once_and_in_order(
            stored in proptest::collection::btree_map(any::<u8>(), any::<u8>(), 0..60),
            changes in proptest::collection::vec((any::<u8>(), proptest::option::of(any::<u8>())), 0..60),
            limit in 1usize..9,
        ) {
            let changes: Vec<([u8; 1], Option<[u8; 1]>)> =
                changes.into_iter().map(|(key, value)| ([key], value.map(|value| [value]))).collect();
            let mut expected: BTreeMap<Bytes, Option<Bytes>> = stored
                .iter()
                .map(|(key, value)| (Bytes::from(vec![*key]), Some(Bytes::from(vec![*value]))))
                .collect();
            for (key, value) in &changes {
                let value = value.map(|value| Bytes::copy_from_slice(&value));
                expected.insert(Bytes::copy_from_slice(key), value);
            }
            let expected: Vec<(Bytes, Bytes)> =
                expected.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();

            let (mut after, mut seen) = (Some(Bytes::new()), Vec::new());
            while let Some(from) = after {
                let all = changes.iter().map(|(key, value)| (&key[..], value.as_ref().map(|value| &value[..])));
                let rows = stored.iter().filter(|(key, _)| [**key][..] > from[..]).take(limit);
                let rows = rows.map(|(key, value)| (Bytes::from(vec![*key]), Bytes::from(vec![*value])));
                let page = merge(smallest(all, &from, limit), rows.collect(), limit);
                prop_assert!(page.rows.len() <= limit);
                prop_assert!(page.next.as_ref().is_none_or(|next| *next > from), "it gets on");
                seen.extend(page.rows);
                after = page.next;
            }
            prop_assert_eq!(seen, expected);
        }
    }
}
