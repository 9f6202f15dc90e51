//! What the instances compute: a chain over the events of each key. Each link holds the number of events
//! so far and a hash over all of them, so a lost, repeated, misplaced event or a stale state breaks the
//! chain from there on.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// The state of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub count: u64,
    pub hash: u64,
}

impl Link {
    /// The chain with one more event.
    pub fn then(self, event_id: &str) -> Link {
        let mut hasher = SipHasher13::new_with_keys(self.hash, self.count);
        hasher.write(event_id.as_bytes());
        Link { count: self.count + 1, hash: hasher.finish() }
    }
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:016x}", self.count, self.hash)
    }
}

impl std::str::FromStr for Link {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (count, hash) = text.split_once(' ').ok_or(())?;
        let count = count.parse().map_err(drop)?;
        Ok(Link { count, hash: u64::from_str_radix(hash, 16).map_err(drop)? })
    }
}
