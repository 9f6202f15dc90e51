//! How the last claims of a partition ended. The group's committed offset carries it from one owner to the
//! next, so that an owner that ends before it has written anything is noticed as well.

use std::time::Duration;

use crate::record::Millis;

/// Claims that did not end in a release, at most; older ones are forgotten.
pub const MAX_UNCLEAN: usize = 10;

/// See the module's documentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claims {
    /// When the claim that holds was made, in milliseconds since the epoch by its owner's clock; 0: not known.
    pub at: i64,
    /// The same of those before it that did not end in a release, newest first; 0 where there is none.
    unclean: [i64; MAX_UNCLEAN],
}

impl Claims {
    /// As they were read back.
    pub fn new(at: i64, unclean: impl IntoIterator<Item = i64>) -> Self {
        let mut claims = Claims { at, ..Claims::default() };
        claims.unclean.iter_mut().zip(unclean).for_each(|(place, at)| *place = at);
        claims
    }

    /// Those before the claim that holds that did not end in a release, newest first.
    pub fn unclean(&self) -> impl Iterator<Item = i64> {
        self.unclean.into_iter().take_while(|at| *at != 0)
    }

    /// What the next owner says. `unclean`: records may have begun under this claim, and it was not released.
    pub fn next(&self, unclean: bool, now: Millis) -> Self {
        let last = Some(self.at).filter(|at| unclean && *at != 0);
        Claims::new(now.0, last.into_iter().chain(self.unclean()))
    }

    /// How many of them did not end in a release, and were made less than `within` ago.
    pub fn lately_unclean(&self, within: Duration) -> usize {
        let oldest = self.at - i64::try_from(within.as_millis()).unwrap_or(i64::MAX);
        self.unclean().filter(|at| *at > oldest).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_claims_without_a_release_are_remembered_and_only_the_last_ones() {
        let mut claims = Claims::default().next(true, Millis(1_000));
        assert_eq!(claims.unclean().count(), 0, "of the first nothing is known");
        claims = claims.next(true, Millis(2_000)).next(false, Millis(3_000)).next(true, Millis(4_000));
        assert_eq!((claims.at, claims.unclean().collect::<Vec<_>>()), (4_000, vec![3_000, 1_000]));
        assert_eq!(claims.lately_unclean(Duration::from_secs(3)), 1, "1,000 is too long ago");
        assert_eq!(claims.lately_unclean(Duration::from_secs(4)), 2);
        for at in 5..30 {
            claims = claims.next(true, Millis(at * 1_000));
        }
        assert_eq!(claims.unclean().count(), MAX_UNCLEAN);
        assert_eq!(claims.unclean().next(), Some(28_000));
        assert_eq!(Claims::new(claims.at, claims.unclean()), claims);
    }
}
