//! What the committed offset carries beside the number: under which claim and by which epoch it was
//! committed. After a commit whose outcome is unknown this tells whether it happened. And how the claims of
//! the partition ended: it is there before anything else of an owner is.

use std::str::FromStr;

use pawl_actors::claims::Claims;
use pawl_actors::record::Millis;

/// The metadata string of a committed offset, `pawl/1 claim=C epoch=E`, and behind it, where it is so:
/// - ` resolved`: nobody had committed a position, and the claim made one of the settings' `start`;
/// - ` ledger`: an epoch was committed before that claim;
/// - ` released`: the owner has given the partition up, and nothing of it comes after this epoch;
/// - ` at=T`: when the claim was made;
/// - ` unclean=T,T`: the same of earlier ones that did not end in a release.
///
/// What it does not know it passes over, so that versions can take turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommitMetadata {
    /// Number of the claim.
    pub claim: i64,
    /// Number of the epoch; 0 for the claim's own commit.
    pub epoch: u64,
    /// The position is only what `start` says: a ledger knows better.
    pub resolved: bool,
    /// An earlier claim had an epoch committed: there must be a ledger.
    pub ledger: bool,
    /// The claim ended as it should.
    pub released: bool,
    /// When it was made, and how those before it ended.
    pub claims: Claims,
}

impl CommitMetadata {
    /// Of a claim's epoch.
    pub fn of(claim: i64, epoch: u64) -> Self {
        CommitMetadata { claim, epoch, ..CommitMetadata::default() }
    }

    /// Whether rows of a ledger were ever committed with this group.
    pub fn proves_a_ledger(&self) -> bool {
        self.epoch > 0 || self.ledger
    }

    /// What the next owner says of the claims before its own. Records begin only when an epoch is committed.
    pub fn next_claims(&self, now: Millis) -> Claims {
        self.claims.next(self.epoch > 0 && !self.released, now)
    }
}

impl std::fmt::Display for CommitMetadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pawl/1 claim={} epoch={}", self.claim, self.epoch)?;
        let flags = [(self.resolved, "resolved"), (self.ledger, "ledger"), (self.released, "released")];
        flags.iter().filter(|(set, _)| *set).try_for_each(|(_, flag)| write!(f, " {flag}"))?;
        if self.claims.at != 0 {
            write!(f, " at={}", self.claims.at)?;
        }
        let unclean: Vec<String> = self.claims.unclean().map(|at| at.to_string()).collect();
        if unclean.is_empty() { Ok(()) } else { write!(f, " unclean={}", unclean.join(",")) }
    }
}

impl FromStr for CommitMetadata {
    type Err = ();

    /// Anything else, another tool's metadata for one, is no commit of Pawl's.
    fn from_str(text: &str) -> Result<Self, ()> {
        let words: Vec<&str> = text.split(' ').collect();
        let parsed = (|| {
            let ["pawl/1", claim, epoch, flags @ ..] = &words[..] else { return None };
            let value = |name: &str| flags.iter().find_map(|flag| flag.strip_prefix(name));
            let at = value("at=").and_then(|at| at.parse().ok()).unwrap_or(0);
            let unclean = value("unclean=").into_iter().flat_map(|all| all.split(','));
            Some(CommitMetadata {
                claim: claim.strip_prefix("claim=")?.parse().ok()?,
                epoch: epoch.strip_prefix("epoch=")?.parse().ok()?,
                resolved: flags.contains(&"resolved"),
                ledger: flags.contains(&"ledger"),
                released: flags.contains(&"released"),
                claims: Claims::new(at, unclean.filter_map(|at| at.parse().ok())),
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
        for (resolved, ledger, released) in [(false, false, false), (true, false, true), (false, true, false)]
        {
            for claims in [Claims::default(), Claims::new(1_700, []), Claims::new(1_700, [1_600, 1_500])] {
                let metadata = CommitMetadata { claim: 12, epoch: 34, resolved, ledger, released, claims };
                assert_eq!(metadata.to_string().parse(), Ok(metadata));
            }
        }
        for text in ["", "pawl/1", "pawl/2 claim=1 epoch=2", "claim=1 epoch=2", "pawl/1 claim=x epoch=2"] {
            assert_eq!(text.parse::<CommitMetadata>(), Err(()), "{text}");
        }
        let newer = "pawl/1 claim=1 epoch=2 fresh at=x unclean= colour=red";
        assert_eq!(newer.parse(), Ok(CommitMetadata::of(1, 2)), "what is not known is passed over");
    }

    #[test]
    fn an_owner_that_released_or_never_began_is_not_held_against_the_next() {
        let of = |epoch, released| {
            let claims = Claims::new(1_000, [500]);
            let metadata = CommitMetadata { released, claims, ..CommitMetadata::of(7, epoch) };
            metadata.next_claims(Millis(2_000)).unclean().collect::<Vec<_>>()
        };
        assert_eq!(of(3, false), [1_000, 500]);
        assert_eq!(of(3, true), [500]);
        assert_eq!(of(0, false), [500], "nothing had begun");
    }
}
