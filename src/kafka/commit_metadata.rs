//! What the committed offset carries beside the number: under which claim and by which epoch it was
//! committed. After a commit whose outcome is unknown this tells whether it happened.

use std::str::FromStr;

/// The metadata string of a committed offset, `pawl/1 claim=C epoch=E`, with ` resolved` behind it
/// where nobody had committed a position and the claim made one of the settings' `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommitMetadata {
    /// Number of the claim.
    pub claim: i64,
    /// Number of the epoch; 0 for the claim's own commit.
    pub epoch: u64,
    /// The position is only what `start` says: a ledger knows better.
    pub resolved: bool,
}

impl std::fmt::Display for CommitMetadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let resolved = if self.resolved { " resolved" } else { "" };
        write!(f, "pawl/1 claim={} epoch={}{resolved}", self.claim, self.epoch)
    }
}

impl FromStr for CommitMetadata {
    type Err = ();

    /// Anything else, another tool's metadata for one, is no commit of Pawl's.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.split(' ');
        let mut field = |name: &str| words.next()?.strip_prefix(name);
        let parsed = (|| {
            field("pawl/1")?;
            let (claim, epoch) = (field("claim=")?.parse().ok()?, field("epoch=")?.parse().ok()?);
            Some(CommitMetadata { claim, epoch, resolved: field("resolved").is_some() })
        })();
        parsed.ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read_back_and_anything_else_is_not_pawls() {
        for resolved in [false, true] {
            let metadata = CommitMetadata { claim: 12, epoch: 34, resolved };
            assert_eq!(metadata.to_string().parse(), Ok(metadata));
        }
        for text in ["", "pawl/1", "pawl/2 claim=1 epoch=2", "claim=1 epoch=2", "pawl/1 claim=x epoch=2"] {
            assert_eq!(text.parse::<CommitMetadata>(), Err(()), "{text}");
        }
    }
}
