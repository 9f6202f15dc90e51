//! What the committed offset carries beside the number: under which claim and by which epoch it was
//! committed. After a commit whose outcome is unknown this tells whether it happened.

use std::str::FromStr;

/// The metadata string of a committed offset, `pawl/1 claim=C epoch=E`, and behind it ` resolved`
/// where nobody had committed a position and the claim made one of the settings' `start`, and
/// ` ledger` where an epoch was committed before that claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommitMetadata {
    /// Number of the claim.
    pub claim: i64,
    /// Number of the epoch; 0 for the claim's own commit.
    pub epoch: u64,
    /// The position is only what `start` says: a ledger knows better.
    pub resolved: bool,
    /// An earlier claim had an epoch committed: there must be a ledger.
    pub ledger: bool,
}

impl CommitMetadata {
    /// Whether rows of a ledger were ever committed with this group.
    pub fn proves_a_ledger(&self) -> bool {
        self.epoch > 0 || self.ledger
    }
}

impl std::fmt::Display for CommitMetadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let resolved = if self.resolved { " resolved" } else { "" };
        let ledger = if self.ledger { " ledger" } else { "" };
        write!(f, "pawl/1 claim={} epoch={}{resolved}{ledger}", self.claim, self.epoch)
    }
}

impl FromStr for CommitMetadata {
    type Err = ();

    /// Anything else, another tool's metadata for one, is no commit of Pawl's.
    fn from_str(text: &str) -> Result<Self, ()> {
        let words: Vec<&str> = text.split(' ').collect();
        let parsed = (|| {
            let ["pawl/1", claim, epoch, flags @ ..] = &words[..] else { return None };
            Some(CommitMetadata {
                claim: claim.strip_prefix("claim=")?.parse().ok()?,
                epoch: epoch.strip_prefix("epoch=")?.parse().ok()?,
                resolved: flags.contains(&"resolved"),
                ledger: flags.contains(&"ledger"),
            })
        })();
        parsed.ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read_back_and_anything_else_is_not_pawls() {
        for (resolved, ledger) in [(false, false), (true, false), (false, true), (true, true)] {
            let metadata = CommitMetadata { claim: 12, epoch: 34, resolved, ledger };
            assert_eq!(metadata.to_string().parse(), Ok(metadata));
        }
        for text in ["", "pawl/1", "pawl/2 claim=1 epoch=2", "claim=1 epoch=2", "pawl/1 claim=x epoch=2"] {
            assert_eq!(text.parse::<CommitMetadata>(), Err(()), "{text}");
        }
    }
}
