//! Folding a changelog partition to a list of keys, in bounded memory. Pure.
//!
//! Rows come in the order of their writing, the list goes by key. Of each key only what a line of the
//! list needs is held, no state, and no more than [`Fold::new`]'s bound of keys: those with the
//! smallest bytes. Removed keys are held too, so that the bound counts keys that were seen, and what
//! was left out lies behind a [`Fold::horizon`] that the next pass begins at. Each pass gets on by at
//! least as many keys as the bound.

use std::collections::BTreeMap;

use bytes::Bytes;
use pawl_actors::ledger::{Rewinds, RowError, lane_of};

use crate::looking::KeyLine;
use crate::looking::window::begins_with;

/// See the module's documentation.
pub struct Fold {
    partition: i32,
    prefix: Bytes,
    /// Keys below are not looked at: an earlier pass had them.
    from: Bytes,
    bound: usize,
    /// How the partition was rewound.
    rewinds: Rewinds,
    /// By row key; `None`: it was removed.
    keys: BTreeMap<Bytes, Option<KeyLine>>,
    horizon: Option<Bytes>,
}

impl Fold {
    /// Of the keys of a partition that begin with `prefix` and whose row keys are not below `from`,
    /// the first `bound`, at least 1.
    pub fn new(partition: i32, prefix: Bytes, from: Bytes, bound: usize) -> Fold {
        let (bound, rewinds) = (bound.max(1), Rewinds::default());
        Fold { partition, prefix, from, bound, rewinds, keys: BTreeMap::new(), horizon: None }
    }

    /// Of a partition that was rewound like this.
    pub fn rewound(self, rewinds: Rewinds) -> Fold {
        Fold { rewinds, ..self }
    }

    /// Takes the next row.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub fn take(&mut self, key: &[u8], value: Option<&[u8]>, offset: i64) -> Result<(), RowError> {
        let wanted = lane_of(key).is_some()
            && (self.prefix.is_empty() || begins_with(key, &self.prefix))
            && *key >= *self.from
            && self.horizon.as_ref().is_none_or(|horizon| *key < **horizon);
        if !wanted {
            return Ok(());
        }
        let line = match value {
            Some(value) => KeyLine::read(self.partition, key, value, Some(offset), &self.rewinds)?,
            None => None,
        };
        match self.keys.get_mut(key) {
            Some(known) => *known = line,
            None => {
                self.keys.insert(Bytes::copy_from_slice(key), line);
            }
        }
        if self.keys.len() > self.bound {
            self.horizon = self.keys.pop_last().map(|(key, _)| key);
        }
        Ok(())
    }

    /// The keys that are there at the end, in order, and where the next pass has to begin; `None`: these
    /// are all.
    pub fn finish(self) -> (impl Iterator<Item = KeyLine>, Option<Bytes>) {
        (self.keys.into_values().flatten(), self.horizon)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::BytesMut;
    use pawl_actors::ledger::{Head, PartitionRow};
    use pawl_actors::record::Offset;
    use proptest::prelude::*;

    use super::*;

    fn row(taken: i64) -> Bytes {
        Head { taken: Offset(taken), ..Head::default() }
            .row(None, &mut BytesMut::new())
            .value
            .expect("a value")
    }

    proptest! {
        /// Against the definition: a map of all rows, later ones over earlier ones.
        #[test]
        fn passes_together_are_what_a_fold_without_bound_would_be(
            rows in proptest::collection::vec((0u8..30, any::<bool>()), 0..200),
            bound in 1usize..12,
        ) {
            let mut expected = BTreeMap::new();
            for (offset, (key, alive)) in rows.iter().enumerate() {
                expected.insert(*key, alive.then_some(offset as i64));
            }
            let expected: Vec<(u8, i64)> =
                expected.into_iter().filter_map(|(key, offset)| Some((key, offset?))).collect();

            let (mut from, mut seen, mut passes) = (Some(Bytes::new()), Vec::new(), 0);
            while let Some(begin) = from {
                let mut fold = Fold::new(3, Bytes::new(), begin, bound);
                for (offset, (key, alive)) in rows.iter().enumerate() {
                    let value = alive.then(|| row(offset as i64));
                    fold.take(&[2, *key], value.as_deref(), offset as i64).expect("readable");
                    prop_assert!(fold.keys.len() <= bound, "the memory stays bounded");
                }
                let (lines, next) = fold.finish();
                seen.extend(lines.map(|line| (line.key.expect("keyed").0[0], line.row.expect("known"))));
                from = next;
                passes += 1;
            }
            prop_assert_eq!(seen, expected);
            prop_assert!(passes <= 30 / bound + 1);
        }
    }

    #[test]
    fn only_heads_that_begin_with_the_prefix_are_listed() {
        let mut fold = Fold::new(0, Bytes::from_static(b"A"), Bytes::new(), 10);
        let partition_row = PartitionRow::new("t".into(), 0, 0, 0, [0; 16]).row(&mut BytesMut::new());
        fold.take(&partition_row.key, partition_row.value.as_deref(), 0).expect("not looked at");
        for key in [&b"\x02A1"[..], b"\x02B1", b"\x03", b"\x00", b"\x02A"] {
            fold.take(key, Some(&row(5)), 7).expect("readable or not looked at");
        }
        let (lines, next) = fold.finish();
        let keys: Vec<_> = lines.map(|line| line.key.expect("keyed").shown()).collect();
        assert_eq!((keys, next), (vec!["A".to_owned(), "A1".to_owned()], None));
    }

    #[test]
    fn a_row_that_cannot_be_read_is_not_passed_over() {
        let mut fold = Fold::new(0, Bytes::new(), Bytes::new(), 10);
        assert!(fold.take(b"\x02A", Some(&[9]), 0).is_err());
    }
}
