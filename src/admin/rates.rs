//! How many requests an address may send.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

/// Addresses that are remembered. Beyond them the others share one place.
const MAX_PEERS: usize = 4096;

/// The place of those that found no other.
const OTHERS: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// A bucket of requests for each address.
pub struct Rates<C: Clock = DefaultClock> {
    buckets: RateLimiter<IpAddr, HashMapStateStore<IpAddr>, C, NoOpMiddleware<C::Instant>>,
}

impl Rates {
    /// So many a second, and so many at once before that counts.
    pub fn new(per_second: u32, burst: u32) -> Self {
        Rates::with_clock(per_second, burst, DefaultClock::default())
    }
}

impl<C: Clock> Rates<C> {
    fn with_clock(per_second: u32, burst: u32, clock: C) -> Self {
        let some = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(some(per_second)).allow_burst(some(burst));
        Rates { buckets: RateLimiter::new(quota, HashMapStateStore::default(), clock) }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// It is one too many; the next one may come after this time.
    pub fn take(&self, peer: IpAddr) -> Result<(), Duration> {
        let full = || self.buckets.len() >= MAX_PEERS;
        if full() {
            // Full buckets say nothing.
            self.buckets.retain_recent();
        }
        let place = if full() { OTHERS } else { place(peer) };
        self.buckets.check_key(&place).map_err(|wait| wait.wait_time_from(self.buckets.clock().now()))
    }
}

/// Whoever has an address of IPv6 has all of its /64; but for this machine's own, whose /64 is no network.
pub(super) fn place(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        here if here.is_loopback() => here,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_waits_once_its_burst_is_over_and_others_do_not() {
        let clock = FakeRelativeClock::default();
        let rates = Rates::with_clock(2, 3, clock.clone());
        let (one, other) = (address("10.0.0.1"), address("10.0.0.2"));
        for _ in 0..3 {
            assert_eq!(rates.take(one), Ok(()));
        }
        assert_eq!(rates.take(one), Err(Duration::from_millis(500)));
        assert_eq!(rates.take(other), Ok(()));
        clock.advance(Duration::from_millis(499));
        assert_eq!(rates.take(one), Err(Duration::from_millis(1)));
        clock.advance(Duration::from_millis(1));
        assert_eq!(rates.take(one), Ok(()));
        assert!(rates.take(one).is_err());
    }

    #[test]
    fn all_of_a_network_of_ipv6_share_a_place_and_mapped_addresses_are_those_of_ipv4() {
        let rates = Rates::with_clock(1, 1, FakeRelativeClock::default());
        assert_eq!(rates.take(address("2001:db8::1")), Ok(()));
        assert!(rates.take(address("2001:db8::ffff:2")).is_err());
        assert_eq!(rates.take(address("2001:db8:0:1::1")), Ok(()));
        assert_eq!(rates.take(address("::ffff:10.0.0.1")), Ok(()));
        assert!(rates.take(address("10.0.0.1")).is_err());
    }

    #[test]
    fn this_machine_is_itself_by_either_protocol_and_does_not_share_the_place_of_those_without_one() {
        for (peer, expected) in
            [("::1", "::1"), ("127.0.0.1", "127.0.0.1"), ("::ffff:127.0.0.2", "127.0.0.2"), ("::2", "::")]
        {
            assert_eq!(place(address(peer)), address(expected), "{peer}");
        }
        assert!(place(address("::1")).is_loopback() && place(address("::1")) != OTHERS);
    }

    #[test]
    fn what_is_remembered_of_addresses_is_bounded_and_is_forgotten() {
        let clock = FakeRelativeClock::default();
        let rates = Rates::with_clock(1, 1, clock.clone());
        let many = u32::try_from(2 * MAX_PEERS).expect("small");
        let refused = (0..many).filter(|n| rates.take(IpAddr::from(n.to_be_bytes())).is_err()).count();
        assert!(rates.buckets.len() <= MAX_PEERS + 1, "{}", rates.buckets.len());
        assert!(refused > 0, "who came too late shares a place");
        clock.advance(Duration::from_secs(2));
        assert_eq!(rates.take(address("10.0.0.1")), Ok(()));
        assert_eq!(rates.buckets.len(), 1);
    }
}
