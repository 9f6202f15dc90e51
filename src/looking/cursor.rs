//! Where a list of keys goes on: a partition and the row key that was listed last.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::shown::{Raw, bytes_of_hex};

/// Written `PARTITION.HEX`. Keys are listed by partition, then by their bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// The partition.
    pub partition: i32,
    /// The row key after which the list goes on.
    pub after: Bytes,
}

impl Cursor {
    /// Before the first key of a partition, behind the last one of those before it.
    pub fn before(partition: i32) -> Cursor {
        // Above every row key, whose first byte is small.
        Cursor { partition: partition - 1, after: Bytes::from_static(&[0xff]) }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.partition, Raw(self.after.clone()).hex())
    }
}

impl FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not the \"next\" of an earlier answer");
        let (partition, after) = text.split_once('.').ok_or_else(wrong)?;
        let partition = partition.parse().map_err(|_| wrong())?;
        Ok(Cursor { partition, after: bytes_of_hex(after).map_err(|_| wrong())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_and_anything_else_is_refused() {
        let cursor = Cursor { partition: 12, after: Bytes::from_static(b"\x02K\xff") };
        assert_eq!(cursor.to_string(), "12.024bff");
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in ["", "1", "a.00", "1.0", "1.zz"] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }
}
