//! Sizes in bytes, as the settings write them: `"64KiB"`, `"10MB"` or a plain whole number of bytes.
//!
//! Fractions (`"1.5MiB"`) are refused on purpose: every size can be printed back exactly.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// Names of units and their bytes; the binary ones first and the largest first, for printing.
const UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// The title by which the schema marks a size, so that the reader of the file knows the form.
pub(super) const TITLE: &str = "byte size";

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// So many KiB (1,024 bytes).
    pub const fn kib(count: u64) -> Self {
        ByteSize(count << 10)
    }

    /// So many MiB (1,048,576 bytes).
    pub const fn mib(count: u64) -> Self {
        ByteSize(count << 20)
    }

    /// So many GiB (1,073,741,824 bytes).
    pub const fn gib(count: u64) -> Self {
        ByteSize(count << 30)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = String;

    /// Reads a whole number with one of the units B, kB, MB, GB (powers of 1,000), KiB, MiB, GiB
    /// (powers of 1,024), in any case, or without a unit: bytes.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (count, unit) = (&text[..digits], text[digits..].trim());
        if count.is_empty() {
            return Err("a size begins with a whole number".into());
        }
        let bytes = match UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
            Some((_, bytes)) => *bytes,
            None if unit.is_empty() => 1,
            None => return Err(format!("\"{unit}\" is not a unit of size")),
        };
        let count: u64 = count.parse().map_err(|_| "the number is too large".to_owned())?;
        count.checked_mul(bytes).map(ByteSize).ok_or_else(|| "the number is too large".to_owned())
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |(_, bytes): &&(&str, u64)| self.0 >= *bytes && self.0.is_multiple_of(*bytes);
        match UNITS.iter().find(exact) {
            Some((unit, bytes)) => write!(f, "{}{unit}", self.0 / bytes),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;
        impl Visitor<'_> for SizeVisitor {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"64KiB\", or a whole number of bytes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                u64::try_from(bytes).map(ByteSize).map_err(|_| E::custom("a size is never negative"))
            }
        }
        deserializer.deserialize_any(SizeVisitor)
    }
}

impl JsonSchema for ByteSize {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": TITLE,
            "type": ["string", "integer"],
            "minimum": 0,
            "pattern": "^[0-9]+ ?([kKmMgG][iI]?)?[bB]?$",
            "examples": ["64KiB", "10MB", 1048576],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_and_printed_back_exactly() {
        let check = |text: &str, bytes: u64, printed: &str| {
            let size: ByteSize = text.parse().expect(text);
            assert_eq!(size, ByteSize(bytes), "{text}");
            assert_eq!(size.to_string(), printed, "{text}");
            assert_eq!(size.to_string().parse(), Ok(size), "{text}");
        };
        check("64KiB", 65_536, "64KiB");
        check("1 mib", 1_048_576, "1MiB");
        check("10MB", 10_000_000, "10MB");
        check("1048576", 1_048_576, "1MiB");
        check("65537", 65_537, "65537B");
        check("2GiB", 2 << 30, "2GiB");
        check("1500B", 1_500, "1500B");
        check("0", 0, "0B");
    }

    #[test]
    fn a_size_that_cannot_be_read_says_why() {
        let check = |text: &str, reason: &str| {
            let error = text.parse::<ByteSize>().expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        };
        check("", "whole number");
        check("KiB", "whole number");
        check("-1", "whole number");
        check("1.5MiB", "is not a unit");
        check("64 parsecs", "\"parsecs\" is not a unit");
        check("99999999999999999999", "too large");
        check("99999999999GiB", "too large");
    }
}
